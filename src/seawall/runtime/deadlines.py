"""Timeouts of tasks: one queue of deadlines and one loop timer for all calls of a layer on a loop.

Calls of one layer have the same limit, so their deadlines come in the order in which the calls began: a first-in-first-out
queue with one timer for its head does for all of them, about five times cheaper than a timer each. A deadline of the caller that
is nearer would break that order and has a timer of its own. Entries of calls that have ended lie dead in the queue until they reach
its head; when the dead outnumber the living by 64, the queue is rebuilt.

When a deadline passes, the task is cancelled, as `asyncio.timeout` does, with the same bookkeeping of `cancelling()`
and `uncancel()`: only a cancellation that nobody else asked for becomes a timeout.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from contextvars import Token
from threading import get_ident
from typing import Any

from seawall.context import CURRENT, Context
from seawall.runtime import clock

current_task = asyncio.current_task
reset_context = CURRENT.reset

__all__ = ["Deadlines", "Entry"]

SLACK = 64


class Entry(Context):
    """One call under a deadline, in a task; dead when `task` is None. It is the context of that call as well."""

    __slots__ = ("asked", "deadlines", "fired", "reset", "task", "timer", "waits_in")

    task: asyncio.Task[Any] | None
    asked: int
    """How often others had asked the task to cancel before this call."""
    waits_in: _Queue | None
    timer: asyncio.TimerHandle | None
    reset: Token[Context]

    def fire(self) -> None:
        """The deadline has passed."""
        task = self.task
        if task is not None and not self.fired:
            self.fired = True
            task.cancel()


class _Queue:
    """The deadlines of one layer on one loop, nearest first."""

    __slots__ = ("dead", "entries", "loop", "thread", "timer")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.thread = 0
        self.entries: deque[Entry] = deque()
        self.dead = 0
        self.timer: asyncio.TimerHandle | None = None

    def start(self, delay_ns: int) -> None:
        """Set the timer for the head of the queue."""
        self.timer = self.loop.call_later(delay_ns / 1e9, self._fire)

    def bury(self) -> None:
        """An entry has died that is not the head's only follower: drop the dead at the head, or rebuild if there are too many."""
        entries = self.entries
        self.dead += 1
        while entries and entries[0].task is None:
            entries.popleft()
            self.dead -= 1
        living = len(entries) - self.dead
        if self.dead > living + SLACK:
            self.entries = deque(entry for entry in entries if entry.task is not None)
            self.dead = 0

    def _fire(self) -> None:
        now, entries = clock.now_ns(), self.entries
        self.timer = None
        while entries:
            head = entries[0]
            if head.task is None:
                self.dead -= 1
            elif head.deadline_ns is not None and head.deadline_ns > now:
                self.start(head.deadline_ns - now)
                return
            else:
                head.waits_in = None
                head.fire()
            entries.popleft()


class Deadlines:
    """The deadlines of one layer, on every loop that it is used on."""

    def __init__(self, limit_ns: int | None, expired: Callable[..., Exception]) -> None:
        self._limit_ns = limit_ns
        self._expired = expired
        self._queues: dict[asyncio.AbstractEventLoop, _Queue] = {}
        self._latest: _Queue | None = None

    def enter(self) -> Entry:
        """Put the running task under the limit, or under the caller's deadline if that is nearer."""
        now, outer, queue = clock.now_ns(), CURRENT.get(), self._latest
        # Asking for the running loop costs a system call on some versions; a loop runs in one thread, so it can be known.
        task = current_task(queue.loop) if queue is not None and queue.thread == get_ident() else None
        if task is None:
            task, queue = self._find()
        entry = Entry()
        entry.task = task
        entry.asked = task.cancelling()
        entry.fired = False
        entry.timer = None
        entry.criticality = outer.criticality
        entry.attempt = outer.attempt
        entry.operation = outer.operation
        entry.deadlines = self
        limit, inherited = self._limit_ns, outer.deadline_ns
        if limit is None or (inherited is not None and inherited < now + limit):
            return self._under_callers_deadline(entry, now, inherited)
        if not limit:
            raise self._expired(inherited=False)
        entry.deadline_ns = now + limit
        entry.waits_in = queue
        queue.entries.append(entry)
        if queue.timer is None:
            queue.start(limit)
        entry.reset = CURRENT.set(entry)
        return entry

    def _find(self) -> tuple[asyncio.Task[Any], _Queue]:
        """The running task, and the queue of its loop."""
        loop = asyncio.get_running_loop()
        task = current_task(loop)
        if task is None:
            raise RuntimeError("Timeout needs a running task: await the call from a coroutine that asyncio runs")
        queue = self._queues.get(loop)
        if queue is None:
            for gone in [other for other in list(self._queues) if other.is_closed()]:
                self._queues.pop(gone, None)
            queue = self._queues[loop] = _Queue(loop)
        queue.thread = get_ident()
        self._latest = queue
        return task, queue

    def _under_callers_deadline(self, entry: Entry, now: int, inherited: int | None) -> Entry:
        if inherited is not None and inherited <= now:
            raise self._expired(inherited=True)
        entry.waits_in = None
        entry.deadline_ns = inherited
        if inherited is not None and entry.task is not None:
            entry.timer = entry.task.get_loop().call_later((inherited - now) / 1e9, entry.fire)
        entry.reset = CURRENT.set(entry)
        return entry

    def leave(self, entry: Entry, now_ns: int, result: object) -> None:
        """The call has ended. A cancellation that the function swallowed is taken back."""
        task, entry.task = entry.task, None
        try:
            reset_context(entry.reset)
        except ValueError:
            pass  # an abandoned generator, closed in another context: there is nothing to restore
        queue = entry.waits_in
        if queue is not None:
            entries = queue.entries
            if entries and entries[0] is entry and not queue.dead:
                entries.popleft()
            else:
                queue.bury()
        elif entry.timer is not None:
            entry.timer.cancel()
        if entry.fired and task is not None:
            task.uncancel()

    def end(self, entry: Entry, error: BaseException) -> BaseException:
        """The call has failed; returns the error to go on with."""
        task, own = entry.task, entry.timer is None
        self.leave(entry, 0, None)
        ours = entry.fired and isinstance(error, asyncio.CancelledError)
        if ours and task is not None and task.cancelling() <= entry.asked:
            expired = self._expired(inherited=not own)
            expired.__cause__ = error
            return expired
        return error
