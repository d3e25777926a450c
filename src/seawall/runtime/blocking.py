"""The runtime of threads: its awaits never suspend, they block."""

from __future__ import annotations

import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

from seawall.runtime import clock

__all__ = ["BLOCKING", "Blocking", "ThreadParker", "drive"]

T = TypeVar("T")


def drive(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that never suspends. Raises `RuntimeError` if it does."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return]  # StopIteration carries the coroutine's T untyped
    coroutine.close()
    raise RuntimeError(
        "a synchronous call awaited something that needs an event loop; use acall() or an async function"
    )


class ThreadParker:
    """A lock that is taken from the start: parking is to acquire it, waking to release it."""

    __slots__ = ("_gate",)

    def __init__(self) -> None:
        self._gate = threading.Lock()
        self._gate.acquire()

    async def park(self, timeout_ns: int | None) -> bool:
        return clock.wait_for(self._gate, timeout_ns)

    def unpark(self) -> bool:
        self._gate.release()
        return True


class Blocking:
    """Sleeps and waits in the calling thread."""

    is_async = False

    async def sleep(self, duration_ns: int) -> None:
        clock.sleep_ns(duration_ns)

    def parker(self) -> ThreadParker:
        return ThreadParker()


BLOCKING = Blocking()
