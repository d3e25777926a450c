"""A replica that is new or comes back grows from a tenth to all of its weight, in a straight line."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seawall.machines.slow_start import WHOLE, share
from tests.machines.effort import QUICK

RAMP = 10_000_000_000
TIMES = st.integers(-(10**12), 10**12)


@pytest.mark.parametrize(
    ("seconds", "part"), [(0, 100), (0.5, 100), (1, 100), (2, 200), (5, 500), (9.9, 990), (10, 1_000), (11, 1_000)]
)
def test_a_tenth_at_first_and_all_after_ten_seconds(seconds: float, part: int) -> None:
    assert share(7 + round(seconds * 1e9), 7, RAMP) == part


@QUICK
@given(TIMES, st.integers(0, RAMP), st.integers(1, 10**11))
def test_the_line_is_straight_between_a_tenth_and_the_whole(since: int, elapsed: int, ramp: int) -> None:
    exact = min(Fraction(1), max(Fraction(1, 10), Fraction(elapsed, ramp)))
    assert share(since + elapsed, since, ramp) == int(exact * WHOLE)


@QUICK
@given(TIMES, TIMES, st.integers(0, 10**11))
def test_it_is_always_a_part_and_never_nothing(now: int, since: int, ramp: int) -> None:
    """Whatever the clock does: one that went back finds a beginner."""
    assert WHOLE // 10 <= share(now, since, ramp) <= WHOLE
    assert share(now, now, ramp) == (WHOLE if ramp == 0 else WHOLE // 10)


@QUICK
@given(TIMES, TIMES, st.integers(0, 10**10), st.integers(0, 10**11))
def test_it_never_shrinks_while_time_passes(since: int, now: int, later: int, ramp: int) -> None:
    assert share(now, since, ramp) <= share(now + later, since, ramp)


def test_one_that_was_there_from_the_beginning_has_no_ramp_and_a_ramp_of_nothing_is_none() -> None:
    assert share(5, None, RAMP) == WHOLE
    assert share(5, 5, 0) == WHOLE
    assert share(4, 5, 0) == WHOLE, "not even for one that begins a little later than now"
