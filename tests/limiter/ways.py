"""A limiter as the two worlds use it: by its plain methods, or by those with an `a`; and waiting callers beside them."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from seawall import Decision, Limiter, RateLimited
from seawall.runtime import clock
from tests.policies.worlds import World

__all__ = ["Way", "ask", "begin", "refusal"]


class Way:
    """One limiter in one world."""

    def __init__(self, world: World, limiter: Limiter) -> None:
        self.world = world
        self.limiter = limiter

    async def _call(self, name: str, *args: Any, **kwargs: Any) -> Any:
        if self.world.is_async:
            return await getattr(self.limiter, f"a{name}")(*args, **kwargs)
        return getattr(self.limiter, name)(*args, **kwargs)

    async def hit(self, *args: Any, **kwargs: Any) -> Decision:
        return await self._call("hit", *args, **kwargs)

    async def peek(self, *args: Any, **kwargs: Any) -> Decision:
        return await self._call("peek", *args, **kwargs)

    async def take(self, *args: Any, **kwargs: Any) -> Decision:
        return await self._call("take", *args, **kwargs)

    async def reserve(self, *args: Any, **kwargs: Any) -> Any:
        return await self._call("reserve", *args, **kwargs)

    async def reset(self, *args: Any) -> None:
        await self._call("reset", *args)

    async def settle(self, held: Any, *args: Any, **kwargs: Any) -> bool:
        return await held.asettle(*args, **kwargs) if self.world.is_async else held.settle(*args, **kwargs)

    async def cancel(self, held: Any) -> bool:
        return await held.acancel() if self.world.is_async else held.cancel()


async def refusal(waiting: Coroutine[Any, Any, object]) -> RateLimited:
    """The error of a call that must be refused."""
    with pytest.raises(RateLimited) as caught:
        await waiting
    return caught.value


async def begin(coroutine: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
    """Start a task and let it come as far as it can."""
    task = asyncio.create_task(coroutine)
    for _ in range(5):
        await asyncio.sleep(0)
    return task


async def ask(limiter: Limiter, *args: Any, **kwargs: Any) -> float:
    """Take, and tell at which second it was admitted."""
    await limiter.atake(*args, **kwargs)
    return clock.now_ns() / 1e9
