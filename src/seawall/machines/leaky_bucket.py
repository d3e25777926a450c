"""Evenly spaced starts: one unit each `period / amount`, whoever comes earlier waits for his slot.

With L and P as in token_bucket.py, time runs as v = now x L and a unit takes P of it.

State
    `slot`: the v at which the next unit may start.
Rules
    wait = max(0, slot - v).  A unit that need not wait is admitted by `take`, and slot = max(slot, v) + cost x P.
    `queue_up` hands out the next slot however far it is, if at most `queue` units wait for theirs, and the wait is not
    above a given one.
    `leave` frees a slot if nobody has one behind it; otherwise it is spent.
Guarantee
    starts are spaced at the rate, first come first served.
"""

from __future__ import annotations

from math import gcd
from typing import ClassVar

__all__ = ["LeakyBucket"]


class LeakyBucket:
    """See above. `amount` and `period_ns` are whole numbers of at least 1, `queue` of at least 0."""

    __slots__ = ("per_ns", "per_unit", "queue")

    kind: ClassVar[str] = "leaky_bucket"
    civil: ClassVar[bool] = False

    def __init__(self, amount: int, period_ns: int, queue: int) -> None:
        common = gcd(amount, period_ns)
        self.per_ns = amount // common
        self.per_unit = period_ns // common
        self.queue = queue

    @property
    def capacity(self) -> int:
        """A cost of n is n slots in a row, of which all but the first are in the queue."""
        return self.queue + 1

    @property
    def forget_ns(self) -> int:
        return -(-(self.queue + 1) * self.per_unit * 2 // self.per_ns)

    def take(self, state: int | None, now: int, cost: int) -> int | None:
        v = now * self.per_ns
        if state is not None and state > v and cost:
            return None
        start = v if state is None or state < v else state
        return start + cost * self.per_unit

    def queue_up(self, state: int | None, now: int, cost: int, most_ns: int | None) -> tuple[int, int] | None:
        """The state after, and the wait in nanoseconds for one's slot; None if the queue is full, or it is too long."""
        v = now * self.per_ns
        start = v if state is None or state < v else state
        wait = -(-(start - v) // self.per_ns)
        waiting = -(-(start - v) // self.per_unit)
        if (wait and waiting + cost - 1 > self.queue) or (most_ns is not None and wait > most_ns):
            return None
        return start + cost * self.per_unit, wait

    def give_back(self, state: int | None, now: int, cost: int, taken: int) -> int | None:
        """Nothing is known here of who is the last, so the slot is spent; see `leave`."""
        return state

    def leave(self, state: int | None, mine: int, cost: int) -> int | None:
        """`mine` is the state after one's own slot was handed out; it is freed if it is the last."""
        return mine - cost * self.per_unit if state == mine else state

    def add(self, state: int | None, now: int, cost: int) -> int:
        v = now * self.per_ns
        after = (v if state is None or state < v else state) + cost * self.per_unit
        return min(after, v + 2 * (self.queue + 1) * self.per_unit)

    def left(self, state: int | None, now: int) -> int:
        return 0 if state is not None and state > now * self.per_ns else self.capacity

    def wait(self, state: int | None, now: int, cost: int) -> int:
        ahead = 0 if state is None or not cost else max(0, state - now * self.per_ns)
        return -(-ahead // self.per_ns)

    def rest(self, state: int | None, now: int) -> int:
        ahead = 0 if state is None else max(0, state - now * self.per_ns)
        return -(-ahead // self.per_ns)
