"""So many in each window of the calendar: the full minute, the full hour, midnight (UTC).

State
    `window << BITS | count`, one integer.
Rules
    A state of another window, earlier or later, counts as empty: a step of the clock starts at most one new window.
    Admitted iff count + cost <= amount.
Guarantee
    at most `amount` in each aligned window; up to twice that across an edge.
"""

from __future__ import annotations

from typing import ClassVar

__all__ = ["FixedWindow"]

BITS = 40
MASK = (1 << BITS) - 1


class FixedWindow:
    """See above. `amount` is below 2**39."""

    __slots__ = ("amount", "period_ns")

    kind: ClassVar[str] = "fixed_window"
    civil: ClassVar[bool] = True

    def __init__(self, amount: int, period_ns: int) -> None:
        self.amount = amount
        self.period_ns = period_ns

    @property
    def capacity(self) -> int:
        return self.amount

    @property
    def forget_ns(self) -> int:
        return self.period_ns

    def _used(self, state: int | None, now: int) -> int:
        return 0 if state is None or state >> BITS != now // self.period_ns else state & MASK

    def take(self, state: int | None, now: int, cost: int) -> int | None:
        window = now // self.period_ns
        used = cost if state is None or state >> BITS != window else (state & MASK) + cost
        return window << BITS | used if used <= self.amount else None

    def add(self, state: int | None, now: int, cost: int) -> int:
        used = min(self._used(state, now) + cost, 2 * self.amount)
        return now // self.period_ns << BITS | used

    def give_back(self, state: int | None, now: int, cost: int, taken: int) -> int | None:
        if state is None or state >> BITS != taken // self.period_ns:
            return state
        return state - min(cost, state & MASK)

    def left(self, state: int | None, now: int) -> int:
        return self.amount - self._used(state, now)

    def wait(self, state: int | None, now: int, cost: int) -> int:
        return 0 if self._used(state, now) + cost <= self.amount else self.period_ns - now % self.period_ns

    def rest(self, state: int | None, now: int) -> int:
        return self.period_ns - now % self.period_ns if self._used(state, now) else 0
