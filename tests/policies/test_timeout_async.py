"""`Timeout` and cancellation in asyncio: who cancelled whom is never mixed up, and the list of deadlines stays short."""

from __future__ import annotations

import asyncio

import pytest

from seawall import DeadlineExceeded, Policy, Timeout, deadline
from seawall.testing import Script, Victim, cancel_everywhere, run, slow
from tests.policies.worlds import all_end


def queue_of(policy: Policy) -> object:
    (queue,) = policy["Timeout"]._deadlines._queues.values()
    return queue


def cancelling() -> int:
    task = asyncio.current_task()
    assert task is not None
    return task.cancelling()


def test_an_outer_asyncio_timeout_that_is_nearer_is_not_taken_for_ours() -> None:
    async def main() -> None:
        policy = Policy(Timeout(10))
        with pytest.raises(TimeoutError) as caught:
            async with asyncio.timeout(1):
                await policy.acall(asyncio.sleep, 60)
        assert not isinstance(caught.value, DeadlineExceeded)
        assert policy["Timeout"].timed_out == 0
        assert cancelling() == 0

    run(main)


def test_ours_is_not_taken_for_an_outer_asyncio_timeout() -> None:
    async def main() -> None:
        policy = Policy(Timeout(1))
        async with asyncio.timeout(10):
            with pytest.raises(DeadlineExceeded):
                await policy.acall(asyncio.sleep, 60)
            await asyncio.sleep(1)
        assert cancelling() == 0

    run(main)


@pytest.mark.parametrize("inner", [0.5, 1, 2])
def test_an_asyncio_timeout_inside_is_an_error_of_the_function(inner: float) -> None:
    async def nap() -> str:
        try:
            async with asyncio.timeout(inner):
                await asyncio.sleep(60)
        except DeadlineExceeded:
            raise AssertionError("ours must not be seen inside") from None
        except TimeoutError:
            return "inner"
        return "never"

    async def main() -> None:
        policy = Policy(Timeout(1))
        try:
            assert await policy.acall(nap) == "inner"
            assert inner <= 1
        except DeadlineExceeded:
            assert inner >= 1
        assert cancelling() == 0

    for seed in range(20):
        run(main, seed=seed)


def test_two_of_ours_that_fire_in_the_same_step_end_as_the_outer() -> None:
    async def main() -> None:
        policy = Policy(Timeout(1, name="outer"), Timeout(1, name="inner"))
        with pytest.raises(DeadlineExceeded):
            await policy.acall(asyncio.sleep, 60)
        assert policy["outer"].timed_out == 1
        assert cancelling() == 0
        await asyncio.sleep(1)  # no cancellation is left over

    for seed in range(10):
        run(main, seed=seed)


def test_a_completion_in_the_same_step_is_kept_or_timed_out_and_never_both() -> None:
    ends: set[str] = set()

    async def main() -> None:
        policy = Policy(Timeout(1))
        try:
            ends.add(await policy.acall(asyncio.sleep, 1, "done"))
            assert policy["Timeout"].timed_out == 0
        except DeadlineExceeded:
            ends.add("timeout")
            assert policy["Timeout"].timed_out == 1
        assert cancelling() == 0
        await asyncio.sleep(1)

    for seed in range(30):
        run(main, seed=seed)
    assert ends <= {"done", "timeout"}


def test_an_outer_cancellation_is_never_swallowed_at_any_point() -> None:
    async def scenario(victim: Victim) -> None:
        policy = Policy(Timeout(2, name="total"), Timeout(1, name="each"))
        try:
            await victim(policy.acall(Script(slow(60)).aio))
        except DeadlineExceeded:
            pass
        assert await policy.acall(asyncio.sleep, 0.5, "next") == "next"

    assert cancel_everywhere(scenario) > 5


def test_a_cancellation_in_the_very_step_of_the_timeout_is_a_cancellation() -> None:
    async def main() -> None:
        policy = Policy(Timeout(1))
        call = asyncio.create_task(policy.acall(asyncio.sleep, 60))
        loop = asyncio.get_running_loop()
        await asyncio.sleep(0)
        loop.call_at(1, call.cancel)
        (end,) = await all_end([call])
        assert isinstance(end, asyncio.CancelledError)
        assert call.cancelled()

    for seed in range(20):
        run(main, seed=seed)


def test_a_function_that_swallows_the_cancellation_keeps_its_result_and_leaves_no_trace() -> None:
    async def stubborn() -> str:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            await asyncio.sleep(1)
        return "late"

    async def main() -> None:
        policy = Policy(Timeout(1))
        assert await policy.acall(stubborn) == "late"
        assert asyncio.get_running_loop().time() == 2
        assert cancelling() == 0
        async with asyncio.timeout(10):  # which would misread a count that was left behind
            await asyncio.sleep(1)

    run(main)


def test_a_function_that_turns_the_cancellation_into_an_error_fails_with_that() -> None:
    async def turns() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            raise ConnectionResetError from None

    async def main() -> None:
        with pytest.raises(ConnectionResetError):
            await Policy(Timeout(1)).acall(turns)
        assert cancelling() == 0

    run(main)


def test_a_task_that_was_asked_to_cancel_before_is_still_timed_out() -> None:
    """Clean-up after a cancellation may use policies too."""

    async def cleans_up() -> str:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            with pytest.raises(DeadlineExceeded):
                await Policy(Timeout(1)).acall(asyncio.sleep, 60)
            return f"cleaned at {asyncio.get_running_loop().time():g}"
        return "never"

    async def main() -> None:
        task = asyncio.create_task(cleans_up())
        await asyncio.sleep(1)
        task.cancel()
        assert await task == "cleaned at 2"

    run(main)


def test_a_nearer_deadline_of_the_caller_ends_the_call_and_is_inherited() -> None:
    async def main() -> None:
        policy = Policy(Timeout(10))
        with deadline(1), pytest.raises(DeadlineExceeded) as caught:
            await policy.acall(asyncio.sleep, 60)
        assert caught.value.inherited
        assert str(caught.value).endswith("the deadline of the caller passed")
        assert asyncio.get_running_loop().time() == 1

    run(main)


def test_a_deadline_that_a_task_inherits_holds_there_too() -> None:
    async def main() -> None:
        policy = Policy(Timeout(None))
        with deadline(1):
            task = asyncio.create_task(policy.acall(asyncio.sleep, 60))
        with pytest.raises(DeadlineExceeded):
            await task
        assert asyncio.get_running_loop().time() == 1

    run(main)


def test_the_list_of_deadlines_does_not_grow_behind_a_long_call() -> None:
    """200,000 calls end while the first one runs; what is dead is dropped when it outnumbers the living by 64."""

    async def quick() -> None: ...

    async def main() -> None:
        policy = Policy(Timeout(60))
        first = asyncio.create_task(policy.acall(asyncio.sleep, 50))
        await asyncio.sleep(0)
        longest = 0
        for _ in range(200_000):
            await policy.acall(quick)
            longest = max(longest, len(queue_of(policy).entries))
        assert longest < 80
        await first
        assert len(queue_of(policy).entries) == 0

    run(main)


def test_the_list_keeps_every_living_call_when_it_is_rebuilt() -> None:
    async def main() -> None:
        policy = Policy(Timeout(10))
        living = [asyncio.create_task(policy.acall(asyncio.sleep, 60)) for _ in range(20)]
        dying = [asyncio.create_task(policy.acall(asyncio.sleep, 0.001)) for _ in range(1_000)]
        await asyncio.sleep(1)
        assert len(queue_of(policy).entries) < 20 + 20 + 70
        ends = await all_end([*living, *dying])
        assert all(isinstance(end, DeadlineExceeded) for end in ends[:20])
        assert ends[20:] == [None] * 1_000
        assert asyncio.get_running_loop().time() == 10

    for seed in range(3):
        run(main, seed=seed)


def test_an_idle_layer_keeps_no_timer() -> None:
    """The virtual loop would jump to it: time must not pass once all calls have ended and the timer has fired."""

    async def main() -> None:
        policy = Policy(Timeout(10))
        for _ in range(100):
            await policy.acall(asyncio.sleep, 0)
        await asyncio.sleep(11)
        assert queue_of(policy).timer is None

    run(main)


def test_outside_a_task_there_is_a_clear_error() -> None:
    policy = Policy(Timeout(1))
    call = policy.acall(asyncio.sleep, 0)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        outside: asyncio.Future[BaseException] = loop.create_future()

        def step() -> None:
            try:
                call.send(None)
            except BaseException as error:
                outside.set_result(error)

        loop.call_soon(step)
        assert "needs a running task" in str(await outside)

    run(main)
