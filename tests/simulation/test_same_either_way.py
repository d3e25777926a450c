"""The fast frame, the locked frame and the bare chain make the same calls, to the last event, step and number."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from seawall import Bulkhead, CircuitBreaker, Policy
from seawall.policies.bulkhead import BulkheadGuard
from tests.simulation.sync_world import play_sync
from tests.simulation.world import Options, Report, locking, play

GROUP = 20


def expect_equal(first: Report, second: Report) -> None:
    """Field by field, so that a difference shows its place."""
    for part, left, right in zip(Report._fields, first, second, strict=True):
        assert left == right, part


@pytest.mark.parametrize("first", range(0, 80, GROUP))
@pytest.mark.parametrize("other", [{"locked": True}, {"form": "arun"}, {"form": "acall"}], ids=str)
def test_async_calls_are_the_same(first: int, other: dict[str, object]) -> None:
    for seed in range(1_000 + first, 1_000 + first + GROUP):
        expect_equal(play(Options(seed)), play(Options(seed)._replace(**other)))


@pytest.mark.parametrize("first", range(0, 160, GROUP))
@pytest.mark.parametrize("other", [{"locked": True}, {"form": "run"}, {"form": "call"}], ids=str)
def test_sync_calls_are_the_same(first: int, other: dict[str, object]) -> None:
    for seed in range(first, first + GROUP):
        expect_equal(play_sync(Options(seed)), play_sync(Options(seed)._replace(**other)))


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
        for seed in range(20):
            expect_equal(world(Options(seed)), world(Options(seed, locked=True)))
