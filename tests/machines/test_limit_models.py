"""Every limit decides as its naive model does, and every number that it gives is exact to one nanosecond."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seawall.machines.fixed_window import FixedWindow
from seawall.machines.leaky_bucket import LeakyBucket
from seawall.machines.limit import Limit
from seawall.machines.sliding_log import SlidingLog
from seawall.machines.sliding_window import SlidingWindow
from seawall.machines.token_bucket import TokenBucket
from tests.machines.effort import QUICK
from tests.machines.limit_models import CLOCK, KINDS, Case, most_in

each_kind = pytest.mark.parametrize("kind", KINDS)
but_leaky = pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "leaky bucket"])
STARTS = st.sampled_from([0, 1, 10**9 - 1, 10**18 + 7])
SHARES = st.sampled_from([0, 1, 1, 2, 3, *(Fraction(sixth, 6) for sixth in range(1, 7))])
"""A cost: so much, or a share of the capacity."""
STEP = st.tuples(st.sampled_from(["take", "take", "take", "add", "look"]), CLOCK, SHARES)
TRACE = st.lists(STEP, max_size=20)
SHORT = st.lists(STEP, max_size=12)
TAKES = st.lists(st.tuples(st.just("take"), CLOCK, SHARES), max_size=25)


def cost_of(share: int | Fraction, limit: Limit[Any]) -> int:
    """Never above the capacity."""
    return min(share if isinstance(share, int) else int(share * limit.capacity), limit.capacity)


def go(now: int, pause: int | Fraction, case: Case) -> int:
    return now + (pause if isinstance(pause, int) else int(pause * case.pace))


def check_numbers(limit: Limit[Any], state: Any, now: int, cost: int) -> None:
    """`left`, `wait` and `rest` say what `take` does, then and one tick before then."""
    left = limit.left(state, now)
    if not isinstance(limit, LeakyBucket):
        assert left < 0 or limit.take(state, now, left) is not None
        assert left < 0 or limit.take(state, now, left + 1) is None, "more is left than it says"
    assert -limit.capacity <= left <= limit.capacity
    wait = limit.wait(state, now, cost)
    assert (wait == 0) == (limit.take(state, now, cost) is not None)
    assert limit.take(state, now + wait, cost) is not None, "refused when it said that it would be admitted"
    assert not wait or limit.take(state, now + wait - 1, cost) is None, "admitted a tick before it said so"
    rest = limit.rest(state, now)
    assert limit.left(state, now + rest) == limit.capacity
    if rest > 1 and isinstance(limit, LeakyBucket):
        assert limit.take(state, now + rest - 1, 1) is None
    elif rest > 1:
        assert limit.take(state, now + rest - 1, limit.capacity) is None, "at rest before it said so"


@each_kind
@QUICK
@given(st.data(), STARTS, TRACE)
def test_a_limit_decides_as_its_naive_model(
    kind: str, data: st.DataObject, start: int, trace: list[tuple[str, Any, Any]]
) -> None:
    """The same takes are admitted, what is left agrees, and so do the waits, in debt too."""
    case = data.draw(KINDS[kind])
    limit, model, now = case.limit, case.model, start
    state: Any = None
    for step, pause, share in trace:
        now, cost = go(now, pause, case), cost_of(share, limit)
        if step == "take":
            after = limit.take(state, now, cost)
            assert (after is not None) == model.take(now, cost)
            state = state if after is None else after
        elif step == "add":
            state = limit.add(state, now, cost)
            model.count(now, cost)
        assert limit.left(state, now) == model.left(now)
        check_numbers(limit, state, now, cost)


@each_kind
@QUICK
@given(st.data(), STARTS, TAKES)
def test_no_span_admits_more_than_is_promised(
    kind: str, data: st.DataObject, start: int, trace: list[tuple[str, Any, Any]]
) -> None:
    """Every span between two admissions is looked at, the worst among them."""
    case, now, state = data.draw(KINDS[kind]), start, None
    admitted: list[tuple[int, int]] = []
    for _, pause, share in trace:
        now, cost = go(now, pause, case), cost_of(share, case.limit)
        after = case.limit.take(state, now, cost)
        if after is not None:
            state = after
            admitted.append((now, cost))
    most_in(admitted, case.bound)


@each_kind
@QUICK
@given(st.data(), STARTS)
def test_whoever_comes_back_exactly_when_told_gets_no_more(kind: str, data: st.DataObject, start: int) -> None:
    """The greediest caller there is: always the most that is left, and the shortest wait."""
    case, now = data.draw(KINDS[kind]), start
    limit = case.limit
    state: Any = None
    admitted: list[tuple[int, int]] = []
    for _ in range(20):
        now += limit.wait(state, now, 1)
        cost = 1 if isinstance(limit, LeakyBucket) else limit.left(state, now)
        state = limit.take(state, now, cost)
        assert state is not None
        admitted.append((now, cost))
    most_in(admitted, case.bound)


@each_kind
@QUICK
@given(st.data(), STARTS, TRACE)
def test_a_state_is_worth_nothing_after_forget_ns(
    kind: str, data: st.DataObject, start: int, trace: list[tuple[str, Any, Any]]
) -> None:
    """A store may drop it then; in debt, once it is at rest besides."""
    case, now = data.draw(KINDS[kind]), start
    limit = case.limit
    state: Any = None
    for step, pause, share in trace:
        now, cost = go(now, pause, case), cost_of(share, limit)
        if step == "add":
            state = limit.add(state, now, cost)
        else:
            after = limit.take(state, now, cost)
            state = state if after is None else after
    if limit.left(state, now) >= 0:
        assert limit.rest(state, now) <= limit.forget_ns
    now += max(limit.rest(state, now), limit.forget_ns)
    assert limit.left(state, now) == limit.capacity


@but_leaky
@QUICK
@given(st.data(), STARTS, SHORT)
def test_what_is_given_back_is_as_if_it_had_never_been_taken_and_never_more(
    kind: str, data: st.DataObject, start: int, trace: list[tuple[str, Any, Any]]
) -> None:
    """Beside a twin that counts the same without what was given back; a bucket besides gives back what time has not."""
    case, now = data.draw(KINDS[kind]), start
    limit, state = case.limit, None
    kept: list[tuple[int, int]] = []
    out: list[tuple[int, int]] = []
    for step, pause, share in trace:
        now, cost = go(now, pause, case), cost_of(share, limit)
        if step in ("add", "look") and out:
            taken, spent = out.pop(data.draw(st.integers(0, len(out) - 1)))
            before = limit.left(state, now)
            state = limit.give_back(state, now, spent, taken)
            assert before <= limit.left(state, now) <= before + spent
        else:
            after = limit.take(state, now, cost)
            if after is not None:
                state = after
                (out if step == "take" else kept).append((now, cost))
        twin: Any = None
        for at, spent in sorted(kept + out):
            twin = limit.add(twin, at, spent)
        if isinstance(limit, TokenBucket):
            assert limit.left(state, now) <= limit.left(twin, now), "more was given back than was there"
        else:
            assert limit.left(state, now) == limit.left(twin, now)
    most_in(sorted(kept + out), case.bound)


@but_leaky
@QUICK
@given(st.data(), STARTS, SHARES, CLOCK)
def test_what_is_given_back_is_what_time_has_not_given_back_meanwhile(
    kind: str, data: st.DataObject, start: int, share: Any, pause: Any
) -> None:
    """Of one take alone: at once, all of it; later, what is still used; never what others have taken since."""
    case = data.draw(KINDS[kind])
    limit, cost = case.limit, cost_of(share, case.limit)
    state = limit.take(None, start, cost)
    assert limit.left(limit.give_back(state, start, cost, start), start) == limit.capacity
    now = go(start, pause, case)
    other = min(limit.capacity, max(1, limit.left(state, now)))
    state = limit.add(state, now, other)
    back = limit.left(limit.give_back(state, now, cost, start), now)
    assert back == limit.capacity - other


@pytest.mark.parametrize("limit", [FixedWindow(9, 1_000), SlidingWindow(9, 1_000, 10), SlidingLog(9, 1_000)])
def test_nothing_is_taken_out_of_what_was_taken_at_another_time(limit: Limit[Any]) -> None:
    """As when the key was forgotten meanwhile, or something is given back twice."""
    state = limit.take(None, 5_000, 4)
    state = limit.take(state, 5_400, 5)
    for taken in (1_000, 4_999, 5_200, 5_399, 7_000):
        if isinstance(limit, FixedWindow) and taken // 1_000 == 5:
            continue
        assert limit.left(limit.give_back(state, 5_500, 3, taken), 5_500) == 0
    twice = limit.give_back(limit.give_back(state, 5_500, 5, 5_400), 5_500, 5, 5_400)
    assert limit.left(twice, 5_500) == (9 if isinstance(limit, FixedWindow) else 5)


@QUICK
@given(st.integers(1, 20), st.sampled_from([7, 60_000_000_000]), st.lists(st.tuples(st.integers(-9, 9), SHARES)))
def test_a_step_of_the_civil_clock_begins_at_most_one_window(
    amount: int, period: int, trace: list[tuple[int, Any]]
) -> None:
    """`FixedWindow` alone follows the civil clock. Wherever it is set, each new window has its amount and no more."""
    limit, now = FixedWindow(amount, period), 10**18
    state: int | None = None
    window, begun, admitted = now // period, 1, 0
    for step, share in trace:
        now += step * (period // 3)
        begun += now // period != window
        window = now // period
        cost = cost_of(share, limit)
        after = limit.take(state, now, cost)
        if after is not None:
            state, admitted = after, admitted + cost
        check_numbers(limit, state, now, cost)
        assert limit.wait(state, now, amount) <= period, "a clock that went back blocks for longer than a window"
        assert limit.left(state, now) <= amount
    assert admitted <= amount * begun


@QUICK
@given(st.integers(1, 20), st.sampled_from([7, 60_000_000_000, 86_400_000_000_000]), STARTS, TAKES)
def test_a_fixed_window_is_the_calendars(
    amount: int, period: int, start: int, trace: list[tuple[str, Any, Any]]
) -> None:
    """At most the amount from each full minute, hour or midnight to the next."""
    limit, now = FixedWindow(amount, period), start
    state: int | None = None
    counts: dict[int, int] = {}
    for _, pause, share in trace:
        now += pause if isinstance(pause, int) else int(pause * period / 4)
        cost = cost_of(share, limit)
        after = limit.take(state, now, cost)
        assert (after is not None) == (counts.get(now // period, 0) + cost <= amount)
        if after is not None:
            state = after
            counts[now // period] = counts.get(now // period, 0) + cost
