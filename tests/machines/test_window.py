"""The windows of the breaker hold what a list of outcomes with their times would hold."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seawall.machines.window import CountWindow, TimeWindow
from tests.machines.effort import LONG, QUICK

HOUR = 3_600_000_000_000
STEP = st.one_of(
    st.tuples(st.just("record"), st.sampled_from([(False, False), (True, False), (False, True), (True, True)])),
    st.tuples(st.just("record"), st.sampled_from([(False, False), (True, False), (False, True), (True, True)])),
    st.tuples(st.just("hangs"), st.none()),
    st.tuples(st.just("amend"), st.integers(0, 5)),
    st.tuples(st.just("add_ok"), st.integers(0, 1_000)),
    st.tuples(st.just("clock"), st.sampled_from([0, 1, 9, 10, 11, 25, 33, 34, 99, 100, 101, HOUR, -1, -50, -HOUR])),
    st.tuples(st.just("clock"), st.sampled_from([1, 5, 10, 20, 33])),
    st.tuples(st.just("clear"), st.none()),
)


class TimedList:
    """Outcomes [bucket, failed, slow]; one is held while the bucket is among the last `buckets`."""

    def __init__(self, span: int, buckets: int) -> None:
        self.length, self.buckets = -(-span // buckets), buckets
        self.lines: list[list[Any]] = []
        self.latest = 0

    def roll(self, now: int) -> None:
        self.latest = max(self.latest, now // self.length)

    def held(self) -> list[list[Any]]:
        return [line for line in self.lines if line[0] > self.latest - self.buckets]

    def record(self, now: int, failed: bool, slow: bool) -> list[Any]:
        self.roll(now)
        self.lines.append([self.latest, failed, slow])
        return self.lines[-1]


class CountedList(TimedList):
    """The last `size` outcomes."""

    def held(self) -> list[list[Any]]:
        return self.lines[-self.buckets :]


def run(window: Any, model: TimedList, trace: list[tuple[str, Any]], now: int) -> None:
    hanging: list[tuple[int, list[Any]]] = []
    for what, value in trace:
        if what == "record":
            window.record(now, failed=value[0], slow=value[1])
            model.record(now, *value)
        elif what == "hangs":
            hanging.append((window.record(now, failed=False, slow=True), model.record(now, False, True)))
        elif what == "amend" and hanging:
            mark, line = hanging.pop(value % len(hanging))
            window.amend_failed(mark, now)
            model.roll(now)
            if any(held is line for held in model.held()):
                line[1] = True
            else:
                model.record(now, True, False)
        elif what == "add_ok" and isinstance(window, TimeWindow):
            window.add_ok(value)
            model.lines += [[model.latest, False, False] for _ in range(value)]
        elif what == "clock":
            now = max(0, now + value)
            window.roll(now)
            model.roll(now)
            if isinstance(window, TimeWindow):
                assert window.edge_ns == (model.latest + 1) * model.length
        elif what == "clear":
            window.clear()
            model.lines, hanging = [], []
        held = model.held()
        assert window.calls == len(held)
        assert window.failed == sum(line[1] for line in held)
        assert window.slow == sum(line[2] for line in held)


@LONG
@given(st.integers(1, 6), st.sampled_from([100, 97, 33, 6]), st.integers(0, 1_000), st.lists(STEP, max_size=60))
def test_a_time_window_is_equal_to_a_list_of_timed_outcomes(
    buckets: int, span: int, now: int, trace: list[Any]
) -> None:
    """Whatever the clock does, amended failures and gathered successes included."""
    window, model = TimeWindow(span, buckets), TimedList(span, buckets)
    assert window.edge_ns == 0
    window.roll(now)
    model.roll(now)
    run(window, model, trace, now)


@LONG
@given(st.integers(1, 7), st.lists(STEP, max_size=60))
def test_a_count_window_is_equal_to_the_end_of_a_list(size: int, trace: list[Any]) -> None:
    """The last `size` outcomes, at any time."""
    run(CountWindow(size), CountedList(size, size), trace, 0)


@QUICK
@given(st.integers(1, 12), st.integers(1, 10**12), st.integers(0, 10**18), st.integers(0, 3 * 10**12))
def test_an_outcome_stays_for_the_span_but_for_one_bucket(buckets: int, span: int, start: int, later: int) -> None:
    """It is always held for span - span/buckets, and never for longer than the span (rounded up to whole buckets)."""
    window = TimeWindow(span, buckets)
    length = -(-span // buckets)
    window.record(start, failed=True, slow=False)
    window.roll(start + later)
    if later <= length * (buckets - 1):
        assert window.failed == 1
    if later >= length * buckets:
        assert window.failed == 0
    assert length * buckets - span < buckets


@pytest.mark.parametrize("gone", [False, True])
def test_a_failure_of_a_slow_outcome_counts_once(gone: bool) -> None:
    """While the window holds the outcome it becomes a slow failure; when it has left, the failure is a new outcome."""
    for window, away in ((TimeWindow(100, 4), 100), (CountWindow(3), 0)):
        mark = window.record(0, failed=False, slow=True)
        for _ in range(3 if gone and not away else 0):
            window.record(0, failed=False, slow=False)
        window.amend_failed(mark, away if gone else 0)
        assert (window.failed, window.slow) == (1, 0 if gone else 1)
        assert window.calls == (3 if gone and not away else 1)


def test_the_first_step_may_come_at_any_time() -> None:
    """A clock that starts at 0, or at the age of the universe: the first outcome is held, and alone."""
    for now in (0, 1, 13_800_000_000 * 365 * 24 * HOUR):
        window = TimeWindow(30, 10)
        window.record(now, failed=True, slow=True)
        assert (window.calls, window.failed, window.slow) == (1, 1, 1)
        assert window.edge_ns > now
