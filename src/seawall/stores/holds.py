"""Costs that are set aside until it is known what was really used; they expire, and then count in full."""

from __future__ import annotations

import heapq
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


class _Subject:
    """The open holds of one subject, and their sums by limit."""

    __slots__ = ("holds", "sums")

    def __init__(self) -> None:
        self.holds: dict[int, Hold] = {}
        self.sums: dict[str, int] = {}

    def count(self, hold: Hold, sign: int) -> None:
        sums = self.sums
        for limit, cost in hold.costs.items():
            # No call from the look to the writing: see looking.py.
            sums[limit] = (sums[limit] if limit in sums else 0) + sign * cost  # noqa: SIM401


class Holds:
    """The open holds by subject, and by the time at which they expire. Not safe for threads by itself."""

    __slots__ = ("_by_time", "_open", "by_key", "most", "number")

    SLACK: ClassVar[int] = 64

    def __init__(self, most: int) -> None:
        self.most = most
        self.by_key: dict[str, _Subject] = {}
        self._by_time: list[tuple[int, int, Hold]] = []
        """Settled ones too, until they outnumber the open ones."""
        self.number = 0
        self._open = 0

    def __len__(self) -> int:
        return self._open

    def add(self, hold: Hold) -> bool:
        """False if there are too many."""
        if self._open >= self.most:
            return False
        self.number += 1
        self._open += 1
        hold.number = self.number
        subject = self.by_key.setdefault(hold.key, _Subject())
        subject.holds[hold.number] = hold
        subject.count(hold, 1)
        heapq.heappush(self._by_time, (hold.expires_ns, hold.number, hold))
        return True

    def is_open(self, hold: Hold) -> bool:
        """Whether it has been neither settled nor counted."""
        subject = self.by_key.get(hold.key)
        return subject is not None and hold.number in subject.holds

    def remove(self, hold: Hold) -> bool:
        """False if it is not open any more."""
        subject = self.by_key.get(hold.key)
        if subject is None or subject.holds.pop(hold.number, None) is None:
            return False
        self._open -= 1
        if subject.holds:
            subject.count(hold, -1)
        else:
            del self.by_key[hold.key]
        if len(self._by_time) > 2 * self._open + self.SLACK:
            self._by_time = [entry for entry in self._by_time if self.is_open(entry[2])]
            heapq.heapify(self._by_time)
        return True

    def held(self, key: str, limit: str) -> int:
        """How much of a limit is set aside for a subject."""
        subject = self.by_key.get(key)
        return 0 if subject is None else subject.sums.get(limit, 0)

    def of(self, key: str) -> list[Hold]:
        """The open holds of a subject, the first to expire first."""
        subject = self.by_key.get(key)
        return [] if subject is None else sorted(subject.holds.values(), key=lambda hold: hold.expires_ns)

    def first_expiry(self) -> int:
        """When the first of all expires; there is one."""
        while not self.is_open(self._by_time[0][2]):
            heapq.heappop(self._by_time)
        return self._by_time[0][0]

    def expired(self, now_ns: int) -> Hold | None:
        """The one that expired first, if any has."""
        if not self._open or self.first_expiry() > now_ns:
            return None
        return self._by_time[0][2]
