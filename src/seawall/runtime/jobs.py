"""Blocking functions on threads of their own: started when needed, ended when idle, never waited for at exit.

`concurrent.futures` would do, but joins its threads when the interpreter exits: one hung call would hang the exit.
"""

from __future__ import annotations

import contextvars
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

__all__ = ["JOB", "Job", "Workers"]

IDLE_SECONDS = 10.0


class Job:
    """A function on its way through a thread."""

    __slots__ = ("_callbacks", "_lock", "done", "error", "function", "value")

    def __init__(self, function: Callable[[], Any]) -> None:
        self.function = function
        self.done = False
        self.value: Any = None
        self.error: BaseException | None = None
        self._lock = threading.Lock()
        self._callbacks: list[Callable[[], object]] = []

    def on_end(self, callback: Callable[[], object]) -> None:
        """Call `callback` when the function has ended, in that thread; at once if it has ended already."""
        with self._lock:
            if not self.done:
                self._callbacks.append(callback)
                return
        callback()

    def take(self) -> tuple[Any, BaseException | None]:
        """The end of a job that is done, which forgets it: an error knows the frame that knows the job."""
        ending = self.value, self.error
        self.value = self.error = None
        return ending

    def run(self) -> None:
        try:
            self.value = self.function()
        except BaseException as error:  # noqa: BLE001  # handed to the caller, whatever it is
            self.error = error
        del self.function  # and what it holds, which is the caller's
        with self._lock:
            self.done = True
            callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback()


JOB: contextvars.ContextVar[Job | None] = contextvars.ContextVar("seawall_job", default=None)
"""The job that serves the running attempt."""


class Workers:
    """Threads that run jobs. Whoever submits bounds their number: a job is never queued behind another."""

    def __init__(self, name: str) -> None:
        self._name = name
        self.renew()

    def renew(self) -> None:
        """Start from nothing, in a forked child."""
        self._wake = threading.Condition(threading.Lock())
        self._jobs: deque[Job] = deque()
        self._idle = 0

    def submit(self, function: Callable[[], Any]) -> Job:
        """Run `function` on a thread, at once. Raises `RuntimeError` if no thread can be started."""
        job = Job(function)
        with self._wake:
            if self._idle > len(self._jobs):
                self._jobs.append(job)
                self._wake.notify()
                return job
        threading.Thread(target=self._work, args=(job,), name=self._name, daemon=True).start()
        return job

    def _work(self, job: Job | None) -> None:
        while job is not None:
            job.run()
            job = None  # what it holds must not live as long as this thread idles
            job = self._next()

    def _next(self) -> Job | None:
        with self._wake:
            self._idle += 1
            try:
                self._wake.wait_for(lambda: self._jobs, IDLE_SECONDS)
                return self._jobs.popleft() if self._jobs else None
            finally:
                self._idle -= 1
