"""Reservations: what is held is not free, what is settled is counted then, and what is forgotten counts in full."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seawall import (
    ConfigError,
    FixedWindow,
    LeakyBucket,
    Limiter,
    Memory,
    RateLimited,
    SlidingLog,
    SlidingWindow,
    TokenBucket,
)
from seawall.machines import token_bucket
from seawall.runtime import clock
from seawall.testing import VirtualClock, run
from tests.limiter.ways import Way, begin, refusal
from tests.machines.effort import LONG
from tests.policies.worlds import World, in_both_worlds, in_threads

LIMITS = [TokenBucket("10/h"), FixedWindow("10/h"), SlidingWindow("10/h"), SlidingLog("10/h")]
each_limit = pytest.mark.parametrize("limit", LIMITS, ids=lambda limit: limit.name)


@each_limit
@in_both_worlds
async def test_what_is_held_is_not_free(world: World, limit: Any) -> None:
    """For nobody: neither a hit, nor a take, nor another reservation; and a decision tells what is left beside it."""
    way = Way(world, Limiter(limit))
    assert (await way.hit("a", 2)).remaining == 8
    held = await way.reserve("a", 5)
    assert (held.decision.allowed, dict(held.costs)) == (True, {limit.name: 5})
    assert (await way.peek("a")).remaining == 3
    assert not (await way.hit("a", 4)).allowed
    await refusal(way.take("a", 4, max_wait=0))
    await refusal(way.reserve("a", 4))
    assert (await way.hit("a", 1)).remaining == 2
    assert (await way.hit("b", 10)).allowed, "only for this key"
    assert await way.cancel(held)
    assert (await way.peek("a")).remaining == 7
    assert way.limiter.snapshot()["holds"] == 0


@each_limit
@pytest.mark.parametrize(("actual", "left"), [(5, 5), (2, 8), (0, 10), (9, 1), (10, 0), (17, 0)])
@in_both_worlds
async def test_what_was_used_is_counted_when_it_is_settled(world: World, limit: Any, actual: int, left: int) -> None:
    way = Way(world, Limiter(limit))
    held = await way.reserve("a", 5)
    await world.passes(30)
    assert await way.settle(held, actual)
    assert (await way.peek("a")).remaining == left
    assert (await way.hit("a", left)).allowed == (actual <= 10)
    # Never settled twice, nor cancelled afterwards.
    assert not await way.settle(held, 9)
    assert not await way.cancel(held)
    assert held.settled
    assert (await way.peek("a")).remaining == 0


@each_limit
@in_both_worlds
async def test_more_than_was_held_goes_into_debt_down_to_one_capacity(world: World, limit: Any) -> None:
    """However much it was; time pays it back, and until then nothing is admitted."""
    for actual in (14, 10**30):
        way = Way(world, Limiter(limit))
        await way.settle(await way.reserve("a", 5), actual)
        refused = await way.hit("a")
        assert (refused.allowed, refused.remaining) == (False, 0)
        assert refused.retry_after > 0
        assert refused.reset_after <= 2.3 * 3600
        await world.passes(refused.retry_after + 0.001)
        assert (await way.hit("a")).allowed


@in_both_worlds
async def test_a_debt_outlives_the_turns_of_the_drawer(world: World) -> None:
    """The state of a key in debt is needed for longer than that of any other, wherever in a turn it was made."""
    for begun in (0, 30, 59):
        way = Way(world, Limiter(TokenBucket("60/min")))
        await way.hit("other")
        await world.passes(begun)
        await way.settle(await way.reserve("a", 1), 10**9)
        for _ in range(11):
            await world.passes(10)
            await way.hit("other")  # turns the drawer, whenever it is due
        assert (await way.peek("a")).remaining == 50
        await world.passes(200)
        await way.hit("other")
        assert way.limiter.snapshot()["keys"] == {"TokenBucket": 1}, "and no longer than that"


@each_limit
@in_both_worlds
async def test_a_hold_that_nobody_settles_counts_in_full_from_when_it_expires(world: World, limit: Any) -> None:
    """Also if nobody looks until much later, and whoever comes first does not wipe it out."""
    way = Way(world, Limiter(limit))
    held = await way.reserve("a", 6, lasts="60s")
    await way.hit("a", 1)
    await world.passes(61)
    assert (await way.hit("a", 2)).remaining == 1
    assert not (await way.hit("a", 2)).allowed
    assert not await way.settle(held, 0), "it is too late"
    assert (await way.peek("a")).remaining == 1
    assert way.limiter.snapshot()["holds"] == 0


@in_both_worlds
async def test_an_expired_hold_is_counted_as_of_its_end(world: World) -> None:
    """So that a look an hour later finds what a look in time would have found."""
    way = Way(world, Limiter(TokenBucket("10/10s")))
    for lasts, look, left in ((2, 7, 9), (2, 3, 5), (5, 100, 10), (1, 1, 4)):
        await way.reset("a")
        await way.reserve("a", 6, lasts=lasts)
        await world.passes(look)
        assert (await way.peek("a")).remaining == left


@in_both_worlds
async def test_by_default_a_hold_lasts_a_minute(world: World) -> None:
    way = Way(world, Limiter(TokenBucket("10/s")))
    await way.reserve("a", 10)
    await world.passes(59.9)
    assert (await way.peek("a")).remaining == 0
    await world.passes(0.2)
    assert (await way.peek("a")).remaining == 1


@in_both_worlds
async def test_a_block_settles_what_it_says_or_else_the_estimate(world: World) -> None:
    way = Way(world, Limiter(TokenBucket("100/d")))
    limiter = way.limiter

    async def block(estimate: int, actual: int | None, error: BaseException | None = None) -> None:
        if world.is_async:
            async with limiter.areserve("a", estimate) as held:
                if actual is not None:
                    await held.asettle(actual)
                if error is not None:
                    raise error
        else:
            with limiter.reserve("a", estimate) as held:
                if actual is not None:
                    held.settle(actual)
                if error is not None:
                    raise error

    await block(10, 3)
    assert limiter.peek("a").remaining == 97
    await block(10, None)
    assert limiter.peek("a").remaining == 87
    for error in (ValueError(), KeyboardInterrupt(), GeneratorExit(), asyncio.CancelledError()):
        with pytest.raises(type(error)):
            await block(10, None, error)
    with pytest.raises(ValueError, match="late"):
        await block(10, 1, ValueError("late"))
    assert limiter.peek("a").remaining == 46
    assert limiter.snapshot()["holds"] == 0


@in_both_worlds
async def test_several_limits_are_held_all_or_none_and_settled_by_name(world: World) -> None:
    limits = {"requests": TokenBucket("3/d"), "tokens": TokenBucket("1000/d")}
    way = Way(world, Limiter(limits, name="model"))

    async def left() -> dict[str, int]:
        return {name: part.remaining for name, part in (await way.peek("org", 0)).parts.items()}

    first = await way.reserve("org", {"requests": 1, "tokens": 800})
    assert await left() == {"requests": 2, "tokens": 200}
    error = await refusal(way.reserve("org", {"requests": 1, "tokens": 300}))
    assert "'tokens'" in str(error)
    assert await left() == {"requests": 2, "tokens": 200}, "nothing of it is held"
    assert await way.settle(first, tokens=120)
    assert await left() == {"requests": 2, "tokens": 880}, "the others count as held"
    only = await way.reserve("org", {"tokens": 100})
    assert await way.settle(only, 50)
    assert await left() == {"requests": 2, "tokens": 830}, "one number is for what is held"
    both = await way.reserve("org", {"requests": 1, "tokens": 10})
    assert await way.settle(both, requests=0, tokens=20)
    assert await left() == {"requests": 2, "tokens": 810}


@pytest.mark.parametrize("actual", [-1, 1.0, float("nan"), True, "3", -(10**30)])
@in_both_worlds
async def test_a_settlement_that_cannot_be_is_refused_and_leaves_it_open(world: World, actual: Any) -> None:
    way = Way(world, Limiter({"a": TokenBucket("10/d"), "b": TokenBucket("10/d")}, name="api"))
    held = await way.reserve("k", 5)
    with pytest.raises(ConfigError, match="api: cost"):
        await way.settle(held, actual)
    with pytest.raises(ConfigError, match="api: cost"):
        await way.settle(held, a=actual)
    with pytest.raises(ConfigError, match="api: cost"):
        await way.settle(held, unknown=1)
    assert not held.settled
    assert (await way.peek("k", 0)).remaining == 5
    assert await way.settle(held, 1)


def test_a_leaky_bucket_cannot_be_held() -> None:
    with pytest.raises(ConfigError, match="slots"):
        Limiter(LeakyBucket("5/s")).reserve("a")


@in_both_worlds
async def test_a_reset_forgets_what_is_used_and_not_what_is_held(world: World) -> None:
    way = Way(world, Limiter(TokenBucket("10/d")))
    await way.hit("a", 3)
    held = await way.reserve("a", 5)
    await way.reset("a")
    assert (await way.peek("a")).remaining == 5
    await way.settle(held, 5)
    assert (await way.peek("a")).remaining == 5


# -- waiting behind holds ----------------------------------------------------------------------------------------------


def test_a_waiter_is_served_as_soon_as_a_hold_is_settled() -> None:
    """And not when it would have expired."""

    async def main() -> None:
        limiter = Limiter(TokenBucket("10/h"))
        held = [await limiter.areserve("a", 5) for _ in range(2)]
        times: list[float] = []

        async def wait(cost: int) -> None:
            async with limiter.areserve("a", cost, max_wait=None) as mine:
                times.append(asyncio.get_running_loop().time())
                await asyncio.sleep(1)
                await mine.asettle(0)

        tasks = [await begin(wait(cost)) for cost in (4, 7, 6)]
        await asyncio.sleep(2)
        await held[0].asettle(0)
        await asyncio.sleep(3)
        held[1].cancel()
        await asyncio.gather(*tasks)
        assert times == [2, 5, 6]

    run(main)


@each_limit
def test_the_wait_behind_holds_is_tight(limit: Any) -> None:
    """If nobody settles them, each counts in full as it expires: a tick earlier it is refused, then it is admitted."""
    for used, holds, cost in (
        (0, [(5, 60)], 6), (3, [(5, 60)], 4), (3, [(2, 50), (2, 40), (1, 4000)], 9), (9, [(1, 10)], 10),
        (0, [(10, 7200)], 1), (10, [], 1), (2, [(4, 10), (4, 5000)], 3), (0, [(1, 1), (9, 3600)], 10),
    ):  # fmt: skip
        with VirtualClock(1_000_000) as time:
            limiter = Limiter(limit)
            limiter.hit("a", used)
            time.advance(100)
            for held, lasts in holds:
                limiter.reserve("a", held, lasts=lasts)
            refused = limiter.hit("a", cost)
            assert not refused.allowed
            time.advance(f"{refused.retry_after_ns - 1}ns")
            again = limiter.hit("a", cost)
            assert (again.allowed, again.retry_after_ns) == (False, 1)
            time.advance("1ns")
            assert limiter.hit("a", cost).allowed


def test_waiting_behind_a_hold_does_not_spin() -> None:
    """Also for a key that shares the sketch."""
    with VirtualClock() as time:
        limiter = Limiter(TokenBucket("10/s"), store=Memory(max_keys=1))
        limiter.hit("first")
        for key in ("first", "second"):
            limiter.reserve(key, 9, lasts=5)
            limiter.take(key, 9)
            assert len(time.sleeps) <= 4
            time.sleeps.clear()


# -- bounds ------------------------------------------------------------------------------------------------------------


def test_there_are_no_more_holds_than_keys_and_settled_ones_do_not_count() -> None:
    with VirtualClock() as time:
        limiter = Limiter(TokenBucket("1000/s"), store=Memory(max_keys=5), name="api")
        for _ in range(200):
            assert limiter.reserve("a").settle(1)
        held = [limiter.reserve(f"{number}", lasts=30 + number) for number in range(5)]
        with pytest.raises(RateLimited) as caught:
            limiter.reserve("one more")
        assert caught.value.retry_after == 30, "when the first of them expires"
        assert limiter.hit("one more").allowed
        held[3].cancel()
        assert limiter.reserve("one more").settle(1)
        time.advance(35)
        assert limiter.snapshot()["holds"] == 0
        assert limiter.reserve("one more").cancel()


def test_settled_holds_leave_nothing_behind() -> None:
    """Neither by key nor in the order of their ends, whatever the order in which they are settled."""
    limiter = Limiter(TokenBucket("1000000000/s"))
    holds = limiter._memory.holds
    held = [limiter.reserve(f"{number % 7}") for number in range(3_000)]
    assert len(holds) == 3_000
    for each in held[::2] + held[1::2]:
        assert each.settle(0)
    assert (len(holds), holds.by_key) == (0, {})
    assert len(holds._by_time) <= holds.SLACK
    first = limiter.reserve("stays", lasts="1h")
    for _ in range(3_000):
        limiter.reserve("a", lasts="2h").settle(0)
    assert len(holds._by_time) <= holds.SLACK + 3, "one that ends before them keeps those that were settled"
    assert first.settle()


def test_a_key_with_many_holds_is_as_quick_as_one_with_few() -> None:
    """Thousands of calls of one customer may be under way at once; nothing walks through them all."""
    limiter = Limiter(TokenBucket("1000000000/s"))
    held = [limiter.reserve("a") for _ in range(20_000)]
    begun = clock.now_ns()
    for each in held[:2_000]:
        limiter.hit("a")
        each.settle(1)
    assert clock.now_ns() - begun < 5_000_000_000, "that is a step for each of them, each time"
    assert limiter.snapshot()["holds"] == 18_000


# -- the bound ---------------------------------------------------------------------------------------------------------

STEP = st.tuples(
    st.sampled_from(["reserve", "reserve", "settle", "settle", "cancel", "hit", "look"]),
    st.one_of(st.sampled_from([0, 0, 1, 10**9, 5 * 10**9]), st.integers(0, 10**9)),
    st.integers(0, 9),
    st.integers(0, 30),
)


@LONG
@given(st.integers(1, 8), st.integers(1, 8), st.lists(STEP, max_size=30))
def test_level_and_holds_never_exceed_the_capacity(
    amount: int, burst: int, trace: list[tuple[str, int, int, int]]
) -> None:
    """Beside a level in fractions with a list of holds; each decision is the same, to the last unit."""
    machine = token_bucket.TokenBucket(amount, 10**9, burst)
    with VirtualClock() as time:
        limiter = Limiter(TokenBucket(f"{amount}/s", burst=burst))
        state: int | None = None
        out: list[tuple[Any, int, int]] = []  # the reservation, its cost, its end
        for step, pause, wanted, which in trace:
            time.advance(f"{pause}ns")
            now = time.now_ns
            for entry in sorted(out, key=lambda entry: entry[2]):
                if entry[2] <= now:
                    state = machine.add(state, entry[2], entry[1])
                    out.remove(entry)
            held = sum(entry[1] for entry in out)
            cost = min(wanted, burst)
            fits = machine.take(state, now, cost + held) is not None
            if step == "reserve":
                lasts = 1 + which
                try:
                    out.append((limiter.reserve("a", cost, lasts=lasts), cost, now + lasts * 10**9))
                    assert fits
                except RateLimited:
                    assert not fits
            elif step == "hit":
                assert limiter.hit("a", cost).allowed == fits
                state = machine.take(state, now, cost) if fits else state
            elif step in ("settle", "cancel") and out:
                reservation, _, _ = out.pop(which % len(out))
                actual = cost if step == "settle" else 0
                assert reservation.settle(actual)
                state = machine.add(state, now, actual) if actual else state
            held = sum(entry[1] for entry in out)
            assert limiter.peek("a").remaining == max(0, machine.left(state, now) - held)
            assert limiter.snapshot()["holds"] == len(out)


def test_two_who_settle_at_once_count_it_once() -> None:
    for _ in range(30):
        limiter = Limiter(TokenBucket("100/d"))
        held = [limiter.reserve("a", 10) for _ in range(5)]
        ends = in_threads([lambda each=each: each.settle(7) for each in held for _ in range(3)])
        assert sorted(ends) == [False] * 10 + [True] * 5
        assert limiter.peek("a").remaining == 65
        assert limiter.snapshot()["holds"] == 0
