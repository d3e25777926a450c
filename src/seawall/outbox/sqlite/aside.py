"""A corrupt file is kept aside, under another name and with its log, and never while anybody has it open.

A process that has the file open goes on writing to it, whatever its name: what it stored would be lost to the others.
So it is renamed only under a lock that shuts out every connection, of other processes (SQLite's own lock, taken as
SQLite takes it) and of this one (counted here, since such locks do not tell apart who holds them within a process).
"""

from __future__ import annotations

import os
import sqlite3
import threading
from datetime import UTC, datetime
from pathlib import Path

from seawall.errors import BackendUnavailable
from seawall.runtime import clock, forks

try:
    import fcntl
except ImportError:  # Windows, where a file that is open cannot be renamed
    fcntl = None  # type: ignore[assignment]

__all__ = ["check", "closed", "keep", "opened"]

FIRST_LOCK_BYTE = 0x4000_0000
"""Where SQLite's locks lie: the pending byte, the reserved one, and 510 that are shared."""
LOCK_BYTES = 512


class _Registry:
    """How many connections of this process each file has."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        self.lock = threading.RLock()
        forks.renew_after_fork(self)

    def renew_after_fork(self) -> None:
        self.counts = {}
        self.lock = threading.RLock()


_files = _Registry()


def opened(path: str) -> None:
    """This process is about to open the file."""
    real = os.path.realpath(path)
    with _files.lock:
        _files.counts[real] = _files.counts.get(real, 0) + 1


def closed(path: str) -> None:
    """It has closed it, or could not open it."""
    real = os.path.realpath(path)
    with _files.lock:
        left = _files.counts.pop(real, 1) - 1
        if left > 0:
            _files.counts[real] = left


def check(db: sqlite3.Connection, timeout_ms: int) -> None:
    """Read the whole file. Raises `sqlite3.DatabaseError` with SQLite's code if it is damaged.

    Raises `BackendUnavailable` if that takes too long.
    """
    end = clock.now_ns() + timeout_ms * 1_000_000
    db.set_progress_handler(lambda: clock.now_ns() > end, 100_000)
    try:
        verdict = db.execute("PRAGMA quick_check(1)").fetchone()[0]
    except sqlite3.OperationalError as error:
        if getattr(error, "sqlite_errorname", "") == "SQLITE_INTERRUPT":
            raise BackendUnavailable("the file is damaged, and too large to be looked through in time") from error
        raise
    finally:
        db.set_progress_handler(None, 0)
    if verdict != "ok":
        damaged = sqlite3.DatabaseError(verdict)
        damaged.sqlite_errorcode, damaged.sqlite_errorname = 11, "SQLITE_CORRUPT"
        raise damaged


def keep(path: str, why: BaseException) -> str:
    """Rename the file, its log first; returns its new name. Raises `BackendUnavailable` if somebody has it open."""
    with _files.lock:
        if _files.counts.get(os.path.realpath(path)):
            raise BackendUnavailable(f"{path} is corrupt ({why}), and another store of this process has it open")
        try:
            handle = os.open(path, os.O_RDWR | getattr(os, "O_CLOEXEC", 0))
            try:
                if fcntl is not None:
                    _lock(handle, path, why)
                _same(handle, path)
                return _rename(path)
            finally:
                os.close(handle)
        except OSError as error:
            raise BackendUnavailable(f"{path} is corrupt ({why}), and cannot be kept aside: {error}") from error


def _lock(handle: int, path: str, why: BaseException) -> None:
    assert fcntl is not None, "asked for only where there is one"
    try:
        fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB, LOCK_BYTES, FIRST_LOCK_BYTE)
    except OSError as error:
        raise BackendUnavailable(
            f"{path} is corrupt ({why}), and stays where it is while another process has it open: stop that one"
        ) from error


def _same(handle: int, path: str) -> None:
    """Another process may have been quicker, and this be a new file."""
    ours, there = os.fstat(handle), os.stat(path)  # beside fstat
    if (ours.st_dev, ours.st_ino) != (there.st_dev, there.st_ino):
        raise BackendUnavailable(f"{path} was corrupt, and another process has begun anew")


def _rename(path: str) -> str:
    stamp = datetime.fromtimestamp(clock.wall_ns() // 1_000_000_000, UTC).strftime("%Y%m%dT%H%M%SZ")
    name, number = f"{path}.corrupt-{stamp}", 1
    while any(os.path.lexists(f"{name}{end}") for end in ("", "-wal", "-shm")):
        number += 1
        name = f"{path}.corrupt-{stamp}-{number}"
    # The log first: SQLite deletes the log of a file that it finds new.
    for end in ("-wal", "-shm", ""):
        if os.path.lexists(f"{path}{end}"):
            Path(f"{path}{end}").rename(f"{name}{end}")
    _sync_directory(Path(path).parent)
    return name


def _sync_directory(directory: Path) -> None:
    if os.name != "posix":
        return
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
