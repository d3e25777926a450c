"""The file of a store: how it is made, opened and closed."""

from __future__ import annotations

import os
import sqlite3
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from itertools import count
from pathlib import Path
from urllib.parse import quote

from seawall.errors import BackendUnavailable
from seawall.outbox.sqlite import aside, schema
from seawall.outbox.sqlite.faults import is_busy, is_corrupt

__all__ = ["File"]

_text = partial(str, encoding="utf-8", errors="replace")

MOST_WAL = 16 * 1024 * 1024
"""Bytes of the log that stay after it was written back; SQLite writes it back from 1,000 pages on."""
PAUSE = 0.01
_LEAKED: list[sqlite3.Connection] = []
"""Connections of a parent that was forked in the middle of a step, or to files that have gone. Closing them would be as
wrong as using them."""


class File:
    """One database file, and the connection of this process to it; `forget` is called when there is a new one."""

    def __init__(self, path: str, synchronous: str, forget: Callable[[], object]) -> None:
        # From where the process is now: it may go elsewhere, and must not find another file when it opens it again.
        # Links stay as they are.
        self.path = os.path.abspath(path)
        self.opened = 0
        """How many times it was opened here."""
        self.kept: str | None = None
        """Where a corrupt predecessor lies."""
        self._synchronous = synchronous
        self._forget = forget
        self._db: sqlite3.Connection | None = None
        self._identity: tuple[int, int] | None = None
        self._suspect = self._doubtful = self._spoilt = False

    def connection(self, timeout_ms: int) -> sqlite3.Connection:
        """The connection, opened if there is none. Raises `BackendUnavailable`, or what SQLite raises."""
        if self._db is not None and self._identity != _identity_of(self.path):
            # It was deleted, moved, or another put in its place: what is written to it nobody would find. It is not
            # closed, since SQLite would delete the log of whatever has its name now.
            _LEAKED.append(self._db)
            self._db = None
            aside.closed(self.path)
        if self._db is None:
            self._forget()
            self._db = self._open(timeout_ms)
            self._identity = _identity_of(self.path)
            self.opened += 1
        return self._db

    def drop(self) -> None:
        """Close the connection; what it had not committed is undone."""
        db, self._db = self._db, None
        if db is not None:
            _close(db)
            aside.closed(self.path)

    def __del__(self) -> None:
        if getattr(self, "_db", None) is not None:
            self.drop()

    def suspect(self) -> None:
        """Look at the whole file when it is opened next: SQLite has found fault with it."""
        self._suspect = True

    def doubt(self) -> None:
        """Write the log again when the file is opened next: a write or a sync has failed."""
        self._doubtful = True

    def spoil(self) -> None:
        """This is a child, forked while a step was under way: SQLite's locks of the parent seem to be its own."""
        if self._db is not None:
            _LEAKED.append(self._db)
            self._db = None
        self._spoilt = True

    # -- opening ---------------------------------------------------------------------------------------------------

    def _open(self, timeout_ms: int) -> sqlite3.Connection:
        if self._spoilt:
            raise BackendUnavailable(
                f"{self.path} cannot be used in this process, which was forked while a step was under way; fork before "
                "using the outbox, or start the process by spawn"
            )
        self._make()
        aside.opened(self.path)
        db: sqlite3.Connection | None = None
        try:
            # Not `rwc`: SQLite would make a file that anybody may read.
            db = sqlite3.connect(
                f"file:{quote(self.path)}?mode=rw",
                uri=True,
                isolation_level=None,
                check_same_thread=False,
                timeout=timeout_ms / 1e3,
            )
            # What is no text must hold up the one record that it is in, and not all that are read with it.
            db.text_factory = _text
            if self._suspect:
                aside.check(db, timeout_ms)
                self._suspect = False
            self._prepare(db, timeout_ms)
            if self._doubtful:
                self._write_log_again(db)
                self._doubtful = False
        except BaseException as error:
            if db is not None:
                _close(db)
            aside.closed(self.path)
            if isinstance(error, sqlite3.Error) and is_corrupt(error):
                self.kept = aside.keep(self.path, error)
                self._suspect = False
                raise BackendUnavailable(
                    f"{self.path} is corrupt ({error}); it is kept as {self.kept}, and the outbox begins anew: "
                    "see what can be saved of it"
                ) from error
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
                f"{self.path}: there is no directory {parent}; make it, or give another path"
            ) from None

    def _prepare(self, db: sqlite3.Connection, timeout_ms: int) -> None:
        if not Path(self.path).stat().st_size:
            db.execute("PRAGMA auto_vacuum = INCREMENTAL")
        # Before anything is changed: it may be another's. At one instant: another process may be making it.
        db.execute("BEGIN")
        found = schema.look(db, self.path)
        db.execute("COMMIT")
        if db.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
            mode = _write_ahead(db, timeout_ms)
            if mode != "wal":
                raise BackendUnavailable(f"{self.path}: its file system allows no write-ahead log (got {mode!r})")
        db.execute(f"PRAGMA synchronous = {self._synchronous}")
        # Where fsync alone does not reach the disk: macOS. Elsewhere it does nothing.
        db.execute("PRAGMA fullfsync = 1")
        db.execute(f"PRAGMA journal_size_limit = {MOST_WAL}")
        if found != schema.VERSION:
            db.execute("BEGIN IMMEDIATE")
            schema.prepare(db, self.path)
            db.execute("COMMIT")
        db.execute("PRAGMA busy_timeout = 0")

    def _write_log_again(self, db: sqlite3.Connection) -> None:
        """After a sync that failed, the system takes what it could not write for written, and says so at the next one.

        Whatever SQLite found in the log just now was perhaps never on the disk, and what is stored after it would be
        worth nothing. Written once more, it must reach the disk, or the sync fails again.
        """
        db.execute("BEGIN IMMEDIATE")  # nobody else writes to the log
        try:
            rewrite(f"{self.path}-wal")
        finally:
            db.execute("ROLLBACK")


def _identity_of(path: str) -> tuple[int, int] | None:
    """What tells a file from another of its name; None if there is none."""
    try:
        found = os.stat(path)  # for each step: a Path would take longer
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _write_ahead(db: sqlite3.Connection, timeout_ms: int) -> str:
    """Let the file have a write-ahead log. SQLite does not wait if another process is about to do the same."""
    for attempt in count():
        try:
            mode: str = db.execute("PRAGMA journal_mode = WAL").fetchone()[0]
        except sqlite3.OperationalError as error:
            if not is_busy(error) or attempt * PAUSE >= timeout_ms / 1e3:
                raise
            threading.Event().wait(PAUSE)
        else:
            return mode
    raise AssertionError("counting does not end")


def rewrite(path: str) -> None:
    """Write what is in a file to it again, and sync it. One that is not there is as it should be."""
    with suppress(FileNotFoundError), Path(path).open("r+b", buffering=0) as file:
        offset = 0
        while part := file.read(1 << 20):
            file.seek(offset)
            offset += file.write(part)
            file.seek(offset)
        sync(file.fileno())


def sync(handle: int) -> None:
    """Let a file reach the disk; on macOS `fsync` alone does not."""
    if sys.platform == "darwin":
        import fcntl  # noqa: PLC0415

        fcntl.fcntl(handle, fcntl.F_FULLFSYNC)
    else:
        os.fsync(handle)


def _close(db: sqlite3.Connection) -> None:
    with suppress(sqlite3.Error):  # what was wrong with it has been told
        db.close()
