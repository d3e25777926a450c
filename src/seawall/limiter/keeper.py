"""Renews the slots of threads: one daemon thread for each concurrency limit, which ends when nobody is inside.

Slots wait for their renewal in two lines: those renewed in time, and those whose last renewal failed, who come sooner.
In each line all wait equally long, so the first one is always the next.
"""

from __future__ import annotations

import threading
import weakref
from collections import OrderedDict
from typing import TYPE_CHECKING

from seawall.runtime import clock
from seawall.runtime.blocking import BLOCKING, drive

if TYPE_CHECKING:
    from seawall.limiter.slots import Slot
    from seawall.stores.leases import LeaseTable

__all__ = ["ANXIOUS", "Keeper"]

ANXIOUS = 4
"""After a renewal that failed, the next comes so much sooner."""
IDLE_SECONDS = 5.0
Line = OrderedDict[int, "tuple[int, weakref.ref[Slot]]"]


class Keeper:
    """Of one limit, in one process."""

    def __init__(self, name: str, table: LeaseTable) -> None:
        self._name = f"seawall-leases-{name}"
        self._table = table
        # Taken by itself, and not by the condition, in which an interrupt could lose it.
        self._lock = threading.RLock()
        self._wake = threading.Condition(self._lock)
        self._calm: Line = OrderedDict()
        self._anxious: Line = OrderedDict()
        self._running = False
        self._idle = False

    def add(self, slot: Slot) -> None:
        """Renew it from now on. Raises `RuntimeError` if no thread can be started."""
        assert slot.lease is not None, "whoever holds nothing has nothing to renew"
        with self._lock:
            self._calm[slot.lease.number] = (clock.now_ns() + self._every_ns, weakref.ref(slot))
            if self._idle:
                self._wake.notify()
            if self._running:
                return
            try:
                threading.Thread(target=self._run, name=self._name, daemon=True).start()
            except BaseException:
                self.remove(slot)
                raise
            self._running = True

    def remove(self, slot: Slot) -> None:
        """It is given back."""
        if slot.lease is not None:
            with self._lock:
                self._calm.pop(slot.lease.number, None)
                self._anxious.pop(slot.lease.number, None)

    def hurry(self) -> None:
        """Renew all now: leases have another length."""
        with self._lock:
            now = clock.now_ns()
            for line in (self._calm, self._anxious):
                for number, (_, ref) in list(line.items()):
                    line[number] = (now, ref)
            self._wake.notify()

    @property
    def _every_ns(self) -> int:
        return self._table.every_ns or 0

    def _run(self) -> None:
        while True:
            with self._lock:
                slot = self._next()
                if slot is None:
                    self._running = False
                    return
            with slot.lock:
                known = drive(slot.renew(BLOCKING))
                if not slot.closed:
                    self._put_back(slot, known=known)
            del slot  # it must not live as long as this thread waits

    def _put_back(self, slot: Slot, *, known: bool) -> None:
        assert slot.lease is not None, "it was renewed"
        line, pause = (self._calm, self._every_ns) if known else (self._anxious, self._every_ns // ANXIOUS)
        with self._lock:
            line[slot.lease.number] = (clock.now_ns() + pause, weakref.ref(slot))

    def _next(self) -> Slot | None:
        """Waits for the next one that is due; None if nobody has been inside for a while."""
        while True:
            first = min((line for line in (self._calm, self._anxious) if line), key=_due, default=None)
            if first is None:
                self._idle = True
                self._wake.wait(IDLE_SECONDS)
                self._idle = False
                if not self._calm and not self._anxious:
                    return None
                continue
            left = _due(first) - clock.now_ns()
            if left > 0:
                self._wake.wait(left / 1e9)
                continue
            _, (_, ref) = first.popitem(last=False)
            slot = ref()
            if slot is not None:
                return slot


def _due(line: Line) -> int:
    return next(iter(line.values()))[0]
