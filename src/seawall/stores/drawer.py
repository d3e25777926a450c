"""The states of one limit by key: exact for as many as there is room for, shared by the others (spill.py).

A drawer has two dictionaries: keys that were used since it was turned, and those used before. When all of the older
ones must be empty again they are dropped as a whole, so an idle key costs nothing, and no timer and no sweep is needed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from seawall.machines.limit import Limit
from seawall.machines.live_change import carried
from seawall.machines.warm_up import WarmUp
from seawall.runtime import clock
from seawall.stores.decision import Origin
from seawall.stores.spill import Spill, hashed

__all__ = ["Drawer"]

LEAST_TURN_NS = 10_000_000_000
"""Drawers are not turned more often: moving keys costs more than keeping them a little longer."""


class Drawer:
    """Not safe for threads by itself."""

    __slots__ = (
        "_in_debt",
        "_most",
        "_span_ns",
        "limit",
        "limiter",
        "name",
        "old",
        "origin",
        "spill",
        "turn_ns",
        "young",
    )

    def __init__(self, limiter: str, name: str, limit: Limit[Any], most: int) -> None:
        self.limiter = limiter
        self.name = name
        self.limit = limit
        self.origin = Origin(limiter, name, limit)
        """Also what tells the numbers of the limit from those before a live change."""
        self.young: dict[str, Any] = {}
        self.old: dict[str, Any] = {}
        self.turn_ns = 0
        """When the older dictionary may be dropped; on the clock of the limit."""
        self._span_ns = max(limit.forget_ns, LEAST_TURN_NS)
        self.spill: Spill | None = None
        self._most = most
        self._in_debt: set[str] = set()
        """Keys that take longer than others to be empty again."""

    def now(self) -> int:
        """The instant, on the clock that this limit follows."""
        return clock.wall_ns() if self.limit.civil else clock.now_ns()

    def turn(self, now: int) -> None:
        """Drop what must be empty again."""
        turn_ns, span = self.turn_ns, self._span_ns
        owing: dict[str, Any] = {}
        for key in self._in_debt:
            state = self.young.get(key, self.old.get(key))
            if state is not None and self.limit.rest(state, now) > 0:
                owing[key] = state
        in_debt = set(owing)
        if self.turn_ns != turn_ns:
            return  # a finalizer came in between, and has turned it
        # No call from here to the end: see looking.py.
        self._in_debt = in_debt
        self.old = self.young if now < turn_ns + span else {}  # if it is late, the younger ones are old enough too
        self.young = owing
        self.turn_ns = now + span
        if self.spill is not None and self.spill.idle:
            self.spill = None

    def find(self, key: str, now: int) -> Any:
        """The state of a key, if there is one; the key is among the younger ones then."""
        # A civil clock that was set back by more than a turn would put the next one off for as long.
        if now >= self.turn_ns or now < self.turn_ns - 2 * self._span_ns:
            self.turn(now)
        state = self.young.get(key)
        if state is None and self.old:
            state = self.old.pop(key, None)
            if state is not None:
                self.young[key] = state
        return state

    def place_in_spill(self, key: str) -> int | None:
        """Where the sketch keeps a key that has no state; None if it is to get one of its own.

        Whoever owes something there is judged there, even if there is room again: he would be rid of it.
        """
        if self.spill is None:
            if self.has_room():
                return None
            self.spill = Spill(self.limit)
        place = hashed(key)
        return None if self.has_room() and not self.spill.owes(place) else place

    def has_room(self) -> bool:
        """Whether one more key may be kept."""
        return len(self.young) + len(self.old) < self._most

    def put(self, key: str, state: Any, after: Any) -> bool:
        """Change a state; False, and nothing done, if it is not what it was."""
        young = self.young
        if (young[key] if key in young else None) is not state:  # noqa: SIM401  # no call: see looking.py
            return False
        young[key] = after
        return True

    def change_state(self, key: str, step: Callable[[Any, int], Any]) -> None:
        """Let `step` make another state of one that there is."""
        while True:
            now = self.now()
            state = self.find(key, now)
            if state is None or self.put(key, state, step(state, now)):
                return

    def add(self, key: str, cost: int, late_ns: int = 0) -> None:
        """Count a cost without asking, as of `late_ns` ago."""
        while True:
            now = self.now()
            state = self.find(key, now)
            place = self.place_in_spill(key) if state is None else None
            if place is not None and self.spill is not None:
                self.spill.add(place, cost, late_ns)
                return
            after = self.limit.add(state, max(0, now - late_ns), cost)
            if self.put(key, state, after):
                self._watch(key, after, now)
                return

    def forget(self, key: str) -> None:
        """Drop the state of a key."""
        self.young.pop(key, None)
        self.old.pop(key, None)

    def change(self, limit: Limit[Any]) -> None:
        """Take other numbers; what is used stays used."""
        was, now = self.limit, self.now()
        if isinstance(was, WarmUp) and isinstance(limit, WarmUp):
            limit.begin(was.began)
        before = {**self.old, **self.young}
        self.limit = limit
        self.origin = Origin(self.limiter, self.name, limit)
        self.spill = None if self.spill is None else Spill(limit, self.spill)
        self.young, self.old, self._in_debt = {}, {}, set()
        for key, state in before.items():
            self.young[key] = after = carried(was, limit, state, now)
            self._watch(key, after, now)
        self._span_ns = max(limit.forget_ns, LEAST_TURN_NS)
        self.turn_ns = now + self._span_ns

    def _watch(self, key: str, state: Any, now: int) -> None:
        if self.limit.rest(state, now) > self.limit.forget_ns:
            self._in_debt.add(key)

    def __len__(self) -> int:
        return len(self.young) + len(self.old)
