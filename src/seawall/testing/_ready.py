"""The ready queue of the virtual loop: lets a seed delay task steps, and never breaks an order asyncio promises.

Plain callbacks (of futures, timers, `call_soon`) run first in, first out. A task step may be delayed past anything,
as if the task had been woken later, but never runs before a plain callback that was queued before it: code may rely on
a done-callback having run when the `await` of the same future returns. Without a generator the queue is asyncio's own.
"""

from __future__ import annotations

import asyncio
from collections import deque
from random import Random
from typing import Any

__all__ = ["ReadyQueue", "stepping_task"]

_STEP_NAMES = frozenset({"task_wakeup", "__step", "__wakeup"})


def stepping_task(handle: asyncio.Handle) -> asyncio.Task[Any] | None:
    """The task whose next step this handle runs, or `None` for a plain callback (`task.cancel` is one too)."""
    callback = getattr(handle, "_callback", None)
    owner: asyncio.Task[Any] | None = getattr(callback, "__self__", None)
    if not isinstance(owner, asyncio.Task):
        return None
    known = type(callback).__name__ == "TaskStepMethWrapper" or getattr(callback, "__name__", "") in _STEP_NAMES
    return owner if known else None


class ReadyQueue:
    """Handles that may run now, each with the task it steps; O(1) to add and to take."""

    def __init__(self, order: Random | None) -> None:
        self._order = order
        self._steps: list[tuple[asyncio.Handle, asyncio.Task[Any]]] = []
        # Begins with a plain callback, and holds whatever was queued after it.
        self._rest: deque[tuple[asyncio.Handle, asyncio.Task[Any] | None]] = deque()

    def __len__(self) -> int:
        return len(self._steps) + len(self._rest)

    def add(self, handle: asyncio.Handle) -> None:
        task = stepping_task(handle)
        if task is None or self._rest or self._order is None:
            self._rest.append((handle, task))
        else:
            self._steps.append((handle, task))

    def take(self) -> tuple[asyncio.Handle, asyncio.Task[Any] | None]:
        """The next handle to run: one of the free task steps, or the oldest plain callback, each as likely."""
        steps = self._steps
        choices = len(steps) + bool(self._rest)
        index = self._order.randrange(choices) if self._order is not None and choices > 1 else 0
        if index < len(steps):
            steps[index], steps[-1] = steps[-1], steps[index]
            return steps.pop()
        taken = self._rest.popleft()
        if self._order is not None:
            self._free_steps()
        return taken

    def _free_steps(self) -> None:
        while self._rest:
            handle, task = self._rest[0]
            if task is None:
                return
            self._steps.append((handle, task))
            self._rest.popleft()
