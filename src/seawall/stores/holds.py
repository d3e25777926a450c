"""Costs that are set aside until it is known what was really used; they expire, and then count in full."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from typing import ClassVar

__all__ = ["Hold", "Holds"]


class Hold:
    """One open reservation."""

    __slots__ = ("costs", "expires_ns", "key", "number")

    def __init__(self, key: str, costs: dict[str, int], expires_ns: int) -> None:
        self.key = key
        self.costs = costs
        self.expires_ns = expires_ns
        self.number = 0


class Holds:
    """The open holds by subject, and by the time at which they expire. Not safe for threads by itself."""

    __slots__ = ("_by_time", "_number", "by_key", "most")

    SLACK: ClassVar[int] = 64

    def __init__(self, most: int) -> None:
        self.most = most
        self.by_key: dict[str, dict[int, Hold]] = {}
        self._by_time: list[tuple[int, int, Hold]] = []
        self._number = 0

    def __len__(self) -> int:
        return sum(len(holds) for holds in self.by_key.values())

    def add(self, hold: Hold) -> bool:
        """False if there are too many."""
        if len(self._by_time) >= self.most:
            return False
        self._number += 1
        hold.number = self._number
        self.by_key.setdefault(hold.key, {})[hold.number] = hold
        heapq.heappush(self._by_time, (hold.expires_ns, hold.number, hold))
        return True

    def remove(self, hold: Hold) -> bool:
        """False if it is not open any more."""
        holds = self.by_key.get(hold.key)
        if holds is None or holds.pop(hold.number, None) is None:
            return False
        if not holds:
            del self.by_key[hold.key]
        self._compact()
        return True

    def held(self, key: str, limit: str) -> int:
        """How much of a limit is set aside for a subject."""
        return sum(hold.costs.get(limit, 0) for hold in self.by_key.get(key, {}).values())

    def first_expiry(self, key: str) -> int | None:
        """When the first hold of a subject expires."""
        return min((hold.expires_ns for hold in self.by_key.get(key, {}).values()), default=None)

    def take_expired(self, now_ns: int) -> Iterator[Hold]:
        """Remove the holds that have expired, oldest first."""
        while self._by_time and self._by_time[0][0] <= now_ns:
            _, number, hold = heapq.heappop(self._by_time)
            if number in self.by_key.get(hold.key, {}):
                self.remove(hold)
                yield hold

    def _compact(self) -> None:
        """Drop the settled ones from the heap when they outnumber the open ones."""
        open_ones = len(self.by_key)
        if len(self._by_time) > 2 * open_ones + self.SLACK:
            alive = [entry for entry in self._by_time if entry[1] in self.by_key.get(entry[2].key, {})]
            heapq.heapify(alive)
            self._by_time = alive
