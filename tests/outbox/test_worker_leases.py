"""Leases: renewed while the work goes on, run out when a worker is gone, and fenced when they were given to another."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from seawall import events
from seawall.outbox import Lease
from seawall.testing import VirtualLoop, run
from tests.outbox.benches import SECOND
from tests.outbox.yards import Yard
from tests.policies.worlds import heard


def test_a_handler_slower_than_its_lease_keeps_it() -> None:
    async def main() -> None:
        yard = Yard(lambda name, attempt: 200)
        yard.put("slow")
        async with yard.outbox.worker(lease="10s"), yard.outbox.worker(lease="10s"):
            await asyncio.sleep(250)
        assert yard.tries == [("slow", 1)]
        assert yard.done == ["slow"]
        assert yard.outbox.store.snapshot()["leases_run_out"] == 0

    run(main)


def test_the_work_of_a_worker_that_died_is_done_by_another() -> None:
    """As if the process were killed: the lease is neither renewed nor given back. It is due when it runs out."""

    async def main() -> None:
        yard = Yard()
        yard.put("a")
        leases, _ = await yard.outbox.store.open(None).lease(1, 60 * SECOND)  # type: ignore[arg-type]  # the same for all
        assert leases
        async with yard.outbox.worker():
            await asyncio.sleep(59)
            assert yard.done == []
            await asyncio.sleep(2)
        assert yard.tries == [("a", 2)], "the lost attempt is counted"
        assert yard.times == [60.0]

    run(main)


def test_work_that_kills_its_workers_is_a_dead_letter_in_the_end() -> None:
    async def main() -> None:
        yard = Yard(attempts=3)
        yard.put("killer")
        store = yard.outbox.store.open(None)  # type: ignore[arg-type]  # as above
        for _ in range(3):
            leases, _ = await store.lease(1, 10 * SECOND)
            assert leases
            await asyncio.sleep(10)
        async with yard.outbox.worker():
            await asyncio.sleep(1)
        assert yard.tries == []
        (dead,) = yard.outbox.records("dead")
        assert dead.ended == "attempts" and dead.last_error.startswith("the last attempt never came back")

    run(main)


def test_a_worker_that_was_frozen_for_longer_than_its_lease_changes_nothing_when_it_comes_back() -> None:
    """Its loop stood still while another worker took the work over: its report is fenced, and counted as lost."""

    async def main() -> None:
        yard = Yard(lambda name, attempt: 5)
        yard.put("a")
        frozen = yard.outbox.worker(lease="10s")
        store = yard.outbox.store.open(None)  # type: ignore[arg-type]  # as above
        with heard(events.WorkDone) as seen:
            async with frozen:
                await asyncio.sleep(1)
                VirtualLoop.current().block_ns(30 * SECOND)
                (taken,), _ = await store.lease(1, 60 * SECOND)
                assert taken.work.attempts == 2
                await asyncio.sleep(10)
                assert frozen.snapshot()["lost"] == 1
                assert frozen.snapshot()["done"] == 0
                assert not seen
                assert yard.outbox.stats().leased == 1
                assert await store.ack(taken)

    run(main)


def test_a_frozen_worker_whose_work_nobody_took_has_done_it() -> None:
    async def main() -> None:
        yard = Yard(lambda name, attempt: 5)
        yard.put("a")
        async with yard.outbox.worker(lease="10s"):
            await asyncio.sleep(1)
            VirtualLoop.current().block_ns(30 * SECOND)
            await asyncio.sleep(60)
        assert yard.tries == [("a", 1)]

    run(main)


class Flaky:
    """The store of an outbox, with steps that fail."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self.durable = False
        self.down: set[str] = set()
        self.calls: list[str] = []

    def open(self, runtime: Any) -> Any:
        return self

    def __getattr__(self, name: str) -> Any:
        step = getattr(self._inner, name)
        if name in ("listen", "snapshot"):
            return step

        async def call(*args: Any, **kwargs: Any) -> Any:
            self.calls.append(name)
            await asyncio.sleep(0.001)
            if name in self.down:
                raise ConnectionError(f"{name}: the store is down")
            return await step(*args, **kwargs)

        return call


def flaky(yard: Yard) -> Flaky:
    store = Flaky(yard.outbox.store)
    yard.outbox.store = store  # type: ignore[assignment]
    return store


def test_a_store_that_is_down_is_asked_again_with_growing_pauses() -> None:
    async def main() -> None:
        yard = Yard()
        yard.put("a")
        store = flaky(yard)
        store.down = {"lease"}
        worker = yard.outbox.worker()
        with heard(events.OutboxFailed) as seen:
            async with worker:
                await asyncio.sleep(600)
                asked = store.calls.count("lease")
                assert 20 < asked < 100
                assert worker.snapshot()["store_failures"] == asked == len(seen)
                assert worker.snapshot()["last_store_error"] == "ConnectionError: lease: the store is down"
                assert (seen[0].policy, seen[0].layer, seen[0].step) == ("outbox", "worker", "lease")
                store.down = set()
                await asyncio.sleep(31)
        assert yard.done == ["a"]

    run(main)


def test_what_is_done_is_told_again_when_the_store_hiccups() -> None:
    async def main() -> None:
        yard = Yard()
        yard.put("a")
        store = flaky(yard)
        store.down = {"ack"}
        async with yard.outbox.worker():
            await asyncio.sleep(0.05)
            store.down = set()
            await asyncio.sleep(5)
        assert yard.tries == [("a", 1)]
        assert yard.outbox.store.snapshot()["done"] == 1

    run(main)


def test_what_cannot_be_told_is_done_again_when_the_lease_runs_out() -> None:
    """At least once: this is why handlers make their effect once by the key."""

    async def main() -> None:
        yard = Yard()
        yard.put("a")
        store = flaky(yard)
        store.down = {"ack"}
        worker = yard.outbox.worker(lease="10s")
        async with worker:
            await asyncio.sleep(5)
            store.down = set()
            await asyncio.sleep(20)
        assert yard.tries == [("a", 1), ("a", 2)]
        assert worker.snapshot()["lost"] == 1

    run(main)


def test_a_renewal_that_fails_is_tried_again_before_the_lease_runs_out() -> None:
    async def main() -> None:
        yard = Yard(lambda name, attempt: 60)
        yard.put("a")
        store = flaky(yard)
        store.down = {"renew"}
        async with yard.outbox.worker(lease="9s"):
            await asyncio.sleep(5)
            store.down = set()
            await asyncio.sleep(70)
        assert yard.tries == [("a", 1)] and yard.done == ["a"]

    run(main)


def test_a_sink_that_raises_and_a_store_that_lies_stop_no_worker() -> None:
    async def main() -> None:
        yard = Yard()
        yard.put("a", "b")

        async def lying(lease: Lease) -> Sequence[object]:
            raise AssertionError("a bug of a store")

        store: Any = yard.outbox.store
        ack, store.ack = store.ack, lying
        worker = yard.outbox.worker(lease="5s")
        async with worker:
            await asyncio.sleep(3)
            store.ack = ack
            await asyncio.sleep(30)
        assert {name for name, _ in yard.tries} == {"a", "b"}
        assert yard.outbox.stats().waiting == 0

    run(main)
