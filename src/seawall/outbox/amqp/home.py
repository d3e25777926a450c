"""The thread in which a store speaks with its broker, for callers in threads and in event loops alike.

One loop, in a daemon thread of this process, begun at the first step. A step is given to it whole and runs there to its
end, which comes within its time; a caller who is cancelled before leaves no step half done, and what such a step would
have given him is given back.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import threading
from collections import deque
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, Generic, TypeVar

from seawall.errors import BackendUnavailable

__all__ = ["Home", "Step"]

T = TypeVar("T")
MARGIN = 0.1
"""Seconds of a step's time that its last message to the caller gets."""


class Step(Generic[T]):
    """Something to be done at home: `work` makes the coroutine, `undo` gives back what nobody took."""

    def __init__(
        self,
        name: str,
        work: Callable[[float], Coroutine[Any, Any, T]],
        undo: Callable[[T], Coroutine[Any, Any, object]] | None = None,
    ) -> None:
        self.name = name
        self.undo = undo
        self._work = work
        self._task: asyncio.Task[None] | None = None

    def start(self, future: concurrent.futures.Future[T], seconds: float) -> None:
        """In the loop: begin."""
        self._task = asyncio.get_running_loop().create_task(self._run(future, seconds))
        _UNDER_WAY.add(self._task)
        self._task.add_done_callback(_UNDER_WAY.discard)

    async def _run(self, future: concurrent.futures.Future[T], seconds: float) -> None:
        # The future is pending until the very end: so the caller's leaving and this end exclude each other.
        try:
            if future.cancelled():
                return
            result = await self._work(seconds)
        except BaseException as error:  # noqa: BLE001  # the caller's to see
            if future.set_running_or_notify_cancel():
                future.set_exception(error if isinstance(error, Exception) else _ended(self.name))
            return
        if future.set_running_or_notify_cancel():
            future.set_result(result)
        else:
            self.give_back(result)

    def give_back(self, result: T) -> None:
        """In the loop: nobody took it."""
        if self.undo is not None:
            _keep(asyncio.get_running_loop().create_task(self.undo(result)))


_UNDER_WAY: set[asyncio.Task[Any]] = set()


def _keep(task: asyncio.Task[object]) -> None:
    _UNDER_WAY.add(task)
    task.add_done_callback(_done)


def _done(task: asyncio.Task[object]) -> None:
    _UNDER_WAY.discard(task)
    if not task.cancelled():
        task.exception()  # what cannot be given back comes back by itself, when its lease runs out


def _ended(name: str) -> BackendUnavailable:
    return BackendUnavailable(f"{name}: the store was closed in the middle of it; it may have happened")


class _Way:
    """Calls for a loop from other threads: those that come while it has not woken yet wake it once."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._calls: deque[Callable[[], object]] = deque()
        self._told = False

    def send(self, call: Callable[[], object]) -> None:
        self._calls.append(call)
        # Read after the call is there, and cleared before calls are taken: none is left behind.
        if not self._told:
            self._told = True
            with contextlib.suppress(RuntimeError):  # the loop is closed, and nobody waits in it
                self.loop.call_soon_threadsafe(self._take)

    def _take(self) -> None:
        self._told = False
        for _ in range(len(self._calls)):
            self._calls.popleft()()


def _pass_on(done: concurrent.futures.Future[T], here: asyncio.Future[T]) -> None:
    """The result for a caller in a loop, unless he has gone."""
    if here.done() or done.cancelled():
        return
    error = done.exception()
    if error is None:
        here.set_result(done.result())
    else:
        here.set_exception(error)


class Home:
    """A loop in a thread."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._there: _Way | None = None
        self._back: _Way | None = None
        """To the loop that called last."""

    def _running(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(target=_run, args=(self._loop,), name=self._name, daemon=True)
                self._thread.start()
            return self._loop

    @property
    def running(self) -> bool:
        """Whether it has a thread."""
        return self._loop is not None

    def begin(self, work: Callable[[], Coroutine[Any, Any, object]]) -> None:
        """Have something done, if the loop runs, and wait for nothing."""
        loop = self._loop
        if loop is not None:
            with contextlib.suppress(RuntimeError):  # it has just been closed
                loop.call_soon_threadsafe(lambda: _keep(loop.create_task(work())))

    def call(self, step: Step[T], seconds: float) -> T:
        """Have a step done, and block until it is, for at most `seconds`."""
        future = self._begin(step, seconds)
        try:
            return future.result(seconds)
        except (concurrent.futures.TimeoutError, TimeoutError):
            if not future.cancel() and not future.cancelled():
                return future.result()  # it ended in this very instant
            raise self._late(step, seconds) from None
        except BaseException:
            # Of the caller's thread, such as Ctrl-C; an error of the step changes nothing here.
            self._leave(step, future)
            raise

    async def acall(self, step: Step[T], seconds: float) -> T:
        """Have a step done, and await it, for at most `seconds`."""
        loop = asyncio.get_running_loop()
        here: asyncio.Future[T] = loop.create_future()
        future = self._begin(step, seconds)
        back = self._back
        if back is None or back.loop is not loop:
            back = self._back = _Way(loop)
        future.add_done_callback(lambda done: back.send(partial(_pass_on, done, here)))
        try:
            async with asyncio.timeout(seconds):
                return await here
        except TimeoutError:
            self._leave(step, future)
            raise self._late(step, seconds) from None
        except asyncio.CancelledError:
            self._leave(step, future)
            raise

    def _begin(self, step: Step[T], seconds: float) -> concurrent.futures.Future[T]:
        future: concurrent.futures.Future[T] = concurrent.futures.Future()
        inner = seconds - min(MARGIN, seconds / 10)
        loop = self._running()
        there = self._there
        if there is None or there.loop is not loop:
            there = self._there = _Way(loop)
        there.send(partial(step.start, future, inner))
        return future

    def _leave(self, step: Step[T], future: concurrent.futures.Future[T]) -> None:
        """The caller goes; if he was given something in this instant, it is given back."""
        if not future.cancel() and not future.cancelled() and future.exception() is None and step.undo is not None:
            self._running().call_soon_threadsafe(step.give_back, future.result())

    @staticmethod
    def _late(step: Step[Any], seconds: float) -> BackendUnavailable:
        return BackendUnavailable(f"{step.name}: no answer from RabbitMQ within {seconds:g} s; it may have happened")

    def end(self, seconds: float = 1) -> None:
        """Let the loop go; the next step begins another."""
        with self._lock:
            loop, thread, self._loop, self._thread = self._loop, self._thread, None, None
        if loop is not None and thread is not None:
            loop.call_soon_threadsafe(loop.stop)
            if thread is not threading.current_thread():
                thread.join(seconds)

    def end_soon(self) -> None:
        """From finalizers: let the loop go, and wait for nothing."""
        loop, self._loop = self._loop, None
        if loop is not None:
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(loop.stop)


def _run(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
        left = asyncio.all_tasks(loop)
        for task in left:
            task.cancel()
        if left:
            loop.run_until_complete(asyncio.wait(left, timeout=1))
    finally:
        asyncio.set_event_loop(None)
        loop.close()
