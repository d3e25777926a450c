"""`Beside`: what works beside a program until it is stopped: in a block or a call, in threads or tasks."""

from __future__ import annotations

import contextvars
import threading
from abc import ABC, abstractmethod
from collections.abc import Coroutine
from types import TracebackType
from typing import TYPE_CHECKING, Any

from seawall.runtime.blocking import BLOCKING, drive
from seawall.runtime.protocol import Runtime
from seawall.runtime.which import asyncio_runtime

if TYPE_CHECKING:
    import asyncio
    from typing import Self

__all__ = ["Beside"]


class Beside(ABC):
    """Subclasses say what is to be done, and how it is told to end."""

    def __init__(self, name: str) -> None:
        self._thread_name = name
        self._thread: threading.Thread | None = None
        self._task: asyncio.Task[None] | None = None
        self._failure: BaseException | None = None

    @abstractmethod
    def stop(self) -> None:
        """Take up nothing more and end; from any thread, and from signal handlers. Does not wait for the end."""

    @abstractmethod
    def _start(self, runtime: Runtime) -> Coroutine[Any, Any, None]:
        """Begin, which may be refused, and give what works until `stop`."""

    def _context(self) -> contextvars.Context | None:
        """In which context the task of a block works: None is a copy of the block's."""
        return None

    def run(self) -> None:
        """Work, with this thread at the head, until `stop()` is called elsewhere.

        Raises `RuntimeError` if it works already, `ConfigError` if it cannot work in threads.
        """
        drive(self._start(BLOCKING))

    async def arun(self) -> None:
        """Work in tasks of this loop until `stop()`, or until this is cancelled. Raises `RuntimeError` as `run`."""
        await self._start(asyncio_runtime())

    def __enter__(self) -> Self:
        work = self._start(BLOCKING)
        self._failure = None
        self._thread = threading.Thread(target=self._in_thread, args=(work,), name=self._thread_name, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.join()
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    def _in_thread(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            drive(work)
        except BaseException as error:  # noqa: BLE001  # raised at the end of the block
            self._failure = error

    async def __aenter__(self) -> Self:
        import asyncio  # noqa: PLC0415  # asyncio, not before the first async use

        work = self._start(asyncio_runtime())
        self._task = asyncio.get_running_loop().create_task(work, context=self._context())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        task, self._task = self._task, None
        if task is not None:
            await task
