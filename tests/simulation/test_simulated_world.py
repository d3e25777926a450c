"""Five hundred worlds in trouble keep every invariant after every step, and all of them come to rest."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from seawall.policies.bulkhead import BulkheadGuard
from seawall.policies.circuit_breaker import BreakerGuard
from seawall.policy.meter import Meter
from seawall.runtime.deadlines import Entry
from tests.simulation.load import load
from tests.simulation.world import Options, play

SEEDS, GROUP = 500, 25


@pytest.mark.parametrize(
    "first",
    # The first hundred under every interpreter, all of them under one.
    [pytest.param(first, marks=[pytest.mark.once] if first >= 100 else []) for first in range(0, SEEDS, GROUP)],
)
def test_safe_in_trouble_and_well_in_peace(first: int) -> None:
    play_all(range(first, first + GROUP))


def play_all(seeds: Iterable[int]) -> None:
    for seed in seeds:
        play(Options(seed))


def test_worlds_see_every_kind_of_trouble() -> None:
    """The seeds are worth something: everything that can happen to a call happens in the first few."""
    reports = [play(Options(seed)) for seed in range(30)]
    calls = " ".join(call for report in reports for call in report.calls)
    for sign in (
        "ok -1",
        "CircuitOpen",
        "BulkheadFull",
        "DeadlineExceeded",
        "EndpointDown",
        "cancelled",
        "did not retry",
    ):
        assert sign in calls, sign
    events = " ".join(event for report in reports for event in report.events)
    for sign in (
        "BreakerChanged",
        "RetryScheduled",
        "RetryGaveUp",
        "HedgeStarted",
        "FellBack",
        "SwitchChanged",
        "TimedOut",
    ):
        assert sign in events, sign


@pytest.mark.parametrize("seed", [0, 1])
def test_a_full_policy_serves_a_load_and_loses_nothing(seed: int) -> None:
    served = load(2_000, seed)
    assert min(served.answers.values()) > 0, "answered, degraded and cancelled"


def forget_a_ticket(guard: BulkheadGuard, ticket: Any) -> None:
    guard._gate.waiting.pop(ticket, None)


note = BreakerGuard.note


def keep_cancelled_probes(guard: BreakerGuard, call: Any, token: Any, error: BaseException) -> None:
    if not isinstance(error, asyncio.CancelledError):
        note(guard, call, token, error)


def cancel_twice(entry: Entry) -> None:
    if entry.task is not None:
        entry.fired = True
        entry.task.cancel()
        entry.task.cancel()


def do_nothing(*_given: object) -> None: ...


@pytest.mark.parametrize(
    ("owner", "method", "planted"),
    [
        (BulkheadGuard, "_give_up", forget_a_ticket),
        (BulkheadGuard, "undo", do_nothing),
        (BreakerGuard, "note", keep_cancelled_probes),
        (BreakerGuard, "undo", do_nothing),
        (Entry, "fire", cancel_twice),
        (Meter, "note", do_nothing),
    ],
    ids=lambda part: getattr(part, "__name__", part),
)
def test_a_planted_fault_is_found_in_a_hundred_seeds(
    owner: type, method: str, planted: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(owner, method, planted)
    with pytest.raises(AssertionError) as caught:
        play_all(range(100))
    assert "replay: play(Options(seed=" in "".join(caught.value.__notes__)
