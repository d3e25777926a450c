"""Who listens for news of a store: of this process at once, of others by a look a few times a second.

A worker that has nothing to do sleeps until it is woken. What another process puts wakes nobody here by itself; so
while anybody listens a thread asks the store, in the cheapest way it has, whether others have changed something.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from seawall.errors import BackendUnavailable
from seawall.runtime import clock
from seawall.runtime.section import Section

__all__ = ["News"]

PERIOD = 0.25
"""Seconds between two looks."""


class News:
    """Listeners, and the thread that looks for them. `look` tells whether others have changed something."""

    def __init__(self, look: Callable[[], bool]) -> None:
        self._look = look
        self.renew()

    def renew(self) -> None:
        """Start from nothing, in a forked child."""
        self._lock = Section()
        self._listeners: tuple[Callable[[], object], ...] = ()
        self._thread: threading.Thread | None = None
        self._changed = threading.Event()

    def listen(self, wake: Callable[[], object]) -> Callable[[], None]:
        """See `Store.listen`."""

        def entry() -> object:
            return wake()

        def deaf() -> None:
            with self._lock:
                self._listeners = tuple(other for other in self._listeners if other is not entry)
            self._changed.set()

        with self._lock:
            self._listeners = (*self._listeners, entry)
            # Under virtual time nothing happens beside the one thread.
            if self._thread is None and clock.is_real():
                self._changed.clear()
                thread = threading.Thread(target=self._watch, name="seawall-outbox-news", daemon=True)
                thread.start()
                self._thread = thread
        return deaf

    def tell(self) -> None:
        """Something may have become leasable."""
        for wake in self._listeners:
            wake()

    def _watch(self) -> None:
        while True:
            self._changed.wait(PERIOD)
            with self._lock:
                self._changed.clear()
                if not self._listeners:
                    self._thread = None
                    return
            try:
                news = self._look()
            except BackendUnavailable:
                continue  # whoever works with the store hears of it
            if news:
                self.tell()
