"""`reconfigure`: what is used stays used, nobody meets a mixture of old and new, and the same again changes nothing."""

from __future__ import annotations

import threading
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
    RateLimit,
    SlidingLog,
    SlidingWindow,
    TokenBucket,
)
from seawall.policy import Policy
from seawall.testing import VirtualClock
from tests.limiter.ways import Way
from tests.machines.effort import LONG
from tests.policies.worlds import World, in_both_worlds

KINDS = [TokenBucket, FixedWindow, SlidingWindow, SlidingLog]


@pytest.mark.parametrize("kind", KINDS)
@in_both_worlds
async def test_what_is_used_stays_used(world: World, kind: Any) -> None:
    way = Way(world, Limiter(kind("10/h")))
    await way.hit("a", 4)
    await way.hit("b", 10)
    before = await way.hit("b")
    way.limiter.reconfigure(kind("25/h"))
    assert (await way.peek("a")).remaining == 21
    assert (await way.hit("b", 15)).allowed
    assert not (await way.hit("b", 1)).allowed
    assert (before.capacity, before.remaining) == (10, 0), "an answer speaks of the limit that gave it"
    way.limiter.reconfigure(kind("6/h"))
    assert (await way.peek("a")).remaining == 2
    assert not (await way.hit("b")).allowed
    assert (await way.peek("c")).remaining == 6
    assert way.limiter.snapshot()["limits"] == {kind.__name__: repr(kind("6/h"))}


@in_both_worlds
async def test_a_bucket_that_has_become_smaller_is_full_and_no_more(world: World) -> None:
    way = Way(world, Limiter(TokenBucket("1000/h")))
    await way.hit("a", 1000)
    way.limiter.reconfigure(TokenBucket("6/h"))
    assert (await way.hit("a")).retry_after == 600


@in_both_worlds
async def test_a_debt_stays_a_debt(world: World) -> None:
    """Setting the limit again is no way to be rid of it."""
    way = Way(world, Limiter(TokenBucket("10/min")))
    await way.settle(await way.reserve("a", 1), 10**6)
    for rate in ("10/min", "20/min", "10/min"):
        way.limiter.reconfigure(TokenBucket(rate))
    # Twice ten, and twenty of twenty is no debt, so what is left of it is one full bucket of ten.
    assert 0 < (await way.hit("a")).retry_after <= 66
    way = Way(world, Limiter(TokenBucket("10/min", burst=5)))
    await way.settle(await way.reserve("a", 1), 10**6)
    way.limiter.reconfigure(TokenBucket("10/min", burst=4))
    assert (await way.hit("a")).retry_after == pytest.approx(6 * 5)


@pytest.mark.parametrize("kind", KINDS)
@in_both_worlds
async def test_being_set_again_and_again_holds_nobody_back(world: World, kind: Any) -> None:
    """To the same numbers, or to and fro: what time gives back it gives back."""
    for other in ("10/10s", "11/10s"):
        way = Way(world, Limiter(kind("10/10s")))
        await way.hit("a", 10)
        for number in range(120):
            await world.passes(0.1)
            way.limiter.reconfigure(kind(other if number % 2 else "10/10s"))
        assert (await way.hit("a", 9)).allowed


@in_both_worlds
async def test_slots_that_are_handed_out_stay_and_the_pace_changes_behind_them(world: World) -> None:
    way = Way(world, Limiter(LeakyBucket("2/s", queue=9)))
    for _ in range(3):
        way.limiter._memory.queue_up("a", 1, None)  # at 0, 0.5 and 1
    way.limiter.reconfigure(LeakyBucket("1/5s", queue=9))
    assert (await way.hit("a")).retry_after == 6
    way.limiter.reconfigure(LeakyBucket("10/s", queue=9))
    assert (await way.hit("a")).retry_after == pytest.approx(1.1)


@in_both_worlds
async def test_only_what_is_changed_is_changed(world: World) -> None:
    """The other limits are not even touched, nor is anything when it is refused."""
    limits = {"a": TokenBucket("10/h"), "b": TokenBucket("5/h", warm_up="1h")}
    way = Way(world, Limiter(limits, name="api"))
    await way.hit("k", {"a": 4})
    await world.passes(600)
    warming = way.limiter._table.drawers["b"].limit
    way.limiter.reconfigure({**limits, "a": TokenBucket("20/h")})
    assert way.limiter._table.drawers["b"].limit is warming
    bad: list[Any] = [
        {"a": TokenBucket("9/h")}, {"a": TokenBucket("9/h"), "c": TokenBucket("9/h")},
        {"a": SlidingWindow("9/h"), "b": TokenBucket("5/h", warm_up="1h")},
        {"a": TokenBucket("9/h"), "b": TokenBucket("5/h")}, TokenBucket("9/h"), {}, None,
        {"a": TokenBucket("9/h"), "b": "5/h"},
    ]  # fmt: skip
    for change in bad:
        with pytest.raises(ConfigError, match="api"):
            way.limiter.reconfigure(change)
        assert (await way.peek("k", 0)).parts["a"].capacity == 20


@in_both_worlds
async def test_a_limit_that_warms_up_goes_on_with_it(world: World) -> None:
    """It began when the limiter was made, and does not begin anew."""
    way = Way(world, Limiter(TokenBucket("100/s", burst=1, warm_up="10s", cold=0.1)))
    await world.passes(100)
    way.limiter.reconfigure(TokenBucket("200/s", burst=1, warm_up="10s", cold=0.1))
    await way.hit("a")
    assert (await way.hit("a")).retry_after == pytest.approx(0.005)
    cold = Way(world, Limiter(TokenBucket("100/s", burst=1, warm_up="10s", cold=0.1)))
    cold.limiter.reconfigure(TokenBucket("100/s", burst=1, warm_up="20s", cold=0.1))
    await cold.hit("a")
    assert (await cold.hit("a")).retry_after == pytest.approx(0.1, rel=0.05)


@in_both_worlds
async def test_holds_stay_held(world: World) -> None:
    way = Way(world, Limiter(TokenBucket("10/d")))
    held = await way.reserve("a", 8)
    way.limiter.reconfigure(TokenBucket("12/d"))
    assert (await way.peek("a")).remaining == 4
    way.limiter.reconfigure(TokenBucket("5/d"))
    refused = await way.hit("a", 1)
    assert not refused.allowed
    assert refused.retry_after >= 60, "when the hold ends it counts in full"
    assert await way.settle(held, 3)
    assert (await way.hit("a", 2)).allowed
    assert not (await way.hit("a", 1)).allowed


@in_both_worlds
async def test_keys_in_the_sketch_stay_used_too(world: World) -> None:
    way = Way(world, Limiter(TokenBucket("10/h"), store=Memory(max_keys=1)))
    await way.hit("first")
    await way.hit("second", 10)
    way.limiter.reconfigure(TokenBucket("20/h"))
    assert (await way.hit("second", 10)).allowed
    assert not (await way.hit("second")).allowed


@in_both_worlds
async def test_what_was_taken_under_other_numbers_is_not_given_back(world: World) -> None:
    limiter = Limiter(TokenBucket("10/h"))
    before = limiter.hit("a", 5)
    limiter.reconfigure(TokenBucket("20/h"))
    limiter.give_back("a", 5, before)
    assert limiter.peek("a").remaining == 15
    limiter.give_back("a", 5, limiter.hit("a", 5))
    assert limiter.peek("a").remaining == 15


def test_a_method_that_was_kept_from_before_decides_by_the_new_numbers() -> None:
    """`hit = limiter.hit`, as anyone does who cares for speed; and the layers of policies."""
    for kind in KINDS:
        with VirtualClock("1h"):
            limiter = Limiter(kind("10/s"))
            policy = Policy(RateLimit(limiter))
            hit = limiter.hit
            hit()
            for rate in ("3/h", "20/min", "10/s"):
                limiter.reconfigure(kind(rate))
                capacity = int(rate.partition("/")[0])
                assert hit("fresh " + rate, 1).capacity == capacity
                assert hit("fresh " + rate, 1).remaining == capacity - 2
            policy.call(str)
            assert hit().remaining == limiter.peek().remaining


STEP = st.one_of(
    st.tuples(st.just("hit"), st.sampled_from("ab"), st.integers(1, 5)),
    st.tuples(st.just("pass"), st.just(""), st.sampled_from([1, 10**8, 10**9, 15 * 10**9, 100 * 10**9])),
    st.tuples(st.just("change"), st.just(""), st.integers(1, 9)),
)


@LONG
@given(st.sampled_from(KINDS), st.lists(STEP, max_size=25))
def test_a_kept_method_and_the_careful_way_are_equal_through_all_changes(kind: Any, trace: list[Any]) -> None:
    with VirtualClock("1h") as time:
        fast, careful = Limiter(kind("5/s")), Limiter(kind("5/s"))
        hit = fast.hit
        for step, key, number in trace:
            if step == "pass":
                time.advance(f"{number}ns")
            elif step == "change":
                for limiter in (fast, careful):
                    limiter.reconfigure(kind(f"{number}/{number + 1}s"))
            elif number <= careful.peek(key).capacity:
                one, other = hit(key, number), careful._hit(key, number)
                assert one.allowed == other.allowed
                assert (one.remaining, one.retry_after_ns, one.reset_after, one.capacity) == (
                    other.remaining,
                    other.retry_after_ns,
                    other.reset_after,
                    other.capacity,
                )


def test_threads_that_hit_meanwhile_get_neither_more_nor_an_error() -> None:
    """A limit of 1,000 that is set to 1,000 in other words all the time."""
    limiter = Limiter(TokenBucket("1000/d"))
    ends: list[int] = []
    errors: list[BaseException] = []

    def hits() -> None:
        try:
            ends.append(sum(limiter.hit("a").allowed for _ in range(3_000)))
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=hits) for _ in range(3)]
    for thread in threads:
        thread.start()
    for number in range(300):
        limiter.reconfigure(TokenBucket("1000/d" if number % 2 else "500/12h", burst=1000))
    for thread in threads:
        thread.join()
    assert (errors, sum(ends)) == ([], 1000)
