"""Who is cancelled while he reserves or queues on a server has nothing there; who is cancelled settling has settled."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from typing import Any

import pytest

from seawall import LeakyBucket, Limiter, TokenBucket
from tests.valkey.conftest import Make
from tests.valkey.servers import Server

AT = ["before it is sent", "while it is on its way"]


def limiter_on(server: Server, store: Make) -> Limiter:
    return Limiter(TokenBucket("10/d"), name="cancelled", store=store(server.url, on_outage="closed"))


async def cancelled(server: Server, at: str, work: Any) -> None:
    """Begin the work, and cancel it at a certain time."""
    if at == AT[1]:
        server.freeze()
    task = asyncio.ensure_future(work)
    await asyncio.sleep(0.05 if at == AT[1] else 0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    server.thaw()


async def left(limiter: Limiter, wanted: int) -> int:
    """What is left, as soon as it is what is wanted, or after a while."""
    end = time.monotonic() + 5
    while (remaining := (await limiter.apeek("ann")).remaining) != wanted and time.monotonic() < end:
        await asyncio.sleep(0.01)
    return remaining


async def reserved(limiter: Limiter) -> None:
    async with limiter.areserve("ann", 4, lasts="1h"):
        raise AssertionError("not entered")


@pytest.mark.parametrize("at", AT)
def test_a_cancelled_reservation_on_a_server_holds_nothing(server: Server, store: Make, at: str) -> None:
    limiter = limiter_on(server, store)

    async def main() -> None:
        assert (await limiter.ahit("ann")).remaining == 9
        await cancelled(server, at, reserved(limiter))
        assert await left(limiter, 9) == 9
        # What went out beside the first look may be held for the time of a trip; a refusal spends nothing.
        end = time.monotonic() + 5
        while not (taken := await limiter.ahit("ann", 9)) and time.monotonic() < end:
            await asyncio.sleep(0.01)
        assert taken, "it is free at once, not in an hour"

    asyncio.run(main())


@pytest.mark.parametrize("at", AT)
def test_a_cancelled_settlement_on_a_server_is_settled_all_the_same(server: Server, store: Make, at: str) -> None:
    limiter = limiter_on(server, store)

    async def main() -> None:
        held = await limiter.areserve("ann", 8, lasts="1h")
        assert (await limiter.apeek("ann")).remaining == 2
        await cancelled(server, at, held.asettle(1))
        assert await left(limiter, 9) == 9

    asyncio.run(main())


@pytest.mark.parametrize("at", AT)
def test_a_cancelled_waiter_on_a_server_gives_his_slot_back(server: Server, store: Make, at: str) -> None:
    limiter = Limiter(LeakyBucket("1/h", queue=3), name="cancelled", store=store(server.url, on_outage="closed"))

    async def main() -> None:
        assert await limiter.ahit("ann")
        await cancelled(server, at, limiter.atake("ann"))
        end = time.monotonic() + 5
        while (wait := (await limiter.apeek("ann")).retry_after) > 3_600 and time.monotonic() < end:
            await asyncio.sleep(0.01)
        assert 3_590 < wait <= 3_600, "one slot is spent, not two"

    asyncio.run(main())


def test_a_thread_that_is_interrupted_while_it_reserves_holds_nothing(server: Server, store: Make) -> None:
    limiter = limiter_on(server, store)
    assert limiter.hit("ann").remaining == 9

    def interrupt(*_: Any) -> None:
        server.thaw()
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGUSR1, interrupt)
    try:
        server.freeze()
        timer = threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGUSR1))
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            limiter.reserve("ann", 4, lasts="1h")
        timer.join()
    finally:
        signal.signal(signal.SIGUSR1, before)
        server.thaw()
    end = time.monotonic() + 5
    while limiter.peek("ann").remaining != 9 and time.monotonic() < end:
        time.sleep(0.01)
    assert limiter.peek("ann").remaining == 9
