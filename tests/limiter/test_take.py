"""`take`: waits as long as it must and no longer, first come, first served; big costs do not starve, nobody is stuck."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seawall import (
    ConfigError,
    DeadlineExceeded,
    FixedWindow,
    Limiter,
    Policy,
    RateLimited,
    SlidingLog,
    SlidingWindow,
    Timeout,
    TokenBucket,
    deadline,
    events,
)
from seawall.testing import run
from tests.limiter.ways import Way, ask, begin, refusal
from tests.machines.effort import QUICK
from tests.policies.worlds import World, all_end, heard, in_both_worlds

# -- alone -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limit", "wait"), [(TokenBucket("10/s"), 0.5), (SlidingWindow("10/s"), 1.1), (SlidingLog("10/s"), 1), (FixedWindow("10/min"), 60)]
)  # fmt: skip
@in_both_worlds
async def test_it_waits_exactly_until_there_is_room(world: World, limit: Any, wait: float) -> None:
    way = Way(world, Limiter(limit))
    assert (await way.take("a", 10)).allowed
    assert world.now == 0
    assert (await way.take("a", 5)).allowed
    assert world.now == pytest.approx(wait, abs=1e-8)
    assert way.limiter.refused == 0, "whoever waits was not refused"


@in_both_worlds
async def test_it_is_refused_at_once_if_it_would_wait_too_long(world: World) -> None:
    way = Way(world, Limiter(TokenBucket("10/min"), name="api"))
    await way.take("a", 10)
    with heard(events.LimitReached) as seen:
        for patience in (0, 5.9, "5999999us"):
            error = await refusal(way.take("a", max_wait=patience))
            assert (error.retry_after, error.policy) == (6, "api")
    assert world.now == 0
    assert len(seen) == way.limiter.refused == 3
    assert (await way.take("a", max_wait=6)).allowed
    assert world.now == pytest.approx(6)


@pytest.mark.parametrize("patience", [-1, float("nan"), float("inf"), "soon", True])
@in_both_worlds
async def test_a_patience_that_cannot_be_is_refused_by_name(world: World, patience: Any) -> None:
    way = Way(world, Limiter(TokenBucket("10/min")))
    for call in (way.take("a", max_wait=patience), way.reserve("a", max_wait=patience)):
        with pytest.raises(ConfigError, match="max_wait"):
            await call
    with pytest.raises(ConfigError, match="lasts"):
        await way.reserve("a", lasts=0)


@in_both_worlds
async def test_the_deadline_of_the_call_counts_too(world: World) -> None:
    """What cannot come in time is refused at once, so that nobody waits for nothing."""
    way = Way(world, Limiter(TokenBucket("10/min")))
    await way.take("a", 10)
    with deadline(5):
        assert (await refusal(way.take("a"))).retry_after == 6
    assert world.now == 0
    with deadline(7):
        assert (await way.take("a")).allowed


@in_both_worlds
async def test_taking_nothing_waits_for_nobody(world: World) -> None:
    way = Way(world, Limiter(TokenBucket("10/min")))
    await way.take("a", 10)
    assert (await way.take("a", 0)).allowed
    assert world.now == 0


@in_both_worlds
async def test_several_limits_are_waited_for_together(world: World) -> None:
    way = Way(world, Limiter({"requests": TokenBucket("1/s"), "tokens": TokenBucket("600/min", burst=30)}))
    await way.take("a", {"requests": 1, "tokens": 30})
    await way.take("a", {"requests": 1, "tokens": 5})
    assert world.now == pytest.approx(1), "requests took longer"
    await way.take("a", {"requests": 1, "tokens": 30})
    assert world.now == pytest.approx(3.5), "tokens took longer"


@in_both_worlds
async def test_a_cost_that_a_live_change_made_impossible_ends_the_wait_for_good(world: World) -> None:
    """Never an endless wait."""
    for limit, smaller in ((TokenBucket("10/min"), TokenBucket("3/min")), (SlidingLog("10/min"), SlidingLog("3/min"))):
        limiter = Limiter(limit)
        limiter.take("a", 10)
        if world.is_async:
            waiting = await begin(limiter.atake("a", 5))
            limiter.reconfigure(smaller)
            with pytest.raises(ConfigError, match="more than the limit can ever admit"):
                await waiting
        else:
            limiter.reconfigure(smaller)
            with pytest.raises(ConfigError, match="more than the limit can ever admit"):
                limiter.take("a", 5)
        assert len(limiter._lines) == 0


# -- in line -----------------------------------------------------------------------------------------------------------


def test_first_come_first_served_whatever_they_cost() -> None:
    """One token a second: nobody passes a big cost, however small his own is."""

    async def main() -> None:
        limiter = Limiter(TokenBucket("10/10s"))
        limiter.take("a", 10)
        costs = [1, 10, 1, 3, 1, 1]
        tasks = [await begin(ask(limiter, "a", cost)) for cost in costs]
        times = [round(await task, 6) for task in tasks]
        assert times == [1, 11, 12, 15, 16, 17]

    for seed in (None, 0, 1):
        run(main, seed=seed)


def test_other_keys_are_other_lines() -> None:
    async def main() -> None:
        limiter = Limiter(TokenBucket("10/10s"))
        limiter.take("a", 10)
        big = await begin(ask(limiter, "a", 10))
        assert await ask(limiter, "b", 10) == 0
        assert limiter.hit("c").allowed
        assert await big == 10

    run(main)


def test_who_will_not_wait_is_refused_at_once_while_others_do() -> None:
    """Neither blocked behind them nor let past them; and looking is free."""

    async def main() -> None:
        limiter = Limiter(TokenBucket("10/10s"), name="api")
        limiter.take("a", 8)
        waiting = await begin(ask(limiter, "a", 9))
        for method in (limiter.hit, limiter.try_now):
            refused = method("a")
            assert (refused.allowed, refused.limiter, refused.remaining) == (False, "api", 0), (
                "two are left, for another"
            )
            assert refused.retry_after > 0
        assert not (await limiter.ahit("a")).allowed
        for call in (limiter.atake("a", max_wait=0), limiter.areserve("a")):
            with pytest.raises(RateLimited) as caught:
                await call
            assert caught.value.retry_after
        assert limiter.peek("a").remaining == 2
        assert limiter.hit("a", 0).allowed
        assert await limiter.atake("a", 0)
        assert asyncio.get_running_loop().time() == 0
        assert await waiting == 7
        assert not limiter.hit("a").allowed, "its line is gone, and so are the tokens"
        assert limiter.hit("b").allowed

    run(main)


def test_a_line_of_its_own_is_gone_when_all_are_served() -> None:
    async def main() -> None:
        limiter = Limiter(TokenBucket("100/s"))
        for key in range(50):
            limiter.take(f"{key}", 100)
        await all_end([limiter.atake(f"{key}", 2) for key in range(50)])
        assert (limiter._lines.waiting, len(limiter._lines)) == ({}, 0)

    run(main)


def test_a_follower_is_refused_when_his_patience_ends_and_the_others_go_on() -> None:
    async def main() -> None:
        limiter = Limiter(TokenBucket("10/10s"), name="api")
        limiter.take("a", 10)
        first = await begin(ask(limiter, "a", 5))
        second = await begin(ask(limiter, "a", 1, max_wait=2))
        third = await begin(ask(limiter, "a", 1))
        with pytest.raises(RateLimited, match="no turn within 2 s"):
            await second
        assert asyncio.get_running_loop().time() == 2
        assert [await first, await third] == [5, 6]
        assert limiter.refused == 1

    run(main)


def test_a_deadline_that_passes_in_the_line_is_the_callers() -> None:
    async def main() -> None:
        limiter = Limiter(TokenBucket("10/10s"))
        limiter.take("a", 10)
        first = await begin(ask(limiter, "a", 5))

        async def hasty() -> None:
            with deadline(2):
                await limiter.atake("a", 1)

        with pytest.raises(DeadlineExceeded) as caught:
            await hasty()
        assert caught.value.inherited
        assert asyncio.get_running_loop().time() == 2
        with pytest.raises((DeadlineExceeded, RateLimited)):
            await Policy(Timeout(1)).acall(limiter.atake, "a")
        assert await first == 5

    run(main)


def test_no_more_wait_than_may() -> None:
    async def main() -> None:
        limiter = Limiter(TokenBucket("10/10s"), name="api", max_waiting=2)
        limiter.take("a", 10)
        limiter.take("b", 10)
        waiting = [await begin(ask(limiter, key)) for key in "ab"]
        with (
            heard(events.LimitReached) as seen,
            pytest.raises(RateLimited, match="too many callers wait already") as caught,
        ):
            await limiter.atake("a")
        assert (caught.value.measured, caught.value.threshold, len(seen)) == (2, 2, 1)
        assert limiter.snapshot()["waiting"] == 2
        assert [await task for task in waiting] == [1, 1]
        assert limiter.snapshot()["waiting"] == 0
        nobody = Limiter(TokenBucket("1/h"), max_waiting=0)
        nobody.take()
        with pytest.raises(RateLimited):
            await nobody.atake()

    run(main)


@pytest.mark.parametrize("how", ["reset", "change", "give back"])
def test_the_head_is_woken_when_there_is_room_sooner_than_it_was_told(how: str) -> None:
    async def main() -> None:
        limiter = Limiter(TokenBucket("10/h"))
        first = limiter.take("a", 10)
        tasks = [await begin(ask(limiter, "a", cost)) for cost in (4, 1)]
        await asyncio.sleep(3)
        if how == "reset":
            limiter.reset("a")
        elif how == "change":
            limiter.reconfigure(TokenBucket("10/s"))
        else:
            limiter.give_back("a", 10, first)
        assert [round(await task, 6) <= 3.5 for task in tasks] == [True, True]

    run(main)


def test_a_wake_for_nothing_changes_nothing() -> None:
    async def main() -> None:
        limiter = Limiter(TokenBucket("10/10s"))
        limiter.take("a", 10)
        tasks = [await begin(ask(limiter, "a", cost)) for cost in (4, 1)]
        for _ in range(5):
            limiter._lines.wake("a")
            limiter._lines.wake("a")
            limiter._lines.wake()
            await asyncio.sleep(0.3)
        assert [round(await task, 6) for task in tasks] == [4, 5]

    run(main)


@QUICK
@given(
    st.integers(1, 6),
    st.lists(
        st.tuples(st.integers(0, 2_000), st.sampled_from("ab"), st.integers(1, 6), st.integers(0, 9)), max_size=14
    ),
    st.integers(0, 3),
)
def test_every_line_is_served_in_order_and_as_soon_as_may_be(
    burst: int, callers: list[tuple[int, str, int, int]], seed: int
) -> None:
    """Against a line worked out by hand: each starts when all before him are served and the tokens are there."""
    callers = sorted((at, key, min(cost, burst), patience) for at, key, cost, patience in callers)

    async def main() -> None:
        limiter = Limiter(TokenBucket("4/s", burst=burst))
        ends: dict[int, float | None] = {}

        async def caller(number: int, at: int, key: str, cost: int, patience: int) -> None:
            # A microsecond between those who come at once, so that their order is known.
            await asyncio.sleep(at / 1_000 + number / 1e6)
            try:
                ends[number] = await ask(limiter, key, cost, max_wait=None if patience else 0)
            except RateLimited:
                ends[number] = None

        await asyncio.gather(*[caller(number, *rest) for number, rest in enumerate(callers)])
        for key in "ab":
            level, last, end = 0.0, 0.0, 0.0
            for number, (at, whose, cost, patience) in enumerate(callers):
                if whose != key:
                    continue
                now = max(at / 1_000 + number / 1e6, end)
                sunk = max(0.0, level - (now - last) * 4)
                wait = max(0.0, (sunk + cost - burst) / 4)
                may_wait = patience > 0
                if not may_wait and (now > at / 1_000 + number / 1e6 or wait > 0):
                    assert ends[number] is None
                    continue
                level, last = max(0.0, sunk - wait * 4) + cost, now + wait
                end = now + wait
                assert ends[number] == pytest.approx(end, abs=1e-6)
        assert len(limiter._lines) == 0

    run(main, seed=seed)
