"""`Timeout`: async calls end in time; synchronous ones are told the deadline, and nothing is claimed that is not done."""

from __future__ import annotations

import asyncio
import math

import pytest

from seawall import ConfigError, DeadlineExceeded, Policy, Retry, Timeout, current, deadline, remaining
from seawall.events import TimedOut
from seawall.testing import Script, VirtualClock, run, slow
from tests.policies.worlds import World, all_end, fail, heard, in_both_worlds


def layer(policy: Policy) -> object:
    return policy["Timeout"]


@in_both_worlds
async def test_zero_fails_at_once_without_a_call(world: World) -> None:
    target = Script("never")
    error = await world.error_of(Policy(Timeout(0), name="stock"), target)
    assert isinstance(error, DeadlineExceeded)
    assert isinstance(error, TimeoutError)
    assert not error.inherited
    assert str(error) == "stock: no answer within 0 ms"
    assert not target.calls


@in_both_worlds
async def test_none_sets_no_limit_of_its_own(world: World) -> None:
    assert await world.call(Policy(Timeout(None)), Script(slow(1e6, "late"))) == "late"


@in_both_worlds
async def test_with_none_the_callers_deadline_holds(world: World) -> None:
    target = Script("never")
    with deadline(0):
        error = await world.error_of(Policy(Timeout(None)), target)
    assert isinstance(error, DeadlineExceeded)
    assert error.inherited
    assert not target.calls


@pytest.mark.parametrize("bad", [math.nan, math.inf, -1, "-1s", "soon", "", True, "1", b"1s", 1e30, "१s", [1]])
def test_what_is_no_duration_is_named(bad: object) -> None:
    """NaN above all: asyncio takes it for "no timeout"."""
    with pytest.raises(ConfigError, match=r"Timeout\(time=.*expected seconds as a number.*at least 0"):
        Timeout(bad)


@in_both_worlds
async def test_the_function_can_ask_how_long_it_has(world: World) -> None:
    asked: list[float | None] = []
    await world.call(Policy(Timeout(3)), lambda: asked.append(remaining()))
    with deadline(2):
        await world.call(Policy(Timeout(3)), lambda: asked.append(remaining()))
    assert asked == [3, 2]
    assert remaining() is None


@in_both_worlds
async def test_the_deadline_is_gone_after_any_end(world: World) -> None:
    policy = Policy(Timeout(3))
    for error in (OSError, KeyboardInterrupt, asyncio.CancelledError):
        await world.error_of(policy, fail(error))
        assert current().deadline_ns is None


@in_both_worlds
async def test_per_attempt_inside_retry_and_total_outside(world: World) -> None:
    target = Script(slow(1, OSError))
    policy = Policy(
        Timeout("5.5s", name="total"), Retry(on=OSError, attempts=9, delay=1, budget=None), Timeout(2, name="each")
    )
    await world.error_of(policy, target)
    assert target.times == [0, 2, 4]
    assert (policy["total"].timed_out, policy["each"].timed_out) == (0, 0)


def test_an_async_call_ends_in_time_and_its_function_is_cancelled() -> None:
    target = Script(slow(60))

    async def main() -> None:
        policy = Policy(Timeout("1.5s"), name="stock")
        with heard(TimedOut) as seen, pytest.raises(DeadlineExceeded) as caught:
            await policy.acall(target.aio)
        assert asyncio.get_running_loop().time() == 1.5
        assert str(caught.value) == "stock: no answer within 1.5 s"
        assert (caught.value.timeout, caught.value.policy) == (1.5, "stock")
        assert isinstance(caught.value.__cause__, asyncio.CancelledError)
        assert target.cancelled == 1
        assert [(event.timeout, event.inherited, event.shadow) for event in seen] == [(1.5, False, False)]
        assert layer(policy).timed_out == 1

    run(main)


def test_attempts_that_time_out_are_retried() -> None:
    target = Script(slow(60), slow(60), "well")

    async def main() -> None:
        policy = Policy(Retry(on=TimeoutError, delay=0, budget=None), Timeout(1))
        assert await policy.acall(target.aio) == "well"
        assert target.times == [0, 1, 2]

    run(main)


def test_the_total_is_not_retried_by_what_it_ends() -> None:
    target = Script(slow(60))

    async def main() -> None:
        policy = Policy(Timeout(5), Retry(on=TimeoutError, attempts=9, delay=0, budget=None), Timeout(2))
        with pytest.raises(DeadlineExceeded):
            await policy.acall(target.aio)
        assert asyncio.get_running_loop().time() == 5
        assert target.times == [0, 2, 4]

    run(main)


def test_a_synchronous_call_is_not_interrupted_and_its_late_result_is_a_result() -> None:
    """Sync is honest: a thread cannot be stopped, so nobody claims that it was."""
    policy = Policy(Timeout(1))
    with VirtualClock() as time:
        assert policy.call(Script(slow(5, "late"))) == "late"
        assert time.now == 5
        with pytest.raises(OSError, match="^$"):
            policy.call(Script(slow(5, OSError)))
    assert layer(policy).timed_out == 0


def test_calls_of_different_lengths_all_end_in_their_own_time() -> None:
    policy = Policy(Timeout(2))
    ends: list[tuple[float, str]] = []

    async def begin(at: float, length: float) -> None:
        loop = asyncio.get_running_loop()
        await asyncio.sleep(at)
        try:
            await policy.acall(asyncio.sleep, length)
            ends.append((loop.time(), "done"))
        except DeadlineExceeded:
            ends.append((loop.time(), "timeout"))

    run(lambda: all_end([begin(0, 5), begin(0.5, 1), begin(1, 5), begin(1.25, 0.5), begin(1.5, 5)]))
    assert ends == [(1.5, "done"), (1.75, "done"), (2, "timeout"), (3, "timeout"), (3.5, "timeout")]


def test_one_policy_times_out_on_several_loops_one_after_another() -> None:
    policy = Policy(Timeout(1))

    async def main() -> None:
        with pytest.raises(DeadlineExceeded):
            await policy.acall(asyncio.sleep, 5)

    for seed in range(3):
        run(main, seed=seed)
    assert len(layer(policy)._deadlines._queues) == 1, "closed loops are forgotten"
