"""Never more than `amount` in any span of the length of the window, kept as counts of short buckets.

The window is covered by `buckets` whole buckets of ceil(window / buckets), and the oldest, which lies partly outside,
counts in full: so the limit holds in any window, and at least 0.9 of it gets through with 10 buckets, 0.98 with 60.

State
    one integer: the number of the newest bucket, above `buckets + 1` lanes of 32 bits; lane 0 is the newest bucket.
    Time passing is a shift; the sum of the lanes is a remainder, since 2**32 is 1 modulo 2**32 - 1.
Rules
    Admitted iff the sum + cost <= amount; then lane 0 grows by cost.

After the buckets of Hystrix's rolling window, made one-sided so that it never errs upwards.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

__all__ = ["SlidingWindow"]

LANE = 32
ONES = (1 << LANE) - 1


class SlidingWindow:
    """See above. `amount` is below 2**31, `buckets` from 1."""

    __slots__ = ("_lanes", "_mask", "_top", "amount", "bucket_ns", "buckets", "period_ns")

    kind: ClassVar[str] = "sliding_window"
    civil: ClassVar[bool] = False

    def __init__(self, amount: int, period_ns: int, buckets: int) -> None:
        self.amount = amount
        self.period_ns = period_ns
        self.buckets = buckets
        self.bucket_ns = -(-period_ns // buckets)
        self._lanes = buckets + 1
        self._top = self._lanes * LANE
        self._mask = (1 << self._top) - 1

    @property
    def capacity(self) -> int:
        return self.amount

    @property
    def forget_ns(self) -> int:
        return self._lanes * self.bucket_ns

    def packed(self, newest: int, counts: Sequence[int]) -> int:
        """The state in which `newest` is the number of the newest bucket; its count stands first."""
        lanes = sum(count << place * LANE for place, count in enumerate(counts))
        return newest << self._top | lanes

    def counts(self, state: int, now: int) -> list[tuple[int, int]]:
        """Where each bucket begins that still counts, and its count."""
        newest = self._newest(state, now)
        lanes = self._shifted(state, newest)
        return [((newest - lane) * self.bucket_ns, lanes >> lane * LANE & ONES) for lane in range(self._lanes)]

    def _shifted(self, state: int | None, bucket: int) -> int:
        """The lanes as they lie when `bucket` is the newest one."""
        if state is None:
            return 0
        passed = bucket - (state >> self._top)
        lanes = state & self._mask
        if passed <= 0:
            return lanes  # a clock that went back is read as standing still
        return (lanes << passed * LANE) & self._mask if passed < self._lanes else 0

    def _newest(self, state: int | None, now: int) -> int:
        bucket = now // self.bucket_ns
        return bucket if state is None else max(bucket, state >> self._top)

    def take(self, state: int | None, now: int, cost: int) -> int | None:
        bucket = self._newest(state, now)
        lanes = self._shifted(state, bucket)
        if lanes % ONES + cost > self.amount:
            return None
        return bucket << self._top | (lanes + cost)

    def add(self, state: int | None, now: int, cost: int) -> int:
        bucket = self._newest(state, now)
        lanes = self._shifted(state, bucket)
        return bucket << self._top | (lanes + max(0, min(cost, 2 * self.amount - lanes % ONES)))

    def give_back(self, state: int | None, now: int, cost: int, taken: int) -> int | None:
        if state is None:
            return None
        lane = (state >> self._top) - taken // self.bucket_ns
        if not 0 <= lane < self._lanes:
            return state
        return state - (min(cost, state >> lane * LANE & ONES) << lane * LANE)

    def left(self, state: int | None, now: int) -> int:
        return self.amount - self._shifted(state, self._newest(state, now)) % ONES

    def wait(self, state: int | None, now: int, cost: int) -> int:
        bucket = self._newest(state, now)
        lanes = self._shifted(state, bucket)
        missing = lanes % ONES + cost - self.amount
        if missing <= 0:
            return 0
        # The oldest bucket leaves first: when the newest is `lane` buckets further on, it and those before it are gone.
        for lane in range(self._lanes - 1, -1, -1):
            missing -= lanes >> lane * LANE & ONES
            if missing <= 0:
                return (bucket + self._lanes - lane) * self.bucket_ns - now
        raise AssertionError("a cost within the capacity fits once every bucket has left")

    def rest(self, state: int | None, now: int) -> int:
        bucket = self._newest(state, now)
        lanes = self._shifted(state, bucket)
        for lane in range(self._lanes):
            if lanes >> lane * LANE & ONES:
                return (bucket + self._lanes - lane) * self.bucket_ns - now
        return 0
