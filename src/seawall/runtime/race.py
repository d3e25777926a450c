"""Attempts that run side by side until one succeeds or all have failed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

__all__ = ["Race"]

Ending = tuple[Any, BaseException | None]

# A task that nobody refers to may be collected in mid-flight; losers stay here until they have ended.
_losers: set[asyncio.Task[Any]] = set()


class Race:
    """A growing set of attempts. The first success wins; if all fail, the failure of the earliest started stands.

    An error that is `final` (an exit, a cancellation, an error of the program) decides at once: it is not waited over.
    """

    def __init__(self, attempt: Callable[[], Awaitable[Ending]], final: Callable[[BaseException], bool]) -> None:
        self._attempt = attempt
        self._final = final
        self._decisive = 0
        self._tasks: list[asyncio.Task[Ending]] = []
        self.winner: int | None = None
        """The number of the attempt that succeeded, from 0."""

    def start(self) -> None:
        """Begin one more attempt, in a task of its own."""

        async def run() -> Ending:
            return await self._attempt()

        self._tasks.append(asyncio.get_running_loop().create_task(run()))

    async def decided(self, timeout_ns: int | None) -> bool:
        """Wait until one has succeeded or all have failed, at most for `timeout_ns`; tells whether it is so."""
        loop = asyncio.get_running_loop()
        end = None if timeout_ns is None else loop.time() + timeout_ns / 1e9
        while not self._look():
            left = None if end is None else end - loop.time()
            if left is not None and left <= 0:
                return False
            running = [task for task in self._tasks if not task.done()]
            await asyncio.wait(running, timeout=left, return_when=asyncio.FIRST_COMPLETED)
        return True

    def _look(self) -> bool:
        for number, task in enumerate(self._tasks):
            if not task.done():
                continue
            error = self._end_of(task)[1]
            if error is None or self._final(error):
                self._decisive = number
                self.winner = number if error is None else None
                return True
        return all(task.done() for task in self._tasks)

    @property
    def ending(self) -> Ending:
        """How the race ended, once it is decided."""
        return self._end_of(self._tasks[self._decisive])

    @staticmethod
    def _end_of(task: asyncio.Task[Ending]) -> Ending:
        if task.cancelled():
            return None, asyncio.CancelledError()
        error = task.exception()
        return task.result() if error is None else (None, error)

    def end(self) -> None:
        """Cancel whoever still runs; what losers bring back all the same is closed."""
        for number, task in enumerate(self._tasks):
            if number != self.winner:
                _losers.add(task)
                task.add_done_callback(_bury)
                task.cancel()
        # The error of a failed attempt knows the frame of its task, and that frame knows this race.
        self._tasks = []


def _bury(task: asyncio.Task[Ending]) -> None:
    _losers.discard(task)
    if task.cancelled() or task.exception() is not None:
        return
    value, error = task.result()
    if error is not None or value is None:
        return
    close = getattr(value, "aclose", None) or getattr(value, "close", None)
    if not callable(close):
        return
    try:
        closing: Any = close()
    except Exception as raised:  # noqa: BLE001  # a broken close must not hide the winner
        _report(raised)
        return
    if hasattr(closing, "__await__"):
        closer = task.get_loop().create_task(_finish(closing))
        _losers.add(closer)
        closer.add_done_callback(_losers.discard)


async def _finish(closing: Awaitable[object]) -> None:
    try:
        await closing
    except Exception as raised:  # noqa: BLE001  # as above
        _report(raised)


def _report(error: Exception) -> None:
    # Without the task in it: from 3.12 on the handler would run in the context of that task, which may be entered now.
    message = "closing the result of a losing attempt failed"
    asyncio.get_running_loop().call_exception_handler({"message": message, "exception": error})
