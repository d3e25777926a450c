"""A worker ends as it is told to: what is in work may finish, what cannot is given back; cancelled anywhere, nothing
is lost, nothing done without being counted, and no attempt counted that was not made."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import pytest

from seawall import Policy, Timeout
from seawall.outbox import MemoryOutbox
from seawall.runtime import clock
from seawall.testing import Victim, cancel_everywhere, run
from tests.outbox.yards import Yard
from tests.policies.worlds import until


def test_a_stop_lets_what_is_in_work_finish_and_takes_up_nothing_more() -> None:
    async def main() -> None:
        yard = Yard(lambda name, attempt: 10)
        yard.put("a", "b")
        async with yard.outbox.worker(concurrency=1):
            await asyncio.sleep(1)
        assert asyncio.get_running_loop().time() == 10
        assert yard.done == ["a"] and yard.names("waiting") == ["b"]

    run(main)


def test_after_the_grace_what_is_in_work_is_cancelled_and_given_back_uncounted() -> None:
    async def main() -> None:
        yard = Yard(lambda name, attempt: 100 if len(yard.tries) == 1 else 0)
        yard.put("a")
        async with yard.outbox.worker(grace="5s"):
            await asyncio.sleep(1)
        assert asyncio.get_running_loop().time() == 6
        assert yard.running == [] and yard.done == []
        (work,) = yard.outbox.records("waiting")
        assert (work.attempts, work.last_error) == (0, "")
        async with yard.outbox.worker():
            await asyncio.sleep(0.001)
        assert yard.done == ["a"], "it is due again at once"
        assert yard.tries == [("a", 1), ("a", 1)]

    run(main)


def test_a_handler_that_will_not_be_cancelled_holds_up_no_stop() -> None:
    async def main() -> None:
        box = MemoryOutbox()
        go = asyncio.Event()

        @box.operation("do")
        async def do() -> None:
            while not go.is_set():
                with suppress(asyncio.CancelledError):
                    await go.wait()

        await box.aput(do)
        began = clock.now_ns()
        async with box.worker(grace=1):
            await asyncio.sleep(1)
        assert clock.now_ns() - began < 10e9
        assert box.stats().leased == 1
        go.set()
        await asyncio.sleep(1)
        assert box.stats().leased == 0, "until another has it its report still counts"

    run(main)


def test_leases_are_renewed_during_the_grace() -> None:
    """Or another worker would do beside it what is about to end."""

    async def main() -> None:
        yard = Yard(lambda name, attempt: 25)
        yard.put("a")
        async with yard.outbox.worker(lease="3s", grace="30s") as stopping:
            await asyncio.sleep(1)
            async with yard.outbox.worker():
                stopping.stop()
                await asyncio.sleep(30)
        assert yard.done == ["a"] and yard.tries == [("a", 1)]

    run(main)


def test_a_worker_that_has_ended_is_told_nothing_more() -> None:
    async def main() -> None:
        yard = Yard()
        for _ in range(3):
            async with yard.outbox.worker():
                await asyncio.sleep(1)
        working = asyncio.create_task(yard.outbox.worker().arun())
        await asyncio.sleep(1)
        assert len(yard.outbox.store._listeners) == 1  # type: ignore[attr-defined]
        working.cancel()
        await asyncio.wait([working])
        assert yard.outbox.store._listeners == ()  # type: ignore[attr-defined]

    run(main)


def test_a_block_that_raises_stops_its_worker_too() -> None:
    async def main() -> None:
        yard = Yard(lambda name, attempt: 10)
        yard.put("a")
        with pytest.raises(KeyError):
            async with yard.outbox.worker():
                await asyncio.sleep(1)
                raise KeyError("of the block")
        assert yard.done == ["a"]

    run(main)


def test_stop_ends_arun_from_anywhere_and_before_it_begins_does_nothing() -> None:
    async def main() -> None:
        yard = Yard()
        worker = yard.outbox.worker()
        worker.stop()
        working = asyncio.create_task(worker.arun())
        await asyncio.sleep(1)
        assert worker.snapshot()["state"] == "working"
        worker.stop()
        worker.stop()
        await working
        assert worker.snapshot()["state"] == "idle"

    run(main)


def test_a_handler_that_waits_for_a_cancelled_task_fails_and_is_tried_again() -> None:
    """Nobody asked the worker to stop: a cancellation from within is a failure, or the record would be lost to it."""

    async def main() -> None:
        yard = Yard()

        @yard.outbox.operation("inner", through=Policy(Timeout("10s")))
        async def inner() -> None:
            task = asyncio.create_task(asyncio.sleep(100))
            task.cancel()
            await task

        yard.outbox.put(inner)
        worker = yard.outbox.worker()
        async with worker:
            await asyncio.sleep(0.001)
            assert worker.snapshot()["state"] == "working"
            assert worker.snapshot()["retried"] == 1
        (work,) = yard.outbox.records("waiting")
        assert work.last_error == "RuntimeError: what the operation waited for was cancelled"

    run(main)


def test_a_handler_that_exits_ends_the_program_and_is_counted() -> None:
    """SystemExit is never swallowed; but a record that ends every worker must end as a dead letter."""

    yards: list[Yard] = []

    def act(name: str, attempt: int) -> None:
        raise SystemExit(3)

    async def main() -> None:
        yards.append(Yard(act))
        yards[0].put("a")
        async with yards[0].outbox.worker():
            await asyncio.sleep(10)

    with pytest.raises(SystemExit):
        run(main, allow_pending=True)
    (work,) = yards[0].outbox.records("waiting")
    assert (work.attempts, work.last_error) == (1, "SystemExit: 3")


def test_sync_an_interrupt_gives_the_record_back_and_an_exit_is_counted() -> None:
    for error, attempts, text in ((KeyboardInterrupt(), 0, ""), (SystemExit(3), 1, "SystemExit: 3")):

        def act(name: str, attempt: int, error: BaseException = error) -> None:
            raise error

        yard = Yard(act).in_threads()
        yard.put("a")
        with pytest.raises(type(error)):
            yard.outbox.worker().drain()
        (work,) = yard.outbox.records("waiting")
        assert (work.attempts, work.last_error) == (attempts, text)


def test_a_handler_that_cancels_itself_is_counted_and_ends_as_a_dead_letter() -> None:
    """It is not the worker that was stopped: given back uncounted, it would be tried for ever, without a pause."""

    async def main() -> None:
        box = MemoryOutbox()
        tries = 0

        @box.operation("do", attempts=3)
        async def do() -> None:
            nonlocal tries
            tries += 1
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            await asyncio.sleep(1)

        await box.aput(do)
        async with box.worker():
            await asyncio.sleep(60)
        (work,) = box.records("dead")
        assert (tries, work.ended) == (3, "attempts") and "CancelledError" in work.last_error

    run(main)


def test_a_handler_that_raises_an_interrupt_in_a_thread_is_counted() -> None:
    box = MemoryOutbox()

    @box.operation("do", base=0, cap=0, attempts=3)
    def do() -> None:
        raise KeyboardInterrupt

    box.put(do)
    with box.worker():
        until(lambda: box.stats().dead == 1)


def test_exits_are_tried_again_on_the_schedule() -> None:
    """Not at once, over and over: what makes a handler give up may be over in a minute."""

    async def main() -> None:
        yard = Yard(lambda name, attempt: exit_with(3), base=1, cap=1).in_threads()
        yard.put("a")
        for attempt in range(1, 4):
            with pytest.raises(SystemExit):
                await yard.outbox.worker().adrain()
            (work,) = yard.outbox.records("waiting")
            assert work.attempts == attempt
            assert 0 < work.due_ns - clock.wall_ns() <= 1e9
            assert await yard.outbox.worker().adrain() == 0
            await asyncio.sleep(1)

    def exit_with(code: int) -> None:
        raise SystemExit(code)

    run(main)


# -- cancelled at every point ------------------------------------------------------------------------------------------


NAMES = ["a", "b", "c", "d"]


async def _work_is_whole(yard: Yard) -> None:
    """Every record is done or held, no attempt is counted twice, and another worker ends it all."""
    yard.check_sums(NAMES)
    for work in yard.outbox.records("waiting"):
        begun = [attempt for name, attempt in yard.tries if f'"{name}"'.encode() in work.payload]
        assert work.attempts <= len(begun)
        assert work.attempts >= sum(1 for name, text in yard.failed if f'"{name}"'.encode() in work.payload)
    async with yard.outbox.worker():
        await asyncio.sleep(1_000)
    assert sorted(set(yard.done)) == NAMES
    stats = yard.outbox.stats()
    assert (stats.waiting, stats.leased, stats.dead) == (0, 0, 0)
    assert yard.outbox.store.snapshot()["done"] == len(NAMES)


class Failing(Yard):
    """Whose "b" fails once; notes what failed."""

    def __init__(self, *, slow: float) -> None:
        self.failed: list[tuple[str, str]] = []

        def act(name: str, attempt: int) -> float:
            if name == "b" and not self.failed:
                self.failed.append((name, "once"))
                raise ConnectionError("once")
            return slow

        super().__init__(act)
        self.put("a", "b")
        self.put("c", "d", order="k")


@pytest.mark.parametrize("slow", [0, 0.5])
def test_a_worker_cancelled_anywhere_loses_nothing(slow: float) -> None:
    async def scenario(victim: Victim) -> None:
        yard = Failing(slow=slow)
        worker = yard.outbox.worker(concurrency=2)

        async def stop_later() -> None:
            await asyncio.sleep(5)
            worker.stop()

        stopping = asyncio.create_task(stop_later())
        await victim(worker.arun())
        assert worker.snapshot()["state"] == "idle"
        stopping.cancel()
        await asyncio.wait([stopping])
        await _work_is_whole(yard)

    assert cancel_everywhere(scenario, max_points=20_000) > 50


def test_a_worker_cancelled_twice_loses_nothing() -> None:
    async def scenario(victim: Victim) -> None:
        yard = Failing(slow=0.5)
        worker = yard.outbox.worker(concurrency=2)

        async def block() -> None:
            async with worker:
                await asyncio.sleep(1.2)

        await victim(block())
        # A second cancellation may leave before the tasks that it cancelled have ended.
        for _ in range(20):
            await asyncio.sleep(0)
        await _work_is_whole(yard)

    assert cancel_everywhere(scenario, seeds=(None, 0), twice=True, max_points=50_000) > 200


def test_a_drain_cancelled_anywhere_loses_nothing() -> None:
    async def scenario(victim: Victim) -> None:
        yard = Failing(slow=0.5)
        await victim(yard.outbox.worker().adrain())
        await _work_is_whole(yard)

    assert cancel_everywhere(scenario) > 20


def test_a_worker_whose_store_suspends_loses_nothing_when_cancelled_anywhere() -> None:
    """As with a store behind a network: a lease that was taken in the moment of the cancellation runs out."""

    class Slow:
        def __init__(self, inner: Any) -> None:
            self._inner = inner
            self.durable = False

        def open(self, runtime: Any) -> Any:
            return self

        def __getattr__(self, name: str) -> Any:
            step = getattr(self._inner, name)
            if name in ("listen", "snapshot"):
                return step

            async def call(*args: Any, **kwargs: Any) -> Any:
                await asyncio.sleep(0.001)
                ending = await step(*args, **kwargs)
                await asyncio.sleep(0.001)
                return ending

            return call

    async def scenario(victim: Victim) -> None:
        yard = Failing(slow=0.01)
        inner = yard.outbox.store
        yard.outbox.store = Slow(inner)  # type: ignore[assignment]
        worker = yard.outbox.worker(concurrency=2, lease="10s")

        async def block() -> None:
            async with worker:
                await asyncio.sleep(2)

        await victim(block())
        for _ in range(20):
            await asyncio.sleep(0)
        yard.outbox.store = inner
        names = {*yard.done, *yard.names("waiting"), *yard.names("leased")}
        assert sorted(names) == NAMES
        async with yard.outbox.worker():
            await asyncio.sleep(1_000)
        assert sorted(set(yard.done)) == NAMES
        assert inner.snapshot()["done"] == len(NAMES)

    assert cancel_everywhere(scenario, seeds=(None, 0)) > 100
