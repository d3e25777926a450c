"""What layers may ask of the world: to sleep, and to park until somebody wakes them."""

from __future__ import annotations

from typing import Protocol

__all__ = ["Parker", "Runtime"]


class Parker(Protocol):
    """A place where one caller waits, in a thread or a task."""

    async def park(self, timeout_ns: int | None) -> bool:
        """Wait until `unpark`, or for `timeout_ns`; tells whether it was unparked."""
        ...

    def unpark(self) -> bool:
        """Wake the one who parks, from any thread; False if he can never wake, because his loop is gone."""
        ...


class Runtime(Protocol):
    """Threads or asyncio."""

    is_async: bool

    async def sleep(self, duration_ns: int) -> None: ...
    def parker(self) -> Parker: ...
