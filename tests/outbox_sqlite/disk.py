"""A disk that loses what was not synced: a layer under SQLite's own files, in the library that this interpreter uses.

SQLite's writes reach the real file, and are noted. A sync is not made; it only marks what was noted as safe. At a power
cut every file is what is safe, and of the rest each sector of 512 bytes is there or not, as a seed decides: writes come
torn, in any order, or not at all. A file or a removal whose directory was not synced is there or not, too.

Faults can be put in at any operation: an error of a sync, a full disk.
"""

from __future__ import annotations

import ctypes
import sqlite3
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

__all__ = ["FULL", "IOERR", "IOERR_FSYNC", "Disk", "why_not"]

OK, IOERR, FULL, CANTOPEN = 0, 10, 13, 14
IOERR_FSYNC = 10 | 4 << 8
SECTOR = 512

_Pointer, _Int, _Long = ctypes.c_void_p, ctypes.c_int, ctypes.c_int64


class _Vfs(ctypes.Structure):
    _fields_ = (
        ("iVersion", _Int),
        ("szOsFile", _Int),
        ("mxPathname", _Int),
        ("pNext", _Pointer),
        ("zName", ctypes.c_char_p),
        ("pAppData", _Pointer),
        ("xOpen", _Pointer),
        ("xDelete", _Pointer),
        ("others", _Pointer * 14),
    )


class _Methods(ctypes.Structure):
    _fields_ = (
        ("iVersion", _Int),
        ("xClose", _Pointer),
        ("xRead", _Pointer),
        ("xWrite", _Pointer),
        ("xTruncate", _Pointer),
        ("xSync", _Pointer),
        ("others", _Pointer * 13),
    )


class _File(ctypes.Structure):
    _fields_ = (("pMethods", ctypes.POINTER(_Methods)),)


_Open = ctypes.CFUNCTYPE(_Int, _Pointer, _Pointer, ctypes.POINTER(_File), _Int, _Pointer)
_Delete = ctypes.CFUNCTYPE(_Int, _Pointer, _Pointer, _Int)
_Write = ctypes.CFUNCTYPE(_Int, _Pointer, _Pointer, _Int, _Long)
_Truncate = ctypes.CFUNCTYPE(_Int, _Pointer, _Long)
_Sync = ctypes.CFUNCTYPE(_Int, _Pointer, _Int)


def _library() -> ctypes.CDLL | None:
    """The SQLite of the `sqlite3` module: another copy would know nothing of its connections."""
    sqlite3.connect(":memory:").close()
    try:
        maps = Path("/proc/self/maps").read_text()
    except OSError:
        return None
    paths = {line.split()[-1] for line in maps.splitlines() if "libsqlite3.so" in line}
    library = ctypes.CDLL(paths.pop()) if len(paths) == 1 else None
    if library is not None:
        library.sqlite3_vfs_find.restype = ctypes.POINTER(_Vfs)
        library.sqlite3_vfs_find.argtypes = (ctypes.c_char_p,)
        library.sqlite3_vfs_register.argtypes = (ctypes.POINTER(_Vfs), _Int)
        library.sqlite3_vfs_unregister.argtypes = (ctypes.POINTER(_Vfs),)
    return library


def why_not() -> str:
    """Why no layer can be put under SQLite here; empty if one can."""
    if sys.platform != "linux":
        return "where SQLite's library lies is found by /proc/self/maps, which is of Linux"
    return "" if _library() else "the sqlite3 module brings SQLite in itself: no layer can be put under it from outside"


class _Track:
    """One file: what is safe of it, and what was done since."""

    def __init__(self, safe: bytes, *, named: bool) -> None:
        self.safe = bytearray(safe)
        self.named = named
        """Whether its name is safe, too."""
        self.since: list[tuple[int, bytes | None]] = []
        """Writes, and truncations, which have no bytes."""

    def sync(self) -> None:
        for offset, data in self.since:
            _apply(self.safe, offset, data)
        self.since.clear()

    def forget(self) -> None:
        """A sync has failed: what was written is read back until the power goes, and never written to the disk."""
        self.since = [each for each in self.since if each[1] is None]

    def after_cut(self, random: Random) -> bytes:
        found = bytearray(self.safe)
        share = random.choice([0.0, 0.2, 0.5, 0.8, 1.0])
        for offset, data in self.since:
            if data is None:
                if random.random() < share:
                    _apply(found, offset, None)
                continue
            for start in range(0, len(data), SECTOR):
                if random.random() < share:
                    _apply(found, offset + start, data[start : start + SECTOR])
        return bytes(found)


def _apply(content: bytearray, offset: int, data: bytes | None) -> None:
    if data is None:
        del content[offset:]
        return
    if len(content) < offset:
        content.extend(bytes(offset - len(content)))
    content[offset : offset + len(data)] = data


class Disk:
    """The layer while it is in place; it serves one directory at a time."""

    def __init__(self) -> None:
        self.operations = 0
        self.cut_at: int | None = None
        """The operation at which the power goes."""
        self.fault: Callable[[str, str], int] | None = None
        """Given what is to be done (`"write"`, `"sync"`, `"truncate"`) and the file's name: SQLite's code, or 0."""
        self.honest = True
        """Whether a sync makes anything safe."""
        self.dead = False
        self._tracks: dict[str, _Track] = {}
        self._removed: list[tuple[str, _Track]] = []
        self._names: dict[int, str] = {}
        self._methods: list[Any] = []

    @classmethod
    @contextmanager
    def in_place(cls) -> Iterator[Disk]:
        """Put it under everything that is opened from now on."""
        library = _library()
        assert library is not None
        disk, plain = cls(), library.sqlite3_vfs_find(None)
        vfs = _Vfs()
        ctypes.memmove(ctypes.byref(vfs), plain, ctypes.sizeof(_Vfs))
        vfs.zName = b"disk-that-loses"
        kept = disk._hooks(vfs)
        library.sqlite3_vfs_register(ctypes.byref(vfs), 1)
        try:
            yield disk
        finally:
            library.sqlite3_vfs_unregister(ctypes.byref(vfs))
            library.sqlite3_vfs_register(plain, 1)
            del kept

    def rewrite(self, path: str) -> None:
        """What `file.rewrite` does, on this disk."""
        if path in self._tracks:
            self._tracks[path].since.append((0, Path(path).read_bytes()))
            self._tracks[path].sync()

    def cut(self, target: Path, seed: int) -> None:
        """What the disk holds when the power is back, written to the directory `target`."""
        random = Random(seed)
        self.dead = True
        found = {name: track for name, track in self._removed if random.random() < 0.5}
        found |= {name: track for name, track in self._tracks.items() if track.named or random.random() < 0.5}
        for name, track in found.items():
            if not name.endswith("-shm"):
                (target / Path(name).name).write_bytes(track.after_cut(random))

    # -- the layer -----------------------------------------------------------------------------------------------------

    def _step(self, what: str, name: str) -> int:
        """Whether this operation may be done: SQLite's code."""
        self.operations += 1
        if self.cut_at is not None and self.operations >= self.cut_at:
            self.dead = True
        if self.dead:
            return IOERR
        return self.fault(what, name) if self.fault is not None else OK

    def _hooks(self, vfs: _Vfs) -> list[Any]:
        plain_open, plain_delete = _Open(vfs.xOpen), _Delete(vfs.xDelete)

        def open_(this: int, name: int, file: Any, flags: int, out: int) -> int:
            if self.dead:
                return CANTOPEN
            path = ctypes.string_at(name).decode() if name else ""
            if path and path not in self._tracks:
                there = Path(path)
                self._tracks[path] = _Track(there.read_bytes() if there.exists() else b"", named=False)
            code: int = plain_open(this, name, file, flags, out)
            if code == OK and path:
                self._watch(file, path)
            return code

        def delete(this: int, name: int, sync_directory: int) -> int:
            path = ctypes.string_at(name).decode()
            code = self._step("delete", path)
            if code == OK:
                code = plain_delete(this, name, sync_directory)
                track = self._tracks.pop(path, None)
                if track is not None and not sync_directory:
                    self._removed.append((path, track))
            return code

        hooks = [_Open(open_), _Delete(delete), plain_open, plain_delete]
        vfs.xOpen = ctypes.cast(hooks[0], _Pointer)
        vfs.xDelete = ctypes.cast(hooks[1], _Pointer)
        return hooks

    def _watch(self, file: Any, path: str) -> None:
        address = ctypes.addressof(file.contents)
        plain, methods = file.contents.pMethods, _Methods()
        ctypes.memmove(ctypes.byref(methods), plain, ctypes.sizeof(_Methods))
        plain_write, plain_truncate = _Write(methods.xWrite), _Truncate(methods.xTruncate)

        def write(this: int, data: int, size: int, offset: int) -> int:
            code = self._step("write", path)
            if code == OK:
                code = plain_write(this, data, size, offset)
                self._tracks[path].since.append((offset, ctypes.string_at(data, size)))
            return code

        def truncate(this: int, size: int) -> int:
            code = self._step("truncate", path)
            if code == OK:
                code = plain_truncate(this, size)
                self._tracks[path].since.append((size, None))
            return code

        def sync(this: int, flags: int) -> int:
            code = self._step("sync", path)
            if code == IOERR_FSYNC:
                self._tracks[path].forget()
            if code == OK and self.honest:
                self._tracks[path].sync()
                # The first sync of a log syncs its directory, too: new names and removals are safe then.
                if path.endswith("-wal") and not self._tracks[path].named:
                    self._removed.clear()
                    for track in self._tracks.values():
                        track.named = True
            return code

        hooks = [_Write(write), _Truncate(truncate), _Sync(sync)]
        methods.xWrite, methods.xTruncate, methods.xSync = (ctypes.cast(hook, _Pointer) for hook in hooks)
        self._methods.append((methods, hooks, plain_write, plain_truncate))
        self._names[address] = path
        file.contents.pMethods = ctypes.pointer(methods)
