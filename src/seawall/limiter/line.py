"""Who waits for a limiter: one line for each key, in which threads and tasks stand in the order in which they came.

Only the head of a line asks; when it is served or gives up, the next becomes the head. So a big cost is not overtaken
by small ones for ever.
"""

from __future__ import annotations

import threading
from collections import deque

from seawall.runtime import forks
from seawall.runtime.protocol import Parker, Runtime

__all__ = ["Lines", "Place"]


class Place:
    """One caller's place."""

    __slots__ = ("parker",)

    def __init__(self, runtime: Runtime) -> None:
        self.parker: Parker = runtime.parker()


class Lines:
    """All lines of one limiter."""

    def __init__(self, most: int) -> None:
        self._most = most
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
        with self._lock:
            if self._count >= self._most:
                return None
            self._count += 1
            place = Place(runtime)
            self.waiting.setdefault(key, deque()).append(place)
            return place

    def is_head(self, key: str, place: Place) -> bool:
        """Whether it is this one's turn to ask."""
        line = self.waiting.get(key)
        return line is not None and len(line) > 0 and line[0] is place

    def leave(self, key: str, place: Place) -> None:
        """Served, or given up: the next may ask."""
        with self._lock:
            line = self.waiting.get(key)
            if line is None or place not in line:
                return
            was_head = line[0] is place
            line.remove(place)
            self._count -= 1
            if not line:
                del self.waiting[key]
            follower = line[0] if was_head and line else None
        if follower is not None and not follower.parker.unpark():
            self.leave(key, follower)  # its loop is gone
