"""A dead downstream with 20,000 queued records comes back: the limiter's rate reaches it and no more, and fresh calls
through it keep nine tenths of their throughput."""

from __future__ import annotations

import asyncio

import pytest

from seawall import Cluster, Failover, Limiter, Timeout, TokenBucket
from seawall.outbox import Failback, MemoryOutbox, Queued, current
from seawall.policies.registry import Registry
from seawall.testing import VirtualLoop, run

COUNT = 20_000
SERVICE = 0.05
SERVERS = 10
RATE, BURST = 15, 3
CALLERS = 12


class Downstream:
    """Ten servers of 50 ms each: 200 a second, and who comes beyond that waits in line."""

    def __init__(self) -> None:
        self.up = True
        self.fresh: list[float] = []
        self.stored: list[float] = []
        self._servers = asyncio.Semaphore(SERVERS)

    async def serve(self) -> None:
        run_ = current()
        assert run_ is not None
        if not self.up:
            raise ConnectionRefusedError("down")
        began = asyncio.get_running_loop().time()
        if run_.attempt:
            self.stored.append(began)
        async with self._servers:
            await asyncio.sleep(SERVICE)
        if not run_.attempt:
            self.fresh.append(asyncio.get_running_loop().time())

    async def fresh_calls(self, call: object, seconds: float) -> float:
        """The throughput of callers who call again as soon as they are answered."""
        end = asyncio.get_running_loop().time() + seconds
        before = len(self.fresh)

        async def caller() -> None:
            while asyncio.get_running_loop().time() < end:
                await call()  # type: ignore[operator]

        await asyncio.gather(*(caller() for _ in range(CALLERS)))
        return (len(self.fresh) - before) / seconds


def most_in_a_second(times: list[float]) -> int:
    most = start = 0
    for index, time in enumerate(times):
        while time - times[start] > 1:
            start += 1
        most = max(most, index - start + 1)
    return most


@pytest.mark.once
def test_a_downstream_that_comes_back_gets_the_rate_of_the_limiter_and_fresh_calls_keep_their_throughput() -> None:
    async def main() -> None:
        outbox, down = MemoryOutbox(), Downstream()
        audit = Cluster("audit", ["audit:80"], strategy=Failback(outbox), each=(Timeout("5s"),), names=Registry())

        @outbox.operation("audit.write", through=audit, attempts=50)
        async def write(endpoint: object, number: int) -> None:
            await down.serve()

        alone = await down.fresh_calls(lambda: audit.acall(write, 0), 20)
        assert alone == pytest.approx(200, rel=0.02)

        down.up = False
        assert isinstance(await audit.acall(write, 0), Queued), "a call of the outage"
        for number in range(1, COUNT):
            await outbox.aput(write, number)
        limiter = Limiter(TokenBucket(f"{RATE}/s", burst=BURST), name="drain")
        worker = outbox.worker(concurrency=50, limiter=limiter)
        async with worker:
            await asyncio.sleep(600)
            assert down.stored == []
            down.up = True
            await asyncio.sleep(60)
            before = len(down.stored)
            beside = await down.fresh_calls(lambda: audit.acall(write, 0), 60)
            assert len(down.stored) - before >= 0.95 * RATE * 60, "it drains on meanwhile"
            assert beside >= 0.9 * alone
            await asyncio.sleep(COUNT / RATE)
        stats = outbox.stats()
        assert (stats.waiting, stats.leased, stats.dead) == (0, 0, 0)
        assert len(down.stored) == COUNT == worker.snapshot()["done"]
        assert most_in_a_second(down.stored) <= BURST + RATE

    VirtualLoop(seed=0).run(main)


def test_without_a_limiter_the_worker_takes_its_concurrency_of_a_busy_downstream() -> None:
    """What the limiter is for, and that the test above would see it."""

    async def main() -> None:
        outbox, down = MemoryOutbox(), Downstream()

        @outbox.operation("audit.write")
        async def write(number: int) -> None:
            await down.serve()

        for number in range(3_000):
            await outbox.aput(write, number)

        async def fresh() -> None:
            down.fresh.append(asyncio.get_running_loop().time())
            async with down._servers:
                await asyncio.sleep(SERVICE)

        async with outbox.worker(concurrency=12):
            await asyncio.sleep(5)
            beside = await down.fresh_calls(fresh, 10)
        assert beside < 0.6 * 200

    VirtualLoop(seed=0).run(main)


def test_workers_that_share_a_limiter_share_its_rate() -> None:
    """Each has a slow start of its own: what they may do together is bounded by what they share."""

    async def main() -> None:
        outbox, times = MemoryOutbox(), list[float]()

        @outbox.operation("write")
        async def write(number: int) -> None:
            times.append(asyncio.get_running_loop().time())
            await asyncio.sleep(1)

        for number in range(1_000):
            await outbox.aput(write, number)
        limiter = Limiter(TokenBucket("20/s", burst=2), name="drain")
        workers = [outbox.worker(concurrency=32, limiter=limiter) for _ in range(4)]
        async with workers[0], workers[1], workers[2], workers[3]:
            await asyncio.sleep(52)
        assert len(times) == 1_000 == sum(worker.snapshot()["done"] for worker in workers)
        assert most_in_a_second(times) <= 22

    run(main)


def test_workers_that_share_nothing_start_slowly_each_for_itself() -> None:
    """The sum of four slow starts: four times as much, which the page on workers says."""

    async def main() -> None:
        outbox, times = MemoryOutbox(), list[float]()

        @outbox.operation("write")
        async def write(number: int) -> None:
            times.append(asyncio.get_running_loop().time())
            await asyncio.sleep(1)

        for number in range(200):
            await outbox.aput(write, number)
        workers = [outbox.worker(concurrency=8) for _ in range(4)]
        async with workers[0], workers[1], workers[2], workers[3]:
            await asyncio.sleep(20)
        counts = [sum(1 for time in times if second <= time - times[0] < second + 1) for second in range(5)]
        assert counts == [4, 8, 16, 32, 32]

    run(main)


def test_a_failover_through_the_same_downstream_is_bounded_as_well() -> None:
    """The limiter counts what begins; what a strategy sends more is its own."""

    async def main() -> None:
        outbox, sent = MemoryOutbox(), list[float]()
        audit = Cluster("audit", ["a:80", "b:80"], strategy=Failover(retries=1), names=Registry())

        @outbox.operation("audit.write", through=audit)
        async def write(endpoint: object, number: int) -> None:
            sent.append(asyncio.get_running_loop().time())

        for number in range(100):
            await outbox.aput(write, number)
        async with outbox.worker(limiter=TokenBucket("10/s", burst=1)):
            await asyncio.sleep(11)
        assert len(sent) == 100 and most_in_a_second(sent) <= 11

    run(main)
