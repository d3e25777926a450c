"""Asynchronous sockets that read little at once until a response has begun.

A parser in Python takes a tenth of a second over what one read of 64 KiB can bring, if it is nothing but interim
responses; and no deadline can end a task that does not wait. Where every read is small, every deadline is near.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from seawall.integrations.httpx._capped import LITTLE

__all__ = ["calm", "reading_little"]

_little: ContextVar[bool] = ContextVar("seawall_reading_little", default=False)


@contextmanager
def reading_little() -> Generator[None]:
    """In the block, sockets are read from in small pieces."""
    reset = _little.set(True)
    try:
        yield
    finally:
        _little.reset(reset)


def calm(transport: Any) -> None:
    """Put such sockets into an `AsyncHTTPTransport`; other transports stay as they are."""
    pool: Any = getattr(transport, "_pool", None)
    backend = getattr(pool, "_network_backend", None)
    core = type(backend).__module__.partition(".")[0]  # and not our own, already there
    if hasattr(backend, "connect_tcp") and core in ("httpcore", "httpcore2"):
        pool._network_backend = CalmBackend(backend)  # there is no door for it


class CalmBackend:
    """Makes connections that are read from as said above."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    async def connect_tcp(self, *args: Any, **kwargs: Any) -> CalmStream:
        return CalmStream(await self._inner.connect_tcp(*args, **kwargs))

    async def connect_unix_socket(self, *args: Any, **kwargs: Any) -> CalmStream:
        return CalmStream(await self._inner.connect_unix_socket(*args, **kwargs))

    async def sleep(self, seconds: float) -> None:
        await self._inner.sleep(seconds)


class CalmStream:
    """One such connection."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self.write = inner.write
        self.aclose = inner.aclose
        self.get_extra_info = inner.get_extra_info

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109  # as httpcore has it
        data: bytes = await self._inner.read(min(max_bytes, LITTLE) if _little.get() else max_bytes, timeout)
        return data

    async def start_tls(self, *args: Any, **kwargs: Any) -> CalmStream:
        return CalmStream(await self._inner.start_tls(*args, **kwargs))
