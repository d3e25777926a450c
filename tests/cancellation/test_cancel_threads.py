"""A caller who is cancelled goes at once; his function keeps its thread and its permit until it really ends."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import Any

import pytest

from seawall import Bulkhead, CircuitBreaker, ConfigError, DeadlineExceeded, Fallback, Policy, Retry, Timeout
from seawall.policies.bulkhead import BulkheadGuard
from seawall.runtime.jobs import Job
from seawall.testing import Victim, cancel_everywhere
from tests.cancellation.bench import everything_is_home


class LoopWorkers:
    """Threads of a virtual world: a job runs as a callback of the loop, `seconds` after it was submitted."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.running = 0

    def submit(self, function: Callable[[], Any]) -> Job:
        job = Job(function)
        self.running += 1

        def end() -> None:
            self.running -= 1
            job.run()

        asyncio.get_running_loop().call_later(self.seconds, end)
        return job


def threaded(*around: Any, seconds: float, inside: Any = (), limit: int = 1) -> tuple[Policy, LoopWorkers]:
    policy = Policy(*around, Bulkhead(limit, queue=3, max_wait=None, threads=True), *inside, name="threaded")
    workers = LoopWorkers(seconds)
    real = policy[Bulkhead].workers
    assert real is not None
    real.submit = workers.submit  # type: ignore[method-assign]
    return policy, workers


WORLDS: dict[str, Callable[[], tuple[Policy, LoopWorkers]]] = {
    "bulkhead": lambda: threaded(seconds=1),
    "timeout passes first": lambda: threaded(Timeout(0.5), seconds=1),
    "timeout as it ends": lambda: threaded(Timeout(1), seconds=1),
    "timeout of the attempt": lambda: threaded(
        Fallback("cached"), Retry(on=TimeoutError, delay=0.3, budget=None), CircuitBreaker(), seconds=1,
        inside=(Timeout(0.5),),
    ),
    "two at once": lambda: threaded(Timeout(3), Retry(on=TimeoutError), seconds=1, limit=2),
}  # fmt: skip


@pytest.mark.parametrize("twice", [False, True], ids=["once", "twice"])
@pytest.mark.parametrize("holders", [0, 1, 2])
@pytest.mark.parametrize("world", WORLDS)
def test_the_permit_of_a_cancelled_call_stays_with_its_thread_and_then_comes_home(
    world: str, holders: int, twice: bool
) -> None:
    async def scenario(victim: Victim) -> None:
        policy, workers = WORLDS[world]()
        guard = policy[Bulkhead]
        others = [asyncio.create_task(call(policy)) for _ in range(holders)]
        await asyncio.sleep(0)
        with contextlib.suppress(DeadlineExceeded):
            await victim(policy.acall(str, "answer"))
        assert workers.running <= guard.in_use <= guard.limit, "a thread works without a permit"
        await asyncio.gather(*others)
        await asyncio.sleep(60)
        assert workers.running == 0
        everything_is_home(policy)

    assert cancel_everywhere(scenario, twice=twice) > 5


async def call(policy: Policy) -> None:
    with contextlib.suppress(DeadlineExceeded):
        await policy.acall(str, "held")


def test_with_real_threads_the_permit_comes_home_when_the_function_ends() -> None:
    policy = Policy(Bulkhead(1, queue=1, max_wait=None, threads=True), name="real")
    guard: BulkheadGuard = policy[Bulkhead]
    entered, go_on = threading.Event(), threading.Event()

    def work() -> str:
        entered.set()
        assert go_on.wait(30)
        return "late"

    async def main() -> None:
        task = asyncio.create_task(policy.acall(work))
        while not entered.is_set():  # set by a thread
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert guard.in_use == 1, "the thread still works"
        follower = asyncio.create_task(policy.acall(str, "next"))
        await asyncio.sleep(0)
        assert guard.waiting == 1
        go_on.set()
        assert await follower == "next"

    asyncio.run(main())
    everything_is_home(policy)


def test_threads_by_key_are_refused_where_they_would_do_nothing() -> None:
    with pytest.raises(ConfigError, match="for_key"):
        Bulkhead(1, threads=True).per(lambda key: key)
