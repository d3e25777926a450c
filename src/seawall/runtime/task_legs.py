"""The attempts of a race as tasks of the running loop."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from functools import partial
from typing import Any, cast

from seawall.runtime.closing import closer_of
from seawall.runtime.race import Attempt, Ending, Leg

__all__ = ["TaskLeg", "TaskLegs"]

# A task that nobody refers to may be collected in mid-flight; losers stay here until they have ended.
_losers: set[asyncio.Task[Any]] = set()


class TaskLeg:
    """One attempt in a task of its own."""

    __slots__ = ("task",)

    def __init__(self, attempt: Attempt) -> None:
        async def run() -> Ending:
            return await attempt()

        self.task: asyncio.Task[Ending] = asyncio.get_running_loop().create_task(run())

    @property
    def done(self) -> bool:
        return self.task.done()

    def end(self) -> Ending:
        if self.task.cancelled():
            return None, asyncio.CancelledError()
        error = self.task.exception()
        return self.task.result() if error is None else (None, error)

    def abandon(self, kept: object) -> None:
        _losers.add(self.task)
        self.task.add_done_callback(partial(_bury, kept))
        self.task.cancel()


class TaskLegs:
    """Starts attempts as tasks."""

    def start(self, attempt: Attempt) -> TaskLeg:
        return TaskLeg(attempt)

    async def wait(self, running: Sequence[Leg], timeout_ns: int | None) -> None:
        tasks = [cast("TaskLeg", leg).task for leg in running]
        timeout = None if timeout_ns is None else timeout_ns / 1e9
        await asyncio.wait(tasks, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)


def _bury(kept: object, task: asyncio.Task[Ending]) -> None:
    _losers.discard(task)
    if task.cancelled():
        return
    error = task.exception()
    close = closer_of(task.result() if error is None else (None, error), is_async=True, kept=kept)
    del error  # it knows this frame
    if close is None:
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
