"""Faults of other libraries' rate limiters, none of which Seawall's in memory may have."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from seawall import (
    ConfigError,
    FixedWindow,
    Limiter,
    Memory,
    RateLimited,
    SlidingLog,
    SlidingWindow,
    TokenBucket,
)
from seawall.runtime import clock
from seawall.testing import VirtualClock, run
from tests.policies.worlds import World, in_both_worlds, in_threads

SECOND = 1_000_000_000
LIMITS = [TokenBucket("10/h"), FixedWindow("10/h"), SlidingWindow("10/h"), SlidingLog("10/h")]
each_limit = pytest.mark.parametrize("limit", LIMITS, ids=lambda limit: limit.name)


@each_limit
def test_a_refused_cost_burns_no_quota(limit: Any) -> None:
    """limits (fixed window), throttled-py, upstash add first and look then: whoever asks too much is locked out."""
    limiter = Limiter(limit)
    limiter.hit("a", 4)
    for _ in range(100):
        assert not limiter.hit("a", 7).allowed
    assert limiter.hit("a", 6).allowed


@pytest.mark.parametrize("limit", [TokenBucket("3/s", burst=1), TokenBucket("1000/7s", burst=1)])
def test_refilling_loses_no_fraction_of_a_second(limit: Any) -> None:
    """throttled-py refills by whole seconds: two thirds of 3/s is all that a patient caller gets."""
    amount, period = {"3/s": (3, 1), "1000/7s": (1000, 7)}[limit.rate]
    with VirtualClock() as time:
        limiter = Limiter(limit)
        calls = 30 * amount
        for _ in range(calls):
            limiter.take("a")
        assert time.now == pytest.approx((calls - 1) * period / amount, rel=1e-6)


def test_no_crowd_of_other_keys_wipes_out_a_debt() -> None:
    """throttled-py's store keeps the keys used last: whoever makes up enough names starts afresh."""
    with VirtualClock():
        limiter = Limiter(TokenBucket("5/h"), store=Memory(max_keys=100))
        for known in ("among the first", "one of those without room"):
            assert limiter.hit(known, 5).allowed
            for number in range(1_000):
                limiter.hit(f"{known} {number}")
            assert not limiter.hit(known).allowed


@each_limit
def test_a_clock_an_hour_back_blocks_nobody_for_an_hour(limit: Any) -> None:
    """limits keeps when a window ends by the civil clock: set back, it lets nobody in until that has come again."""
    mono, wall = [10**15], [clock.EPOCH_NS]
    restore = clock.install(lambda: mono[0], lambda _: None, lambda: wall[0])
    try:
        short = Limiter(limit.replace(rate="10/s"))
        short.hit("a", 10)
        wall[0] -= 3_600 * SECOND
        mono[0] += 2 * SECOND
        assert short.hit("a", 10).allowed
        assert short.hit("new", 10).allowed
        assert short.hit("a").retry_after <= 1.1
    finally:
        restore()


@each_limit
def test_a_fresh_key_is_begun_once(limit: Any) -> None:
    """limits: threads that meet at a fresh key, or at the edge of a sliding counter, each begin it anew."""
    for number in range(20):
        limiter = Limiter(limit)
        ends = in_threads([lambda: sum(limiter.hit(f"{number}").allowed for _ in range(5))] * 4)
        assert sum(ends) == 10


def test_a_sliding_count_loses_nothing_at_its_edge() -> None:
    """limits shifts its two counters in two steps."""
    for _ in range(20):
        with VirtualClock() as time:
            limiter = Limiter(SlidingWindow("10/s", buckets=1))
            limiter.hit("a", 6)
            time.advance(1)
            ends = in_threads([lambda: sum(limiter.hit("a").allowed for _ in range(5))] * 4)
            assert sum(ends) == 4


def test_whoever_waits_does_not_block_who_will_not() -> None:
    """pyrate-limiter waits with its lock in hand: a caller that would be told no at once waits too."""
    limiter = Limiter(TokenBucket("10/s", burst=1))
    limiter.take("a")
    waiting = threading.Thread(target=lambda: [limiter.take("a") for _ in range(5)])
    waiting.start()
    try:
        for _ in range(200):
            begun = clock.now_ns()
            limiter.hit("a")
            limiter.hit("b")
            limiter.peek("a")
            with pytest.raises(RateLimited):
                limiter.take("a", max_wait=0)
            assert clock.now_ns() - begun < 200_000_000
    finally:
        waiting.join(10)


def test_big_requests_do_not_starve() -> None:
    """aiolimiter serves whoever needs least: a stream of small ones keeps a big one out for ever."""

    async def main() -> None:
        limiter = Limiter(TokenBucket("10/s"))
        limiter.take("a", 10)
        small: list[float] = []
        stop = asyncio.Event()

        async def stream() -> None:
            while not stop.is_set():
                await limiter.atake("a")
                small.append(asyncio.get_running_loop().time())

        streams = [asyncio.create_task(stream()) for _ in range(5)]
        await asyncio.sleep(0.01)
        await limiter.atake("a", 10)
        assert asyncio.get_running_loop().time() <= 1.6
        stop.set()
        await asyncio.gather(*streams)

    run(main)


@in_both_worlds
async def test_a_cost_that_never_fits_is_no_endless_wait(world: World) -> None:
    """aiolimiter, pyrate: more than the bucket holds waits for ever, or is refused as if it were to pass."""
    limiter = Limiter(TokenBucket("10/s"))
    with pytest.raises(ConfigError, match="more than the limit can ever admit"):
        _ = await limiter.atake("a", 11) if world.is_async else limiter.take("a", 11)
    assert world.now == 0


def test_idle_keys_do_not_stay() -> None:
    """throttled-py (leaky bucket), pyrate: keys without an end fill the memory of whoever keeps them."""
    for limit in (TokenBucket("10/s"), SlidingLog("10/s"), FixedWindow("10/s"), SlidingWindow("10/s")):
        with VirtualClock() as time:
            limiter = Limiter(limit)
            for number in range(500):
                limiter.hit(f"{number}")
            for _ in range(3):
                time.advance(11)
                limiter.hit("a")
            assert limiter.snapshot()["keys"] == {limit.name: 1}


def test_a_refusal_says_when_to_come_again() -> None:
    """slowapi sends no Retry-After unless it is asked to."""
    limiter = Limiter(TokenBucket("1/min"))
    limiter.take()
    with pytest.raises(RateLimited) as caught:
        limiter.take(max_wait=0)
    assert caught.value.headers()["Retry-After"] == "60"


def test_none_does_not_put_everybody_into_one_bucket() -> None:
    """Several: a key function that finds no user gives None, and all of them share one limit."""
    with pytest.raises(ConfigError):
        Limiter(TokenBucket("1/s")).hit(None)  # type: ignore[arg-type]
