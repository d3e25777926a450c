"""A limit that warms up: its clock gathers speed by the formula, exactly, and all its guarantees hold on that clock."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seawall.machines.token_bucket import TokenBucket
from seawall.machines.warm_up import PPM, WarmUp
from tests.machines.effort import LONG, QUICK
from tests.machines.limit_models import most_in

SECOND = 1_000_000_000
RAMPS = st.one_of(st.integers(1, 50), st.sampled_from([SECOND, 60 * SECOND + 7, 86_400 * SECOND]))
COLD = st.one_of(st.sampled_from([1, 300_000, 999_999, PPM]), st.integers(1, PPM))
BEGINNINGS = st.sampled_from([0, 5, 10**18 + 1])
PLACES = st.builds(Fraction, st.integers(0, 2_000), st.just(1_000))
"""Instants, in ramps after the beginning."""


def warming(ramp: int, cold: int, began: int = 0, *, amount: int = 10, burst: int = 3) -> WarmUp:
    limit = WarmUp(TokenBucket(amount, SECOND, burst), ramp, cold)
    limit.begin(began)
    return limit


@LONG
@given(RAMPS, COLD, BEGINNINGS, PLACES)
def test_the_clock_inside_goes_by_the_formula(ramp: int, cold: int, began: int, place: Fraction) -> None:
    """Rounded down to a nanosecond; from the end of the ramp on it goes as fast as the one outside."""
    limit, elapsed = warming(ramp, cold, began), int(place * ramp)
    share = Fraction(cold, PPM)
    if elapsed < ramp:
        exact = share * elapsed + (1 - share) * elapsed**2 / (2 * ramp)
        assert limit.inside(began + elapsed) == began + int(exact)
    else:
        end = limit.inside(began + ramp)
        assert limit.inside(began + elapsed) - end == elapsed - ramp
        assert abs((end - began) - (1 + share) / 2 * ramp) < 1
    assert limit.inside(began - elapsed) == began, "before it began no time passes"


@LONG
@given(RAMPS, COLD, BEGINNINGS, PLACES)
def test_it_never_goes_back_and_never_faster_than_outside(ramp: int, cold: int, began: int, place: Fraction) -> None:
    limit, now = warming(ramp, cold, began), began + int(place * ramp)
    steps = [limit.inside(now + tick + 1) - limit.inside(now + tick) for tick in range(-2, 30)]
    assert set(steps) <= {0, 1}
    early, late = limit.inside(now + ramp // 10) - limit.inside(now), limit.inside(now + ramp // 5) - limit.inside(now)
    assert late >= 2 * early - 2, "it gathers speed"


@LONG
@given(RAMPS, COLD, BEGINNINGS, PLACES)
def test_outside_is_the_first_instant_of_inside(ramp: int, cold: int, began: int, place: Fraction) -> None:
    limit, then = warming(ramp, cold, began), began + int(place * ramp)
    outside = limit.outside(then)
    assert limit.inside(outside) >= then
    assert outside == began or limit.inside(outside - 1) < then


@QUICK
@given(
    RAMPS,
    COLD,
    BEGINNINGS,
    st.lists(st.tuples(st.builds(Fraction, st.integers(0, 40), st.just(40)), st.integers(0, 3)), max_size=20),
)
def test_the_guarantee_and_every_number_hold_in_its_own_time(
    ramp: int, cold: int, began: int, trace: list[tuple[Fraction, int]]
) -> None:
    """At most burst + rate x t inside; outside `wait` is tight to one nanosecond, and so is `rest`."""
    limit = warming(ramp, cold, began, amount=7)
    state: Any = None
    now, admitted = began, list[tuple[int, int]]()
    for pause, cost in trace:
        now += int(pause * max(ramp, SECOND) / 10)
        after = limit.take(state, now, cost)
        wait = limit.wait(state, now, cost)
        assert (wait == 0) == (after is not None)
        assert limit.take(state, now + wait, cost) is not None
        assert not wait or limit.take(state, now + wait - 1, cost) is None
        if after is not None:
            state = after
            admitted.append((limit.inside(now), cost))
        rest = limit.rest(state, now)
        assert limit.left(state, now + rest) == limit.capacity
        assert rest <= limit.forget_ns
    most_in(admitted, lambda span: 3 + Fraction(7 * span, SECOND))


@pytest.mark.parametrize(("cold", "seconds"), [(300_000, 20), (500_000, 5), (50_000, 10)])
def test_the_rate_rises_in_a_straight_line_from_cold_to_whole(cold: int, seconds: int) -> None:
    """A greedy caller gets cold x rate at first, the mean of both over the ramp, and the whole rate after it."""
    limit = warming(seconds * SECOND, cold, amount=400, burst=1)
    state: Any = limit.take(None, 0, 1)
    times: list[int] = []
    now = 0
    while now < 2 * seconds * SECOND:
        now += limit.wait(state, now, 1)
        state = limit.take(state, now, 1)
        times.append(now)

    def rate(begin: float, end: float) -> float:
        return sum(begin <= at / SECOND / seconds < end for at in times) / ((end - begin) * seconds * 400)

    share = cold / PPM
    for middle in (0.05, 0.25, 0.5, 0.75, 0.95):
        assert abs(rate(middle - 0.05, middle + 0.05) - (share + (1 - share) * middle)) < 0.01
    assert abs(rate(0, 1) - (1 + share) / 2) < 0.01
    assert abs(rate(1, 2) - 1) < 0.01


@QUICK
@given(RAMPS, COLD, PLACES, st.integers(1, 3), st.integers(0, 3), st.integers(1, 9))
def test_what_is_given_back_in_a_ramp_is_not_given_twice(
    ramp: int, cold: int, place: Fraction, cost: int, other: int, parts: int
) -> None:
    """Time has given less back inside than outside; what others took since stays taken."""
    limit, now = warming(ramp, cold, amount=1), int(place * ramp)
    state = limit.take(None, now, cost)
    later = now + ramp // parts
    state = limit.add(state, later, other)
    assert limit.left(limit.give_back(state, later, cost, now), later) == 3 - other
