"""What fails, is queued and is tried again leaves nothing for the garbage collector: errors and frames hold no circle."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable, Iterator
from types import FrameType, TracebackType
from typing import Any

import pytest

from seawall import Cluster, Failfast, Fallback, Policy, deadline
from seawall.outbox import Failback, MemoryOutbox, Work
from seawall.policies.registry import Registry
from seawall.testing import run
from tests.outbox.benches import make_work


@pytest.fixture(autouse=True)
def _collector_off() -> Iterator[None]:
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    yield
    gc.set_debug(0)
    gc.garbage.clear()
    gc.enable()


def left() -> list[object]:
    """The errors, frames and records that only the collector would free."""
    gc.collect()
    return [each for each in gc.garbage if isinstance(each, (BaseException, FrameType, TracebackType, Work))]


def cluster(outbox: MemoryOutbox) -> Any:
    return Cluster("audit", ["a:80"], strategy=Failback(outbox, after=Failfast()), names=Registry())


def fails(*arguments: object) -> None:
    raise OSError("broken")


async def afails(*arguments: object) -> None:
    raise OSError("broken")


async def hangs(*arguments: object) -> None:
    await asyncio.sleep(100)


def calls_of(outbox: MemoryOutbox, function: Any, *, is_async: bool) -> Callable[[], Any]:
    audit = cluster(outbox)
    outbox.operation("write", through=audit)(function)

    async def acall() -> None:
        with deadline("1s"):
            await audit.acall(function, "x")

    return acall if is_async else lambda: audit.call(function, "x")


def drains_of(function: Any, *, is_async: bool, **settings: Any) -> Callable[[], Any]:
    outbox = MemoryOutbox()
    outbox.operation("write", attempts=1, **settings)(function)
    worker = outbox.worker()

    def put() -> None:
        outbox.purge("dead", "all")
        outbox.put(function, "x")

    async def adrain() -> None:
        put()
        await worker.adrain()

    def drain() -> None:
        put()
        worker.drain()

    return adrain if is_async else drain


def unreadable() -> Callable[[], Any]:
    outbox = MemoryOutbox()
    outbox.operation("write", attempts=1)(fails)
    store: Any = outbox.store
    worker = outbox.worker()

    async def adrain() -> None:
        await store.put(make_work(operation="write", payload=b"\xff"))
        await worker.adrain()

    return adrain


SYNC = {
    "queued": lambda: calls_of(MemoryOutbox(), fails, is_async=False),
    "not queued": lambda: calls_of(MemoryOutbox(backlog=1), fails, is_async=False),
    "drained": lambda: drains_of(fails, is_async=False),
    "drained through a policy": lambda: drains_of(fails, is_async=False, through=Policy(Fallback("lesser"))),
}
ASYNC = {
    "queued": lambda: calls_of(MemoryOutbox(), afails, is_async=True),
    "queued late": lambda: calls_of(MemoryOutbox(), hangs, is_async=True),
    "not queued": lambda: calls_of(MemoryOutbox(backlog=1), afails, is_async=True),
    "drained": lambda: drains_of(afails, is_async=True),
    "drained through a policy": lambda: drains_of(afails, is_async=True, through=Policy()),
    "unreadable": unreadable,
}


@pytest.mark.parametrize("how", SYNC)
def test_in_sync(how: str) -> None:
    act = SYNC[how]()

    def acts(count: int) -> None:
        for _ in range(count):
            try:
                act()
            except Exception:
                pass

    acts(5)
    gc.collect()
    gc.garbage.clear()
    acts(20)
    assert left() == []


@pytest.mark.parametrize("how", ASYNC)
def test_in_async(how: str) -> None:
    async def acts(count: int, act: Callable[[], Awaitable[object]]) -> None:
        for _ in range(count):
            try:
                await act()
            except Exception:
                pass

    async def main() -> list[object]:
        act = ASYNC[how]()
        await acts(5, act)
        gc.collect()
        gc.garbage.clear()
        await acts(20, act)
        return left()

    assert run(main) == []
