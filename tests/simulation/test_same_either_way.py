"""The fast frame, the locked frame and the bare chain make the same calls, to the last event, step and number."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pytest

from seawall import Bulkhead, CircuitBreaker, Policy
from seawall.policies.bulkhead import BulkheadGuard
from tests.simulation.sync_world import play_sync
from tests.simulation.world import Options, Report, locking, play

GROUP = 20
Play = Callable[[Options], Report]


def expect_the_same(play_one: Play, seeds: Iterable[int], *others: dict[str, object]) -> None:
    """Field by field, so that a difference shows its place."""
    for seed in seeds:
        plain = play_one(Options(seed))
        for other in others:
            options = Options(seed)._replace(**other)
            for part, left, right in zip(Report._fields, plain, play_one(options), strict=True):
                assert left == right, f"{part} of {options}"


@pytest.mark.parametrize("first", range(1_000, 1_040, GROUP))
def test_async_calls_are_the_same(first: int) -> None:
    expect_the_same(play, range(first, first + GROUP), {"locked": True}, {"form": "arun"}, {"form": "acall"})


@pytest.mark.parametrize("first", range(0, 100, GROUP))
def test_sync_calls_are_the_same(first: int) -> None:
    expect_the_same(play_sync, range(first, first + GROUP), {"locked": True}, {"form": "run"}, {"form": "call"})


def test_locked_frames_are_other_frames() -> None:
    """The comparison compares something: locked policies use no fast lane, and the others do."""
    taken: list[str] = []

    def counting(policy: Policy) -> None:
        guard: BulkheadGuard = policy[Bulkhead]
        enter = guard._enter
        guard._enter = lambda: taken.append(policy.name) or enter()  # type: ignore[method-assign, func-returns-value]
        assert policy.call(str, 1) == "1"

    counting(Policy(CircuitBreaker(), Bulkhead(1), name="fast"))
    with locking(True):
        counting(Policy(CircuitBreaker(), Bulkhead(1), name="locked"))
    counting(Policy(CircuitBreaker(), Bulkhead(1), name="fast again"))
    assert taken == ["locked"]


@pytest.mark.parametrize("world", [play, play_sync])
def test_a_difference_would_be_seen(world: Callable[[Options], Report], monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: the slow way of giving a permit back also counts it as refused."""
    give_back = BulkheadGuard._leave

    def leave(guard: BulkheadGuard, *given: object) -> None:
        guard.refused += 1
        give_back(guard, *given)  # type: ignore[arg-type]

    monkeypatch.setattr(BulkheadGuard, "_leave", leave)
    with pytest.raises(AssertionError):
        expect_the_same(world, range(20), {"locked": True})
