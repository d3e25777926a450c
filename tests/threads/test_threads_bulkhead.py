"""Under every order of threads a bulkhead keeps to its limit, wakes whoever it should, and keeps its permits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from seawall import Bulkhead, BulkheadFull, Policy
from seawall.machines.gate import Gate, Ticket
from seawall.policies.bulkhead import BulkheadGuard
from tests.support.threads import as_many, explore
from tests.threads.frames import BULKHEAD, World, expect, traced

SEEDS = as_many(200)


class Room:
    """The protected work: notes how many are in it at once."""

    def __init__(self) -> None:
        self.inside: list[int] = []
        self.served: list[int] = []
        self.refused: list[int] = []
        self.most = 0

    def work(self, number: int) -> None:
        self.inside.append(number)
        self.most = max(self.most, len(self.inside))
        self.inside.remove(number)
        self.served.append(number)

    def caller(self, policy: Policy, *numbers: int) -> Callable[[], None]:
        def calls() -> None:
            for number in numbers:
                try:
                    policy.call(self.work, number)
                except BulkheadFull:
                    self.refused.append(number)

        return calls


def at_home(guard: BulkheadGuard) -> None:
    gate = guard._gate
    expect((guard.in_use, guard.waiting) == (0, 0), f"{guard.snapshot()}")
    # A permit that met a shrinking limit on its way back lies here until somebody has had it once more.
    expect(len(gate.free) == gate.limit + gate.excess, f"{len(gate.free)} permits, of {gate.limit}")


def crowd(threads: int, calls: int, **settings: Any) -> Callable[[], World]:
    def build() -> World:
        policy, room = Policy(Bulkhead(**settings), name="crowd"), Room()
        functions = [room.caller(policy, *range(first * calls, (first + 1) * calls)) for first in range(threads)]

        def check() -> None:
            expect(room.most <= settings["limit"], f"{room.most} at work, of {settings['limit']}")
            expect(sorted(room.served + room.refused) == list(range(threads * calls)), "a call is lost")
            shot = policy.snapshot()
            expect((shot["ok"], shot["rejected"]) == (len(room.served), len(room.refused)), str(shot))
            at_home(policy[Bulkhead])

        return functions, check

    return build


TRACE = traced(Policy(Bulkhead(1)), *BULKHEAD, __file__)
WORLDS = {
    "refuses at once": crowd(3, 2, limit=1),
    "everyone waits": crowd(3, 2, limit=1, queue=3, max_wait=None),
    "two permits": crowd(4, 2, limit=2, queue=4, max_wait=None),
    "a short queue": crowd(4, 1, limit=1, queue=1, max_wait=None),
    "little patience": crowd(3, 2, limit=1, queue=2, max_wait="1us"),
}


@pytest.mark.parametrize("world", WORLDS)
def test_never_more_than_the_limit_no_lost_wake_up_and_all_permits_home(world: str) -> None:
    hasty = world == "little patience"
    assert explore(WORLDS[world], trace=TRACE, seeds=range(SEEDS), hasty=hasty) == SEEDS


@pytest.mark.parametrize("limits", [(1,), (3,), (1, 3), (3, 1, 2)], ids=str)
def test_a_resize_among_calls_neither_makes_nor_loses_a_permit(limits: tuple[int, ...]) -> None:
    def build() -> World:
        policy, room = Policy(Bulkhead(2, queue=4, max_wait=None)), Room()

        def resize() -> None:
            for limit in limits:
                policy[Bulkhead].resize(limit)

        def check() -> None:
            expect(room.most <= max(2, *limits), f"{room.most} at work")
            expect(sorted(room.served) == list(range(6)), "a call is lost")
            at_home(policy[Bulkhead])

        return [resize, *(room.caller(policy, first, first + 1) for first in (0, 2, 4))], check

    assert explore(build, trace=TRACE, seeds=range(SEEDS)) == SEEDS


class NotedGate(Gate):
    """A gate that notes in which order tickets came and were granted."""

    def __init__(self, limit: int, queue: int) -> None:
        super().__init__(limit, queue)
        self.came: list[Ticket] = []
        self.granted: list[Ticket] = []

    def join(self) -> Ticket | None:
        ticket = super().join()
        if ticket is not None:
            self.came.append(ticket)
        return ticket

    def pass_on(self) -> list[Ticket]:
        granted = super().pass_on()
        self.granted += granted
        return granted


def test_whoever_waits_is_served_in_the_order_of_coming() -> None:
    def build() -> World:
        policy, room = Policy(Bulkhead(1, queue=4, max_wait=None)), Room()
        gate = policy[Bulkhead]._gate = NotedGate(1, 4)

        def check() -> None:
            expect(gate.granted == gate.came, "somebody was overtaken in the queue")
            at_home(policy[Bulkhead])

        return [room.caller(policy, number, number + 10) for number in range(4)], check

    assert explore(build, trace=TRACE, seeds=range(SEEDS)) == SEEDS
