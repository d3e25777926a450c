"""Each algorithm twice, in Python and in Lua: on any trace they decide equally and tell the same numbers."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as some

from seawall.machines.fixed_window import FixedWindow
from seawall.machines.leaky_bucket import LeakyBucket
from seawall.machines.limit import Limit
from seawall.machines.sliding_log import SlidingLog
from seawall.machines.sliding_window import SlidingWindow
from seawall.machines.token_bucket import TokenBucket
from tests.valkey.bench import Bench, Both
from tests.valkey.servers import Server

pytestmark = pytest.mark.once

SECOND = 1_000_000_000
YEAR = 365 * 86_400 * SECOND
AMOUNTS = some.one_of(
    some.sampled_from([1, 2, 3, 7, 10, 60, 1000, 999_999_937, 1_000_000_000]), some.integers(1, 10**9)
)
PERIODS = some.one_of(
    some.sampled_from([1, 999, 1_000, 1_001, 1_000_001, SECOND, 60 * SECOND, 86_400 * SECOND, YEAR, 10 * YEAR]),
    some.integers(1, 10 * YEAR),
)
NOWS = some.one_of(some.sampled_from([1, 1_767_225_600_000_000, 1 << 52]), some.integers(1, 1 << 52))
PHASES = (Phase.explicit, Phase.generate)
WHOLE = PERIODS.map(lambda period: max(1, period // 1_000) * 1_000)


@some.composite
def token_buckets(draw: Any) -> TokenBucket:
    bucket = TokenBucket(draw(AMOUNTS), draw(PERIODS), draw(AMOUNTS))
    assume(bucket.forget_ns <= 10 * YEAR)
    return bucket


@some.composite
def leaky_buckets(draw: Any) -> LeakyBucket:
    bucket = LeakyBucket(draw(AMOUNTS), draw(PERIODS), draw(some.integers(0, 1_000_000)))
    assume(bucket.forget_ns <= 10 * YEAR)
    return bucket


@some.composite
def sliding_windows(draw: Any) -> SlidingWindow:
    buckets = draw(some.sampled_from([1, 2, 10, 60, 100]))
    period = max(draw(PERIODS), buckets)
    assume(SlidingWindow(1, period, buckets).forget_ns <= 10 * YEAR)
    return SlidingWindow(draw(AMOUNTS), period, buckets)


KINDS: dict[str, Any] = {
    "token bucket": token_buckets(),
    "fixed window": some.builds(FixedWindow, AMOUNTS, WHOLE),
    "sliding window": sliding_windows(),
    "sliding log": some.builds(SlidingLog, some.integers(1, 10_000), PERIODS),
}
ANY: Any = some.one_of(*KINDS.values())


@pytest.fixture(scope="module")
def bench(shared: Server) -> Iterator[Bench]:
    client = shared.client()
    yield Bench(client)
    client.close()


def quick(examples: int) -> Any:
    checks = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.function_scoped_fixture]
    examples *= int(os.environ.get("SEAWALL_MORE", "1"))
    return settings(max_examples=examples, deadline=None, suppress_health_check=checks, database=None, phases=PHASES)


def cost(draw: Any, capacity: int) -> int:
    near = [0, 1, 2, capacity // 3, capacity // 2, capacity - 1, capacity]
    return min(capacity, max(0, draw(some.one_of(some.sampled_from(near), some.integers(0, capacity)))))


def passes(draw: Any, both: Both, wait_us: int) -> None:
    """Time passes: not at all, a tick, up to the edge of an admission or just before, as long as it takes to be as new."""
    whole = max(machine.forget_ns for machine in both.machines.values())
    edges = [0, 0, 1, max(0, wait_us - 1), wait_us, wait_us + 1, whole // 10, whole - 1, whole, whole + 1]
    both.now += draw(some.one_of(some.sampled_from(edges), some.integers(0, 2 * whole)))


def walk(draw: Any, both: Both, steps: int, *, holds: bool) -> None:
    """A random walk; the comparison is in each step."""
    names = list(both.machines)
    open_ones: list[Any] = []
    wait = 0
    for _ in range(steps):
        passes(draw, both, wait)
        asked = names if len(names) == 1 else draw(some.lists(some.sampled_from(names), min_size=1, unique=True))
        costs = {name: cost(draw, both.capacity[name]) for name in names if name in asked}
        step = draw(some.sampled_from("tttttpphhssr" if holds else "ttttpr"))
        if step in "tp":
            wait = both.ask(costs, peek=step == "p").retry_after_ns // 1_000
        elif step == "h":
            lasts = draw(some.sampled_from([1, 1000, 60_000_000, max(1, wait), max(1, wait + 1)]))
            held = both.hold(costs, lasts)
            if held is not None:
                open_ones.append(held)
                wait = lasts
        elif step == "s" and open_ones:
            held = open_ones.pop(draw(some.integers(0, len(open_ones) - 1)))
            actual = {name: draw(some.integers(0, 3 * number)) for name, number in both.capacity.items()}
            both.settle(held, actual if draw(some.booleans()) else {})
        elif step == "r" and draw(some.integers(0, 3)) == 0:
            both.reset()


@pytest.mark.parametrize("kind", KINDS)
@quick(60)
@given(data=some.data())
def test_one_limit_decides_equally_on_any_trace(bench: Bench, kind: str, data: Any) -> None:
    limit: Limit[Any] = data.draw(KINDS[kind])
    walk(data.draw, Both(bench, {"only": limit}, data.draw(NOWS)), 25, holds=data.draw(some.booleans()))


@quick(60)
@given(data=some.data())
def test_several_limits_decide_equally_all_or_none(bench: Bench, data: Any) -> None:
    limits = {name: data.draw(ANY) for name in ("first", "second", "third")[: data.draw(some.integers(2, 3))]}
    walk(data.draw, Both(bench, limits, data.draw(NOWS)), 20, holds=True)


@quick(60)
@given(data=some.data())
def test_a_leaky_bucket_hands_out_the_same_slots(bench: Bench, data: Any) -> None:
    draw = data.draw
    both = Both(bench, {"only": draw(leaky_buckets())}, draw(NOWS))
    slots: list[Any] = []
    wait = 0
    for _ in range(25):
        passes(draw, both, wait)
        asked = cost(draw, both.capacity["only"])
        step = draw(some.sampled_from("qqqqtpll"))
        if step == "q" and asked:
            most = draw(some.sampled_from([None, 0, wait, max(0, wait - 1), wait + 1]))
            wait, slot = both.queue_up(asked, most)
            slots.append(slot)
        elif step == "l" and slots:
            both.leave(slots.pop(draw(some.integers(0, len(slots) - 1))))
        elif step in "tp":
            wait = both.ask({"only": asked}, peek=step == "p").retry_after_ns // 1_000


@pytest.mark.parametrize(
    "limit",
    [
        TokenBucket(10, 3_600 * SECOND, 10),
        FixedWindow(10, 3_600 * SECOND),
        SlidingWindow(10, 3_600 * SECOND, 10),
        SlidingLog(10, 3_600 * SECOND),
    ],
    ids=lambda limit: limit.kind,
)
def test_holds_that_have_ended_count_in_the_order_of_their_ends(bench: Bench, limit: Limit[Any]) -> None:
    minute = 60_000_000
    both = Both(bench, {"only": limit}, 1_767_225_600_000_000)
    for held, lasts in ((3, 30), (2, 20), (4, 10)):
        assert both.hold({"only": held}, lasts * minute) is not None
    assert not both.ask({"only": 2})
    both.now += 40 * minute
    both.ask({"only": 0}, peek=True)
    both.now += 25 * minute
    both.ask({"only": 5}, peek=True)
