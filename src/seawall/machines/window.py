"""The recent past of a breaker in constant memory and constant time: counts over a span of time, or over the last n.

Rules
    calls, failed, slow       are the totals over what the window still holds.
    time window               `span` is split into buckets; a bucket leaves as a whole when the clock enters the
                              bucket that takes its place. So the window covers between span - span/buckets and span.
    count window              the last `size` outcomes; the oldest leaves when a new one comes.
    clock going back          is read as standing still.
    amend_failed(mark)        turns an outcome recorded earlier (as slow, while it was still running) into a failure;
                              if that outcome has left the window, the failure is recorded as a new one.
"""

from __future__ import annotations

from typing import Protocol

__all__ = ["CountWindow", "TimeWindow", "Window"]


class Window(Protocol):
    """What a breaker needs to know of the past."""

    calls: int
    failed: int
    slow: int

    def roll(self, now_ns: int) -> None: ...
    def record(self, now_ns: int, *, failed: bool, slow: bool) -> int: ...
    def amend_failed(self, mark: int, now_ns: int) -> None: ...
    def clear(self) -> None: ...


class TimeWindow:
    """Outcomes of the last `span_ns`, in `buckets` of equal length."""

    __slots__ = ("_bucket_ns", "_calls", "_failed", "_index", "_size", "_slow", "calls", "failed", "slow")

    def __init__(self, span_ns: int, buckets: int) -> None:
        self._bucket_ns = -(-span_ns // buckets)
        self._size = buckets
        self._index: int | None = None
        self.clear()

    def clear(self) -> None:
        self._calls = [0] * self._size
        self._failed = [0] * self._size
        self._slow = [0] * self._size
        self.calls = self.failed = self.slow = 0

    @property
    def edge_ns(self) -> int:
        """The instant at which the current bucket is full; 0 before the first roll."""
        return 0 if self._index is None else (self._index + 1) * self._bucket_ns

    def roll(self, now_ns: int) -> None:
        index = now_ns // self._bucket_ns
        if self._index is None:
            self._index = index
        elif index > self._index:
            for step in range(1, min(index - self._index, self._size) + 1):
                self._drop((self._index + step) % self._size)
            self._index = index

    def _drop(self, slot: int) -> None:
        self.calls -= self._calls[slot]
        self.failed -= self._failed[slot]
        self.slow -= self._slow[slot]
        self._calls[slot] = self._failed[slot] = self._slow[slot] = 0

    def add_ok(self, count: int) -> None:
        """Record `count` quick successes in the bucket of the latest roll."""
        self._calls[(self._index or 0) % self._size] += count
        self.calls += count

    def record(self, now_ns: int, *, failed: bool, slow: bool) -> int:
        self.roll(now_ns)
        index = self._index or 0
        slot = index % self._size
        self._calls[slot] += 1
        self._failed[slot] += failed
        self._slow[slot] += slow
        self.calls += 1
        self.failed += failed
        self.slow += slow
        return index

    def amend_failed(self, mark: int, now_ns: int) -> None:
        self.roll(now_ns)
        if mark <= (self._index or 0) - self._size:
            self.record(now_ns, failed=True, slow=False)
            return
        self._failed[mark % self._size] += 1
        self.failed += 1


class CountWindow:
    """The last `size` outcomes."""

    __slots__ = ("_next", "_ring", "_size", "calls", "failed", "slow")

    FAILED, SLOW = 1, 2

    def __init__(self, size: int) -> None:
        self._size = size
        self.clear()

    def clear(self) -> None:
        self._ring = bytearray(self._size)
        self._next = 0
        self.calls = self.failed = self.slow = 0

    def roll(self, now_ns: int) -> None:
        """Time changes nothing here."""

    def record(self, now_ns: int, *, failed: bool, slow: bool) -> int:
        slot = self._next % self._size
        if self._next >= self._size:
            old = self._ring[slot]
            self.failed -= old & self.FAILED
            self.slow -= (old & self.SLOW) >> 1
        else:
            self.calls += 1
        self._ring[slot] = failed * self.FAILED | slow * self.SLOW
        self.failed += failed
        self.slow += slow
        self._next += 1
        return self._next - 1

    def amend_failed(self, mark: int, now_ns: int) -> None:
        if mark < self._next - self._size:
            self.record(now_ns, failed=True, slow=False)
            return
        self._ring[mark % self._size] |= self.FAILED
        self.failed += 1
