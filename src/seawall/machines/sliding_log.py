"""Never more than `amount` in any span of the length of the window, kept as the list of what was taken when: exact.

State
    a tuple of instants and costs in turn, oldest first: `(t1, c1, t2, c2, ...)`; at most `amount` of them.
Rules
    What is `period` old or older is gone. Admitted iff what is left + cost <= amount.
"""

from __future__ import annotations

from typing import ClassVar

__all__ = ["SlidingLog"]

Log = tuple[int, ...]


class SlidingLog:
    """See above. Its memory grows with `amount`."""

    __slots__ = ("amount", "period_ns")

    kind: ClassVar[str] = "sliding_log"
    civil: ClassVar[bool] = False

    def __init__(self, amount: int, period_ns: int) -> None:
        self.amount = amount
        self.period_ns = period_ns

    @property
    def capacity(self) -> int:
        return self.amount

    @property
    def forget_ns(self) -> int:
        return self.period_ns

    def _kept(self, state: Log | None, now: int) -> Log:
        if state is None:
            return ()
        gone = 0
        while gone < len(state) and state[gone] <= now - self.period_ns:
            gone += 2
        return state[gone:] if gone else state

    def _with(self, kept: Log, now: int, cost: int) -> Log:
        if not cost:
            return kept
        if kept and kept[-2] >= now:
            return (*kept[:-1], kept[-1] + cost)
        return (*kept, now, cost)

    def take(self, state: Log | None, now: int, cost: int) -> Log | None:
        kept = self._kept(state, now)
        return self._with(kept, now, cost) if sum(kept[1::2]) + cost <= self.amount else None

    def add(self, state: Log | None, now: int, cost: int) -> Log:
        kept = self._kept(state, now)
        return self._with(kept, now, max(0, min(cost, 2 * self.amount - sum(kept[1::2]))))

    def give_back(self, state: Log | None, now: int, cost: int, taken: int) -> Log | None:
        if state is None or not cost:
            return state
        for place in range(len(state) - 2, -1, -2):
            if state[place] == taken and state[place + 1] >= cost:
                left = state[place + 1] - cost
                middle = (state[place], left) if left else ()
                return (*state[:place], *middle, *state[place + 2 :])
        return state

    def left(self, state: Log | None, now: int) -> int:
        return self.amount - sum(self._kept(state, now)[1::2])

    def wait(self, state: Log | None, now: int, cost: int) -> int:
        kept = self._kept(state, now)
        missing = sum(kept[1::2]) + cost - self.amount
        if missing <= 0:
            return 0
        for place in range(0, len(kept), 2):
            missing -= kept[place + 1]
            if missing <= 0:
                return kept[place] + self.period_ns - now
        raise AssertionError("a cost within the capacity fits once everything has left")

    def rest(self, state: Log | None, now: int) -> int:
        kept = self._kept(state, now)
        return kept[-2] + self.period_ns - now if kept else 0
