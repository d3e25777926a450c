"""A failing call leaves nothing for the garbage collector: errors and frames do not hold each other."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable, Iterator

import pytest

from seawall import Bulkhead, CircuitBreaker, Fallback, Hedge, Policy, Retry, Timeout
from seawall.testing import run


def fail() -> None:
    raise OSError("broken")


async def afail() -> None:
    raise OSError("broken")


async def late() -> None:
    await asyncio.sleep(2)
    raise OSError("broken")


def forced_open() -> Policy:
    policy = Policy(CircuitBreaker())
    policy[CircuitBreaker].force_open()
    return policy


def in_a_block(policy: Policy) -> None:
    with policy.guard():
        fail()


def in_a_loop(policy: Policy) -> None:
    for attempt in policy.attempts():
        with attempt:
            fail()


guarded = Policy(CircuitBreaker(failure_rate=None, consecutive=10**6), Bulkhead(5))
retrying = Policy(Retry(on=OSError, delay=0, budget=None))
open_one = forced_open()
pooled = Policy(Bulkhead(1, threads=True))
quick = Policy(Timeout("1ms"))
answering = Policy(Fallback(lambda error: "lesser"), Retry(on=OSError, delay=0, budget=None))
helpless = Policy(Fallback(lambda error: {}["no answer"], lambda error: int("none either")))
full = Policy(CircuitBreaker(), Bulkhead(1))
place = full[Bulkhead]._gate.take()
hedging = Policy(Hedge(after=1, budget=None))

SYNC = {
    "decorated": guarded(fail),
    "call": lambda: guarded.call(fail),
    "retried": lambda: retrying.call(fail),
    "run": lambda: retrying.run(fail),
    "refused": lambda: open_one.call(fail),
    "guard": lambda: in_a_block(guarded),
    "attempts": lambda: in_a_loop(retrying),
    "on a thread": lambda: pooled.call(fail),
    "answered": lambda: answering.call(fail),
    "all fallbacks fail": lambda: helpless.call(fail),
    "full": lambda: full.call(fail),
}
ASYNC = {
    "acall": lambda: guarded.acall(afail),
    "retried": lambda: retrying.acall(afail),
    "arun": lambda: retrying.arun(afail),
    "timed out": lambda: quick.acall(asyncio.sleep, 60),
    "hedged": lambda: hedging.acall(afail),
    "hedged twice": lambda: hedging.acall(late),
}


@pytest.fixture(autouse=True)
def _collector_off() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.parametrize("how", SYNC)
def test_a_failing_synchronous_call_leaves_no_circle(how: str) -> None:
    def calls(count: int) -> None:
        for _ in range(count):
            try:
                SYNC[how]()
            except Exception:
                pass

    calls(5)
    gc.collect()
    calls(50)
    assert gc.collect() < 50


@pytest.mark.parametrize("how", ASYNC)
def test_a_failing_asynchronous_call_leaves_no_circle(how: str) -> None:
    async def calls(count: int, call: Callable[[], Awaitable[object]]) -> None:
        for _ in range(count):
            try:
                await call()
            except Exception:
                pass

    async def main() -> int:
        await calls(5, ASYNC[how])
        gc.collect()
        await calls(50, ASYNC[how])
        return gc.collect()

    assert run(main) < 50
