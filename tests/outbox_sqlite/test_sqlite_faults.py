"""Disks that fail, run full or are slow: nothing is acknowledged that is not safe, and the store goes on afterwards."""

from __future__ import annotations

import os
import resource
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from seawall.errors import BackendUnavailable
from seawall.outbox import Outbox
from seawall.outbox.record import Work
from seawall.outbox.sqlite import SqliteStore
from seawall.outbox.sqlite import file as file_module
from seawall.runtime.blocking import BLOCKING, drive
from tests.outbox.benches import HOUR, make_work
from tests.outbox_sqlite.disk import FULL, IOERR, IOERR_FSYNC, Disk, why_not

layered = pytest.mark.skipif(bool(why_not()), reason=why_not() or "-")


def _all_there(path: Path, works: list[Work], *, unsure: Work | None = None) -> None:
    """As another process finds the file: what was acknowledged, and perhaps what nobody knows of."""
    fresh = SqliteStore(str(path)).open(BLOCKING)
    found = [work.id for work in drive(fresh.page("waiting", limit=1_000))]
    assert [id_ for id_ in found if unsure is None or id_ != unsure.id] == [work.id for work in works]
    drive(fresh.close())


@layered
@pytest.mark.parametrize(("what", "code"), [("sync", IOERR_FSYNC), ("write", IOERR), ("write", FULL)])
@pytest.mark.parametrize("after", [0, 1, 2])
def test_a_put_whose_commit_fails_raises_and_the_next_one_is_on_a_new_connection(
    what: str, code: int, after: int, tmp_path: Path
) -> None:
    path = tmp_path / "outbox.db"
    store = SqliteStore(str(path))
    opened = store.open(BLOCKING)
    with Disk.in_place() as disk:
        works = [make_work(payload=bytes(9_000)) for _ in range(3)]
        for work in works:
            drive(opened.put(work))
        seen = 0

        def fault(kind: str, name: str) -> int:
            nonlocal seen
            if kind != what or not name.endswith("-wal"):
                return 0
            seen += 1
            return code if seen > after else 0

        times, failed = store.snapshot()["opened"], make_work(payload=bytes(9_000))
        disk.fault = fault
        if what == "sync" and after:
            for _ in range(after):
                works.append(make_work())
                drive(opened.put(works[-1]))
        with pytest.raises(BackendUnavailable, match="disk") as caught:
            drive(opened.put(failed))
        assert "outbox.db" in str(caught.value) and caught.value.__cause__ is not None
        disk.fault = None
        works.append(make_work())
        drive(opened.put(works[-1]))
        assert store.snapshot()["opened"] == times + 1
        drive(opened.close())
    _all_there(path, works, unsure=failed)


@layered
def test_a_failed_commit_fails_all_who_shared_it(tmp_path: Path) -> None:
    """And each of them with an error of his own."""
    store = SqliteStore(str(tmp_path / "outbox.db"))
    opened = store.open(BLOCKING)
    with Disk.in_place() as disk:
        drive(opened.stats())
        first, go = threading.Event(), threading.Event()

        def fault(kind: str, name: str) -> int:
            if kind != "sync":
                return 0
            if not first.is_set():
                first.set()
                assert go.wait(10)
                return 0
            return IOERR_FSYNC

        errors: list[BaseException | None] = []

        def put() -> None:
            try:
                drive(opened.put(make_work()))
                errors.append(None)
            except BackendUnavailable as error:
                errors.append(error)

        disk.fault = fault
        threads = [threading.Thread(target=put)]
        threads[0].start()
        assert first.wait(10)
        threads += [threading.Thread(target=put) for _ in range(5)]
        for thread in threads[1:]:
            thread.start()
        while len(store._desk._queue) < 5:
            pass
        go.set()
        for thread in threads:
            thread.join(10)
        disk.fault = None
        told = [error for error in errors if error is not None]
        assert len(errors) == 6 and len(told) == 5 and len({id(error) for error in told}) == 5
        assert drive(opened.stats()).waiting >= 1
        drive(opened.close())


@layered
def test_what_is_stored_after_a_failed_sync_survives_a_power_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The system forgets what it could not sync, and calls the next sync a success. SQLite's log would have a hole."""
    lost = 0
    for rewrites in (True, False):
        for seed in range(6):
            before, after = tmp_path / f"before-{rewrites}-{seed}", tmp_path / f"after-{rewrites}-{seed}"
            before.mkdir()
            after.mkdir()
            with Disk.in_place() as disk, monkeypatch.context() as patch:
                patch.setattr(file_module, "rewrite", disk.rewrite if rewrites else lambda path: None)
                store = SqliteStore(str(before / "outbox.db"))
                opened = store.open(BLOCKING)
                works = [make_work()]
                drive(opened.put(works[0]))
                # The close that follows the failure cannot write the log back either.
                disk.fault = lambda kind, name: IOERR_FSYNC if kind == "sync" else 0
                with pytest.raises(BackendUnavailable):
                    drive(opened.put(make_work()))
                disk.fault = None
                works.append(make_work())
                drive(opened.put(works[-1]))
                disk.cut(after, seed)
                drive(opened.close())
            fresh = SqliteStore(str(after / "outbox.db")).open(BLOCKING)
            missing = [work for work in works if drive(fresh.find(work.id)) is None]
            drive(fresh.close())
            assert not (rewrites and missing)
            lost += len(missing)
    assert lost, "without it there is a loss to be found"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of a megabyte and a half."""
    place = tmp_path / "small"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1536k", "tmpfs", str(place)]
    try:
        done = subprocess.run(mount, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no mount command here")
    if done.returncode:
        pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_full_disk_refuses_what_it_cannot_hold_and_keeps_what_it_took(small_disk: Path) -> None:
    """Draining makes room again, though no byte of the disk was free."""
    path = small_disk / "outbox.db"
    store = SqliteStore(str(path))
    opened = store.open(BLOCKING)
    works: list[Work] = []
    with pytest.raises(BackendUnavailable, match="disk"):
        while len(works) < 1_000:
            work = make_work(payload=os.urandom(10_000))
            drive(opened.put(work))
            works.append(work)
    assert 10 < len(works) < 200
    assert [work.id for work in drive(opened.page("waiting", limit=1_000))] == [work.id for work in works]
    drive(opened.close())
    _all_there(path, works)


def test_a_limit_of_the_file_size_is_a_full_disk(tmp_path: Path) -> None:
    """Where nothing can be mounted: the kernel refuses to let the file grow."""
    program = (
        "import resource, signal, sys\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "from seawall.errors import BackendUnavailable\n"
        "from seawall.outbox.sqlite import SqliteStore\n"
        "from seawall.runtime.blocking import BLOCKING, drive\n"
        "from tests.outbox.benches import make_work\n"
        "opened = SqliteStore(sys.argv[1]).open(BLOCKING)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, resource.RLIM_INFINITY))\n"
        "count = 0\n"
        "try:\n"
        "    while count < 1_000:\n"
        "        drive(opened.put(make_work(payload=bytes(10_000))))\n"
        "        count += 1\n"
        "except BackendUnavailable:\n"
        "    print(count, drive(opened.stats()).waiting)\n"
    )
    assert resource.RLIMIT_FSIZE is not None
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "outbox.db")], capture_output=True, text=True, check=True
    )
    acknowledged, waiting = map(int, done.stdout.split())
    assert 5 < acknowledged == waiting < 1_000


def test_a_record_that_sqlite_refuses_harms_no_other(tmp_path: Path) -> None:
    """Numbers and texts beyond what it stores: the error is that of this put alone, and the connection stays."""
    store = SqliteStore(str(tmp_path / "outbox.db"))
    opened = store.open(BLOCKING)
    drive(opened.put(make_work()))
    with pytest.raises(OverflowError):
        drive(opened.put(make_work(due_ns=1 << 70)))
    with pytest.raises(UnicodeEncodeError):
        drive(opened.put(make_work(operation="\ud800")))
    leases, _ = drive(opened.lease(1, HOUR))
    assert len(leases) == 1 and store.snapshot()["opened"] == 1
    drive(opened.close())


def test_a_damaged_text_holds_up_no_record(tmp_path: Path) -> None:
    """SQLite keeps no checksums: what the disk has changed within a text is read as it is."""
    path = tmp_path / "outbox.db"
    store = SqliteStore(str(path))
    opened = store.open(BLOCKING)
    works = [make_work(last_error="the mail server is down") for _ in range(3)]
    for work in works:
        drive(opened.put(work))
    drive(opened.close())
    with closing(sqlite3.connect(path)) as db, db:
        db.execute(
            "UPDATE work SET last_error = CAST(x'ff41' AS TEXT), order_key = CAST(x'c3' AS TEXT) WHERE arrival = 2"
        )
    found = drive(opened.page("waiting"))
    assert [work.id for work in found] == [work.id for work in works]
    leases, _ = drive(opened.lease(3, HOUR))
    assert [lease.work.id for lease in leases] == [work.id for work in works]
    assert leases[1].work.last_error == "\ufffdA"
    assert [drive(opened.ack(lease)) for lease in leases] == [True] * 3
    assert drive(opened.stats()).waiting == 0
    drive(opened.close())


def test_a_damaged_number_ends_no_worker(tmp_path: Path) -> None:
    """It ends as a dead letter, and what lies behind it is done."""
    path = tmp_path / "outbox.db"
    outbox = Outbox(f"sqlite:///{path}")
    done: list[int] = []

    @outbox.operation("do")
    def do(number: int) -> None:
        done.append(number)

    for number in range(4):
        outbox.put(do, number)
    outbox.close()
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("UPDATE work SET expires = 'x', attempts = 'y', payload = 7 WHERE arrival = 1")
        db.execute("UPDATE work SET criticality = 'x', created = x'00', order_key = 5 WHERE arrival = 2")
    assert outbox.worker().drain() == 3
    assert done == [1, 2, 3]
    assert [work.ended for work in outbox.records("dead")] == ["age"]
    assert outbox.replay("all") == 1
    outbox.close()
