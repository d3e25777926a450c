"""A lock around the steps of a machine, which cannot deadlock on the finalizers of the thread that holds it.

Any allocation may start the garbage collector, and what it frees may be an abandoned call that gives its permit back:
in this very thread, in the middle of a step. A plain lock would wait for itself for ever, and a reentrant one would
let the second step into the middle of the first. So a step that only tells something is put off until the first has
ended.
"""

from __future__ import annotations

import sys
import threading
from collections import deque
from collections.abc import Callable
from types import TracebackType

__all__ = ["LOCKED", "Section"]

LOCKED = not getattr(sys, "_is_gil_enabled", lambda: True)()
"""Without the interpreter's own lock the fast lanes are not atomic: everything takes the lock of its machine."""


class Section:
    """Held by one thread at a time: `with section: ...`."""

    __slots__ = ("_depth", "_holder", "_later", "_lock")

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._holder = 0
        self._depth = 0
        self._later: deque[Callable[[], object]] = deque()

    def __enter__(self) -> None:
        self._lock.acquire()
        self._holder = threading.get_ident()
        self._depth += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._depth -= 1
        done = not self._depth
        if done:
            self._holder = 0
        self._lock.release()
        while done and self._later:
            try:
                step = self._later.popleft()
            except IndexError:
                return  # another thread was quicker
            step()

    def put_off(self, step: Callable[[], object]) -> bool:
        """If this thread is in the middle of a step, keep `step` for its end and say so; else do nothing."""
        if self._holder != threading.get_ident():
            return False
        self._later.append(step)
        return True

    def held_by_another(self) -> bool:
        """Whether another thread is in the middle of a step: in a forked child it will never end."""
        if self._lock.acquire(blocking=False):
            self._lock.release()
            return False
        return True
