"""Tasks and futures that hash by number, so that sets of them are walked in the same order in every process.

`asyncio.TaskGroup`, `asyncio.wait` and much user code keep tasks in sets and cancel or await them in the order of the
set, which for plain objects is the order of memory addresses.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

__all__ = ["NumberedFuture", "NumberedTask", "Unseen"]

T = TypeVar("T")


class NumberedTask(asyncio.Task[T]):
    def __init__(self, coro: Coroutine[Any, Any, T], *, number: int, **options: Any) -> None:
        self._number = number  # first: the base class hashes the task while it registers it
        super().__init__(coro, **options)

    def __hash__(self) -> int:
        return self._number


class NumberedFuture(asyncio.Future[Any]):
    def __init__(
        self, loop: asyncio.AbstractEventLoop, number: int, on_failed: Callable[[asyncio.Future[Any]], None]
    ) -> None:
        self._number = number
        self._on_failed = on_failed
        super().__init__(loop=loop)

    def __hash__(self) -> int:
        return self._number

    def set_exception(self, exception: type[BaseException] | BaseException, /) -> None:
        super().set_exception(exception)
        self._on_failed(self)


class Unseen:
    """The failed tasks and futures whose error nobody has looked at.

    asyncio reports them when they are collected as garbage, which for reference cycles (an exception refers to frames,
    and they to the task) may be never within a test. This keeps them, and tells exactly, at a moment of our choice.
    """

    def __init__(self) -> None:
        self._failed: list[asyncio.Future[Any]] = []
        self._limit = 1_000

    def watch(self, future: asyncio.Future[Any]) -> None:
        if _unseen(future):
            self._failed.append(future)
            if len(self._failed) > self._limit:
                self._failed = [each for each in self._failed if _unseen(each)]
                self._limit = max(1_000, 2 * len(self._failed))

    def take(self) -> list[dict[str, Any]]:
        """A context for the loop's exception handler for each of them, and forget them."""
        contexts: list[dict[str, Any]] = []
        for future in self._failed:
            if _unseen(future):
                kind = "Task" if isinstance(future, asyncio.Task) else "Future"
                message = f"{kind} exception was never retrieved"
                contexts.append({"message": message, "exception": future.exception(), "future": future})
        self._failed.clear()
        return contexts


def _unseen(future: asyncio.Future[Any]) -> bool:
    return getattr(future, "_log_traceback", False)
