"""No step of the every-day ones reads more than it must, however long the backlog: see the plans SQLite makes."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from seawall.outbox.sqlite import SqliteStore
from seawall.outbox.sqlite import steps as steps_module
from seawall.runtime import clock
from seawall.runtime.blocking import BLOCKING, drive
from tests.outbox.benches import HOUR, make_work

MANY = 100_000


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> SqliteStore:
    """A store with 100,000 records, half of them of an operation that is skipped, and some out on lease."""
    store = SqliteStore(str(tmp_path_factory.mktemp("full") / "outbox.db"), synchronous="normal", backlog=MANY + 1_000)

    def fill(db: sqlite3.Connection) -> None:
        db.execute(
            """WITH RECURSIVE number (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM number WHERE n < ? - 1)
            INSERT INTO work (id, operation, ready, due, created, expires, priority, attempts, criticality, order_key,
                idempotency_key, last_error, ended, payload)
            SELECT printf('%032x', n), iif(n < ? / 2, 'mail.send', 'audit.write'), ? + (n % 10 - 5) * ?, 0, 0, 0, 5, 0,
                2, iif(n % 10, NULL, 'key ' || n), 'key', '', '', zeroblob(100) FROM number""",
            (MANY, MANY, clock.wall_ns(), HOUR),
        )

    store._desk.call(fill)
    return store


def statements(store: SqliteStore, step: Callable[[], Any]) -> set[str]:
    """What a step asks of SQLite."""
    db, seen = store._desk.file.connection(1_000), set[str]()
    db.set_trace_callback(seen.add)
    try:
        step()
    finally:
        db.set_trace_callback(None)
    return {each for each in seen if not each.startswith(("BEGIN", "COMMIT", "PRAGMA"))}


def test_the_steps_of_a_record_scan_no_table_and_sort_nothing(full: SqliteStore) -> None:
    opened = full.open(BLOCKING)

    def every_day() -> None:
        drive(opened.put(make_work(order_key="key 10")))
        leases, _ = drive(opened.lease(8, HOUR, {"mail.send"}))
        assert len(leases) == 8
        drive(opened.renew(leases[0], HOUR))
        drive(opened.ack(leases[0]))
        drive(opened.retry(leases[1], clock.wall_ns(), "no"))
        drive(opened.release(leases[2], clock.wall_ns()))
        drive(opened.bury(leases[3], "final", "no"))
        drive(opened.find(leases[4].work.id))
        drive(opened.page("waiting", limit=10, after=leases[1].work.id))

    asked = statements(full, every_day)
    assert len(asked) > 15
    db = full._desk.file.connection(1_000)
    for statement in asked:
        plan = " / ".join(row[3] for row in db.execute(f"EXPLAIN QUERY PLAN {statement}"))
        assert "TEMP B-TREE" not in plan, (statement, plan)
        # `SCAN CONSTANT ROW` and the subqueries of one row read no table.
        assert "SCAN work" not in plan and "SCAN dead" not in plan.replace("SCAN dead (", ""), (statement, plan)


def _work_of(store: SqliteStore, step: Callable[[], Any]) -> int:
    """How many thousand instructions of SQLite's machine a step takes: more certain than time."""
    db, count = store._desk.file.connection(1_000), [0]

    def tick() -> int:
        count[0] += 1
        return 0

    db.set_progress_handler(tick, 100)
    try:
        step()
    finally:
        db.set_progress_handler(None, 0)
    return count[0] * 100


def test_a_lease_of_8_out_of_100_000_looks_at_few(full: SqliteStore) -> None:
    """Whatever is skipped before them."""
    opened = full.open(BLOCKING)
    drive(opened.stats())
    for skip in ((), ("mail.send",), ("audit.write",), ("mail.send", "audit.write")):
        assert _work_of(full, lambda skip=skip: drive(opened.lease(8, HOUR, skip))) < 5_000, skip  # type: ignore[misc]


def test_a_put_and_an_ack_look_at_few(full: SqliteStore) -> None:
    opened = full.open(BLOCKING)
    (lease,), _ = drive(opened.lease(1, HOUR))
    assert _work_of(full, lambda: drive(opened.put(make_work()))) < 1_000
    assert _work_of(full, lambda: drive(opened.ack(lease))) < 1_000


def test_stats_and_a_full_backlog_count_once(tmp_path: Path) -> None:
    """While nobody else writes to the file, a count is kept."""
    store = SqliteStore(str(tmp_path / "outbox.db"), synchronous="normal", backlog=3_000, when_full="drop-oldest")
    opened = store.open(BLOCKING)

    def fill(db: sqlite3.Connection) -> None:
        for _ in range(3_100):
            store._steps.put(db, make_work())

    store._desk.call(fill)
    assert _work_of(store, lambda: drive(opened.put(make_work()))) < 2_000
    stats = drive(opened.stats())
    assert (stats.waiting, stats.dropped) == (3_000, 101)
    assert len(drive(opened.page("dropped", limit=10_000))) == 101
    drive(opened.close())


def test_no_more_than_a_thousand_dropped_are_listed_and_all_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steps_module, "MOST_DROPPED_LISTED", 20)
    store = SqliteStore(str(tmp_path / "outbox.db"), synchronous="normal", backlog=5, when_full="drop-oldest")
    opened = store.open(BLOCKING)
    works = [make_work(payload=bytes(5_000)) for _ in range(50)]
    for work in works:
        drive(opened.put(work))
    listed = drive(opened.page("dropped", limit=10_000))
    assert [work.id for work in listed] == [work.id for work in works[25:45]]
    assert all(work.payload == b"" and work.ended == "backlog" for work in listed)
    assert drive(opened.stats()).dropped == 45
    assert drive(opened.purge("dropped")) == 20
    assert drive(opened.stats()).dropped == 45
    drive(opened.close())
