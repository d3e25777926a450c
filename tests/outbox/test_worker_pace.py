"""Limits on the way to a target bound what reaches it, and a backlog of any size is not spun through in vain."""

from __future__ import annotations

import asyncio
import itertools
import re
from collections.abc import Collection, Sequence
from typing import Any

import pytest

from seawall import Cluster, Failover, Limiter, Policy, RateLimit, TokenBucket
from seawall.errors import ConfigError
from seawall.outbox import Lease, MemoryOutbox, MemoryStore, Outbox
from seawall.policies.registry import Registry
from seawall.runtime import clock
from seawall.testing import Victim, VirtualClock, cancel_everywhere, run

COUNT = 2_000


class Counting(MemoryStore):
    """Counts what is leased and what is given back."""

    def __init__(self) -> None:
        super().__init__()
        self.leased = self.released = 0

    async def lease(self, n: int, ttl_ns: int, skip: Collection[str] = ()) -> tuple[Sequence[Lease], int | None]:
        leases, hint = await super().lease(n, ttl_ns, skip)
        self.leased += len(leases)
        return leases, hint

    async def release(self, lease: Lease, at_ns: int, error: str | None = None) -> bool:
        self.released += 1
        return await super().release(lease, at_ns, error)


def filled(store: Counting, through: Any, *, count: int = COUNT, took: float = 0.1) -> tuple[Outbox, list[float]]:
    outbox, times = Outbox(store), list[float]()

    if isinstance(through, Cluster):

        @outbox.operation("do", through=through)
        async def do_at(endpoint: object, number: int) -> None:
            times.append(asyncio.get_running_loop().time())
            await asyncio.sleep(took)

        function: Any = do_at
    else:

        @outbox.operation("do", through=through)
        async def do(number: int) -> None:
            times.append(asyncio.get_running_loop().time())
            await asyncio.sleep(took)

        function = do
    for number in range(count):
        outbox.put(function, number)
    return outbox, times


def test_a_limiter_of_the_worker_is_asked_before_anything_is_leased() -> None:
    async def main() -> None:
        store = Counting()
        outbox, times = filled(store, None)
        worker = outbox.worker(limiter=TokenBucket("50/s", burst=5))
        async with worker:
            await asyncio.sleep(20)
        assert 980 <= len(times) <= 1_005
        assert store.released == 0 and store.leased == len(times)
        assert worker.snapshot()["refused"] == 0

    run(main)


def test_a_limit_in_the_policy_costs_one_refusal_for_each_admission_at_most() -> None:
    """Whatever waits behind it: the target rests until the limit has room, and then one record finds out."""

    async def main() -> None:
        store = Counting()
        outbox, times = filled(store, Policy(RateLimit(TokenBucket("50/s", burst=5)), name="audit"))
        worker = outbox.worker(concurrency=32)
        async with worker:
            await asyncio.sleep(20)
            (target,) = worker.snapshot()["targets"]
            assert target["rests_for"] == 0, "a limit is no trouble"
        assert 950 <= len(times) <= 1_005
        assert store.released <= len(times) + 40

    run(main)


def test_limits_of_a_clusters_endpoints_are_no_trouble_either() -> None:
    async def main() -> None:
        store = Counting()
        audit = Cluster(
            "audit",
            ["a:80", "b:80"],
            strategy=Failover(retries=1),
            each=(RateLimit(TokenBucket("25/s", burst=3)),),
            names=Registry(),
        )
        outbox, times = filled(store, audit)
        async with outbox.worker(concurrency=32):
            await asyncio.sleep(20)
        assert 900 <= len(times) <= 1_006
        assert store.released <= len(times) + 40

    run(main)


def test_a_limit_that_is_reached_for_an_hour_is_asked_once_an_hour() -> None:
    async def main() -> None:
        store = Counting()
        outbox, times = filled(store, Policy(RateLimit(TokenBucket("10/h")), name="audit"))
        async with outbox.worker(concurrency=8):
            await asyncio.sleep(300)
        assert len(times) == 10
        assert store.released < 10

    run(main)


def test_a_refused_record_keeps_its_place() -> None:
    async def main() -> None:
        outbox, seen = MemoryOutbox(), list[int]()

        @outbox.operation("do", through=Policy(RateLimit(TokenBucket("5/s", burst=1)), name="audit"))
        async def do(number: int) -> None:
            seen.append(number)

        for number in range(30):
            outbox.put(do, number)
        async with outbox.worker(concurrency=1):
            await asyncio.sleep(10)
        assert seen == list(range(30))

    run(main)


def test_a_limit_that_counts_callers_apart_holds_up_nobody_else() -> None:
    async def main() -> None:
        outbox, seen = MemoryOutbox(), list[str]()
        per_user = RateLimit(TokenBucket("1/min"), key=lambda user: user)

        @outbox.operation("do", through=Policy(per_user, name="audit"))
        async def do(user: str) -> None:
            seen.append(user)

        for _ in range(200):
            outbox.put(do, "ann")
        outbox.put(do, "bob")
        async with outbox.worker():
            await asyncio.sleep(1)
        assert sorted(seen) == ["ann", "bob"]

    run(main)


def test_targets_are_counted_apart() -> None:
    async def main() -> None:
        outbox, seen = MemoryOutbox(), list[str]()

        @outbox.operation("one")
        async def one(number: int) -> None:
            seen.append("one")

        @outbox.operation("two")
        async def two(number: int) -> None:
            seen.append("two")

        for number in range(500):
            outbox.put(one, number)
        for number in range(20):
            outbox.put(two, number)
        async with outbox.worker(limiter=TokenBucket("10/s", burst=1)):
            await asyncio.sleep(5)
        assert 49 <= seen.count("one") <= 51 and seen.count("two") == 20

    run(main)


def test_threads_are_paced_as_tasks_are() -> None:
    with VirtualClock():
        outbox, times = MemoryOutbox(), list[int]()

        @outbox.operation("do")
        def do(number: int) -> None:
            times.append(clock.now_ns())

        for number in range(10):
            outbox.put(do, number)
        worker = outbox.worker(limiter=TokenBucket("10/s", burst=2))
        assert [worker.drain(), worker.drain()] == [2, 0], "it stops where the limit does"
        clock.sleep_ns(100_000_000)
        assert worker.drain() == 1
        assert outbox.stats().waiting == 7


class Broken(Limiter):
    """A limiter whose store is away."""

    fails = True

    async def apeek(self, key: Any = "", cost: Any = 1) -> Any:
        if self.fails:
            raise ConnectionError("no store")
        return await super().apeek(key, cost)


def test_a_limiter_that_cannot_be_asked_lets_nothing_through_and_is_asked_again() -> None:
    async def main() -> None:
        outbox, times = filled(Counting(), None, count=10)
        limiter = Broken(TokenBucket("50/s"), name="drain")
        worker = outbox.worker(limiter=limiter)
        async with worker:
            await asyncio.sleep(60)
            assert times == [] and 1 < worker.snapshot()["store_failures"] < 60
            limiter.fails = False
            await asyncio.sleep(60)
        assert len(times) == 10

    run(main)


def test_what_is_no_limiter_is_refused() -> None:
    with pytest.raises(ConfigError, match=re.escape("worker(limiter='50/s'): expected a Limiter, or a limit")):
        MemoryOutbox().worker(limiter="50/s")  # type: ignore[arg-type]


def test_long_work_under_a_limiter_keeps_its_lease() -> None:
    async def main() -> None:
        outbox, times = filled(Counting(), None, count=5, took=120)
        async with outbox.worker(limiter=TokenBucket("1/s", burst=1), lease="3s"):
            await asyncio.sleep(400)
        assert len(times) == 5

    run(main)


class Distant(Limiter):
    """A limiter whose answers take their time, as those of a server do."""

    async def apeek(self, key: Any = "", cost: Any = 1) -> Any:
        await asyncio.sleep(0.001)
        return await super().apeek(key, cost)

    async def ahit(self, key: Any = "", cost: Any = 1) -> Any:
        await asyncio.sleep(0.001)
        decision = await super().ahit(key, cost)
        await asyncio.sleep(0.001)
        return decision


@pytest.mark.once
def test_a_worker_cancelled_while_its_limiter_thinks_gives_everything_back_uncounted() -> None:
    async def scenario(victim: Victim) -> None:
        outbox, begun = MemoryOutbox(), list[int]()

        @outbox.operation("do")
        async def do(number: int) -> None:
            begun.append(number)
            await asyncio.sleep(0.005)

        for number in range(8):
            outbox.put(do, number)
        limiter = Distant(TokenBucket("1000/s"), name="drain")
        worker = outbox.worker(limiter=limiter, concurrency=3)

        async def stop_later() -> None:
            await asyncio.sleep(0.05)
            worker.stop()

        stopping = asyncio.create_task(stop_later())
        await victim(worker.arun())
        stopping.cancel()
        await asyncio.wait([stopping])
        for _ in range(20):
            await asyncio.sleep(0)
        assert outbox.stats().leased == 0
        for work in outbox.records("waiting"):
            number = int(work.payload.split(b":")[1].strip(b"}"))
            assert work.attempts <= begun.count(number)
        async with outbox.worker():
            await asyncio.sleep(10)
        assert set(begun) == set(range(8)) and outbox.stats().waiting == 0

    assert cancel_everywhere(scenario, max_points=20_000) > 30


def test_a_limit_that_somebody_else_reaches_meanwhile_leaves_the_record_in_its_place() -> None:
    """Between the look and the taking others may have come."""

    async def main() -> None:
        outbox, seen = MemoryOutbox(), list[int]()

        @outbox.operation("do")
        async def do(number: int) -> None:
            seen.append(number)

        for number in range(10):
            outbox.put(do, number)
        limiter = Distant(TokenBucket("10/s", burst=1), name="drain")
        workers = [outbox.worker(limiter=limiter, concurrency=4) for _ in range(3)]
        async with workers[0], workers[1], workers[2]:
            await asyncio.sleep(5)
        assert sorted(seen) == list(range(10))
        assert sum(worker.snapshot()["retried"] + worker.snapshot()["refused"] for worker in workers) == 0

    run(main)


class Sluggish(Counting):
    """A store whose leases take longer than the limit's pauses."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self._seconds = seconds

    async def lease(self, n: int, ttl_ns: int, skip: Collection[str] = ()) -> tuple[Sequence[Lease], int | None]:
        await asyncio.sleep(self._seconds)
        return await super().lease(n, ttl_ns, skip)


@pytest.mark.parametrize("seconds", [0.01, 0.05, 0.2])
def test_a_limit_that_has_room_again_before_the_store_has_answered_is_not_slept_through(seconds: float) -> None:
    async def main() -> None:
        outbox, times = filled(Sluggish(seconds), None, took=0)
        async with outbox.worker(limiter=TokenBucket("30/s", burst=3)):
            await asyncio.sleep(20)
        pauses = [later - earlier for earlier, later in itertools.pairwise(times)]
        assert max(pauses) <= 4 * seconds + 0.1
        assert len(times) <= 20 * 30 + 3

    run(main)


def test_a_limit_on_the_way_that_has_room_again_at_once_is_not_slept_through_either() -> None:
    async def main() -> None:
        through = Policy(RateLimit(TokenBucket("100/s", burst=1)), name="audit")
        outbox, times = filled(Sluggish(0.03), through, took=0)
        async with outbox.worker():
            await asyncio.sleep(20)
        assert max(later - earlier for earlier, later in itertools.pairwise(times)) <= 0.3

    run(main)
