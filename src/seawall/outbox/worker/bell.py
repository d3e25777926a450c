"""Wakes the one who waits for it, from any thread; a ring that comes before the wait is not lost."""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import Any

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
        self._loop: Any = None

    def ring(self) -> None:
        """Wake the waiter, or the next one who would wait."""
        with self._lock:
            self._rung = True
            parker, self._parker = self._parker, None
        if parker is not None:
            parker.unpark()

    def ring_in_handler(self) -> None:
        """As `ring`, from a signal handler too: it runs in the thread of the loop, in the middle of the loop's wait for
        something to happen, which a ring from that thread would not end."""
        self.ring()
        if self._loop is not None:
            with suppress(RuntimeError):  # the loop is closed, and nobody waits
                self._loop.call_soon_threadsafe(_nothing)

    async def wait(self, timeout_ns: int | None) -> None:
        """Until it rings, or for `timeout_ns` (None: as long as it takes)."""
        parker = self._runtime.parker()
        if self._runtime.is_async and self._loop is None:
            import asyncio  # noqa: PLC0415  # loaded already, since this is async

            self._loop = asyncio.get_running_loop()
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


def _nothing() -> None:
    """For a loop that is only to come round."""
