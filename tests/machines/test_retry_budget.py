"""The retry budget grants by its formula exactly, and the fast lane counts as the locked way does."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from seawall.machines.retry_budget import RetryBudget
from tests.machines.effort import LONG

SECOND = 1_000_000_000
HOUR = 3_600 * SECOND
SHARES = st.sampled_from([0, 1, 100_000, 200_000, 333_333, 1_000_000])
WINDOWS = st.sampled_from([10 * SECOND, SECOND // 3, 7, SECOND])
STEP = st.one_of(
    st.tuples(st.just("call"), st.integers(1, 12)),
    st.tuples(st.just("take"), st.integers(1, 4)),
    st.tuples(st.just("clock"), st.sampled_from([0.01, 0.1, 0.1, 0.25, 0.9, 1, 1.1, -0.05, -1, -(10**9), 10**9])),
    st.tuples(st.just("look"), st.just(0)),
)


class Listed:
    """Calls and extra attempts in a list with their buckets, counted anew each time."""

    def __init__(self, share_ppm: int, per_second: int, window_ns: int, buckets: int) -> None:
        self.share, self.reserve = Fraction(share_ppm, 1_000_000), Fraction(per_second * window_ns, SECOND)
        self.length, self.buckets = -(-window_ns // buckets), buckets
        self.latest = 0
        self.lines: list[tuple[int, str]] = []

    def roll(self, now: int) -> None:
        self.latest = max(self.latest, now // self.length)

    def count(self, kind: str) -> int:
        return sum(line == kind for bucket, line in self.lines if bucket > self.latest - self.buckets)

    def add(self, now: int, kind: str) -> None:
        self.roll(now)
        self.lines.append((self.latest, kind))

    def left(self) -> int:
        return max(0, int(self.share * self.count("call") + self.reserve - self.count("extra")))

    def take(self, now: int) -> bool:
        self.roll(now)
        granted = self.count("extra") + 1 <= self.share * self.count("call") + self.reserve
        if granted:
            self.lines.append((self.latest, "extra"))
        return granted


@LONG
@given(SHARES, st.integers(0, 4), WINDOWS, st.integers(1, 6), st.booleans(), st.lists(STEP, max_size=50))
def test_the_budget_is_equal_to_its_formula(
    share: int, per_second: int, window: int, buckets: int, fast: bool, trace: list[tuple[str, Any]]
) -> None:
    """extra + 1 <= share * calls + per_second * window, in fractions; by the fast lane too, whatever the clock does."""
    machine = RetryBudget(share, per_second, window, buckets)
    model = Listed(share, per_second, window, buckets)
    now = 5 * HOUR
    machine.roll(now)
    model.roll(now)
    for what, value in trace:
        if what == "clock":
            now = max(0, now + int(value * window))
        for _ in range(value if what == "call" else 0):
            model.add(now, "call")
            if fast and now < machine.edge_ns:
                next(machine.ticks)
            else:
                machine.add_call(now)
        for _ in range(value if what == "take" else 0):
            could = machine.calls, machine.extra
            granted = machine.take(now)
            assert granted == model.take(now)
            assert granted or fast or (machine.calls, machine.extra) <= could, "a refusal adds nothing"
        if what == "look":
            machine.roll(now)
            model.roll(now)
        if what in ("take", "look"):
            assert (machine.calls, machine.extra) == (model.count("call"), model.count("extra"))
            assert machine.left == model.left()


@LONG
@given(SHARES, st.integers(0, 4), WINDOWS, st.lists(STEP, max_size=30), st.integers(1, 5))
def test_a_refusal_changes_nothing(share: int, per_second: int, window: int, trace: list[Any], asks: int) -> None:
    """A budget that was asked in vain grants, from then on, what one that was never asked grants."""
    asked, spared = RetryBudget(share, per_second, window), RetryBudget(share, per_second, window)
    now = HOUR
    for what, value in trace:
        if what == "clock":
            now = max(0, now + int(value * window))
        elif what == "call":
            for machine in (asked, spared):
                machine.add_call(now)
        else:
            spared.roll(now)
            if spared.left:
                assert asked.take(now) and spared.take(now)
            else:
                assert not any(asked.take(now) for _ in range(asks))
        assert (asked.calls, asked.extra, asked.left) == (spared.calls, spared.extra, spared.left)


def test_before_its_first_step_the_fast_lane_is_closed() -> None:
    """The first call is counted under the lock, at whatever time the clock starts."""
    machine = RetryBudget(200_000, 0)
    assert machine.edge_ns == 0
    machine.add_call(0)
    assert machine.calls == 1
    assert machine.edge_ns == SECOND


def test_a_clock_that_goes_back_stands_still() -> None:
    """What comes after the jump back counts as of now: it stays for a whole window, and nothing leaves before."""
    machine = RetryBudget(200_000, 0)
    machine.add_call(HOUR)
    machine.add_call(HOUR - 9 * SECOND)
    machine.add_call(0)
    for later, calls in ((0, 3), (9, 3), (10, 0)):
        machine.roll(HOUR + later * SECOND)
        assert machine.calls == calls


def test_a_window_that_its_buckets_do_not_divide_is_rounded_up() -> None:
    """7 ns in two buckets are buckets of 4: a call is held for 4 ns at least, and for 8 at most."""
    machine = RetryBudget(200_000, 0, window_ns=7, buckets=2)
    machine.add_call(0)
    for now, calls in ((3, 1), (7, 1), (8, 0)):
        machine.roll(now)
        assert machine.calls == calls


def test_the_defaults_of_retry() -> None:
    """A fifth of the calls of 10 s and 3 a second: 30 in quiet times, 50 with a hundred calls."""
    machine = RetryBudget(200_000, 3)
    assert sum(machine.take(0) for _ in range(100)) == 30
    for _ in range(100):
        machine.add_call(0)
    assert machine.left == 20
    assert sum(machine.take(0) for _ in range(100)) == 20
    assert machine.left == 0
    assert sum(machine.take(10 * SECOND) for _ in range(100)) == 30
