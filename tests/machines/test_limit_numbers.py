"""Throughput, the ends of the number range, and what becomes of a state when the numbers of its limit change."""

from __future__ import annotations

from fractions import Fraction
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seawall.errors import ConfigError
from seawall.limiter.specs import FixedWindow, LeakyBucket, LimitSpec, SlidingLog, SlidingWindow, TokenBucket
from seawall.machines import fixed_window, leaky_bucket, sliding_log, sliding_window, token_bucket
from seawall.machines.limit import Limit
from seawall.machines.live_change import carried
from seawall.machines.warm_up import WarmUp
from tests.machines.effort import LONG, QUICK

SECOND = 1_000_000_000
HOUR = 3_600 * SECOND
YEAR = 365 * 24 * HOUR


# -- throughput --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("buckets", "share"), [(10, 0.9), (60, 0.98), (100, 0.98)])
@pytest.mark.parametrize("arrivals", ["steady", "bursts", "random", "greedy"])
@pytest.mark.parametrize("period", [SECOND, 60 * SECOND, 86_399_999_999_993])
def test_a_sliding_window_lets_nearly_all_of_the_limit_through(
    buckets: int, share: float, arrivals: str, period: int
) -> None:
    """Over 20 windows of more demand than there is room for, however it comes."""
    amount, windows = 500, 20
    limit, random = sliding_window.SlidingWindow(amount, period, buckets), Random(f"{arrivals} {buckets}")
    state: Any = None
    now, admitted = random.randrange(period), 0
    end = now + windows * period
    while now < end:
        hits, pause = 1, period // 1_500
        if arrivals == "greedy":
            hits, pause = 500, limit.wait(state, now, 1)
        elif arrivals == "bursts":
            hits, pause = random.randint(1, 120), period // 20
        elif arrivals == "random":
            pause = random.randrange(2 * pause)
        now += pause
        cost = min(hits, limit.left(state, now))  # as many as fit of so many of 1
        state, admitted = limit.take(state, now, cost), admitted + cost
    assert admitted >= share * amount * (windows - 1)


@pytest.mark.parametrize("spec", [TokenBucket("50/s"), SlidingLog("50/s"), FixedWindow("50/s"), LeakyBucket("50/s")])
def test_the_other_limits_let_all_of_it_through(spec: LimitSpec) -> None:
    limit: Limit[Any] = spec.machine()
    state: Any = None
    admitted = 0
    for millisecond in range(10_000):
        after = limit.take(state, millisecond * 1_000_000, 1)
        if after is not None:
            state, admitted = after, admitted + 1
    assert 500 <= admitted <= 500 + 50


# -- the ends of the range ---------------------------------------------------------------------------------------------


def test_the_highest_rate_there_is_is_exact() -> None:
    """10^9 in each nanosecond: no division anywhere makes it more or less."""
    limit = TokenBucket("1000000000/1ns").machine()
    state = limit.take(None, YEAR, 10**9)
    assert limit.left(state, YEAR) == 0
    assert limit.left(state, YEAR + 1) == 10**9
    assert limit.wait(state, YEAR, 10**9) == limit.wait(state, YEAR, 1) == 1


def test_the_lowest_rates_are_exact() -> None:
    """One in ten years, to the nanosecond; and thirds and sevenths, of which nothing is lost in a year."""
    limit = TokenBucket("1/3650d").machine()
    state = limit.take(None, 5, 1)
    assert limit.wait(state, 5, 1) == 10 * YEAR
    assert limit.take(state, 5 + 10 * YEAR - 1, 1) is None
    assert limit.take(state, 5 + 10 * YEAR, 1) is not None
    for amount in (3, 7, 999_999_937):
        machine = token_bucket.TokenBucket(amount, SECOND, 2)
        level: Any = None
        now = 0
        for _ in range(1_000):
            now += machine.wait(level, now, 1)
            level = machine.take(level, now, 1)
        assert now == -(-998 * SECOND // amount), "a wait is rounded up, and what it was too long is not lost"


@pytest.mark.parametrize(
    ("kind", "rate", "settings"),
    [
        (TokenBucket, "1/3651d", {}),
        (TokenBucket, "1/h", {"burst": 10**6}),
        (TokenBucket, "1000000001/s", {}),
        (LeakyBucket, "1/d", {"queue": 10_000}),
        (SlidingLog, "10001/s", {}),
        (SlidingWindow, "5/9ns", {}),
        (SlidingWindow, "5/s", {"buckets": 101}),
        (SlidingWindow, "5/s", {"buckets": 0}),
        (TokenBucket, "5/s", {"burst": 0}),
        (TokenBucket, "5/s", {"burst": True}),
        (TokenBucket, "5/s", {"burst": 2.0}),
        (TokenBucket, "5/s", {"warm_up": 0}),
        (TokenBucket, "5/s", {"warm_up": "1min", "cold": 0}),
        (TokenBucket, "5/s", {"warm_up": float("nan")}),
        (LeakyBucket, "5/s", {"queue": -1}),
        (LeakyBucket, "5/s", {"max_wait": -1}),
        (FixedWindow, "5/36501d", {}),
    ],
)
def test_what_is_out_of_range_is_refused_by_name(kind: type[LimitSpec], rate: str, settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=kind.__name__):
        kind(rate, **settings)


@pytest.mark.parametrize(
    "rate",
    [
        "0/s", "-1/s", "+1/s", "1.5/s", "1e3/s", "nan/s", "inf/s", "1_000/s", "٣/s", " 1/s", "1/ s", "1 /s", "1/s\n", "/s",
        "1/", "1", "", "1/0s", "1/-1s", "1/nans", "1/infs", "1/s/s", "1/week", "1/0.0000000001s", "9" * 5_000 + "/s",
        "1/" + "9" * 5_000 + "s", "1/1e3s", "1/٣s", None, 5, 5.0, b"5/s", True,
    ],
)  # fmt: skip
def test_what_is_no_rate_is_refused_by_name(rate: Any) -> None:
    with pytest.raises(ConfigError, match=r"TokenBucket\(rate") as caught:
        TokenBucket(rate)
    assert '"60/min"' in str(caught.value)
    assert len(str(caught.value)) < 300


# -- a live change -----------------------------------------------------------------------------------------------------

AMOUNTS = st.one_of(st.integers(1, 12), st.sampled_from([1_000, 10**9]))
PERIODS = st.sampled_from([7, SECOND, 60 * SECOND, 61 * SECOND + 1])
BUCKETS = st.sampled_from([1, 3, 10])
NINTHS = st.sampled_from([Fraction(ninth, 9) for ninth in range(19)])
TRACE = st.lists(
    st.tuples(st.sampled_from([Fraction(ninth, 9) for ninth in range(10)]), NINTHS, st.booleans()), max_size=7
)


def filled(limit: Limit[Any], trace: list[tuple[Fraction, Fraction, bool]], now: int, pace: int) -> tuple[Any, int]:
    state: Any = None
    for pause, share, asks in trace:
        now += int(pause * pace)
        cost = int(share * limit.capacity)
        after = limit.take(state, now, min(cost, limit.capacity)) if asks else limit.add(state, now, cost)
        state = state if after is None else after
    return state, now


def used(limit: Limit[Any], state: Any, now: int) -> Fraction:
    """Exactly, for buckets; for the others there are whole units only."""
    if isinstance(limit, token_bucket.TokenBucket):
        return Fraction(max(0, (state or 0) - now * limit.per_ns), limit.per_token)
    return Fraction(limit.capacity - limit.left(state, now))


@LONG
@given(AMOUNTS, PERIODS, AMOUNTS, AMOUNTS, PERIODS, AMOUNTS, TRACE)
def test_a_bucket_keeps_its_level_in_tokens(
    amount: int, period: int, burst: int, amount2: int, period2: int, burst2: int,
    trace: list[tuple[Fraction, Fraction, bool]],
) -> None:  # fmt: skip
    """Exactly but for less than a nanosecond's worth; a smaller bucket is full, and only who was in debt stays in debt."""
    was, limit = token_bucket.TokenBucket(amount, period, burst), token_bucket.TokenBucket(amount2, period2, burst2)
    state, now = filled(was, trace, 10**18, period)
    before = used(was, state, now)
    after = used(limit, carried(was, limit, state or 0, now), now)
    most = 2 * burst2 if before > burst else burst2
    assert min(before, most) <= after < min(before, most) + Fraction(1, limit.per_token) or after == most


@QUICK
@given(AMOUNTS, PERIODS, st.integers(1, 9), TRACE, st.integers(1, 30))
def test_changing_to_the_same_numbers_again_and_again_gives_time_its_due(
    amount: int, period: int, burst: int, trace: list[tuple[Fraction, Fraction, bool]], changes: int
) -> None:
    """A configuration that is read anew every moment holds nobody back."""
    for limit in (
        token_bucket.TokenBucket(amount, period, burst),
        sliding_window.SlidingWindow(amount, period, 10),
        sliding_log.SlidingLog(min(amount, 50), period),
        fixed_window.FixedWindow(amount, period),
    ):
        state, now = filled(limit, trace, 10**18, period)
        if state is None:
            continue
        once = state
        for number in range(changes):
            once = carried(limit, limit, once, now + number * period // 50)
        now += changes * period // 50
        assert limit.left(once, now) == limit.left(state, now)


@LONG
@given(AMOUNTS, PERIODS, BUCKETS, AMOUNTS, PERIODS, BUCKETS, TRACE)
def test_a_window_keeps_what_it_counted_and_when(
    amount: int, period: int, buckets: int, amount2: int, period2: int, buckets2: int,
    trace: list[tuple[Fraction, Fraction, bool]],
) -> None:  # fmt: skip
    """Never less than what lies in the new window, and nothing is counted for longer than one new window from now."""
    was = sliding_window.SlidingWindow(amount, period, buckets)
    limit = sliding_window.SlidingWindow(amount2, period2, buckets2)
    state, now, seen = None, 10**18, list[tuple[int, int]]()
    for pause, share, _ in trace:
        now += int(pause * period)
        cost = min(int(share * amount), amount)
        taken = was.take(state, now, cost)
        if taken is not None:
            state = taken
            seen.append((now, cost))
    if state is None:
        return
    after = carried(was, limit, state, now)
    reach = min(period, period2)  # what the old window has forgotten nobody knows
    still = sum(cost for at, cost in seen if at > now - reach)
    assert used(limit, after, now) >= still
    assert used(limit, after, now) <= used(was, state, now)
    assert limit.rest(after, now) <= limit.forget_ns
    assert limit.add(after, now, 5) >= after, "a debt beyond the new capacity is not cut by counting more"


@QUICK
@given(st.integers(1, 20), PERIODS, st.integers(1, 20), PERIODS, st.lists(st.integers(1, 3), min_size=1, max_size=6))
def test_slots_that_are_handed_out_stay_and_the_next_is_one_new_step_behind(
    amount: int, period: int, amount2: int, period2: int, costs: list[int]
) -> None:
    was, limit = leaky_bucket.LeakyBucket(amount, period, 50), leaky_bucket.LeakyBucket(amount2, period2, 50)
    state, now, last = None, 10**18, 0
    for cost in costs:
        placed = was.queue_up(state, now, cost, None)
        assert placed is not None
        state, wait = placed
        last = now + wait + (cost - 1) * period // amount
    assert state is not None
    following = now + limit.wait(carried(was, limit, state, now), now, 1)
    assert abs(following - max(now, last + Fraction(period2, amount2))) <= 2


@QUICK
@given(st.integers(1, 9), PERIODS, st.integers(1, 9), PERIODS, st.integers(1, 9))
def test_a_fixed_window_keeps_its_count(amount: int, period: int, amount2: int, period2: int, cost: int) -> None:
    was, limit = fixed_window.FixedWindow(amount, period), fixed_window.FixedWindow(amount2, period2)
    state = was.add(None, 10**18, cost)
    before = used(was, state, 10**18)
    most = before if period == period2 else min(before, 2 * amount2)
    assert used(limit, carried(was, limit, state, 10**18), 10**18) == most


@QUICK
@given(st.integers(1, 60), st.sampled_from([100_000, 500_000]), st.integers(0, 90), st.integers(1, 9))
def test_a_warming_bucket_keeps_its_level_and_its_beginning(ramp: int, cold: int, seconds: int, cost: int) -> None:
    was = WarmUp(token_bucket.TokenBucket(1, SECOND, 9), 30 * SECOND, 300_000)
    limit = WarmUp(token_bucket.TokenBucket(1, SECOND, 9), ramp * SECOND, cold)
    limit.begin(was.began)
    now = seconds * SECOND
    state = was.take(None, now, cost)
    assert limit.left(carried(was, limit, state, now), now) == 9 - cost
