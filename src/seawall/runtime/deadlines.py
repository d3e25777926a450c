"""Timeouts of tasks: one queue of deadlines and one loop timer for all calls of a layer on a loop.

Calls of one layer have the same limit, so their deadlines come in the order in which the calls began: a
first-in-first-out queue with one timer for its head does for all of them, about five times cheaper than a timer each.
A deadline of the caller that is nearer would break that order and has a timer of its own. Entries of calls that have
ended lie dead in the queue until they reach its head; when the dead outnumber the living by 64, the queue is rebuilt.

When a deadline passes, the task is cancelled, as `asyncio.timeout` does, with the same bookkeeping of `cancelling()`
and `uncancel()`: only a cancellation that nobody else asked for becomes a timeout.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from contextvars import Token
from threading import get_ident
from typing import Any, ClassVar

from seawall.context import CURRENT, Context
from seawall.runtime import clock

current_task = asyncio.current_task
current_context, set_context, reset_context = CURRENT.get, CURRENT.set, CURRENT.reset

__all__ = ["Deadlines", "Entry"]

SLACK = 64


class Entry(Context):
    """One call under a deadline, in a task; dead when `task` is None. It is the context of that call as well."""

    __slots__ = ("asked", "fired", "queue", "reset", "task")

    own: ClassVar[bool] = True
    """Whether the layer's limit is the nearer one, not the caller's deadline."""
    task: asyncio.Task[Any] | None
    fired: bool
    asked: int
    """How often others had asked the task to cancel before this call."""
    queue: _Queue | None
    reset: Token[Context]

    def fire(self) -> None:
        """The deadline has passed."""
        task = self.task
        if task is not None and not self.fired:
            self.fired = True
            task.cancel()


class CallersEntry(Entry):
    """One call under the nearer deadline of its caller, with a timer of its own; without, if there is no deadline."""

    __slots__ = ("timer",)

    own: ClassVar[bool] = False
    timer: asyncio.TimerHandle | None


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
        """An entry has died somewhere in the queue: drop the dead at its head; rebuild it if there are too many."""
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
                head.queue = None
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
        now, outer, queue, limit = clock.now_ns(), current_context(), self._latest, self._limit_ns
        # Asking for the running loop costs a system call on some versions; but a loop stays in its thread.
        task = current_task(queue.loop) if queue is not None and queue.thread == get_ident() else None
        if task is None or queue is None:
            task, queue = self._find()
        inherited = outer.deadline_ns
        if limit is None or (inherited is not None and inherited < now + limit):
            return self._under_callers_deadline(task, outer, now, inherited)
        if not limit:
            raise self._expired(inherited=False)
        entry = Entry()
        entry.task = task
        entry.asked = task.cancelling()
        entry.fired = False
        entry.deadline_ns = now + limit
        entry.criticality = outer.criticality
        entry.attempt = outer.attempt
        entry.operation = outer.operation
        entry.queue = queue
        queue.entries.append(entry)
        if queue.timer is None:
            queue.start(limit)
        entry.reset = set_context(entry)
        return entry

    def _under_callers_deadline(
        self, task: asyncio.Task[Any], outer: Context, now: int, inherited: int | None
    ) -> CallersEntry:
        if inherited is not None and inherited <= now:
            raise self._expired(inherited=True)
        entry = CallersEntry()
        entry.task = task
        entry.asked = task.cancelling()
        entry.fired = False
        entry.deadline_ns = inherited
        entry.criticality = outer.criticality
        entry.attempt = outer.attempt
        entry.operation = outer.operation
        entry.queue = None
        entry.timer = None
        if inherited is not None:
            entry.timer = task.get_loop().call_later((inherited - now) / 1e9, entry.fire)
        entry.reset = set_context(entry)
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

    def leave(self, entry: Entry, now_ns: int, result: object) -> None:
        """The call has ended. A cancellation that the function swallowed is taken back."""
        task, entry.task = entry.task, None
        try:  # noqa: SIM105  # contextlib.suppress would cost more than all the rest
            reset_context(entry.reset)
        except ValueError:
            pass  # an abandoned generator, closed in another context: there is nothing to restore
        queue = entry.queue
        if queue is not None:
            entries = queue.entries
            if entries and entries[0] is entry and not queue.dead:
                entries.popleft()
            else:
                queue.bury()
        elif isinstance(entry, CallersEntry) and entry.timer is not None:
            entry.timer.cancel()
        if entry.fired and task is not None:
            task.uncancel()

    def end(self, entry: Entry, error: BaseException) -> BaseException:
        """The call has failed; returns the error to go on with."""
        task = entry.task
        self.leave(entry, 0, None)
        ours = entry.fired and isinstance(error, asyncio.CancelledError)
        if ours and task is not None and task.cancelling() <= entry.asked:
            expired = self._expired(inherited=not entry.own)
            expired.__cause__ = error
            return expired
        return error
