"""A failing call through a cluster leaves nothing for the garbage collector: errors, frames and calls do not hold each
other."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from seawall import (
    Broadcast,
    Bulkhead,
    CircuitBreaker,
    Cluster,
    Ejection,
    Endpoint,
    Failfast,
    Failover,
    Failsafe,
    Failsilent,
    Fallback,
    Forking,
    Retry,
    Timeout,
    deadline,
)
from seawall.policies.registry import Registry
from seawall.testing import run
from tests.policies.worlds import until

NAMES = Registry()


def fail(endpoint: Endpoint) -> None:
    raise OSError(f"{endpoint} is broken")


async def afail(endpoint: Endpoint) -> None:
    raise OSError(f"{endpoint} is broken")


async def late(endpoint: Endpoint) -> None:
    await asyncio.sleep(2)
    raise OSError(f"{endpoint} is broken")


async def hang(endpoint: Endpoint) -> None:
    await asyncio.sleep(60)


def cluster(strategy: Any, size: int = 3, **settings: Any) -> Cluster[Any]:
    return Cluster("stock", [f"e{n}:80" for n in range(size)], strategy=strategy, names=NAMES, **settings)


def refusing(strategy: Any) -> Cluster[Any]:
    made = cluster(strategy, each=(CircuitBreaker(),))
    for endpoint in made.endpoints:
        made[endpoint][CircuitBreaker].force_open()
    return made


def half_refusing(strategy: Any) -> Cluster[Any]:
    """One endpoint is full, and the others open their breakers at once."""
    made = cluster(strategy, each=(CircuitBreaker(consecutive=1, open_for="1us"), Bulkhead(1)))
    assert made["e0:80"][Bulkhead]._gate.take() is not None
    return made


def silent() -> Cluster[Any]:
    made = cluster(Failsilent(Ejection(consecutive=1, out_for="1h", longest="1h")))
    for _ in range(3):
        made.run(fail)
    return made


def unknown() -> list[str]:
    raise OSError("the resolver is down")


OVER = Failover(base=0, cap=0, budget=None)
FORKS = {
    "at once": cluster(Forking(3)),
    "staggered": cluster(Forking(3, stagger="1ms", budget=None)),
    "refused": refusing(Forking(2)),
    "one thread": cluster(Forking(2), max_threads=1),
}
SEQUENTIAL = {
    "failover": cluster(OVER),
    "failover in each": cluster(OVER, each=(CircuitBreaker(None, consecutive=10**6), Bulkhead(5), Timeout(9))),
    "failover, one endpoint": cluster(OVER, 1),
    "failover, refused": refusing(OVER),
    "failover, half refused": half_refusing(OVER),
    "failover, around": cluster(OVER, around=(Retry(on=OSError, delay=0, budget=None),)),
    "failover, answered": cluster(OVER, around=(Fallback("cached"),)),
    "failover, ejecting": cluster(OVER, ejection=Ejection(consecutive=1, out_for="1us", longest="1us")),
    "failfast": cluster(Failfast()),
    "failfast, refused": refusing(Failfast()),
    "failsafe": cluster(Failsafe()),
    "failsafe, a function": cluster(Failsafe(lambda error: "lost")),
    "failsafe, a broken one": cluster(Failsafe(lambda error: {}["nothing"])),
    "failsafe, answers": cluster(Failsafe(), on=KeyError),
    "failsilent": silent(),
    "no list": Cluster("stock", unknown, names=NAMES),
}
BROADCASTS = {
    "broadcast": cluster(Broadcast()),
    "broadcast, refused": refusing(Broadcast()),
    "broadcast, one thread": cluster(Broadcast(), max_threads=1),
}


def in_time(call: Callable[[], object]) -> None:
    with deadline(60):
        call()


SYNC: dict[str, Callable[[], object]] = {}
for name, made in SEQUENTIAL.items():
    SYNC[f"{name}: call"] = lambda made=made: made.call(fail)
    SYNC[f"{name}: run"] = lambda made=made: made.run(fail)
    SYNC[f"{name}: decorated"] = made(fail)
    SYNC[f"{name}: deadline"] = lambda made=made: in_time(lambda: made.call(fail))
THREADS = {
    f"{name}: {form}": (lambda made=made, form=form: getattr(made, form)(fail))
    for name, made in {**FORKS, **BROADCASTS}.items()
    for form in ("call", "run")
}
ASYNC: dict[str, Callable[[], Awaitable[object]]] = {}
for name, made in {**SEQUENTIAL, **FORKS, **BROADCASTS}.items():
    ASYNC[f"{name}: acall"] = lambda made=made: made.acall(afail)
    ASYNC[f"{name}: arun"] = lambda made=made: made.arun(late)
    ASYNC[f"{name}: deadline"] = lambda made=made: in_a_second(made)


async def in_a_second(made: Cluster[Any]) -> object:
    with deadline(1):
        return await made.acall(hang)


@pytest.fixture(autouse=True, scope="module")
def _collector_off() -> Iterator[None]:
    gc.collect()
    gc.freeze()  # what is there already need not be looked at again and again
    gc.disable()
    yield
    gc.enable()
    gc.unfreeze()


def left_by(call: Callable[[], object], settle: Callable[[], object] = bool) -> int:
    """How many objects fifty calls leave to the collector."""

    def calls(count: int) -> None:
        for _ in range(count):
            try:
                call()
            except Exception:
                pass

    calls(5)
    settle()
    gc.collect()
    calls(50)
    settle()
    return gc.collect()


@pytest.mark.parametrize("how", SYNC)
def test_a_failing_synchronous_call_leaves_no_circle(how: str) -> None:
    assert left_by(SYNC[how]) < 50


@pytest.mark.parametrize("how", THREADS)
def test_nor_do_forks_and_broadcasts_on_threads(how: str) -> None:
    made = {**FORKS, **BROADCASTS}[how.partition(": ")[0]]
    assert left_by(THREADS[how], lambda: until(lambda: not made.snapshot()["threads_in_use"])) < 50


@pytest.mark.parametrize("how", ASYNC)
def test_a_failing_asynchronous_call_leaves_no_circle(how: str) -> None:
    async def calls(count: int) -> None:
        for _ in range(count):
            try:
                await ASYNC[how]()
            except Exception:
                pass
            await asyncio.sleep(0)

    async def main() -> int:
        await calls(5)
        await asyncio.sleep(10)
        gc.collect()
        await calls(50)
        await asyncio.sleep(10)
        return gc.collect()

    assert run(main) < 50


def test_what_leaves_a_circle_would_be_seen() -> None:
    def leaking() -> None:
        try:
            fail(Endpoint("a:80"))
        except OSError as error:
            kept = error
        raise kept

    assert left_by(leaking) >= 50
