"""What SQLite's errors mean here, and how they are told."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING

from seawall.errors import BackendUnavailable, SeawallError

if TYPE_CHECKING:
    from seawall.outbox.sqlite.file import File

__all__ = ["code_of", "fault_of", "is_busy", "is_corrupt", "is_local"]

BUSY, LOCKED, CORRUPT, NOT_A_DATABASE = 5, 6, 11, 26
_WHAT = {
    5: "is locked by another process",
    6: "is locked",
    8: "cannot be written",
    10: "failed to read or write (an error of the disk or file system)",
    11: "is corrupt",
    13: "cannot grow: the disk is full, or a limit is reached",
    14: "cannot be opened",
    23: "is not permitted",
    26: "is not a database",
}


def code_of(error: BaseException) -> int:
    """SQLite's primary code; 0 for anything else."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def is_busy(error: BaseException) -> bool:
    return code_of(error) in (BUSY, LOCKED)


def is_corrupt(error: BaseException) -> bool:
    return code_of(error) in (CORRUPT, NOT_A_DATABASE)


def is_local(error: Exception) -> bool:
    """Whether it lies in what was asked for, so that the connection can still be trusted."""
    return not isinstance(error, sqlite3.OperationalError | sqlite3.InternalError) and not is_corrupt(error)


def fault_of(error: Exception, file: File) -> Exception:
    """What the caller is told."""
    if isinstance(error, SeawallError) or not isinstance(error, sqlite3.Error | OSError):
        return error
    name = getattr(error, "sqlite_errorname", "")
    detail = f"{name}: {error}" if name else str(error)
    told = BackendUnavailable(f"{file.path} {_WHAT.get(code_of(error), 'failed')} ({detail})")
    told.__cause__ = error
    return told
