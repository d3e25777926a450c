"""The sketch never admits a key beyond its own limit, forgets no debt, and under attack refuses hardly a good key."""

from __future__ import annotations

from fractions import Fraction
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seawall.machines.fixed_window import FixedWindow
from seawall.machines.leaky_bucket import LeakyBucket
from seawall.machines.limit import Limit
from seawall.machines.sketch import Sketch
from seawall.machines.sliding_log import SlidingLog
from seawall.machines.sliding_window import SlidingWindow
from seawall.machines.token_bucket import TokenBucket
from seawall.machines.warm_up import WarmUp
from seawall.runtime import clock
from seawall.stores.spill import Spill
from seawall.testing import VirtualClock
from tests.machines.effort import LONG, QUICK
from tests.machines.limit_models import most_in

SECOND = 1_000_000_000
STEP = st.tuples(
    st.integers(0, 5),  # whose key
    st.one_of(st.sampled_from([0, 0, 1, SECOND // 10, SECOND, 3_600 * SECOND]), st.integers(0, SECOND)),
    st.one_of(st.integers(0, 3), st.just(10**6)),
)
TRACE = st.lists(STEP, max_size=40)
LIMITS: list[tuple[Limit[object], int, bool]] = [
    # The limit, its period, and whether it may admit twice its amount in one.
    (TokenBucket(7, SECOND, 5), SECOND, True),
    (TokenBucket(10**9, SECOND, 3), SECOND, True),
    (LeakyBucket(5, SECOND, 2), SECOND, True),
    (FixedWindow(6, SECOND), SECOND, False),
    (SlidingWindow(7, SECOND, 10), SECOND, False),
    (SlidingWindow(1, SECOND, 3), SECOND, False),
    (SlidingLog(2, 7), 7, False),
    (SlidingLog(9, 60 * SECOND), 60 * SECOND, False),
]


def allowed(limit: Limit[object], period: int, *, twice: bool, span: int) -> Fraction:
    rate = Fraction(limit.capacity, period)
    if isinstance(limit, (TokenBucket, LeakyBucket)):
        unit = limit.per_token if isinstance(limit, TokenBucket) else limit.per_unit
        rate = Fraction(limit.per_ns, unit)
    return limit.capacity + rate * span if twice else Fraction(limit.capacity * (1 + span // period))


@pytest.mark.parametrize(("limit", "period", "twice"), LIMITS, ids=lambda value: getattr(value, "kind", ""))
@given(trace=TRACE, hashes=st.lists(st.integers(0, 2**96 - 1), min_size=6, max_size=6))
@QUICK
def test_no_key_is_admitted_beyond_its_own_limit(
    limit: Limit[object], period: int, twice: bool, trace: list[tuple[int, int, int]], hashes: list[int]
) -> None:
    """Whoever shares its cells, in whatever form the limit is, and for costs of up to the whole capacity."""
    spill = Spill(limit)
    # Few cells, so that keys do share them.
    spill._sketch = Sketch(spill._sketch._unit_ns, spill._sketch._burst, 0, width=4)
    admitted: list[list[tuple[int, int]]] = [[] for _ in hashes]
    with VirtualClock() as time:
        for who, pause, wanted in trace:
            time.advance(f"{pause}ns")
            cost = min(wanted, limit.capacity)
            left, wait, rest = spill.look(hashes[who], cost)
            assert 0 <= left <= limit.capacity
            assert rest >= 0
            if not wait:
                spill.take(hashes[who], cost)
                admitted[who].append((time.now_ns, cost))
    for events in admitted:
        most_in(events, lambda span: allowed(limit, period, twice=twice, span=span))


@LONG
@given(
    st.integers(1, SECOND),
    st.integers(1, 9),
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2 * SECOND), st.integers(0, 12)), max_size=30),
)
def test_the_wait_of_the_sketch_is_tight(unit: int, burst: int, trace: list[tuple[int, int, int]]) -> None:
    """One tick earlier it refuses, then it admits, whatever the cost; and looking changes nothing."""
    sketch, now = Sketch(unit, burst, 0, width=3), 0
    places = [Random(number).getrandbits(96) for number in range(4)]
    for who, pause, cost in trace:
        now += pause
        _, wait, _ = sketch.judge(places[who], now, cost)
        assert sketch.judge(places[who], now + wait, cost)[1] == 0
        assert not wait or sketch.judge(places[who], now + wait - 1, cost)[1] == 1
        assert sketch.take(places[who], now, cost) == wait
        left, _, rest = sketch.judge(places[who], now, 0)
        assert sketch.judge(places[who], now + rest, 0) == (burst, 0, 0)
        assert not rest or sketch.judge(places[who], now + rest - 1, 0)[2] == 1
        assert 0 <= left <= burst
        assert not left or sketch.judge(places[who], now, left)[1] == 0
        assert left == burst or sketch.judge(places[who], now, left + 1)[1] > 0


@QUICK
@given(st.integers(1, 5), st.integers(1, 40), st.integers(0, 3))
def test_a_refusal_changes_nothing(burst: int, cost: int, others: int) -> None:
    sketch = Sketch(SECOND, burst, 0, width=2)
    for number in range(others):
        sketch.take(number << 32, 0, 1)
    before = [bytes(row) for row in sketch._rows]
    if sketch.take(0, 0, cost + burst):
        assert [bytes(row) for row in sketch._rows] == before


@QUICK
@given(st.integers(0, 50), st.integers(1, 9), st.integers(1, 9))
def test_what_is_counted_without_asking_is_a_debt_that_does_not_vanish(cost: int, burst: int, debt: int) -> None:
    sketch = Sketch(SECOND, burst, 0)
    sketch.add(7, 0, cost, debt)
    _, _, rest = sketch.judge(7, 0, 0)
    assert rest == min(cost, debt) * SECOND
    assert sketch.idle(rest)
    assert cost == 0 or not sketch.idle(rest - 1)


@QUICK
@given(st.integers(1, 10**6), st.integers(1, 10**6), st.lists(st.integers(0, 5), max_size=8), st.integers(0, 10**6))
def test_a_live_change_takes_over_what_is_used(unit: int, other: int, costs: list[int], pause: int) -> None:
    """In units of the new limit, rounded up, and up to its burst; never less."""
    was, limit, now = Sketch(unit, 5, 0, width=999), Sketch(other, 5, pause, width=999), pause
    for key, cost in enumerate(costs):
        was.take(key * 77_777, 0, cost)
    limit.take_over(was, now)
    for key in range(len(costs)):
        used = Fraction(was.judge(key * 77_777, now, 0)[2], unit)
        assert limit.judge(key * 77_777, now, 0)[2] == min(5 * other, -(-used * other // 1))


def test_a_sketch_of_any_limit_is_of_the_same_size_and_stays_so() -> None:
    for limit, *_ in LIMITS:
        sketch = Spill(limit)._sketch
        for number in range(2_000):
            sketch.take(Random(number).getrandbits(96), number, 1)
        assert [len(row) * row.itemsize for row in sketch._rows] == [1 << 20] * 3
        assert Sketch.__slots__ == (
            "_base_ns",
            "_burst",
            "_latest",
            "_rows",
            "_unit_ns",
            "_width",
            "admitted",
            "refused",
        )


def test_hardly_a_good_key_is_refused_while_half_a_million_others_attack() -> None:
    """10/s a key; 500,000 attacking keys make 150,000 hits a second. Good keys make 5 a second, half of their limit.

    What a cell owes has come to its level after a second already, since nobody can owe for more: so two are enough.
    """
    random, seconds = Random(1), 2
    sketch = Sketch(SECOND // 10, 10, 0)
    attackers, good = [random.getrandbits(96) for _ in range(500_000)], [random.getrandbits(96) for _ in range(1_000)]
    hits, asked, refused = seconds * 150_000, 0, 0
    for number in range(hits):
        now = number * seconds * SECOND // hits
        sketch.take(attackers[int(random.random() * 500_000)], now, 1)
        if number % 30 == 0:
            asked += 1
            refused += sketch.take(good[(number // 30) % 1_000], now, 1) > 0
    assert asked == hits // 30
    assert refused <= asked / 1_000, f"{refused} of {asked} good hits refused"
    # That the test can fail: in a hundredth of the cells there is no room for so many.
    crowded = Sketch(SECOND // 10, 10, 0, width=1 << 10)
    for number in range(20_000):
        crowded.take(attackers[number], number * SECOND // 150_000, 1)
    assert sum(crowded.take(key, SECOND // 7, 1) > 0 for key in good) > 100


def test_a_warming_limit_is_as_slow_in_the_sketch() -> None:
    """Its cells run on the clock inside."""
    limit = WarmUp(TokenBucket(10, SECOND, 1), 60 * SECOND, 100_000)
    with VirtualClock("1h") as time:
        limit.begin(clock.now_ns())
        spill = Spill(limit)
        spill.take(5, 1)
        _, wait, rest = spill.look(5, 1)
        assert wait == rest
        assert 0.9 * SECOND < wait < SECOND, "a tenth of the rate"
        time.advance(f"{wait - 1}ns")
        assert spill.look(5, 1)[1] > 0
        time.advance("1ns")
        assert spill.look(5, 1)[1] == 0
