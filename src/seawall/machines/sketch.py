"""Limits for more keys than there is memory for: a count-min sketch of arrival times.

Each key has one cell in each of `rows`; a cell holds the GCRA arrival time of all keys that share it (token_bucket.py).
A key is judged by the least of its cells, so it may be refused for the sake of others, but is never admitted beyond its
own limit: no attacker can shed his debt by making up names. Admission raises every cell that is below the new arrival
time and no other, which keeps the cells low.

For a limit that is no bucket the numbers are those of a bucket with the same rate that admits no more in a window than
the limit does: half of it at once, and the other half as the window passes.

Count-min: Cormode and Muthukrishnan (2005); conservative update: Estan and Varghese (2002).
"""

from __future__ import annotations

from array import array

__all__ = ["Sketch"]


class Sketch:
    """`width` cells in each row; times in nanoseconds, so 8 bytes a cell. Made empty."""

    __slots__ = ("_base_ns", "_burst", "_rows", "_unit_ns", "_width", "admitted", "refused")

    def __init__(self, unit_ns: int, burst: int, now: int, width: int = 1 << 17, rows: int = 3) -> None:
        self._unit_ns = unit_ns
        """Nanoseconds for a unit of cost, rounded up: never above the rate."""
        self._burst = burst
        self._width = width
        self._base_ns = now
        self._rows = [array("q", bytes(8 * width)) for _ in range(rows)]
        self.admitted = self.refused = 0

    def take(self, hashed: int, now: int, cost: int, *, commit: bool = True) -> int:
        """0 if admitted, else nanoseconds to wait. `hashed` has 32 good bits for each row."""
        at = now - self._base_ns
        width = self._width
        places = [(row, (hashed >> 32 * number) % width) for number, row in enumerate(self._rows)]
        least = max(at, min(row[place] for row, place in places))
        after = least + cost * self._unit_ns
        over = after - at - self._burst * self._unit_ns
        if over > 0:
            self.refused += 1
            return over
        if not commit:
            return 0
        self.admitted += 1
        for row, place in places:
            row[place] = max(row[place], after)
        return 0
