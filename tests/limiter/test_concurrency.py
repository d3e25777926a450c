"""`ConcurrencyLimit`: at most so many of a key at a time, given back in every case, waited for in turn; in this process."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import threading
from collections.abc import AsyncIterator
from typing import Any

import pytest

import seawall
from seawall import (
    Concurrency,
    ConcurrencyLimit,
    ConfigError,
    DeadlineExceeded,
    Limiter,
    Memory,
    Policy,
    RateLimit,
    RateLimited,
    Retry,
    TokenBucket,
    deadline,
    events,
)
from seawall.limiter.slots import Slot
from seawall.testing import Victim, VirtualClock, cancel_everywhere, run
from tests.limiter.ways import begin
from tests.policies.worlds import World, heard, in_both_worlds, in_threads


@contextlib.asynccontextmanager
async def inside(world: World, limit: ConcurrencyLimit, key: str = "ann", **how: Any) -> AsyncIterator[Slot]:
    """A slot, in one of the two ways."""
    if world.is_async:
        async with limit.slot(key, **how) as slot:
            yield slot
    else:
        with limit.slot(key, **how) as slot:
            yield slot


async def refused(world: World, limit: ConcurrencyLimit, key: str = "ann", **how: Any) -> RateLimited:
    with pytest.raises(RateLimited) as caught:
        async with inside(world, limit, key, **how):
            pass
    return caught.value


def nobody_is_in(limit: ConcurrencyLimit) -> None:
    told = limit.snapshot()
    assert (told["keys"], told["waiting"]) == (0, 0)


# -- alone -------------------------------------------------------------------------------------------------------------


@in_both_worlds
async def test_so_many_of_a_key_and_no_more_and_other_keys_are_left_alone(world: World) -> None:
    limit = ConcurrencyLimit(2, name="exports")
    async with inside(world, limit) as first, inside(world, limit) as second:
        assert (first.decision.remaining, second.decision.remaining) == (1, 0)
        with heard(events.LimitReached) as seen:
            error = await refused(world, limit)
        assert str(error) == "exports: limit 'ConcurrencyLimit' reached (2 of 2 used, 1 more asked); retry in 30 s"
        assert error.headers()["RateLimit-Policy"] == '"ConcurrencyLimit";q=2;qu="concurrent-requests"'
        assert error.headers()["Retry-After"] == "30"
        assert [(event.policy, event.layer, event.shadow) for event in seen] == [("exports", "ConcurrencyLimit", False)]
        async with inside(world, limit, "ben"):
            assert limit.peek("ben").remaining == 1
    assert limit.refused == 1
    nobody_is_in(limit)
    assert limit.peek("ann").remaining == 2


@in_both_worlds
async def test_a_block_that_raises_gives_its_slot_back(world: World) -> None:
    limit = ConcurrencyLimit(1)
    with pytest.raises(KeyError):
        async with inside(world, limit):
            raise KeyError
    nobody_is_in(limit)


@in_both_worlds
async def test_whoever_works_for_longer_than_a_lease_keeps_his_slot(world: World) -> None:
    limit = ConcurrencyLimit(1, lease="1s")
    async with inside(world, limit) as slot:
        for _ in range(10):
            await world.passes(0.7)
            assert (await refused(world, limit)).retry_after <= 1  # type: ignore[operator]
        assert not slot.lost
        await world.passes(100)
        await refused(world, limit)
    nobody_is_in(limit)


@in_both_worlds
async def test_a_slot_that_was_lost_without_a_word_is_free_after_a_lease(world: World) -> None:
    limit = ConcurrencyLimit(1, lease="1s")
    block = limit.slot("ann")
    await block.__aenter__() if world.is_async else block.__enter__()
    await world.passes(5)
    await refused(world, limit)
    del block
    gc.collect()
    await world.passes(0.999)
    assert not limit.peek("ann")
    await world.passes(0.001)
    assert limit.peek("ann")


@in_both_worlds
async def test_shadow_refuses_nobody_and_counts_only_those_who_had_a_slot(world: World) -> None:
    limit = ConcurrencyLimit(1, name="trial", shadow=True)
    with heard(events.LimitReached) as seen:
        async with inside(world, limit), inside(world, limit), inside(world, limit, max_wait=5):
            assert not limit.peek("ann")
    assert [event.shadow for event in seen] == [True, True]
    assert (limit.refused, world.now) == (2, 0)
    nobody_is_in(limit)


@in_both_worlds
async def test_switched_off_it_counts_nothing(world: World) -> None:
    limit = ConcurrencyLimit(1)
    seawall.disable()
    try:
        async with inside(world, limit), inside(world, limit):
            nobody_is_in(limit)
    finally:
        seawall.enable()


@in_both_worlds
async def test_reset_forgets_who_is_inside_and_his_end_throws_nobody_out(world: World) -> None:
    limit = ConcurrencyLimit(1)
    async with contextlib.AsyncExitStack() as old:
        await old.enter_async_context(inside(world, limit))
        if world.is_async:
            await limit.areset("ann")
        else:
            limit.reset("ann")
        async with inside(world, limit):
            await old.aclose()
            await refused(world, limit)
    nobody_is_in(limit)


@in_both_worlds
async def test_a_smaller_limit_throws_nobody_out_and_a_larger_one_lets_in_at_once(world: World) -> None:
    limit = ConcurrencyLimit(2)
    async with inside(world, limit):
        async with inside(world, limit):
            limit.reconfigure(1)
            assert limit.limit == 1
            await refused(world, limit)
        await refused(world, limit)
        limit.reconfigure(2, lease="2s")
        assert (limit.limit, limit.lease) == (2, 2)
        async with inside(world, limit):
            await refused(world, limit)
    with pytest.raises(ConfigError):
        limit.reconfigure(0)
    assert limit.snapshot()["limit"] == 2


@pytest.mark.parametrize(
    "wrong",
    [
        {"limit": 0}, {"limit": True}, {"limit": 1.5}, {"limit": "3"}, {"limit": 100_001}, {"lease": 0}, {"lease": "5ms"},
        {"lease": "2d"}, {"lease": float("nan")}, {"name": ""}, {"store": object()}, {"shadow": 1}, {"max_waiting": -1},
    ],
)  # fmt: skip
def test_a_wrong_setting_is_an_error_that_names_it(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as caught:
        ConcurrencyLimit(**{"limit": 1, **wrong})
    assert next(iter(wrong)) in str(caught.value)


def test_it_is_no_rate_and_says_how_it_is_used() -> None:
    limit: Any = ConcurrencyLimit(1)
    for mistaken in (limit, {"requests": TokenBucket("1/s"), "concurrent": limit}):
        with pytest.raises(ConfigError, match=r"with limit\.slot\(key\)"):
            Limiter(mistaken)
    with pytest.raises(ConfigError, match=r"Concurrency\(\.\.\.\)"):
        RateLimit(limit)


def test_a_key_must_tell_callers_apart() -> None:
    limit = ConcurrencyLimit(1)
    for key in (None, 42):
        with pytest.raises(ConfigError, match="key"), limit.slot(key):  # type: ignore[arg-type]
            pass
    with limit.slot(), limit.slot(b"\xff"), limit.slot("\ud800"), limit.slot("x" * 10_000_000):
        assert limit.snapshot()["keys"] == 4


def test_one_block_is_entered_once_at_a_time() -> None:
    block = ConcurrencyLimit(2).slot("ann")
    with block, pytest.raises(RuntimeError, match="slot"), block:
        pass
    with block:
        pass


def test_keys_without_holders_are_forgotten_and_more_keys_than_allowed_are_refused() -> None:
    limit = ConcurrencyLimit(1, lease="1s", store=Memory(max_keys=100))
    for number in range(10_000):
        with limit.slot(f"user {number}"):
            pass
    nobody_is_in(limit)
    with VirtualClock() as clock:
        held = [limit.slot(f"user {number}") for number in range(100)]
        for block in held:
            block.__enter__()
        with pytest.raises(RateLimited), limit.slot("one more"):
            pass
        del held, block
        gc.collect()
        clock.advance(1)
        for _ in range(200):
            limit.peek("nobody")
        nobody_is_in(limit)


# -- waiting -----------------------------------------------------------------------------------------------------------


def test_whoever_waits_is_served_first_come_first_served_and_as_soon_as_there_is_room() -> None:
    async def main() -> None:
        limit = ConcurrencyLimit(1)
        served: list[tuple[int, float]] = []

        async def work(number: int) -> None:
            async with limit.slot("ann", max_wait=None):
                served.append((number, asyncio.get_running_loop().time()))
                await asyncio.sleep(1)

        await asyncio.gather(*(work(number) for number in range(5)))
        assert served == [(number, float(number)) for number in range(5)]
        nobody_is_in(limit)

    run(main, seed=None)


def test_nobody_overtakes_those_who_wait() -> None:
    async def main() -> None:
        limit = ConcurrencyLimit(1)
        async with limit.slot("ann"):
            waiting = await begin(enter_and_leave(limit))
        with pytest.raises(RateLimited):
            async with limit.slot("ann"):
                pass
        async with limit.slot("ben"):
            await waiting
        nobody_is_in(limit)

    run(main)


async def enter_and_leave(limit: ConcurrencyLimit, max_wait: Any = None) -> None:
    async with limit.slot("ann", max_wait=max_wait):
        await asyncio.sleep(0.5)


def test_patience_ends_as_was_said_and_so_does_the_callers_deadline() -> None:
    async def main() -> None:
        limit = ConcurrencyLimit(1, max_waiting=1)
        async with limit.slot("ann"):
            began = asyncio.get_running_loop().time()
            with pytest.raises(RateLimited, match="2 s"):
                await enter_and_leave(limit, 2)
            assert asyncio.get_running_loop().time() - began == pytest.approx(2)
            with deadline("1s"), pytest.raises(DeadlineExceeded):
                await enter_and_leave(limit, None)
            assert asyncio.get_running_loop().time() - began == pytest.approx(3)
            first = await begin(enter_and_leave(limit))
            with pytest.raises(RateLimited, match="too many"):
                await enter_and_leave(limit)
        await first
        nobody_is_in(limit)

    run(main)


def test_a_larger_limit_wakes_those_who_wait() -> None:
    async def main() -> None:
        limit = ConcurrencyLimit(1)
        async with limit.slot("ann"):
            waiting = [await begin(enter_and_leave(limit)) for _ in range(3)]
            await asyncio.sleep(1)
            assert limit.snapshot()["waiting"] == 3
            limit.reconfigure(3)
            await asyncio.sleep(0.1)
            assert limit.snapshot()["waiting"] == 1
            await asyncio.gather(*waiting)
        nobody_is_in(limit)

    run(main)


@pytest.mark.parametrize("others", [0, 1, 2])
def test_cancelled_at_any_point_it_leaves_nothing_behind(others: int) -> None:
    async def scenario(victim: Victim) -> None:
        limit = ConcurrencyLimit(1)
        beside = [await begin(enter_and_leave(limit)) for _ in range(others)]

        async def follow() -> None:
            await asyncio.sleep(0.2)
            await enter_and_leave(limit)

        coming = asyncio.create_task(follow())
        await victim(enter_and_leave(limit))
        await asyncio.gather(coming, *beside)
        nobody_is_in(limit)
        assert asyncio.get_running_loop().time() <= 0.2 + 0.5 * (others + 2) + 1e-6

    assert cancel_everywhere(scenario, twice=True) > 4


def test_threads_never_are_more_than_the_limit_inside_and_all_are_served() -> None:
    limit = ConcurrencyLimit(3)
    now, most, lock = 0, 0, threading.Lock()

    def work() -> None:
        nonlocal now, most
        for _ in range(50):
            with limit.slot("ann", max_wait=None):
                with lock:
                    now += 1
                    most = max(most, now)
                with lock:
                    now -= 1

    assert in_threads([work] * 8) == [None] * 8
    assert most <= 3
    nobody_is_in(limit)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_has_none_of_the_slots_of_its_parent_and_gives_none_of_them_back() -> None:
    limit = ConcurrencyLimit(1)
    read, write = os.pipe()
    with contextlib.ExitStack() as stack:
        stack.enter_context(limit.slot("ann"))
        pid = os.fork()
        if not pid:
            good = bool(limit.peek("ann"))
            with limit.slot("ann"):
                stack.close()
                good = good and not limit.peek("ann")
            os.write(write, b"y" if good else b"n")
            os._exit(0)
        assert os.read(read, 1) == b"y"
        os.waitpid(pid, 0)
        assert not limit.peek("ann")
    nobody_is_in(limit)
    os.close(read)
    os.close(write)


def test_a_finalizer_in_the_midst_of_a_step_leaves_nothing_behind() -> None:
    limit = ConcurrencyLimit(5)

    def hold() -> Any:
        with limit.slot("ann"):
            yield

    class Cycle:
        def __init__(self) -> None:
            self.me = self
            self.held = hold()
            next(self.held)

    before = gc.get_threshold()
    gc.set_threshold(1)
    try:
        for _ in range(200):
            with contextlib.suppress(RateLimited):
                Cycle()
            with contextlib.suppress(RateLimited), limit.slot("ann"):
                pass
    finally:
        gc.set_threshold(*before)
    gc.collect()
    nobody_is_in(limit)


# -- as a layer ----------------------------------------------------------------------------------------------------------


@in_both_worlds
async def test_a_layer_holds_a_slot_while_the_call_runs(world: World) -> None:
    limit = ConcurrencyLimit(1, name="exports")
    policy = Policy(Concurrency(limit, key=lambda user: user), name="p")

    def work(user: str) -> int:
        if user == "ann":
            assert not limit.peek("ann")
        return limit.peek("ben").remaining

    assert await world.call(policy, work, "ann") == 1
    assert await world.call(policy, work, "ben") == 0
    nobody_is_in(limit)
    async with inside(world, limit):
        with heard(events.CallRefused) as seen:
            error = await world.error_of(policy, work, "ann")
        assert isinstance(error, RateLimited)
        assert (error.policy, seen[0].reason) == ("p", "rate_limited")
        watching = Policy(Concurrency(limit, key=lambda user: user), name="w", shadow=True)
        assert await world.call(watching, work, "ann") == 1
    assert policy[Concurrency].snapshot()["refused"] == 1
    assert "exports" in policy.explain()
    with pytest.raises(TypeError, match="Concurrency"):
        policy.guard()
    nobody_is_in(limit)


@in_both_worlds
async def test_inside_a_retry_each_attempt_has_a_slot_of_its_own(world: World) -> None:
    limit = ConcurrencyLimit(1)
    policy = Policy(Retry(on=ConnectionError, attempts=3), Concurrency(limit), name="p")
    seen: list[int] = []

    def work() -> None:
        seen.append(limit.peek().remaining)
        raise ConnectionError

    assert isinstance(await world.error_of(policy, work), ConnectionError)
    assert seen == [0, 0, 0]
    nobody_is_in(limit)


def test_a_cancelled_call_through_a_policy_leaves_nothing_behind() -> None:
    async def scenario(victim: Victim) -> None:
        limit = ConcurrencyLimit(1)
        policy = Policy(Concurrency(limit, max_wait=None), name="p")
        other = await begin(policy.acall(asyncio.sleep, 1))
        await victim(policy.acall(asyncio.sleep, 1))
        await other
        nobody_is_in(limit)

    assert cancel_everywhere(scenario, twice=True) > 4


@in_both_worlds
async def test_the_decorator_is_such_a_policy(world: World) -> None:
    limit = ConcurrencyLimit(1, name="exports")
    policy = limit.around(key=lambda user: user)
    assert await world.call(policy, lambda user: limit.peek(user).remaining, "ann") == 0
    assert policy.name == "exports"
    for wrong in ({"limit": 3}, {"limit": limit, "max_wait": -1}, {"limit": limit, "key": "user"}):
        with pytest.raises(ConfigError):
            Concurrency(**wrong)
