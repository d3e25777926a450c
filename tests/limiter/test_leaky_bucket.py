"""`LeakyBucket`: one slot after another at the rate, first come first served, for no more and no longer than may wait."""

from __future__ import annotations

import asyncio
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seawall import LeakyBucket, Limiter, Memory, RateLimited, deadline
from seawall.machines.leaky_bucket import LeakyBucket as Machine
from seawall.testing import VirtualClock, run
from tests.limiter.ways import Way, ask, begin, refusal
from tests.machines.effort import QUICK
from tests.policies.worlds import World, all_end, in_both_worlds


@in_both_worlds
async def test_calls_start_evenly_spaced_at_the_rate(world: World) -> None:
    way = Way(world, Limiter(LeakyBucket("4/s", queue=9)))
    times = []
    for _ in range(9):
        assert (await way.take("a")).allowed
        times.append(world.now)
    assert times == pytest.approx([number / 4 for number in range(9)])
    await world.passes(10)
    begun = world.now
    for _ in range(3):
        await way.take("a")
    assert world.now == pytest.approx(begun + 0.5), "a pause saves nothing up"


def test_those_who_come_at_once_get_slots_in_their_order() -> None:
    async def main() -> None:
        limiter = Limiter(LeakyBucket("10/s", queue=50))
        tasks = [await begin(ask(limiter, "a", cost)) for cost in (1, 3, 1, 2, 1)]
        assert [round(await task, 6) for task in tasks] == [0, 0.1, 0.4, 0.5, 0.7]
        assert await ask(limiter, "b") == pytest.approx(0.7), "another key has its own slots"

    run(main)


def test_no_more_wait_than_the_queue_holds() -> None:
    """A cost of n has n slots; those behind its first are in the queue."""

    async def main() -> None:
        limiter = Limiter(LeakyBucket("1/s", queue=3), name="out")
        tasks = [await begin(ask(limiter, "a", cost)) for cost in (1, 2, 1)]
        error = await refusal(limiter.atake("a"))
        assert error.policy == "out"
        await asyncio.sleep(1)
        assert (await refusal(limiter.atake("a", 2))).retry_after
        tasks.append(await begin(ask(limiter, "a")))
        assert [round(await task, 6) for task in tasks] == [0, 1, 3, 4]
        assert limiter.refused == 2

    run(main)


def test_without_a_queue_nobody_waits() -> None:
    with VirtualClock() as time:
        limiter = Limiter(LeakyBucket("1/s"))
        limiter.take("a")
        with pytest.raises(RateLimited) as caught:
            limiter.take("a")
        assert caught.value.retry_after == 1
        time.advance(caught.value.retry_after)
        assert limiter.take("a").allowed
        assert time.sleeps == []


@in_both_worlds
async def test_nobody_waits_longer_than_he_or_the_bucket_or_his_call_may(world: World) -> None:
    way = Way(world, Limiter(LeakyBucket("1/s", queue=9, max_wait=2.5)))
    for cost in (1, 1):
        way.limiter._memory.queue_up("a", cost, None)
    await refusal(way.take("a", max_wait=1.9))
    with deadline(1.9):
        await refusal(way.take("a"))
    assert world.now == 0, "refused at once"
    way.limiter._memory.queue_up("a", 1, None)
    await refusal(way.take("a"))
    await world.passes(0.5)
    assert (await way.take("a", max_wait=2.5)).allowed
    assert world.now == pytest.approx(3)


@in_both_worlds
async def test_what_is_refused_takes_no_slot(world: World) -> None:
    way = Way(world, Limiter(LeakyBucket("1/s", queue=1)))
    await way.take("a", 2)
    for _ in range(20):
        await refusal(way.take("a", 2))
        assert not (await way.hit("a")).allowed
        await refusal(way.take("a", max_wait=1))
    assert (await way.peek("a")).retry_after == 2


@in_both_worlds
async def test_looking_at_it_takes_no_slot_and_waits_for_none(world: World) -> None:
    way = Way(world, Limiter(LeakyBucket("1/s", queue=1)))
    await way.take("a", 2)
    for ask_ in (way.take, way.hit, way.peek):
        assert (await ask_("a", 0)).allowed
    assert world.now == 0
    assert (await way.peek("a")).retry_after == 2


@QUICK
@given(
    st.integers(1, 9),
    st.sampled_from([7, 10**9]),
    st.integers(0, 6),
    st.lists(st.tuples(st.fractions(0, 3, max_denominator=7), st.integers(1, 7), st.booleans()), max_size=25),
)
def test_the_queue_is_equal_to_a_list_of_slots(
    amount: int, period: int, queue: int, trace: list[tuple[Fraction, int, bool]]
) -> None:
    """Every slot written down; the last may be given back at once if its owner goes."""
    limit, now = Machine(amount, period, queue), 10**18
    step = Fraction(period, amount)
    slots: list[Fraction] = []
    state: int | None = None
    for pause, wanted, goes in trace:
        now += int(pause * step)
        cost = min(wanted, queue + 1)
        first = max([Fraction(now), *(slot + step for slot in slots[-1:])])
        mine = [first + number * step for number in range(cost)]
        waiting = sum(slot > now for slot in slots + mine)
        placed = limit.queue_up(state, now, cost, None)
        assert (placed is not None) == (waiting <= queue or first <= now)
        if placed is None:
            continue
        state, wait = placed
        assert wait == -(-(first - now) // 1)
        assert limit.queue_up(state, now, 1, limit.wait(state, now, 1) - 1) is None, "beyond its patience"
        if goes:
            state = limit.leave(state, placed[0], cost)
        else:
            slots += mine
    if state is not None:
        rest = limit.rest(state, now)
        assert now + rest == -(-max([Fraction(now), *(slot + step for slot in slots[-1:])]) // 1)


def test_a_slot_that_somebody_stands_behind_is_spent_and_the_last_goes_back() -> None:
    limiter = Limiter(LeakyBucket("1/s", queue=9))
    table = limiter._memory
    with VirtualClock():
        places = [table.queue_up("a", cost, None) for cost in (1, 2, 3)]
        assert [wait / 1e9 for _, wait, _ in places] == [0, 1, 3]
        table.leave_slot(places[1][2])
        assert limiter.peek("a").retry_after == 6, "somebody stands behind it"
        table.leave_slot(places[2][2])
        assert limiter.peek("a").retry_after == 3, "the last"
        table.leave_slot(places[2][2])
        assert limiter.peek("a").retry_after == 3, "not twice"
        table.leave_slot(None)


def test_keys_without_room_of_their_own_are_paced_too() -> None:
    """They share the sketch, and do not wait there: who would have to is refused, with the time that it takes."""
    with VirtualClock() as time:
        limiter = Limiter(LeakyBucket("1/s", queue=3), store=Memory(max_keys=1))
        limiter.take("first")
        assert limiter.take("second").allowed
        with pytest.raises(RateLimited) as caught:
            limiter.take("second")
        assert caught.value.retry_after == 1
        time.advance(1)
        assert limiter.hit("second").allowed
        assert not limiter.hit("second").allowed
        # Several at once have to find it at rest for as long as they take, and do find it so in the end.
        refused = limiter.hit("second", 3)
        time.advance(refused.retry_after)
        assert limiter.hit("second", 3).allowed


def test_a_hundred_waiters_go_out_at_the_rate() -> None:
    async def main() -> None:
        limiter = Limiter(LeakyBucket("100/s", queue=99))
        times: list[float] = []

        async def go() -> None:
            times.append(await ask(limiter, "out"))

        await all_end([go() for _ in range(100)])
        assert times == pytest.approx([number / 100 for number in range(100)])

    for seed in (None, 0, 1):
        run(main, seed=seed)
