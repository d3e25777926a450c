"""The tables of the embedded store, and how a file of an older version becomes one of this.

Tables
    work     what is waiting or leased. `arrival` is its rowid: the order in which records were put.
    dead     dead letters, in the order in which they died.
    dropped  the latest that were dropped, without payload. Its sequence counts all that ever were.

Columns of `work` that no `Work` has
    ready    from when it may be leased: `due`, or the instant at which a lease that ran out was noticed.
    blocked  1 while an earlier record of its order key is held.
    until    when its lease runs out; NULL while it is waiting.
    token    of the lease that was given out last, until it is settled.

A put touches four pages: the ends of the table, of `work_id`, and of `work_ready`, which all grow at one place while
records of one operation come in one after another; and no counter.
"""

from __future__ import annotations

import sqlite3

from seawall.errors import BackendUnavailable

__all__ = ["APPLICATION", "COLUMNS", "VERSION", "look", "prepare"]

APPLICATION = 0x5EA_3A11
"""Tells a file of ours from another's: `PRAGMA application_id`."""
VERSION = 1
"""Of the tables below: `PRAGMA user_version`."""

COLUMNS = (
    "id, operation, payload, idempotency_key, due, created, expires, attempts, priority, order_key, criticality, "
    "last_error, ended"
)
"""The fields of a `Work`, in its order."""

_WORK = """
    id TEXT NOT NULL, operation TEXT NOT NULL, priority INTEGER NOT NULL, due INTEGER NOT NULL,
    created INTEGER NOT NULL, expires INTEGER NOT NULL, attempts INTEGER NOT NULL, criticality INTEGER NOT NULL,
    order_key TEXT, idempotency_key TEXT NOT NULL, last_error TEXT NOT NULL, ended TEXT NOT NULL"""

TABLES = (
    f"""CREATE TABLE work (arrival INTEGER PRIMARY KEY, ready INTEGER NOT NULL, blocked INTEGER NOT NULL DEFAULT 0,
        until INTEGER, token INTEGER, {_WORK}, payload BLOB NOT NULL)""",
    "CREATE UNIQUE INDEX work_id ON work (id)",
    "CREATE INDEX work_ready ON work (operation, priority, ready) WHERE until IS NULL AND blocked = 0",
    "CREATE INDEX work_until ON work (until) WHERE until IS NOT NULL",
    "CREATE INDEX work_order ON work (order_key, arrival) WHERE order_key IS NOT NULL",
    f"CREATE TABLE dead (place INTEGER PRIMARY KEY, {_WORK}, payload BLOB NOT NULL)",
    "CREATE UNIQUE INDEX dead_id ON dead (id)",
    f"CREATE TABLE dropped (place INTEGER PRIMARY KEY AUTOINCREMENT, {_WORK}, payload BLOB NOT NULL)",
    "CREATE INDEX dropped_id ON dropped (id)",
)

STEPS: dict[int, tuple[str, ...]] = {}
"""What makes a file of version n one of version n + 1."""


def look(db: sqlite3.Connection, path: str) -> int:
    """The version of the tables; 0 if there are none. Changes nothing.

    Raises `BackendUnavailable` for a file that is another's, or newer.
    """
    application = db.execute("PRAGMA application_id").fetchone()[0]
    version: int = db.execute("PRAGMA user_version").fetchone()[0]
    if application == 0 and version == 0 and not db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
        return 0
    if application != APPLICATION:
        raise BackendUnavailable(
            f"{path} is a database of another application, and is left as it is: give the outbox a path of its own"
        )
    if version > VERSION:
        raise BackendUnavailable(
            f"{path} was written by a newer Seawall (version {version} of its tables, this one knows {VERSION}), and "
            "is left as it is: use that Seawall here too, or give another path"
        )
    return version


def prepare(db: sqlite3.Connection, path: str) -> None:
    """Make the tables, or bring older ones up to date, within a transaction that holds the file. Raises as `look`."""
    # Another process may have done it since it was looked at.
    version = look(db, path)
    if version == 0:
        for statement in TABLES:
            db.execute(statement)
        db.execute(f"PRAGMA application_id = {APPLICATION}")
        version = VERSION
    while version < VERSION:
        for statement in STEPS[version]:
            db.execute(statement)
        version += 1
    db.execute(f"PRAGMA user_version = {version}")
