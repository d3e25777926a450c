"""Wakes the one who waits for it, from any thread; a ring that comes before the wait is not lost."""

from __future__ import annotations

import threading

from seawall.runtime.protocol import Parker, Runtime

__all__ = ["Bell"]


class Bell:
    """For one waiter, and any number who ring."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        # Reentrant: a signal handler or a finalizer may ring in the middle of a step of this very thread.
        self._lock = threading.RLock()
        self._rung = False
        self._parker: Parker | None = None

    def ring(self) -> None:
        """Wake the waiter, or the next one who would wait."""
        with self._lock:
            self._rung = True
            parker, self._parker = self._parker, None
        if parker is not None:
            parker.unpark()

    async def wait(self, timeout_ns: int | None) -> None:
        """Until it rings, or for `timeout_ns` (None: as long as it takes)."""
        parker = self._runtime.parker()
        with self._lock:
            # In this order: a ring in between finds the parker.
            self._parker = parker
            rung = self._rung
        try:
            if not rung:
                await parker.park(timeout_ns)
        finally:
            with self._lock:
                self._parker = None
                # The waiter looks at everything after this, so whatever it rang for is seen.
                self._rung = False
