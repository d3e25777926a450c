"""No acknowledged step is lost by a power cut, and no record that was done comes back; with less care they are."""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path
from random import Random
from typing import Any

import pytest

from seawall.errors import BackendUnavailable
from seawall.outbox.record import Work
from seawall.outbox.sqlite import SqliteStore
from seawall.outbox.sqlite import file as file_module
from seawall.outbox.store import OpenStore
from seawall.runtime import clock
from seawall.runtime.blocking import BLOCKING, drive
from tests.outbox.benches import HOUR, SECOND, make_work
from tests.outbox_sqlite.disk import Disk, why_not

pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not() or "-")
CUTS = 100


@pytest.fixture(autouse=True)
def written_back_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cuts must also hit the moments in which the log is written back to the file."""
    prepare = file_module.File._prepare

    def often(self: Any, db: sqlite3.Connection, timeout_ms: int) -> None:
        prepare(self, db, timeout_ms)
        db.execute("PRAGMA wal_autocheckpoint = 12")

    monkeypatch.setattr(file_module.File, "_prepare", often)


class Worker:
    """Makes steps until the power goes, and remembers which of them returned."""

    def __init__(self, store: SqliteStore, seed: int) -> None:
        self._open: OpenStore = store.open(BLOCKING)
        self._random = Random(seed)
        self.held: dict[str, Work] = {}
        """Those that must be there: how the last step that returned left them."""
        self.gone: set[str] = set()
        self.unsure: set[str] = set()
        """Those of the step that was cut off."""

    def run(self, steps: int) -> None:
        try:
            for _ in range(steps):
                self._step()
        except BackendUnavailable:
            pass

    def _step(self) -> None:
        random = self._random
        choice = random.random()
        if choice < 0.6:
            work = make_work(payload=bytes(random.choice([10, 300, 6_000])))
            self.unsure = {work.id}
            drive(self._open.put(work))
            self.held[work.id] = work
        elif choice < 0.97:
            self._work(random)
        else:
            drive(self._open.close())
        self.unsure = set()

    def _work(self, random: Random) -> None:
        # Any record may be meant, until the answer is here.
        self.unsure = set(self.held)
        leases, _ = drive(self._open.lease(3, HOUR))
        self.unsure = set()
        for lease in leases:
            self.held[lease.work.id] = lease.work
        for lease in leases:
            id_ = lease.work.id
            self.unsure = {id_}
            end = random.choice(["ack", "ack", "retry", "bury"])
            if end == "ack":
                assert drive(self._open.ack(lease))
                self.held.pop(id_)
                self.gone.add(id_)
            elif end == "retry":
                error = f"no {random.random()}"
                assert drive(self._open.retry(lease, lease.work.due_ns, error))
                self.held[id_] = lease.work.replace(last_error=error)
            else:
                assert drive(self._open.bury(lease, "final", "no"))
                self.held[id_] = lease.work.replace(ended="final", last_error="no")


def cut_once(directory: Path, seed: int, synchronous: str = "full", *, honest: bool = True) -> list[str]:
    """One cut, at an operation chosen by the seed; what was lost by it."""
    random = Random(seed)
    before, after = directory / f"before-{seed}", directory / f"after-{seed}"
    before.mkdir()
    after.mkdir()
    with Disk.in_place() as disk:
        disk.honest = honest
        disk.cut_at = random.randint(1, 700)
        store = SqliteStore(str(before / "outbox.db"), synchronous=synchronous)
        workers = [Worker(store, seed * 10 + number) for number in range(random.choice([1, 1, 3]))]
        threads = [threading.Thread(target=worker.run, args=(200 // len(workers),)) for worker in workers[1:]]
        for thread in threads:
            thread.start()
        workers[0].run(200 // len(workers))
        for thread in threads:
            thread.join()
        assert disk.dead, "the power never went"
        disk.cut(after, seed)
        store._desk.file.drop()
    return check(after / "outbox.db", workers)


def check(path: Path, workers: list[Worker]) -> list[str]:
    """What is wrong with the file after the cut."""
    store = SqliteStore(str(path))
    opened = store.open(BLOCKING)
    wrong: list[str] = []
    try:
        # Leases of one worker may be of another's records.
        gone = set[str]().union(*(worker.gone for worker in workers))
        unsure = set[str]().union(*(worker.unsure for worker in workers))
        single = len(workers) == 1
        for worker in workers:
            for id_, work in worker.held.items():
                found = drive(opened.find(id_))
                if id_ in gone or id_ in unsure:
                    continue
                if found is None:
                    wrong.append(f"{id_} is lost")
                elif single and found != work:
                    wrong.append(f"{id_} is not as it was left")
                elif work.ended and not found.ended:
                    wrong.append(f"{id_} is alive again")
        wrong += [f"{id_} came back" for id_ in gone if drive(opened.find(id_)) is not None]
        db = store._desk.file.connection(1_000)
        if db.execute("PRAGMA integrity_check").fetchone()[0] != "ok":
            wrong.append("the file is corrupt")
        work = make_work(priority=9, due_ns=clock.wall_ns() - HOUR)
        drive(opened.put(work))
        leases, _ = drive(opened.lease(1, SECOND))
        if [lease.work.id for lease in leases] != [work.id] or not drive(opened.ack(leases[0])):
            wrong.append("it does not work any more")
    except (BackendUnavailable, sqlite3.DatabaseError) as error:
        wrong.append(f"the file is corrupt: {error}")
    finally:
        drive(opened.close())
    return wrong


def test_no_acknowledged_step_is_lost_by_a_power_cut(tmp_path: Path) -> None:
    """At any operation, with writes torn and in any order; with one thread and several, whose commits are shared."""
    for seed in range(CUTS):
        assert cut_once(tmp_path, seed) == [], f"seed {seed}"


def test_with_synchronous_normal_the_last_may_be_lost_but_the_file_is_whole(tmp_path: Path) -> None:
    """Which shows, too, that these cuts find losses where there are any."""
    wrong = [each for seed in range(40) for each in cut_once(tmp_path, seed, "normal")]
    assert any("lost" in each or "came back" in each for each in wrong)
    assert not [each for each in wrong if "corrupt" in each or "work any more" in each]


def test_a_disk_that_lies_about_syncs_is_found_out(tmp_path: Path) -> None:
    assert any(cut_once(tmp_path, seed, honest=False) for seed in range(20))
