"""Timers in whole nanoseconds: none is lost, none fires twice, and none can be re-armed at its own instant for ever."""

from __future__ import annotations

import asyncio
import heapq
import math

__all__ = ["TimerQueue", "when_ns"]

_FEW = 100


def when_ns(seconds: float, now_ns: int) -> int | None:
    """The nanosecond nearest to `seconds` on the loop's clock, or `None` for never (infinity).

    What lies after now, by however little, gets at least the next nanosecond: otherwise code that fires, finds its
    float deadline a hair away and sets the timer again would spin without time passing. Raises `ValueError` for NaN.
    """
    if math.isnan(seconds):
        raise ValueError(f"a timer at {seconds!r} seconds: expected a number")
    if math.isinf(seconds):
        return None if seconds > 0 else now_ns
    nearest = round(seconds * 1e9)
    return max(nearest, now_ns + 1) if seconds > now_ns / 1e9 else nearest


def _mark(timer: asyncio.TimerHandle, *, waiting: bool) -> None:
    """Set the mark by which asyncio's own loop, too, tells a timer that waits from one that has fired."""
    setattr(timer, "_scheduled", waiting)  # noqa: B010  # not in the type's public face


class TimerQueue:
    """Timer handles by instant; those of one instant first in, first out."""

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, asyncio.TimerHandle]] = []
        self._made = 0
        self._cancelled = 0

    def add(self, instant_ns: int, timer: asyncio.TimerHandle) -> None:
        self._made += 1
        _mark(timer, waiting=True)
        heapq.heappush(self._heap, (instant_ns, self._made, timer))

    def note_cancelled(self, timer: asyncio.TimerHandle) -> None:
        """Drop the dead once they outnumber the living: a timeout that is never reached must cost no memory."""
        if not getattr(timer, "_scheduled", False):
            return  # it has fired; `asyncio.sleep` cancels its timer even so
        self._cancelled += 1
        if self._cancelled > _FEW and self._cancelled * 2 > len(self._heap):
            self._heap = [entry for entry in self._heap if not entry[2].cancelled()]
            heapq.heapify(self._heap)
            self._cancelled = 0

    def next_ns(self) -> int | None:
        """When the earliest living timer is due, or `None` if there is none."""
        while self._heap and self._heap[0][2].cancelled():
            heapq.heappop(self._heap)
            self._cancelled -= 1
        return self._heap[0][0] if self._heap else None

    def take_due(self, now_ns: int) -> list[asyncio.TimerHandle]:
        due: list[asyncio.TimerHandle] = []
        while (first := self.next_ns()) is not None and first <= now_ns:
            timer = heapq.heappop(self._heap)[2]
            _mark(timer, waiting=False)
            due.append(timer)
        return due
