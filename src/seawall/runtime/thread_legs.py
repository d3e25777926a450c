"""The attempts of a race on threads: bounded in number, each with its caller's context, abandoned when they lose.

A thread cannot be interrupted. A loser runs on to its end and keeps its thread and its permits until then; what it
brings is closed. When all threads are taken, an attempt is refused instead of queued.
"""

from __future__ import annotations

import contextlib
import contextvars
import threading
from collections.abc import Sequence
from functools import partial
from typing import cast

from seawall.errors import BulkheadFull
from seawall.runtime import clock, forks
from seawall.runtime.blocking import drive
from seawall.runtime.closing import closer_of
from seawall.runtime.jobs import Job, Workers
from seawall.runtime.race import Attempt, Ending, Leg

__all__ = ["Pool", "ThreadLeg", "ThreadLegs"]


class Bell:
    """Wakes the one thread that waits for it; a ring before the wait is not lost."""

    __slots__ = ("_changing", "_gate", "_rung")

    def __init__(self) -> None:
        self._gate = threading.Lock()
        self._gate.acquire()
        self._changing = threading.Lock()
        self._rung = False

    def ring(self) -> None:
        with self._changing:
            if not self._rung:
                self._rung = True
                self._gate.release()

    def wait(self, timeout_ns: int | None) -> None:
        if clock.wait_for(self._gate, timeout_ns):
            with self._changing:
                self._rung = False


class Pool:
    """At most `limit` threads."""

    def __init__(self, name: str, limit: int) -> None:
        self.name = name
        self.limit = limit
        self.workers = Workers(f"seawall {name}")
        self.renew_after_fork()
        forks.renew_after_fork(self)

    def renew_after_fork(self) -> None:
        self._free = list(range(self.limit))
        self.workers.renew()

    @property
    def in_use(self) -> int:
        """How many threads work now."""
        return self.limit - len(self._free)

    def submit(self, attempt: Attempt) -> Job:
        """Run an attempt on a thread. Raises `BulkheadFull` if none is free."""
        free, run, held = self._free, contextvars.copy_context().run, list[int]()
        with contextlib.suppress(IndexError):
            held.append(free.pop())  # atomic, as is putting it back
        if not held:
            taken = f"all {self.limit} threads for parallel attempts are taken"
            raise BulkheadFull(taken, policy=self.name, measured=self.limit, threshold=self.limit, retry_after=1.0)

        def work() -> Ending:
            try:
                seat = held.pop()  # it is this thread's from here on
            except IndexError:
                return None, RuntimeError("whoever started this attempt has not waited for it")
            try:
                return run(drive, _awaited(attempt))
            finally:
                free.append(seat)

        try:
            return self.workers.submit(work)
        except BaseException:
            # An interrupt may have come after the thread was started: then the thread has it, and brings it back.
            with contextlib.suppress(IndexError):
                free.append(held.pop())
            raise


async def _awaited(attempt: Attempt) -> Ending:
    return await attempt()


class ThreadLeg:
    """One attempt on a thread of its own, or refused for want of one."""

    __slots__ = ("_ending", "_job")

    def __init__(self, pool: Pool, bell: Bell, attempt: Attempt) -> None:
        self._ending: Ending | None = None
        try:
            self._job = pool.submit(attempt)
        except (BulkheadFull, RuntimeError) as refusal:  # RuntimeError: the system has no more threads
            self._ending = None, refusal.with_traceback(None)  # else it would know this frame, which knows it
        else:
            self._job.on_end(bell.ring)

    @property
    def done(self) -> bool:
        return self._ending is not None or self._job.done

    def end(self) -> Ending:
        if self._ending is None:
            value, error = self._job.take()
            self._ending = (None, error) if error is not None else cast("Ending", value)
        return self._ending

    def abandon(self, kept: object) -> None:
        if self._ending is None:
            self._job.on_end(partial(_close, kept, self._job))
        else:
            _close_ending(kept, self._ending)


class ThreadLegs:
    """Starts the attempts of one race on the threads of a pool."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._bell = Bell()

    def start(self, attempt: Attempt) -> ThreadLeg:
        return ThreadLeg(self._pool, self._bell, attempt)

    async def wait(self, running: Sequence[Leg], timeout_ns: int | None) -> None:
        self._bell.wait(timeout_ns)


def _close(kept: object, job: Job) -> None:
    value, error = job.take()
    if error is None and value is not None:
        _close_ending(kept, value)


def _close_ending(kept: object, ending: Ending) -> None:
    close = closer_of(ending, is_async=False, kept=kept)
    if close is None:
        return
    try:
        close()
    except Exception:
        import logging  # noqa: PLC0415  # only a broken close pays for it

        logging.getLogger("seawall").exception("closing the result of a losing attempt failed")
