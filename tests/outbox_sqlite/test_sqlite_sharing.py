"""Threads, coroutines, processes and forks at one file: who waits for whom, who hears of what, and what is shared."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from seawall.errors import BackendUnavailable
from seawall.outbox.sqlite import SqliteStore
from seawall.outbox.sqlite import desk as desk_module
from seawall.outbox.sqlite.step import READ
from seawall.runtime.aio import ASYNCIO
from seawall.runtime.blocking import BLOCKING, drive
from tests.outbox.benches import HOUR, SECOND, make_work

WITHIN = 20.0


def until(true: Callable[[], object], what: str) -> None:
    end = time.monotonic() + WITHIN
    while not true():
        assert time.monotonic() < end, f"never: {what}"
        time.sleep(0.002)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "outbox.db"


class Held:
    """The file in the hands of somebody else."""

    def __init__(self, path: Path) -> None:
        self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._db.execute("BEGIN IMMEDIATE")

    def let_go(self) -> None:
        self._db.execute("ROLLBACK")
        self._db.close()


# -- threads -----------------------------------------------------------------------------------------------------------


def test_threads_that_wait_share_one_commit(path: Path) -> None:
    store = SqliteStore(str(path))
    opened = store.open(BLOCKING)
    drive(opened.put(make_work()))
    before, held = store.snapshot()["commits"], Held(path)
    threads = [threading.Thread(target=lambda: drive(opened.put(make_work()))) for _ in range(20)]
    for thread in threads:
        thread.start()
    until(lambda: len(store._desk._queue) == 19, "all wait but the one who leads")
    held.let_go()
    for thread in threads:
        thread.join(WITHIN)
    assert store.snapshot()["commits"] == before + 2
    assert drive(opened.stats()).waiting == 21
    drive(opened.close())


def test_nothing_is_lost_or_done_twice_by_many_threads(path: Path) -> None:
    store = SqliteStore(str(path))
    opened = store.open(BLOCKING)
    put: list[str] = []
    done: list[str] = []

    def produce() -> None:
        for _ in range(50):
            work = make_work()
            drive(opened.put(work))
            put.append(work.id)

    def consume() -> None:
        while len(done) < 200:
            for lease in drive(opened.lease(5, HOUR))[0]:
                assert drive(opened.ack(lease))
                done.append(lease.work.id)

    threads = [threading.Thread(target=each) for each in (produce, consume) * 4]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WITHIN)
    assert sorted(done) == sorted(put) and len(put) == 200
    drive(opened.close())


def test_all_who_wait_are_told_in_time_that_the_file_is_not_free(path: Path) -> None:
    """Those behind the first wait no longer than he."""
    store = SqliteStore(str(path), timeout="300ms")
    opened = store.open(BLOCKING)
    drive(opened.put(make_work()))
    held = Held(path)
    told: list[tuple[float, str]] = []

    def put() -> None:
        begun = time.monotonic()
        with pytest.raises(BackendUnavailable) as caught:
            drive(opened.put(make_work()))
        told.append((time.monotonic() - begun, str(caught.value)))

    threads = [threading.Thread(target=put) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WITHIN)
    held.let_go()
    assert len(told) == 8
    assert all(0.2 < seconds < 2 for seconds, _ in told)
    assert drive(opened.stats()).waiting == 1, "and none of them happens later"
    drive(opened.put(make_work()))
    drive(opened.close())


def test_who_is_handed_the_lead_in_the_instant_in_which_his_time_ends_leads(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = SqliteStore(str(path), timeout="200ms")
    opened = store.open(BLOCKING)
    drive(opened.stats())
    begun, go = threading.Event(), threading.Event()
    withdraw = store._desk._withdraw

    def first(db: sqlite3.Connection) -> None:
        begun.set()
        go.wait(WITHIN)

    def withdraw_late(step: Any) -> None:
        go.set()
        until(lambda: step.lead, "the lead is handed on")
        withdraw(step)

    monkeypatch.setattr(store._desk, "_withdraw", withdraw_late)
    leader = threading.Thread(target=lambda: store._desk.call(first))
    leader.start()
    assert begun.wait(WITHIN)
    drive(opened.put(make_work()))
    leader.join(WITHIN)
    monkeypatch.undo()
    assert drive(opened.stats()).waiting == 1
    drive(opened.close())


def test_the_store_asked_from_within_its_own_step_does_not_wait_for_itself(path: Path) -> None:
    """By a finalizer, or a signal handler."""
    store = SqliteStore(str(path))
    opened = store.open(BLOCKING)

    def step(db: sqlite3.Connection) -> None:
        with pytest.raises(BackendUnavailable, match="in the middle of a step"):
            drive(opened.put(make_work()))

    store._desk.call(step)
    drive(opened.put(make_work()))
    drive(opened.close())


def test_a_step_that_is_broken_off_leaves_a_store_that_works(path: Path) -> None:
    """Ctrl-C in the middle of it: undone, and the next one has a new connection."""
    store = SqliteStore(str(path))
    opened = store.open(BLOCKING)
    work = make_work()

    def step(db: sqlite3.Connection) -> None:
        store._steps.put(db, work)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store._desk.call(step)
    assert drive(opened.find(work.id)) is None
    drive(opened.put(make_work()))
    drive(opened.close())


def test_a_signal_anywhere_leaves_a_store_that_works(path: Path) -> None:
    """Notebooks go on after Ctrl-C, and servers after a time limit that is set by a signal. Python handles signals where a
    function begins: here in each one in turn."""
    store = SqliteStore(str(path), timeout=1)
    opened = store.open(BLOCKING)
    drive(opened.put(make_work()))
    interrupted = 0
    for number in range(1_000):
        left = number

        def trace(frame: Any, event: str, arg: object) -> None:
            nonlocal left
            if frame.f_code.co_filename.endswith(("desk.py", "turn.py")) and frame.f_code.co_name[0] != "<":
                left -= 1
                if left == -1:
                    raise KeyboardInterrupt

        before = sys.gettrace()
        sys.settrace(trace)
        try:
            drive(opened.put(make_work()))
        except KeyboardInterrupt:
            interrupted += 1
        else:
            break
        finally:
            sys.settrace(before)
        began = time.monotonic()
        drive(opened.put(make_work()))
        assert time.monotonic() - began < 0.9, f"call {number} was broken off, and the next waits for nobody"
    assert interrupted > 5
    drive(opened.close())


def test_too_many_who_wait_are_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(desk_module, "MOST_WAITING", 3)

    async def main() -> None:
        store = SqliteStore(str(path), timeout="1s")
        opened = store.open(ASYNCIO)
        await opened.put(make_work())
        held = Held(path)
        tasks = [asyncio.create_task(opened.put(make_work()))]
        await asyncio.sleep(0.05)
        tasks += [asyncio.create_task(opened.put(make_work())) for _ in range(5)]
        await asyncio.sleep(0.05)
        held.let_go()
        ends = await asyncio.gather(*tasks, return_exceptions=True)
        refused = [str(end) for end in ends if isinstance(end, BackendUnavailable)]
        assert len(refused) == 2 and all("3 steps wait" in each for each in refused)
        await opened.close()

    asyncio.run(main())


# -- coroutines --------------------------------------------------------------------------------------------------------


def test_a_loop_goes_on_while_the_file_is_waited_for(path: Path) -> None:
    async def main() -> None:
        opened = SqliteStore(str(path)).open(ASYNCIO)
        await opened.put(make_work())
        held = Held(path)
        task = asyncio.create_task(opened.put(make_work()))
        for _ in range(20):
            await asyncio.sleep(0.005)
        assert not task.done()
        held.let_go()
        await task
        assert (await opened.stats()).waiting == 2
        await opened.close()

    asyncio.run(main())


def test_coroutines_share_commits_and_use_few_threads(path: Path) -> None:
    async def main() -> None:
        store = SqliteStore(str(path))
        opened = store.open(ASYNCIO)
        await opened.put(make_work())
        threads = threading.active_count()
        await asyncio.gather(*(opened.put(make_work()) for _ in range(200)))
        assert store.snapshot()["commits"] < 50
        assert threading.active_count() <= threads + 1
        assert (await opened.stats()).waiting == 201
        await opened.close()

    asyncio.run(main())


def test_a_step_cancelled_before_it_began_never_happens(path: Path) -> None:
    async def main() -> None:
        opened = SqliteStore(str(path)).open(ASYNCIO)
        await opened.put(make_work())
        held = Held(path)
        first = asyncio.create_task(opened.put(make_work()))
        await asyncio.sleep(0.05)
        second = asyncio.create_task(opened.put(make_work()))
        await asyncio.sleep(0.05)
        second.cancel()
        with pytest.raises(asyncio.CancelledError):
            await second
        held.let_go()
        await first
        assert (await opened.stats()).waiting == 2
        await opened.close()

    asyncio.run(main())


def test_leases_of_whoever_was_cancelled_are_given_back(path: Path) -> None:
    """The attempt is not counted, and nobody waits for the lease to run out."""

    async def main() -> None:
        opened = SqliteStore(str(path)).open(ASYNCIO)
        await opened.put(make_work())
        held = Held(path)
        task = asyncio.create_task(opened.lease(1, HOUR))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        held.let_go()
        end = time.monotonic() + WITHIN
        while not (leases := (await opened.lease(1, HOUR))[0]):
            assert time.monotonic() < end
            await asyncio.sleep(0.01)
        assert leases[0].work.attempts == 1
        await opened.close()

    asyncio.run(main())


def test_a_coroutine_hears_in_time_that_the_file_does_not_answer(path: Path) -> None:
    async def main() -> None:
        opened = SqliteStore(str(path), timeout="200ms").open(ASYNCIO)
        await opened.put(make_work())
        held = Held(path)
        begun = time.monotonic()
        ends = await asyncio.gather(*(opened.put(make_work()) for _ in range(5)), return_exceptions=True)
        assert all(isinstance(end, BackendUnavailable) for end in ends)
        assert time.monotonic() - begun < 2
        held.let_go()
        assert (await opened.stats()).waiting == 1
        await opened.close()

    asyncio.run(main())


def test_a_disk_that_hangs_holds_no_coroutine_and_no_second_thread(path: Path) -> None:
    """No timer reaches a thread within the system; those who can be told are."""
    store = SqliteStore(str(path), timeout="200ms")
    hangs = threading.Event()

    def hang(db: sqlite3.Connection) -> None:
        hangs.wait(WITHIN)

    async def main() -> None:
        opened = store.open(ASYNCIO)
        with pytest.raises(BackendUnavailable, match="did not answer in 0.2 s: what was asked may still happen"):
            await store._desk.acall(hang)
        with pytest.raises(BackendUnavailable, match="was not free"):
            await opened.put(make_work())
        with pytest.raises(BackendUnavailable, match="was not free"):
            drive(store.open(BLOCKING).put(make_work()))
        hangs.set()
        while store._desk._led:
            await asyncio.sleep(0.01)
        assert (await opened.stats()).waiting == 0
        await opened.close()

    asyncio.run(main())


def put_by_another(path: Path) -> None:
    """A record is put by a process of its own."""
    program = (
        "import sys\n"
        "from seawall.outbox.sqlite import SqliteStore\n"
        "from seawall.runtime.blocking import BLOCKING, drive\n"
        "from tests.outbox.benches import make_work\n"
        "drive(SqliteStore(sys.argv[1]).open(BLOCKING).put(make_work()))\n"
    )
    subprocess.run([sys.executable, "-c", program, str(path)], check=True)


# -- processes ---------------------------------------------------------------------------------------------------------


def _produce(path: str, count: int, seed: int, told: Any) -> None:
    opened = SqliteStore(path, timeout="30s").open(BLOCKING)
    ids = []
    for _ in range(count):
        work = make_work()
        drive(opened.put(work))
        ids.append(work.id)
    told.put(("put", ids))
    drive(opened.close())


def _consume(path: str, total: int, seed: int, told: Any) -> None:
    opened = SqliteStore(path, timeout="30s").open(BLOCKING)
    ids = []
    idle = 0
    while idle < 200:
        leases, _ = drive(opened.lease(4, 60 * SECOND))
        idle = 0 if leases else idle + 1
        for lease in leases:
            assert drive(opened.ack(lease))
            ids.append(lease.work.id)
        if not leases:
            time.sleep(0.005)
    told.put(("done", ids))
    drive(opened.close())


def test_processes_share_a_file_and_no_record_is_lost_or_done_twice(path: Path) -> None:
    """They all begin at once, when there is no file yet."""
    context = multiprocessing.get_context("spawn")
    told = context.Queue()
    processes = [
        context.Process(target=target, args=(str(path), 150, number, told))
        for number, target in enumerate((_produce, _produce, _consume, _consume))
    ]
    for process in processes:
        process.start()
    ends = [told.get(timeout=WITHIN) for _ in processes]
    for process in processes:
        process.join(WITHIN)
        assert process.exitcode == 0
    put = sorted(id_ for what, ids in ends if what == "put" for id_ in ids)
    done = sorted(id_ for what, ids in ends if what == "done" for id_ in ids)
    assert len(put) == 300 and done == put


def test_stores_that_make_one_file_at_the_same_instant_all_find_it_made(path: Path) -> None:
    for number in range(15):
        place = str(path.with_name(f"{number}.db"))
        stores = [SqliteStore(place) for _ in range(6)]
        start, failed = threading.Barrier(len(stores)), list[BaseException]()

        def put(store: SqliteStore, start: threading.Barrier = start, failed: list[BaseException] = failed) -> None:
            start.wait(WITHIN)
            try:
                drive(store.open(BLOCKING).put(make_work()))
            except BackendUnavailable as error:
                failed.append(error)

        threads = [threading.Thread(target=put, args=(store,)) for store in stores]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(WITHIN)
        assert not failed
        assert drive(stores[0].open(BLOCKING).stats()).waiting == len(stores)
        for store in stores:
            drive(store.open(BLOCKING).close())


def test_who_came_later_is_given_his_own_time(path: Path) -> None:
    """A step that waits for the file beside older ones does not fail with them."""
    store = SqliteStore(str(path), timeout="1.2s")
    opened = store.open(BLOCKING)
    drive(opened.put(make_work()))
    begun, go = threading.Event(), threading.Event()

    def first(db: sqlite3.Connection) -> None:
        begun.set()
        go.wait(WITHIN)

    def swallow(run: Callable[[], object], ends: list[str], name: str) -> None:
        try:
            run()
            ends.append(f"{name} done")
        except BackendUnavailable:
            ends.append(f"{name} failed")

    ends: list[str] = []

    def start(name: str) -> threading.Thread:
        thread = threading.Thread(target=swallow, args=(lambda: drive(opened.put(make_work())), ends, name))
        thread.start()
        return thread

    leader = threading.Thread(target=lambda: store._desk.call(first, READ))
    leader.start()
    assert begun.wait(WITHIN)
    threads = [start("early")]
    time.sleep(0.7)
    threads.append(start("late"))
    until(lambda: len(store._desk._queue) == 2, "both wait")
    held = threading.Event()

    def hold() -> None:
        db = sqlite3.connect(path, isolation_level=None, timeout=WITHIN)
        db.execute("BEGIN IMMEDIATE")
        held.set()
        time.sleep(0.7)
        db.execute("ROLLBACK")
        db.close()

    other = threading.Thread(target=hold)
    other.start()
    assert held.wait(WITHIN)
    go.set()
    for thread in (leader, other, *threads):
        thread.join(WITHIN)
    assert ends == ["early failed", "late done"]
    drive(opened.close())


def test_a_listener_hears_soon_of_what_another_process_put(path: Path) -> None:
    store = SqliteStore(str(path))
    drive(store.open(BLOCKING).stats())
    heard: list[float] = []
    deaf = store.listen(lambda: heard.append(time.monotonic()))
    until(lambda: store._news._thread is not None and store._seen is not None, "the thread looks")
    del heard[:]
    time.sleep(0.6)
    assert heard == [], "nobody is woken for nothing"
    put_by_another(path)
    put = time.monotonic()
    until(lambda: heard, "the listener hears")
    assert heard[0] - put < 1
    deaf()
    until(lambda: store._news._thread is None, "the thread ends with the last listener")
    drive(store.open(BLOCKING).close())


# -- forks -------------------------------------------------------------------------------------------------------------

forking = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # from 3.12 on a fork beside threads is warned of
]


def marked(test: Any) -> Any:
    for mark in forking:
        test = mark(test)
    return test


def in_child(act: Callable[[], int]) -> int:
    child = os.fork()
    if not child:
        code = 99
        try:
            code = act()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@marked
def test_a_forked_child_has_a_connection_and_locks_of_its_own(path: Path) -> None:
    """When the parent closes the file it must see that the child has it open, or it would throw away the log in which
    the child's records lie."""
    store = SqliteStore(str(path))
    opened = store.open(BLOCKING)
    drive(opened.put(make_work()))
    ready, closed = os.pipe(), os.pipe()
    child = os.fork()
    if not child:
        code = 1
        try:
            drive(opened.put(make_work()))
            os.write(ready[1], b".")
            os.read(closed[0], 1)
            drive(opened.put(make_work()))
            code = 0
        finally:
            os._exit(code)  # without a word to SQLite, as if it were killed
    os.read(ready[0], 1)
    assert drive(opened.stats()).waiting == 2
    drive(opened.close())
    os.write(closed[1], b".")
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert drive(opened.stats()).waiting == 3
    drive(opened.put(make_work()))
    assert drive(opened.stats()).waiting == 4
    drive(opened.close())
    for end in (*ready, *closed):
        os.close(end)


@marked
def test_a_fork_waits_for_the_step_under_way(path: Path) -> None:
    store = SqliteStore(str(path))
    opened = store.open(BLOCKING)
    drive(opened.put(make_work()))
    stop = threading.Event()

    def put() -> None:
        while not stop.is_set():
            drive(opened.put(make_work()))

    threads = [threading.Thread(target=put) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(5):
            assert in_child(lambda: len(drive(opened.put(make_work())))) == 0
    finally:
        stop.set()
        for thread in threads:
            thread.join(WITHIN)
    drive(opened.close())


@marked
def test_a_child_of_a_fork_that_could_not_wait_is_told_so(path: Path) -> None:
    """It would hold the parent's locks for its own. The parent goes on."""
    store = SqliteStore(str(path), timeout="100ms")
    opened = store.open(BLOCKING)
    drive(opened.put(make_work()))
    begun, go = threading.Event(), threading.Event()

    def hang(db: sqlite3.Connection) -> None:
        begun.set()
        go.wait(WITHIN)

    thread = threading.Thread(target=lambda: store._desk.call(hang))
    thread.start()
    assert begun.wait(WITHIN)

    def act() -> int:
        try:
            drive(opened.put(make_work()))
        except BackendUnavailable as error:
            return 7 if "was forked while a step was under way" in str(error) else 8
        return 9

    assert in_child(act) == 7
    go.set()
    thread.join(WITHIN)
    drive(opened.put(make_work()))
    drive(opened.close())


def test_a_closed_store_opens_again_when_it_is_used(path: Path) -> None:
    store = SqliteStore(str(path))
    opened = store.open(BLOCKING)
    drive(opened.put(make_work()))
    drive(opened.close())
    assert [each.name for each in path.parent.iterdir()] == ["outbox.db"]
    put_by_another(path)
    assert drive(opened.stats()).waiting == 2, "what was known of the file is known no more"
    drive(opened.close())
