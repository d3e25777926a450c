"""Section `outbox_sqlite`: records stored and done in an SQLite file, beside INSERT with COMMIT, and other queues.

All of them have a write-ahead log and `synchronous=FULL`: what was stored survives a power cut. The bare row is what
SQLite does for the same bytes in one table without an index. Run it by itself: `python -m benchmarks.outbox_sqlite`.
The files lie in the directory for temporary files; if that is in memory a sync costs nothing, and only Python is timed.
"""

from __future__ import annotations

import shutil
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from .measure import FULL, QUICK, Effort, Subject, async_timings, sync_timings
from .outboxes import PAYLOAD, TOGETHER, put, put_together, way, way_together
from .report import heading, table_text
from .settings import ANSWER
from .tables import TIMES, Table, compared

SEAWALL = "seawall"
PEERS = [
    "huey: SqliteStorage with fsync=True. What is dequeued is deleted at once, and lost if its worker dies; no leases.",
    "persist-queue: SQLiteAckQueue. An item is marked when it is got and when it is acked, and cleared away later.",
]
SHARED = f"Of {TOGETHER} in flight several are written by one commit; each hears only after it."


def outbox_sqlite(effort: Effort) -> list[Table]:
    """Putting one record; putting fifty at once; a record's whole way; the same fifty at once."""
    directory = Path(tempfile.mkdtemp(prefix="seawall-outbox-"))
    try:
        return [
            _table("put", "one put after another", sync_timings(_puts(directory), effort), 1),
            _table("put async", f"{TOGETHER} puts at once", async_timings(_puts_together(directory), effort), TOGETHER),
            _table("way", "put, lease, ack, one after another", sync_timings(_ways(directory), effort), 1),
            _table(
                "way async",
                f"put, lease, ack of {TOGETHER} at once",
                async_timings(_ways_together(directory), effort),
                TOGETHER,
            ),
        ]
    finally:
        shutil.rmtree(directory)


def _table(key: str, title: str, timings: list[Any], each: int) -> Table:
    for timing in timings:
        timing.samples = [sample / each for sample in timing.samples]
    rows = compared(timings)
    share = next((1 / row.of_bare for row in rows if row.subject.startswith(SEAWALL) and row.of_bare), None)
    notes = [SHARED] if each > 1 else [*PEERS]
    if share is not None:
        notes.append(f"Seawall reaches {share:.2f} {TIMES} the rate of the bare INSERT + COMMIT.")
    return Table(f"outbox sqlite {key}", f"SQLite outbox, {title} (figures: ns a record)", rows, notes=notes)


# -- subjects ----------------------------------------------------------------------------------------------------------


def _puts(directory: Path) -> list[Subject]:
    return [
        Subject("INSERT + COMMIT", lambda: _bare(directory), "bare"),
        Subject(SEAWALL, lambda: put(_store(directory, is_async=False)), "ours"),
        Subject("huey, SqliteHuey", lambda: _huey(directory, way=False)),
        Subject("persist-queue, SQLiteAckQueue", lambda: _persist_queue(directory, way=False)),
    ]


def _ways(directory: Path) -> list[Subject]:
    return [
        Subject("3 x INSERT + COMMIT", lambda: _thrice(_bare(directory)), "bare"),
        Subject(SEAWALL, lambda: way(_store(directory, is_async=False)), "ours"),
        Subject("huey, SqliteHuey", lambda: _huey(directory, way=True)),
        Subject("persist-queue, SQLiteAckQueue", lambda: _persist_queue(directory, way=True)),
    ]


def _puts_together(directory: Path) -> list[Subject]:
    return [
        Subject(f"{TOGETHER} x INSERT + COMMIT", lambda: _many(_bare(directory), TOGETHER), "bare"),
        Subject(f"{SEAWALL}, async", lambda: _together(directory, put_together), "ours"),
    ]


def _ways_together(directory: Path) -> list[Subject]:
    return [
        Subject(f"{3 * TOGETHER} x INSERT + COMMIT", lambda: _many(_bare(directory), 3 * TOGETHER), "bare"),
        Subject(f"{SEAWALL}, async", lambda: _together(directory, way_together), "ours"),
    ]


def _path(directory: Path) -> str:
    return str(directory / f"{time.time_ns()}.db")


def _bare(directory: Path) -> Callable[[], int]:
    db = sqlite3.connect(_path(directory), isolation_level=None, check_same_thread=False)
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = FULL")
    db.execute("CREATE TABLE work (arrival INTEGER PRIMARY KEY, fields TEXT, payload BLOB)")
    # As many bytes as the fields of a record have.
    fields = "x" * 150

    def call() -> int:
        db.execute("BEGIN IMMEDIATE")
        db.execute("INSERT INTO work (fields, payload) VALUES (?, ?)", (fields, PAYLOAD))
        db.execute("COMMIT")
        return ANSWER

    return call


def _thrice(call: Callable[[], int]) -> Callable[[], int]:
    def thrice() -> int:
        call()
        call()
        return call()

    return thrice


def _many(call: Callable[[], int], count: int) -> Callable[[], Any]:
    async def many() -> int:
        for _ in range(count):
            call()
        return ANSWER

    return many


def _store(directory: Path, *, is_async: bool) -> Any:
    from seawall.outbox.sqlite import SqliteStore
    from seawall.runtime.which import runtime_for

    return SqliteStore(_path(directory), backlog=10_000_000).open(runtime_for(is_async=is_async))


def _together(directory: Path, calls: Callable[[Callable[[], Any]], Callable[[], Any]]) -> Callable[[], Any]:
    opened = _store(directory, is_async=True)
    return calls(lambda: opened)


def _huey(directory: Path, *, way: bool) -> Callable[[], int]:
    storage = import_module("huey.storage").SqliteStorage(filename=_path(directory), fsync=True)

    def call() -> int:
        storage.enqueue(PAYLOAD)
        if way:
            assert storage.dequeue() is not None
        return ANSWER

    return call


def _persist_queue(directory: Path, *, way: bool) -> Callable[[], int]:
    queue = import_module("persistqueue").SQLiteAckQueue(_path(directory), auto_commit=True, multithreading=True)

    def call() -> int:
        queue.put(PAYLOAD)
        if way:
            queue.ack(queue.get(block=False))
        return ANSWER

    return call


if __name__ == "__main__":
    quick = "--quick" in sys.argv[1:]
    print(heading("python -m benchmarks.outbox_sqlite"))
    for made in outbox_sqlite(QUICK if quick else FULL):
        print(table_text(made, markdown="--markdown" in sys.argv[1:]))
