"""Renews the slot of one task: a timer on its loop, and a task only when a renewal is due."""

from __future__ import annotations

import asyncio
import weakref

from seawall.limiter.keeper import ANXIOUS
from seawall.limiter.slots import Slot
from seawall.runtime.aio import ASYNCIO
from seawall.stores.leases import LeaseTable

__all__ = ["TimedRenewal"]

# A task that nobody refers to may be collected in mid-flight.
_renewals: set[asyncio.Task[None]] = set()


class TimedRenewal:
    """Until `stop`, or until the slot was lost without a word."""

    __slots__ = ("_loop", "_slot", "_table", "_task", "_timer")

    def __init__(self, slot: Slot, table: LeaseTable) -> None:
        self._loop = asyncio.get_running_loop()
        self._slot = weakref.ref(slot)
        self._table = table
        self._task: asyncio.Task[None] | None = None
        self._timer = self._set(1)

    def _set(self, part: int) -> asyncio.TimerHandle:
        return self._loop.call_later((self._table.every_ns or 0) / part / 1e9, self._ring)

    def _ring(self) -> None:
        slot = self._slot()
        if slot is None or slot.closed:
            return
        self._task = self._loop.create_task(self._renew(slot))
        _renewals.add(self._task)
        self._task.add_done_callback(_renewals.discard)

    async def _renew(self, slot: Slot) -> None:
        known = await slot.renew(ASYNCIO)
        if not slot.closed:
            self._timer = self._set(1 if known else ANXIOUS)

    def stop(self) -> asyncio.Task[None] | None:
        """No more renewals; the one that is under way, if there is one."""
        self._timer.cancel()
        return None if self._task is None or self._task.done() else self._task
