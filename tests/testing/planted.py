"""Classes with planted races, and their sound twins: what the thread scheduler must find and must let pass."""

from __future__ import annotations

import threading
from threading import Lock

__all__ = ["Counter", "LockedCounter", "LockedTill", "Mailbox", "Till", "both_ways"]


class Counter:
    """Loses updates: two threads read the same value."""

    def __init__(self) -> None:
        self.value = 0

    def add(self) -> None:
        self.value += 1


class LockedCounter(Counter):
    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.Lock()

    def add(self) -> None:
        with self._lock:
            super().add()


class Till:
    """Checks, then acts: two threads see the last coin."""

    def __init__(self, coins: int) -> None:
        self.coins = coins

    def take(self) -> bool:
        if self.coins > 0:
            self.coins -= 1
            return True
        return False


class LockedTill(Till):
    def __init__(self, coins: int) -> None:
        super().__init__(coins)
        self._lock = Lock()  # by a name imported from threading, which has to be replaced here too

    def take(self) -> bool:
        with self._lock:
            return super().take()


class Mailbox:
    """One letter at a time, with a condition variable."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._letter: str | None = None

    def put(self, letter: str) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._letter is None)
            self._letter = letter
            self._changed.notify_all()

    def get(self, timeout: float | None = None) -> str | None:
        with self._changed:
            if not self._changed.wait_for(lambda: self._letter is not None, timeout):
                return None
            letter, self._letter = self._letter, None
            self._changed.notify_all()
            return letter


def both_ways(first: threading.Lock, second: threading.Lock) -> None:
    with first, second:
        pass
