"""Who waits for a limiter: one line for each key, in which threads and tasks stand in the order in which they came.

Only the head of a line asks; when it is served or gives up, the next becomes the head. So a big cost is not overtaken
by small ones for ever. The head is also woken when something may have come free sooner than it was told.
"""

from __future__ import annotations

import threading
from collections import deque

from seawall.runtime import forks
from seawall.runtime.protocol import Parker, Runtime

__all__ = ["Lines", "Place"]


class Place:
    """One caller's place."""

    __slots__ = ("_runtime", "parker", "woken")

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self.parker: Parker = runtime.parker()
        self.woken = False
        """A parker is woken once."""

    def renew(self) -> None:
        self.parker = self._runtime.parker()
        self.woken = False

    def wake(self) -> bool:
        """False if he can never wake, because his loop is gone."""
        if self.woken:
            return True
        self.woken = True
        return self.parker.unpark()


class Lines:
    """All lines of one limiter."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.waiting: dict[str, deque[Place]] = {}
        """The lines that are not empty; always the same dictionary."""
        self._count = 0
        self._lock = threading.RLock()
        forks.renew_after_fork(self)

    def renew_after_fork(self) -> None:
        self._lock = threading.RLock()
        self.waiting.clear()
        self._count = 0

    def __contains__(self, key: str) -> bool:
        return key in self.waiting

    def __len__(self) -> int:
        return self._count

    def join(self, key: str, runtime: Runtime) -> Place | None:
        """A place at the end of the line; None if too many wait."""
        place = Place(runtime)
        with self._lock:
            if self._count >= self.most:
                return None
            self._count += 1
            self.waiting.setdefault(key, deque()).append(place)
            return place

    def is_head(self, key: str, place: Place) -> bool:
        """Whether it is this one's turn to ask."""
        line = self.waiting.get(key)
        return line is not None and len(line) > 0 and line[0] is place

    async def wait(self, place: Place, timeout_ns: int | None) -> None:
        """Until it is woken, or for so long."""
        await place.parker.park(timeout_ns)
        with self._lock:
            place.renew()

    def leave(self, key: str, place: Place) -> None:
        """Served, or given up: the next may ask."""
        with self._lock:
            line = self.waiting.get(key)
            if line is None or place not in line:
                return
            was_head = line[0] is place
            line.remove(place)
            self._count -= 1
            if was_head:
                self._wake_head(key, line)
            # A finalizer of a waiter may have left in between.
            if not line and self.waiting.get(key) is line:
                del self.waiting[key]

    def wake(self, key: str | None = None) -> None:
        """Let the head of a line ask again, or the heads of all."""
        if not self.waiting:
            return
        with self._lock:
            for each in [key] if key is not None else list(self.waiting):
                line = self.waiting.get(each)
                if line:
                    self._wake_head(each, line)
                    if not line and self.waiting.get(each) is line:
                        del self.waiting[each]

    def _wake_head(self, key: str, line: deque[Place]) -> None:
        while line and not line[0].wake():
            line.popleft()  # its loop is gone
            self._count -= 1
