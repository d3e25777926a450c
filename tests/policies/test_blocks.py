"""Policies around a block: `guard()` for one attempt, `attempts()` for a loop of them, sync and async."""

from __future__ import annotations

import asyncio
import threading

import pytest

from seawall import (
    Bulkhead,
    BulkheadFull,
    CircuitBreaker,
    CircuitOpen,
    DeadlineExceeded,
    Fallback,
    Hedge,
    Policy,
    Retry,
    Timeout,
    current,
    remaining,
)
from seawall.testing import Victim, VirtualClock, cancel_everywhere, run
from tests.policies.worlds import World, in_both_worlds


def retrying(**settings: object) -> Policy:
    return Policy(Retry(on=ConnectionError, delay=1, budget=None, **settings), CircuitBreaker(), Bulkhead(1))


def test_guard_holds_the_permits_for_the_block() -> None:
    policy = Policy(CircuitBreaker(), Bulkhead(1), Timeout(5))
    with VirtualClock(), policy.guard():
        assert policy[Bulkhead].in_use == 1
        assert remaining() == 5
        with pytest.raises(BulkheadFull), policy.guard():
            pytest.fail("never entered")
    assert policy[Bulkhead].in_use == 0
    assert policy.snapshot()["ok"] == 1
    assert remaining() is None


def test_guard_works_in_async_code_and_ends_the_block_in_time() -> None:
    async def main() -> None:
        policy = Policy(CircuitBreaker(), Bulkhead(1), Timeout(5))
        with pytest.raises(DeadlineExceeded):
            async with policy.guard():
                await asyncio.sleep(60)
        assert asyncio.get_running_loop().time() == 5
        assert policy[Bulkhead].in_use == 0
        assert policy[CircuitBreaker].snapshot()["failed"] == 1

    run(main)


@pytest.mark.parametrize("error", [ConnectionError, TypeError, KeyboardInterrupt, StopIteration, GeneratorExit])
def test_the_blocks_error_goes_through_guard_untouched(error: type[BaseException]) -> None:
    policy = Policy(CircuitBreaker(), Bulkhead(1))
    raised = error("x")
    with pytest.raises(error) as caught, policy.guard():
        raise raised
    assert caught.value is raised
    assert caught.value.__cause__ is None
    assert policy[Bulkhead].in_use == 0


def test_guard_refuses_before_the_block() -> None:
    policy = Policy(CircuitBreaker())
    policy[CircuitBreaker].force_open()
    with pytest.raises(CircuitOpen), policy.guard():
        pytest.fail("never entered")

    async def main() -> None:
        with pytest.raises(CircuitOpen):
            async with policy.guard():
                pytest.fail("never entered")

    run(main)


def test_guard_waits_in_the_queue_and_loses_nothing_at_any_cancellation() -> None:
    async def scenario(victim: Victim) -> None:
        policy = Policy(CircuitBreaker(), Bulkhead(1, queue=5, max_wait=60), Timeout(30))

        async def block(length: float) -> None:
            async with policy.guard():
                await asyncio.sleep(length)

        first = asyncio.create_task(block(1))
        await asyncio.sleep(0)
        await victim(block(1))
        await first
        assert policy[Bulkhead].in_use == policy[Bulkhead].waiting == 0
        await block(0)

    assert cancel_everywhere(scenario, twice=True) > 20


def test_a_guard_object_serves_one_block_at_a_time() -> None:
    """Two tasks that share one would settle each other's attempts."""
    policy = Policy(Bulkhead(2))
    guard = policy.guard()
    for _ in range(2):
        with guard:
            with pytest.raises(RuntimeError, match="in use: call guard"):
                guard.__enter__()
            assert policy[Bulkhead].in_use == 1
        assert policy[Bulkhead].in_use == 0


def test_attempts_repeat_the_block_until_it_succeeds() -> None:
    policy = retrying()
    seen: list[tuple[int, int]] = []
    with VirtualClock() as time:
        for attempt in policy.attempts():
            with attempt:
                seen.append((attempt.number, current().attempt))
                assert policy[Bulkhead].in_use == 1
                if attempt.number < 3:
                    raise ConnectionError
        assert time.now == 2
        assert policy[CircuitBreaker].snapshot()["failed"] == 2
    assert seen == [(1, 1), (2, 2), (3, 3)]
    assert policy[Bulkhead].in_use == 0


def test_async_attempts_repeat_the_block_until_it_succeeds() -> None:
    async def main() -> None:
        policy = retrying()
        numbers: list[int] = []
        async for attempt in policy.attempts():
            with attempt:
                numbers.append(attempt.number)
                await asyncio.sleep(1)
                if attempt.number < 3:
                    raise ConnectionError
        assert numbers == [1, 2, 3]
        assert asyncio.get_running_loop().time() == 5
        assert policy[Bulkhead].in_use == 0

    run(main)


def test_attempts_raise_when_the_policy_gives_up() -> None:
    policy = retrying()
    numbers: list[int] = []
    with VirtualClock(), pytest.raises(ConnectionError, match="3"):
        for attempt in policy.attempts():
            with attempt:
                numbers.append(attempt.number)
                raise ConnectionError(attempt.number)
    assert numbers == [1, 2, 3]

    async def main() -> None:
        with pytest.raises(ConnectionError, match="3"):
            async for attempt in policy.attempts():
                with attempt:
                    raise ConnectionError(attempt.number)

    run(main)
    assert policy[Bulkhead].in_use == 0


def test_a_refusal_of_a_later_attempt_comes_out_of_the_loop() -> None:
    policy = Policy(Retry(on=ConnectionError, delay=0), CircuitBreaker(consecutive=1))
    with pytest.raises(CircuitOpen) as caught:
        for attempt in policy.attempts():
            with attempt:
                raise ConnectionError
    assert isinstance(caught.value.__cause__, ConnectionError)


def test_an_error_that_is_not_retried_leaves_the_loop_at_once() -> None:
    with pytest.raises(KeyError):
        for attempt in retrying().attempts():
            with attempt:
                raise KeyError


def test_an_async_attempt_is_ended_by_its_timeout_and_tried_again() -> None:
    async def main() -> None:
        policy = Policy(Retry(on=TimeoutError, delay=0, budget=None), Timeout(1))
        async for attempt in policy.attempts():
            with attempt:
                await asyncio.sleep(60 if attempt.number == 1 else 0.5)
        assert asyncio.get_running_loop().time() == 1.5

    run(main)


@pytest.mark.parametrize("leave", ["break", "return"])
def test_a_block_may_be_left_early_and_counts_as_a_success(leave: str) -> None:
    policy = retrying()

    def block() -> None:
        for attempt in policy.attempts():
            with attempt:
                if leave == "return":
                    return
                break

    block()
    assert policy[Bulkhead].in_use == 0
    assert policy.snapshot()["ok"] == 1


def test_an_abandoned_loop_gives_everything_back() -> None:
    policy = retrying()
    for _ in policy.attempts():
        break
    assert policy[Bulkhead].in_use == 0
    assert policy.snapshot()["cancelled"] == 1


def test_forgetting_the_with_is_an_error_not_an_endless_loop() -> None:
    policy = retrying()
    with pytest.raises(RuntimeError, match="with attempt:"):
        for _ in policy.attempts():
            pass
    assert policy[Bulkhead].in_use == 0


def test_an_attempt_is_entered_once() -> None:
    with pytest.raises(RuntimeError, match="entered once"):
        for attempt in retrying().attempts():
            with attempt:
                pass
            with attempt:
                pass


def test_async_attempts_lose_nothing_at_any_cancellation() -> None:
    async def scenario(victim: Victim) -> None:
        policy = retrying()

        async def block() -> None:
            async for attempt in policy.attempts():
                with attempt:
                    await asyncio.sleep(1)
                    if attempt.number < 3:
                        raise ConnectionError

        await victim(block())
        assert policy[Bulkhead].in_use == 0

    assert cancel_everywhere(scenario, twice=True) > 30


def test_blocks_of_many_threads_do_not_mix() -> None:
    policy = Policy(Retry(on=ConnectionError, delay=0, budget=None), Bulkhead(8))
    done: list[int] = []

    def block() -> None:
        for attempt in policy.attempts():
            with attempt:
                if attempt.number < 3:
                    raise ConnectionError
        done.append(attempt.number)

    threads = [threading.Thread(target=block) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert done == [3] * 8


@pytest.mark.parametrize(
    ("layer", "guard", "attempts"),
    [
        (Retry(on=OSError), "repeat the block", None),
        (Fallback(1), "answer in place", "answer in place"),
        (Hedge(), "repeat the block", "repeat the block"),
        (Bulkhead(1, threads=True), "thread", "thread"),
        (CircuitBreaker(), None, None),
    ],
    ids=lambda value: type(value).__name__,
)
@in_both_worlds
async def test_what_a_block_cannot_do_is_a_type_error(
    world: World, layer: object, guard: str | None, attempts: str | None
) -> None:
    policy = Policy(layer)
    for form, hint in ((policy.guard, guard), (policy.attempts, attempts)):
        if hint is None:
            form()
        else:
            with pytest.raises(TypeError, match=f"{hint}.*give it a function"):
                form()
