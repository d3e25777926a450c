"""What SQLite's errors mean here, and how they are told."""

from __future__ import annotations

import sqlite3

from seawall.errors import BackendUnavailable, SeawallError

__all__ = ["fault_of", "is_busy", "is_corrupt", "is_io", "is_local"]

_BUSY = (5, 6)
_CORRUPT = (11, 26)
_IO = (10, 13)
_WHAT = {
    5: "is locked by another process",
    6: "is locked",
    8: "cannot be written",
    10: "failed to be read or written: an error of the disk or of its file system",
    11: "is corrupt",
    13: "cannot grow: the disk is full, or a limit is reached",
    14: "cannot be opened",
    23: "may not be used",
    26: "is no database",
}
"""By SQLite's primary codes."""


def _code_of(error: BaseException) -> int:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def is_busy(error: BaseException) -> bool:
    """Whether another has the file."""
    return _code_of(error) in _BUSY


def is_corrupt(error: BaseException) -> bool:
    """Whether the file is damaged, or was never one of SQLite's."""
    return _code_of(error) in _CORRUPT


def is_io(error: BaseException) -> bool:
    """Whether a read, a write or a sync has failed."""
    return _code_of(error) in _IO


def is_local(error: Exception) -> bool:
    """Whether it lies in what was asked for, so that the connection can still be trusted."""
    return not isinstance(error, sqlite3.Error) or isinstance(
        error, sqlite3.DataError | sqlite3.IntegrityError | sqlite3.ProgrammingError
    )


def fault_of(error: Exception, path: str) -> Exception:
    """What a caller is told: a new error for what SQLite or the system said, anything else as it is."""
    if isinstance(error, SeawallError):
        twin = type(error)(*error.args)
        twin.__cause__ = error.__cause__
        return twin
    if not isinstance(error, sqlite3.Error | OSError):
        return error
    name = getattr(error, "sqlite_errorname", "")
    detail = f"{name}: {error}" if name else str(error)
    told = BackendUnavailable(f"{path} {_WHAT.get(_code_of(error), 'failed')} ({detail})")
    told.__cause__ = error
    return told
