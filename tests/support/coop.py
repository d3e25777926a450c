"""Locks that hand over instead of blocking, put in place of `threading`'s while an `Interleave` is patched in.

`Event`, `Condition`, `Semaphore` and `queue.Queue` of the standard library are written in Python upon locks, so
replacing the locks makes them cooperative too.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from types import ModuleType, TracebackType
from typing import Any, Protocol

__all__ = ["CoopLock", "CoopRLock", "Scheduler", "replaced_locks"]


class Scheduler(Protocol):
    """What locks ask of the scheduler."""

    now_ns: int

    def point(self) -> None: ...
    def wait(self, may_run: Callable[[], bool], timeout_ns: int | None = None) -> bool: ...


_current: Scheduler | None = None


def _scheduler() -> Scheduler:
    if _current is None:
        raise RuntimeError("a lock of a finished run is still in use")
    return _current


class CoopLock:
    """`threading.Lock` under the scheduler. Making one costs nothing; each use is a place to switch."""

    def __init__(self) -> None:
        self._held = False

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        scheduler = _scheduler()
        scheduler.point()
        if self._held:
            if not blocking:
                return False
            if not scheduler.wait(lambda: not self._held, None if timeout < 0 else round(timeout * 1e9)):
                return False
        self._held = True
        return True

    def release(self) -> None:
        if not self._held:
            raise RuntimeError("release unlocked lock")
        self._held = False
        _scheduler().point()

    def locked(self) -> bool:
        return self._held

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


class CoopRLock:
    """`threading.RLock` under the scheduler, with what `threading.Condition` asks of one."""

    def __init__(self) -> None:
        self._lock = CoopLock()
        self._owner: object = None
        self._depth = 0

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        if not self._is_owned():
            if not self._lock.acquire(blocking, timeout):
                return False
            self._owner = self._caller()
        self._depth += 1
        return True

    def release(self) -> None:
        if not self._is_owned():
            raise RuntimeError("cannot release un-acquired lock")
        self._depth -= 1
        if self._depth == 0:
            self._owner = None
            self._lock.release()

    @staticmethod
    def _caller() -> int:
        return threading.get_ident()

    def _is_owned(self) -> bool:
        return self._owner == self._caller()

    def _release_save(self) -> int:
        depth, self._depth = self._depth, 1
        self.release()
        return depth

    def _acquire_restore(self, depth: int) -> None:
        self.acquire()
        self._depth = depth

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


@contextmanager
def replaced_locks(scheduler: Scheduler, modules: Iterable[ModuleType]) -> Generator[None]:
    """Replace the makers of locks in `threading`, and where `modules` have imported them by name."""
    global _current
    real: dict[Any, Callable[[], Any]] = {threading.Lock: CoopLock, threading.RLock: CoopRLock}

    def virtual_time() -> float:
        return scheduler.now_ns / 1e9

    places: list[tuple[ModuleType, str, Any]] = [
        (threading, "Lock", CoopLock),
        (threading, "RLock", CoopRLock),
        (threading, "_allocate_lock", CoopLock),
        (threading, "_time", virtual_time),
        (queue, "time", virtual_time),
    ]
    for module in modules:
        for name, value in list(vars(module).items()):
            if callable(value) and value in real:
                places.append((module, name, real[value]))
    before = [(module, name, getattr(module, name)) for module, name, _ in places]
    for module, name, value in places:
        setattr(module, name, value)
    _current = scheduler
    try:
        yield
    finally:
        _current = None
        for module, name, value in before:
            setattr(module, name, value)
