"""The file of a store: how it is made, opened and closed, and what becomes of one that is corrupt."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from urllib.parse import quote

from seawall.errors import BackendUnavailable
from seawall.outbox.sqlite import schema
from seawall.outbox.sqlite.faults import is_busy

__all__ = ["File"]

MOST_WAL = 16 * 1024 * 1024
"""Bytes of the log that stay after it was written back; it is written back from 4 MiB on."""


class File:
    """One database file, and the connection of this process to it."""

    def __init__(self, path: str, synchronous: str) -> None:
        self.path = path
        self._synchronous = synchronous
        self._db: sqlite3.Connection | None = None

    def connection(self, timeout_ms: int) -> sqlite3.Connection:
        """The connection, opened if there is none. Raises `BackendUnavailable`, or what SQLite raises."""
        if self._db is None:
            self._db = self._open(timeout_ms)
        return self._db

    def drop(self) -> None:
        """Close the connection; what it had not committed is undone."""
        db, self._db = self._db, None
        if db is not None:
            try:
                db.close()
            except sqlite3.Error:
                pass  # whatever was wrong with it has been told

    def _open(self, timeout_ms: int) -> sqlite3.Connection:
        self._make()
        # `mode=rw`: SQLite would make a file that anybody may read.
        db = sqlite3.connect(
            f"file:{quote(os.path.abspath(self.path))}?mode=rw",  # noqa: PTH100  # never follows links
            uri=True,
            isolation_level=None,
            check_same_thread=False,
            timeout=timeout_ms / 1e3,
        )
        try:
            self._prepare(db)
        except BaseException:
            db.close()
            raise
        return db

    def _make(self) -> None:
        try:
            os.close(os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_RDWR | getattr(os, "O_CLOEXEC", 0), 0o600))
        except FileExistsError:
            return
        except FileNotFoundError:
            parent = Path(self.path).parent
            raise BackendUnavailable(
                f"{self.path}: there is no directory {parent}: make it, or give another path"
            ) from None

    def _prepare(self, db: sqlite3.Connection) -> None:
        if db.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
            db.execute("PRAGMA auto_vacuum = INCREMENTAL")
            mode = db.execute("PRAGMA journal_mode = WAL").fetchone()[0]
            if mode != "wal":
                raise BackendUnavailable(f"{self.path}: no write-ahead log is possible here (journal_mode is {mode!r})")
        db.execute(f"PRAGMA synchronous = {self._synchronous}")
        db.execute("PRAGMA fullfsync = 1")
        db.execute(f"PRAGMA journal_size_limit = {MOST_WAL}")
        db.execute("PRAGMA temp_store = MEMORY")
        version = db.execute("PRAGMA user_version").fetchone()[0]
        application = db.execute("PRAGMA application_id").fetchone()[0]
        if (application, version) != (schema.APPLICATION, schema.VERSION):
            db.execute("BEGIN IMMEDIATE")
            try:
                schema.prepare(db, self.path)
                db.execute("COMMIT")
            except BaseException:
                if db.in_transaction:
                    db.execute("ROLLBACK")
                raise
        db.execute("PRAGMA busy_timeout = 0")
