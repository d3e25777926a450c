"""Which runtime a call waits with: threads, or asyncio, which is not imported before its first use."""

from __future__ import annotations

from functools import cache

from seawall.runtime.blocking import BLOCKING
from seawall.runtime.protocol import Runtime

__all__ = ["asyncio_runtime", "runtime_for"]


@cache  # an import is looked up anew each time
def asyncio_runtime() -> Runtime:
    """The runtime of asyncio."""
    from seawall.runtime.aio import ASYNCIO  # noqa: PLC0415  # asyncio, not before the first async use

    return ASYNCIO


def runtime_for(*, is_async: bool) -> Runtime:
    """The runtime of a call of this kind."""
    return asyncio_runtime() if is_async else BLOCKING
