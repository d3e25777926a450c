"""Who is inside, of at most so many at a time: each has a lease, which runs out unless it is renewed in time.

A machine for one key. Instants are whole numbers of any unit. They may jump ahead; when they go back, the machine's own
time stands still until they have caught up: nobody gains and nobody loses by it.

State
    for each token the instant at which its lease ends, in the machine's own time.
Rules
    live            its end is later than now
    enter(token)    iff fewer than `most` are live: end = now + length.   Else it is refused, and nothing is changed.
    renew(token)    KEPT      it is live: end = now + length
                    RETAKEN   it had run out, and there is room: as `enter`
                    LOST      it had run out, and there is none
    leave(token)    it is inside no longer; tells whether it was live
    wait            until fewer than `most` are live, if nobody renews or leaves
Guarantee
    Nobody enters while `most` are live. With a smaller `most` those who are inside stay; nobody enters until enough of
    them have gone.

Leases: Gray and Cheriton, "Leases: an efficient fault-tolerant mechanism for distributed file cache consistency", 1989.
"""

from __future__ import annotations

from collections.abc import Hashable
from enum import IntEnum
from typing import ClassVar

__all__ = ["LeaseRules", "Leases", "Renewed"]


class Renewed(IntEnum):
    """What became of a lease that was to be renewed."""

    LOST = 0
    """It had run out, and others are inside."""
    KEPT = 1
    """It was live all the time."""
    RETAKEN = 2
    """It had run out, and there was room to enter again."""
    UNKNOWN = 3
    """The store could not be asked."""


class LeaseRules:
    """The numbers: at most `capacity` at a time, each lease as long as `lease_ns`."""

    __slots__ = ("capacity", "lease_ns")

    kind: ClassVar[str] = "leases"
    civil: ClassVar[bool] = False
    forget_ns: ClassVar[int] = 0
    """There is no window after which something is new again."""
    quota_unit: ClassVar[str] = "concurrent-requests"

    def __init__(self, capacity: int, lease_ns: int) -> None:
        self.capacity = capacity
        self.lease_ns = lease_ns


class Leases:
    """See above."""

    __slots__ = ("_ends", "_first", "_last", "_shift")

    def __init__(self) -> None:
        self._ends: dict[Hashable, int] = {}
        self._first = 0
        """No lease ends before; in the machine's own time, as the next."""
        self._last = 0
        """The latest instant that was seen."""
        self._shift = 0
        """How much the machine's own time is ahead of the instants that it is told."""

    def enter(self, token: Hashable, now: int, most: int, length: int) -> bool:
        """Begin a lease, if there is room."""
        own = self._pass(now)
        if len(self._ends) >= most:
            return False
        self._set(token, own + length)
        return True

    def add(self, token: Hashable, now: int, length: int) -> None:
        """Begin a lease that somebody else has granted."""
        self._set(token, self._pass(now) + length)

    def renew(self, token: Hashable, now: int, most: int, length: int) -> Renewed:
        """Let a lease begin anew."""
        own = self._pass(now)
        kept = token in self._ends
        if not kept and len(self._ends) >= most:
            return Renewed.LOST
        self._set(token, own + length)
        return Renewed.KEPT if kept else Renewed.RETAKEN

    def leave(self, token: Hashable, now: int) -> bool:
        """End a lease; tells whether it was live."""
        self._pass(now)
        return self._ends.pop(token, None) is not None

    def live(self, now: int) -> int:
        """How many are inside."""
        self._pass(now)
        return len(self._ends)

    def wait(self, now: int, most: int) -> int:
        """How long until there is room, if nobody renews or leaves; 0: there is."""
        own = self._pass(now)
        behind = len(self._ends) - most
        if behind < 0:
            return 0
        return (sorted(self._ends.values())[behind] if behind else min(self._ends.values())) - own

    def rest(self, now: int) -> int:
        """How long until nobody is inside, if nobody renews."""
        own = self._pass(now)
        return max(self._ends.values(), default=own) - own

    def overdue(self, now: int) -> list[Hashable]:
        """Those whose leases have run out, if nobody has asked for anything since they did."""
        own = now + self._shift
        return [token for token, end in self._ends.items() if end <= own] if own >= self._first else []

    def prolong(self, token: Hashable, now: int, length: int) -> None:
        """Renew one that is overdue: as good as in time, for nobody has asked since."""
        if token in self._ends:
            self._ends[token] = max(self._last, now + self._shift) + length

    def _set(self, token: Hashable, end: int) -> None:
        self._first = min(self._first, end) if self._ends else end
        self._ends[token] = end

    def _pass(self, now: int) -> int:
        """Let time pass; returns the machine's own time."""
        ends = self._ends
        if not ends:
            self._shift, self._last = 0, now
            return now
        own = now + self._shift
        if own < self._last:
            own = self._last
            self._shift = own - now
        self._last = own
        if own >= self._first:
            for token in [token for token, end in ends.items() if end <= own]:
                del ends[token]
            self._first = min(ends.values(), default=0)
        return own

    def __len__(self) -> int:
        return len(self._ends)
