"""The steps of a table in memory: what each limit would do, how to make it so, and nobody else in between.

Any allocation may start the garbage collector, and what it frees may be an abandoned call that settles a hold or gives
back a slot: in this very thread, in the middle of a step. A plain lock would wait for itself for ever, and a reentrant
one lets the second step into the middle of the first. So what only tells something is put off until the step is over,
and whatever else changes a state looks again if it is not the one that it has seen. That look and the writing are one
step where no call and no jump backwards lies between them: only there does the interpreter do other things.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from seawall.stores.decision import Decision, Told, combined

if TYPE_CHECKING:
    from seawall.stores.drawer import Drawer
    from seawall.stores.memory import MemoryTable

__all__ = ["Changing", "Look", "answer", "commit", "refuse"]


class Changing:
    """The lock of a table, which also turns the fast way off (see fast_hit.py)."""

    __slots__ = ("_holder", "_later", "_table", "depth")

    def __init__(self, table: MemoryTable) -> None:
        self._table = table
        self.depth = 0
        self._holder = 0
        self._later: deque[Callable[[], object]] = deque()

    def __enter__(self) -> None:
        self._table.lock.acquire()
        self.depth += 1
        self._table.careful = True
        self._holder = threading.get_ident()

    def __exit__(self, *_: object) -> None:
        self.depth -= 1
        done = not self.depth
        if done:
            self._holder = 0
            self._table.careful = bool(self._table.holds.by_key)
        self._table.lock.release()
        while done and self._later:
            try:
                step = self._later.popleft()
            except IndexError:
                return  # another thread was quicker
            step()

    def put_off(self, step: Callable[[], object]) -> bool:
        """If this thread is in the middle of a step, keep `step` for its end and say so; else do nothing."""
        if self._holder != threading.get_ident():
            return False
        self._later.append(step)
        return True


class Look:
    """What one limit would do."""

    __slots__ = ("_after", "_held", "decision", "drawer", "key", "place", "state")

    def __init__(
        self,
        drawer: Drawer,
        key: str,
        decision: Decision,
        state: Any,
        after: Any,
        held: int,
        place: int | None = None,
    ) -> None:
        self.drawer = drawer
        self.key = key
        self.decision = decision
        self.state = state
        self.place = place
        """Where the sketch keeps the key, if it has no state of its own."""
        self._after = after
        self._held = held

    @property
    def counts(self) -> bool:
        """Whether there is something to commit."""
        return self._after is not None or self.place is not None

    def commit(self) -> bool:
        """Make it so; False if the state has changed since."""
        if self.place is None:
            if not self.drawer.put(self.key, self.state, self._after):
                return False
        elif self.drawer.spill is not None:
            self.drawer.spill.take(self.place, self.decision.cost)
        self._tell()
        return True

    @property
    def holds_good(self) -> bool:
        """Whether the state is still the one that was seen."""
        young = self.drawer.young
        return self.place is not None or young.get(self.key) is self.state

    def recount(self) -> None:
        """Make it so although the state has changed since."""
        self.drawer.add(self.key, self.decision.cost)
        self._after = self.drawer.young.get(self.key)
        self._tell()

    def _tell(self) -> None:
        """The decision speaks of what is left afterwards."""
        decision, limit = self.decision, self.drawer.limit
        if not isinstance(decision, Told):
            decision.state = self._after
        elif self.place is None:
            now = decision.now_ns
            decision.numbers = limit.left(self._after, now) - self._held, 0, limit.rest(self._after, now)
        elif self.drawer.spill is not None:
            left, _, rest = self.drawer.spill.look(self.place, 0)
            decision.numbers = left - self._held, 0, rest


def refuse(looks: Sequence[Look]) -> bool:
    """Whether one of them does not admit it."""
    refused = False
    for look in looks:
        if not look.decision.allowed:
            refused = True
            if look.place is not None and look.drawer.spill is not None:
                look.drawer.spill.refuse()
    return refused


def commit(looks: Sequence[Look]) -> bool:
    """Make all so; False, and nothing done, if a state has changed since."""
    counting = [look for look in looks if look.counts]
    for number, look in enumerate(counting):
        if look.commit():
            continue
        if not number:
            return False
        look.recount()  # the others are counted already
    return True


def answer(looks: Sequence[Look]) -> Decision:
    """One decision for all."""
    if len(looks) == 1:
        return looks[0].decision
    return combined({look.drawer.name: look.decision for look in looks})
