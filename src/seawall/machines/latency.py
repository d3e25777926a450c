"""Quantiles of recent durations in constant memory, for hedging at "p95".

Rules
    Durations fall into buckets that grow by an eighth of a power of two, so an answer is at most 12.5 % above the
    true value and never below it.
    Two generations of counts are kept, each of at most `half` durations; the older is dropped when the younger is
    full. So an answer speaks of the last `half` to 2 * `half` durations.
    With fewer than `enough` durations there is no answer.

The bucket layout is that of HdrHistogram with three bits.
"""

from __future__ import annotations

__all__ = ["Latency"]

BITS = 3


def _slot(duration_ns: int) -> int:
    shift = max(0, duration_ns.bit_length() - BITS - 1)
    return (shift << BITS) + (duration_ns >> shift)


def _upper_edge(slot: int) -> int:
    if slot < 2 << BITS:
        return slot
    shift = (slot >> BITS) - 1
    return (((slot & ((1 << BITS) - 1)) + (1 << BITS) + 1) << shift) - 1


class Latency:
    """Counts of durations by size."""

    __slots__ = ("_counts", "_half", "_old", "_old_total", "_total", "enough")

    def __init__(self, half: int = 500, enough: int = 20) -> None:
        self._half = half
        self.enough = enough
        self._counts: dict[int, int] = {}
        self._old: dict[int, int] = {}
        self._total = self._old_total = 0

    def record(self, duration_ns: int) -> None:
        """Take note of a duration; negative ones are read as 0."""
        if self._total >= self._half:
            self._old, self._old_total = self._counts, self._total
            self._counts, self._total = {}, 0
        slot = _slot(max(0, duration_ns))
        self._counts[slot] = self._counts.get(slot, 0) + 1
        self._total += 1

    def quantile(self, ppm: int) -> int | None:
        """The duration in ns that the given share of the recent ones did not exceed; None before `enough` of them."""
        total = self._total + self._old_total
        if total < self.enough:
            return None
        rank = max(1, -(-ppm * total // 1_000_000))
        for slot in sorted({*self._counts, *self._old}):
            rank -= self._counts.get(slot, 0) + self._old.get(slot, 0)
            if rank <= 0:
                return _upper_edge(slot)
        raise AssertionError("the ranks add up to the total")
