"""Limits for more keys than there is memory for: a count-min sketch of arrival times.

Each key has one cell in each of `rows`; a cell holds the GCRA arrival time of all keys that share it (token_bucket.py).
A key is judged by the least of its cells, so it may be refused for the sake of others, but is never admitted beyond its
own limit: no attacker can shed his debt by making up names. Admission raises every cell that is below the new arrival
time and no other, which keeps the cells low.

For a limit that is no bucket the numbers are those of a bucket with the same rate that admits no more in a window than
the limit does: half of it at once, and the other half as the window passes. A cost above that half has to find the
cells at rest for as long as its excess takes.

Count-min: Cormode and Muthukrishnan (2005); conservative update: Estan and Varghese (2002).
"""

from __future__ import annotations

from array import array

__all__ = ["Sketch"]

LAST = (1 << 63) - 1


class Sketch:
    """`width` cells in each row; times in nanoseconds, so 8 bytes a cell. Made empty."""

    __slots__ = ("_base_ns", "_burst", "_latest", "_rows", "_unit_ns", "_width", "admitted", "refused")

    def __init__(self, unit_ns: int, burst: int, now: int, width: int = 1 << 17, rows: int = 3) -> None:
        self._unit_ns = unit_ns
        """Nanoseconds for a unit of cost, rounded up: never above the rate."""
        self._burst = burst
        self._width = width
        self._base_ns = now
        self._rows = [array("q", bytes(8 * width)) for _ in range(rows)]
        self._latest = 0
        self.admitted = self.refused = 0

    def _cells(self, hashed: int) -> list[tuple[array[int], int]]:
        width = self._width
        return [(row, (hashed >> 32 * number) % width) for number, row in enumerate(self._rows)]

    def _raise(self, cells: list[tuple[array[int], int]], after: int) -> None:
        self._latest = max(self._latest, after)
        for row, place in cells:
            row[place] = max(row[place], after)

    def _wait(self, least: int, at: int, cost: int) -> int:
        begun = least if cost > self._burst else max(at, least)
        return max(0, begun + (cost - self._burst) * self._unit_ns - at)

    def judge(self, hashed: int, now: int, cost: int) -> tuple[int, int, int]:
        """What is left of a burst, nanoseconds until the cost is admitted, and until the key owes nothing.

        A wait of 0: it would be admitted. `hashed` has 32 good bits for each row.
        """
        at, width = now - self._base_ns, self._width
        least = min([row[(hashed >> 32 * number) % width] for number, row in enumerate(self._rows)])
        owed = max(0, least - at)
        return max(0, self._burst - -(-owed // self._unit_ns)), self._wait(least, at, cost), owed

    def take(self, hashed: int, now: int, cost: int) -> int:
        """0 if admitted, else nanoseconds to wait."""
        at, cells = now - self._base_ns, self._cells(hashed)
        least = min([row[place] for row, place in cells])
        wait = self._wait(least, at, cost)
        if wait:
            self.refused += 1
        else:
            self.admitted += 1
            self._raise(cells, min(LAST, max(at, least) + cost * self._unit_ns))
        return wait

    def add(self, hashed: int, now: int, cost: int, debt: int) -> None:
        """Count a cost without asking, up to `debt` units beyond now."""
        at, cells = now - self._base_ns, self._cells(hashed)
        least = min([row[place] for row, place in cells])
        self._raise(cells, min(LAST, at + debt * self._unit_ns, max(at, least) + cost * self._unit_ns))

    def take_over(self, was: Sketch, now: int) -> None:
        """What is used there is used here, in units of this one, up to a burst. `now` is the instant there."""
        at, most = now - was._base_ns, self._burst * self._unit_ns
        for row, old in zip(self._rows, was._rows, strict=True):
            for place, cell in enumerate(old):
                if cell > at:
                    row[place] = min(most, -(-(cell - at) * self._unit_ns // was._unit_ns))
                    self._latest = max(self._latest, row[place])

    def idle(self, now: int) -> bool:
        """Whether no key owes anything any more."""
        return self._latest <= now - self._base_ns
