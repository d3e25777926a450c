"""Workers in threads, and blocking operations of async workers: in real threads, without sleeps."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from typing import Any

import pytest

from seawall.outbox import MemoryOutbox, current
from seawall.runtime.blocking import BLOCKING, drive
from seawall.runtime.section import Section
from tests.outbox.benches import SECOND, make_work
from tests.policies.worlds import in_threads, until


class Floor:
    """A blocking operation that works until it is let go."""

    def __init__(self, **settings: Any) -> None:
        self.outbox = MemoryOutbox()
        self.lock = threading.Lock()
        self.running = self.most = 0
        self.threads: set[str] = set()
        self.done: list[int] = []
        self.go = threading.Event()

        @self.outbox.operation("do", **settings)
        def do(number: int) -> None:
            with self.lock:
                self.running += 1
                self.most = max(self.most, self.running)
                self.threads.add(threading.current_thread().name)
            assert current() is not None
            assert self.go.wait(20)
            with self.lock:
                self.running -= 1
                self.done.append(number)

        self.do = do


def test_a_worker_beside_a_block_does_what_threads_put() -> None:
    floor = Floor()
    floor.go.set()

    def put(start: int) -> None:
        for number in range(start, start + 50):
            floor.outbox.put(floor.do, number)

    with floor.outbox.worker(concurrency=4) as worker:
        assert in_threads([lambda start=start: put(start) for start in (0, 50, 100, 150)]) == [None] * 4  # type: ignore[misc]
        until(lambda: len(floor.done) == 200)
        until(lambda: worker.snapshot()["done"] == 200)
    assert sorted(floor.done) == list(range(200))
    assert floor.most <= 4
    assert all(name.startswith("seawall outbox worker") for name in floor.threads)
    assert worker.snapshot()["state"] == "idle"


def test_several_workers_in_threads_do_each_piece_once() -> None:
    floor = Floor()
    floor.go.set()
    for number in range(300):
        floor.outbox.put(floor.do, number)
    workers = [floor.outbox.worker(concurrency=3) for _ in range(3)]
    with workers[0], workers[1], workers[2]:
        until(lambda: len(floor.done) == 300)
        until(lambda: sum(worker.snapshot()["done"] for worker in workers) == 300)
    assert sorted(floor.done) == list(range(300))
    assert floor.outbox.store.snapshot()["done"] == 300


def test_a_stop_waits_for_what_is_in_work() -> None:
    floor = Floor()
    floor.outbox.put(floor.do, 1)
    with floor.outbox.worker(concurrency=1):
        until(lambda: floor.running == 1)
        floor.outbox.put(floor.do, 2)
        threading.Timer(0.05, floor.go.set).start()
    assert floor.done == [1]
    assert floor.outbox.stats().waiting == 1


def test_after_the_grace_a_thread_is_left_to_itself_and_may_still_report() -> None:
    """It cannot be stopped. Its lease runs out; until somebody else has it, its report is good."""
    floor = Floor()
    floor.outbox.put(floor.do, 1)
    with floor.outbox.worker(grace=0):
        until(lambda: floor.running == 1)
    assert floor.outbox.stats().leased == 1
    floor.go.set()
    until(lambda: floor.outbox.store.snapshot()["done"] == 1)


def test_run_works_here_until_another_thread_stops_it() -> None:
    floor = Floor()
    floor.go.set()
    floor.outbox.put(floor.do, 1)
    worker = floor.outbox.worker()

    def stop_when_done() -> None:
        until(lambda: floor.done)
        worker.stop()

    assert in_threads([worker.run, stop_when_done]) == [None, None]
    assert floor.done == [1]


def test_an_error_of_the_worker_itself_is_raised_at_the_end_of_the_block() -> None:
    floor = Floor()

    def broken(wake: object) -> Any:
        raise RuntimeError("the store cannot be heard")

    floor.outbox.store.listen = broken  # type: ignore[method-assign]
    with pytest.raises(RuntimeError, match="cannot be heard"), floor.outbox.worker():
        pass


def test_no_thread_can_be_started_and_the_work_is_done_when_one_can(monkeypatch: pytest.MonkeyPatch) -> None:
    floor = Floor()
    floor.go.set()
    floor.outbox.put(floor.do, 1)
    worker = floor.outbox.worker()
    submit, refused = worker._attempts.threads.submit, threading.Event()

    def full(function: Any) -> Any:
        if refused.is_set():
            return submit(function)
        refused.set()
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(worker._attempts.threads, "submit", full)
    with worker:
        until(lambda: floor.done)
    assert worker.snapshot()["last_store_error"] == "RuntimeError: can't start new thread"


def test_an_async_worker_runs_blocking_operations_on_threads() -> None:
    floor = Floor()
    seen: list[str] = []

    @floor.outbox.operation("aio")
    async def aio(number: int) -> None:
        seen.append(threading.current_thread().name)

    async def main() -> None:
        async with floor.outbox.worker(concurrency=4):
            for number in range(4):
                floor.outbox.put(floor.do, number)
                floor.outbox.put(aio, number)
            while len(seen) < 4:
                await asyncio.sleep(0.001)
            floor.go.set()
            while len(floor.done) < 4:
                await asyncio.sleep(0.001)

    asyncio.run(main())
    assert set(seen) == {threading.current_thread().name}
    assert all(name.startswith("seawall outbox worker") for name in floor.threads)
    assert floor.outbox.store.snapshot()["done"] == 8


def test_an_async_worker_that_is_cancelled_leaves_its_threads_their_leases() -> None:
    """Nobody else should begin what a thread of this process still does."""
    floor = Floor()
    floor.outbox.put(floor.do, 1)

    async def main() -> None:
        working = asyncio.create_task(floor.outbox.worker().arun())
        while not floor.running:
            await asyncio.sleep(0.001)
        working.cancel()
        await asyncio.wait([working])
        assert working.cancelled()

    asyncio.run(main())
    assert floor.outbox.stats().leased == 1
    floor.go.set()
    until(lambda: floor.done == [1])


def test_an_exit_in_a_thread_is_counted_and_the_worker_goes_on() -> None:
    outbox = MemoryOutbox()
    done: list[int] = []

    @outbox.operation("do")
    def do(number: int) -> None:
        if not number:
            raise SystemExit(3)
        done.append(number)

    with outbox.worker(concurrency=1) as worker:
        outbox.put(do, 0)
        until(lambda: worker.snapshot()["last_error"] == "do: SystemExit: 3")
        outbox.put(do, 1)
        until(lambda: done == [1])


def test_an_exit_in_a_thread_of_an_async_worker_ends_it_and_its_record_is_given_back() -> None:
    """The thread is not at work any more, so nobody need wait for the lease to run out."""
    outbox = MemoryOutbox()

    @outbox.operation("do")
    def do(number: int) -> None:
        raise SystemExit(3)

    outbox.put(do, 0)
    with pytest.raises(SystemExit):
        asyncio.run(outbox.worker().arun())
    (work,) = outbox.records("waiting")
    assert (work.attempts, work.last_error) == (1, "SystemExit: 3")


def test_records_are_neither_lost_nor_doubled_by_threads_that_lease_and_settle_beside_each_other() -> None:
    store = MemoryOutbox().store.open(BLOCKING)
    count, done = 400, set[str]()
    lock = Section()

    def put() -> None:
        for number in range(count):
            drive(store.put(make_work(order_key=None if number % 3 else f"key {number % 7}", priority=number % 10)))

    def work(number: int) -> None:
        rounds = 0
        while len(done) < 2 * count:
            leases, _ = drive(store.lease(3, 60 * SECOND))
            for lease in leases:
                rounds += 1
                if rounds % 5 == number % 5:
                    assert drive(store.retry(lease, 0, "again"))
                    continue
                assert drive(store.ack(lease))
                with lock:
                    assert lease.work.id not in done
                    done.add(lease.work.id)

    ends = in_threads([put, put, *(lambda number=number: work(number) for number in range(4))])  # type: ignore[misc]
    assert ends == [None] * 6
    stats = drive(store.stats())
    assert (len(done), stats.waiting, stats.leased) == (2 * count, 0, 0)


PROGRAM = """
import signal, sys
from seawall.outbox import MemoryOutbox
outbox = MemoryOutbox()

@outbox.operation("do")
def do(number: int) -> None:
    print("begun", flush=True)
    sys.stdin.readline()
    print("ended", flush=True)

outbox.put(do, 1)
outbox.put(do, 2)
worker = outbox.worker(concurrency=1)
signal.signal(signal.SIGTERM, lambda *_: worker.stop())
worker.run()
print("stopped with", outbox.stats().waiting, "waiting", flush=True)
"""


@pytest.mark.skipif(os.name == "nt", reason="no SIGTERM to be handled there")
def test_a_signal_handler_may_stop_a_worker_that_runs_in_the_main_thread() -> None:
    program = subprocess.Popen(
        [sys.executable, "-c", PROGRAM], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert program.stdout is not None and program.stdin is not None
    try:
        assert program.stdout.readline() == "begun\n"
        program.send_signal(signal.SIGTERM)
        program.stdin.write("go\n")
        program.stdin.flush()
        out, _ = program.communicate(timeout=30)
    finally:
        program.kill()
    assert out == "ended\nstopped with 1 waiting\n"
    assert program.returncode == 0
