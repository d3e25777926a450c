"""Real threads and event loops at once: thousands of calls add up exactly, and no more work than there are permits."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable, Generator
from typing import Any

import pytest

from seawall import Bulkhead, CircuitBreaker, Policy, Retry, RetryBudget, Timeout
from tests.cancellation.bench import everything_is_home

THREADS, CALLS = 16, 1_500


@pytest.fixture(autouse=True)
def _eager_switches() -> Generator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


def run_together(*functions: Callable[[], object]) -> None:
    """Run each in a thread of its own, all released at once; raises the first error."""
    barrier, errors = threading.Barrier(len(functions)), list[BaseException]()

    def body(function: Callable[[], object]) -> None:
        try:
            barrier.wait()
            function()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=body, args=(function,)) for function in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


class Room:
    """Work that counts how many are at it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.inside = self.most = self.served = 0

    def enter(self) -> None:
        with self._lock:
            self.inside += 1
            self.most = max(self.most, self.inside)

    def leave(self) -> None:
        with self._lock:
            self.inside -= 1
            self.served += 1


def test_sixteen_threads_through_one_fused_policy_add_up_exactly() -> None:
    policy = Policy(
        Retry(on=OSError, attempts=2, delay=0, budget=RetryBudget(1.0, per_second=1_000, window="1h")),
        CircuitBreaker(0.9, window="1h", min_calls=1_000),
        Bulkhead(THREADS),
        Timeout(60),
        name="fused",
    )
    tried: list[int] = []

    def work(number: int) -> int:
        tried.append(number)
        if number % 10 == 0:
            raise ConnectionError("refused")
        return number

    protected = policy(work)

    def calls() -> None:
        for number in range(CALLS):
            if number % 10:
                assert protected(number) == number
            else:
                with pytest.raises(ConnectionError):
                    protected(number)

    run_together(*[calls] * THREADS)
    total, bad = THREADS * CALLS, THREADS * CALLS // 10
    shot = policy.snapshot()
    assert (shot["calls"], shot["ok"], shot["failed"]) == (total, total - bad, bad)
    assert (shot["rejected"], shot["cancelled"]) == (0, 0)
    assert len(tried) == total + bad, "each failure was tried twice"
    seen: dict[str, Any] = policy[CircuitBreaker].snapshot()
    assert (seen["state"], seen["calls"], seen["failed"]) == ("closed", total + bad, 2 * bad)
    budget: dict[str, Any] = policy[Retry].snapshot()["budget"]
    assert (budget["calls"], budget["extra"]) == (total, bad)
    everything_is_home(policy)


@pytest.mark.parametrize("limit", [1, 3])
def test_threads_and_two_event_loops_share_one_queue_and_its_permits(limit: int) -> None:
    policy, room, each = Policy(Bulkhead(limit, queue=5_000, max_wait=None), name="shared"), Room(), 600

    def work() -> None:
        room.enter()
        room.leave()

    async def awork(number: int) -> None:
        room.enter()
        try:
            for _ in range(number % 4):
                await asyncio.sleep(0)
        finally:
            room.leave()

    async def loop_of_calls() -> None:
        tasks = [asyncio.create_task(policy.acall(awork, number)) for number in range(each)]
        for number, task in enumerate(tasks):
            if number % 10 == 9:
                await asyncio.sleep(0)
                task.cancel()
        for end in await asyncio.gather(*tasks, return_exceptions=True):
            assert end is None or isinstance(end, asyncio.CancelledError), repr(end)

    def thread_of_calls() -> None:
        for _ in range(each):
            policy.call(work)

    run_together(
        lambda: asyncio.run(loop_of_calls()), lambda: asyncio.run(loop_of_calls()), thread_of_calls, thread_of_calls
    )
    shot = policy.snapshot()
    assert room.most <= limit, f"{room.most} at work, of {limit}"
    assert (shot["rejected"], shot["failed"]) == (0, 0)
    assert shot["ok"] >= 2 * each + 2 * (each - each // 10), "whoever was not cancelled was served"
    everything_is_home(policy)
