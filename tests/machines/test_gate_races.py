"""However the fast lane and the lock interleave, no permit is lost or doubled, and none lies idle while one waits."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from seawall.machines.gate import Gate
from tests.machines.interleave import Enter, Leave, Locked, Thread, every_interleaving

Build = Callable[[], tuple[Gate, list[Thread]]]


def gate_in_use(limit: int, used: int, queue: int = 5) -> tuple[Gate, list[Thread]]:
    gate = Gate(limit, queue)
    return gate, [Leave(gate.take()) for _ in range(used)]


def meeting(limit: int, leaving: int, entering: int, *resizes: int, queue: int = 5, kept: int = 0) -> Build:
    """Some leave, some enter, somebody resizes, all at once; `kept` permits stay where they are."""

    def build() -> tuple[Gate, list[Thread]]:
        gate, threads = gate_in_use(limit, leaving + kept, queue)
        del threads[leaving:]
        resizing = [Locked(lambda gate, to=to: gate.resize(to)) for to in resizes]
        return gate, [*threads, *(Enter() for _ in range(entering)), *resizing]

    return build


SCENES = {
    "one leaves, one enters": meeting(1, 1, 1),
    "one leaves, two enter": meeting(1, 1, 2),
    "two leave, one enters": meeting(2, 2, 1),
    "the queue is full": meeting(1, 1, 2, queue=1),
    "one leaves, it grows": meeting(1, 1, 1, 2),
    "one leaves, it shrinks": meeting(2, 1, 0, 1, kept=1),
    "two leave, it shrinks": meeting(2, 2, 0, 1),
    "one enters, it shrinks": meeting(2, 0, 1, 1, kept=1),
    "two enter, it shrinks": meeting(3, 0, 2, 1),
    "one leaves, one enters, it shrinks": meeting(2, 1, 1, 1, kept=1),
    "it shrinks and grows": meeting(2, 1, 0, 1, 2),
}


@pytest.mark.parametrize("scene", SCENES)
def test_no_interleaving_loses_or_doubles_a_permit(scene: str) -> None:
    """free + held + granted = limit + excess, and nobody waits beside a free permit."""
    runs = 0
    for gate, threads in every_interleaving(SCENES[scene]):
        runs += 1
        kept = {"one leaves, it shrinks": 1, "one enters, it shrinks": 1, "one leaves, one enters, it shrinks": 1}
        held = sum(thread.held is not None for thread in threads) + kept.get(scene, 0)
        tickets = [thread.ticket for thread in threads if thread.ticket is not None]
        granted = sum(ticket.granted is not None for ticket in tickets)
        assert len(gate.free) + held + granted == gate.limit + gate.excess
        assert gate.in_use == held + granted
        assert not (gate.waiting and len(gate.free)), "a permit lies idle while somebody waits"
        assert len(gate.waiting) == len(tickets) - granted
    assert runs > 5


@pytest.mark.parametrize("scene", ["one leaves, it shrinks", "two leave, it shrinks", "one enters, it shrinks"])
def test_after_a_race_with_a_shrinking_limit_one_round_drains_it(scene: str) -> None:
    """A permit that met the change may go round once more; then no more are in use than the new limit."""
    for gate, threads in every_interleaving(SCENES[scene]):
        held = [thread.held for thread in threads if thread.held is not None]
        held += [thread.ticket.granted for thread in threads if thread.ticket and thread.ticket.granted]
        # Those that stayed where they are come home too, then all that is free goes round once.
        held += [gate.permit] * (gate.limit + gate.excess - len(gate.free) - len(held))
        going_round = [gate.free.pop() for _ in range(len(gate.free))]
        coming = held + going_round
        while coming:
            coming += [ticket.granted for ticket in gate.release(coming.pop()) if ticket.granted]
        assert (gate.excess, len(gate.free), gate.in_use) == (0, gate.limit, 0)
        assert set(gate.free) == {gate.permit}
