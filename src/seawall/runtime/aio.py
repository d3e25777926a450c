"""The runtime of asyncio: suspends the task, on whichever loop it runs. Imported at the first asynchronous use."""

from __future__ import annotations

import asyncio

from seawall.runtime import clock

__all__ = ["ASYNCIO", "Asyncio", "TaskParker"]


class TaskParker:
    """A future of the running loop; woken directly from the same thread, by the loop's own door from others."""

    __slots__ = ("_future", "_loop")

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._future: asyncio.Future[bool] = self._loop.create_future()

    async def park(self, timeout_ns: int | None) -> bool:
        timer = None
        if timeout_ns is not None and not self._future.done():
            timer = self._loop.call_later(max(0, timeout_ns) / 1e9, self._set, False)
        try:
            return await self._future
        finally:
            if timer is not None:
                timer.cancel()

    def _set(self, woken: bool) -> None:
        if not self._future.done():
            self._future.set_result(woken)

    def unpark(self) -> bool:
        if asyncio._get_running_loop() is self._loop:
            self._set(True)
            return True
        try:
            self._loop.call_soon_threadsafe(self._set, True)
        except RuntimeError:
            return False
        return True


class Asyncio:
    """Sleeps and waits by suspending the task."""

    is_async = True

    async def sleep(self, duration_ns: int) -> None:
        due = clock.now_ns() + duration_ns
        await asyncio.sleep(duration_ns / 1e9)
        # A loop with a coarse clock may wake a task early; schedules and deadlines count on the whole pause.
        while (left := due - clock.now_ns()) > 0:  # noqa: ASYNC110  # it waits for time to pass, and for nothing else
            await asyncio.sleep(left / 1e9)

    def parker(self) -> TaskParker:
        return TaskParker()


ASYNCIO = Asyncio()
