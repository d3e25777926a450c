"""A budget for attempts beyond the first: a share of the recent calls, and a little for quiet times.

Rules
    calls and extra attempts are counted over `window_ns`, in buckets.
    one more is granted iff  extra + 1 <= share * calls + per_second * window.
    A refusal changes nothing.

The fast lane. `next(ticks)` counts a call atomically, without a lock, while the clock has not reached `edge_ns`; the
ticks are gathered at the next step taken under the caller's lock.

After Finagle's RetryBudget: when everything fails, retries add at most that share to the load.
"""

from __future__ import annotations

import itertools

__all__ = ["RetryBudget"]

PPM = 1_000_000
SECOND = 1_000_000_000


class RetryBudget:
    """Grants extra attempts. Not safe for threads by itself, but for the fast lane described above."""

    __slots__ = (
        "_bucket_ns",
        "_calls",
        "_extra",
        "_gathered",
        "_index",
        "_reserve_ppm",
        "calls",
        "edge_ns",
        "extra",
        "share_ppm",
        "ticks",
    )

    def __init__(self, share_ppm: int, per_second: int, window_ns: int = 10 * SECOND, buckets: int = 10) -> None:
        self.share_ppm = share_ppm
        self._reserve_ppm = per_second * window_ns * PPM // SECOND
        self._bucket_ns = -(-window_ns // buckets)
        self._calls = [0] * buckets
        self._extra = [0] * buckets
        self._index: int | None = None
        self.calls = self.extra = 0
        self.edge_ns = 0
        self.ticks = itertools.count()
        self._gathered = 0

    def roll(self, now_ns: int) -> None:
        """Gather the ticks of the fast lane into their bucket, then let time pass."""
        drawn = next(self.ticks)
        self._add_calls(drawn - self._gathered)
        self._gathered = drawn + 1
        index, size = now_ns // self._bucket_ns, len(self._calls)
        if self._index is None:
            self._index = index
        elif index > self._index:
            for step in range(1, min(index - self._index, size) + 1):
                slot = (self._index + step) % size
                self.calls -= self._calls[slot]
                self.extra -= self._extra[slot]
                self._calls[slot] = self._extra[slot] = 0
            self._index = index
        self.edge_ns = (self._index + 1) * self._bucket_ns

    def _add_calls(self, count: int) -> None:
        self._calls[(self._index or 0) % len(self._calls)] += count
        self.calls += count

    def add_call(self, now_ns: int) -> None:
        """Count one call."""
        self.roll(now_ns)
        self._add_calls(1)

    def take(self, now_ns: int) -> bool:
        """Ask for one extra attempt."""
        self.roll(now_ns)
        if (self.extra + 1) * PPM > self.share_ppm * self.calls + self._reserve_ppm:
            return False
        self._extra[(self._index or 0) % len(self._extra)] += 1
        self.extra += 1
        return True

    @property
    def left(self) -> int:
        """How many extra attempts the latest counts would still grant."""
        return max(0, (self.share_ppm * self.calls + self._reserve_ppm) // PPM - self.extra)
