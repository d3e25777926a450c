"""`Memory`: the states of limits in this process, exact to the nanosecond, and bounded however many keys there are.

States lie in drawers, one for each limit. A drawer has two dictionaries: keys that were used since it was turned, and
those used before. When all of the older ones must be empty again they are dropped as a whole, so an idle key costs
nothing, and no timer and no sweep is needed. Above `max_keys` new keys share a sketch (machines/sketch.py).

A limiter with one `TokenBucket`, the usual one, gets its `hit` as one closure (fast_hit.py); everything else comes by
the careful way here. Both take the lock of the table, for a few steps that never call out.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from seawall.errors import ConfigError
from seawall.machines.leaky_bucket import LeakyBucket
from seawall.machines.limit import Limit
from seawall.machines.sketch import Sketch
from seawall.machines.token_bucket import TokenBucket
from seawall.machines.warm_up import WarmUp
from seawall.runtime import clock, forks
from seawall.stores.decision import Decision, Origin, combined, told
from seawall.stores.holds import Hold, Holds
from seawall.stores.protocol import Ask
from seawall.units import count_of

if TYPE_CHECKING:
    from seawall.runtime.protocol import Runtime

__all__ = ["Drawer", "Memory", "MemoryTable"]

LEAST_TURN_NS = 10_000_000_000
"""Drawers are not turned more often: moving keys costs more than keeping them a little longer."""
SECRET = os.urandom(32)


class Memory:
    """Keep the states in this process. Every worker process has limits of its own.

    Args:
        max_keys: keys that are kept exactly; whole number from 1. New keys above it share a sketch, which may refuse
            one for the sake of others, but never admits more than the limit. Default 1,000,000.

    Raises:
        ConfigError: `max_keys` is outside its range.

    Example:
        >>> from seawall import Limiter, Memory, TokenBucket
        >>> search = Limiter(TokenBucket("100/s"), name="search", store=Memory(max_keys=10_000))
    """

    def __init__(self, *, max_keys: int = 1_000_000) -> None:
        self.max_keys = count_of(max_keys, "Memory(max_keys)", most=100_000_000)

    def open(self, limiter: str, limits: Mapping[str, Limit[Any]]) -> MemoryTable:
        for limit in limits.values():
            if isinstance(limit, WarmUp):
                limit.begin(clock.now_ns())
        return MemoryTable(limiter, limits, self.max_keys)

    def __repr__(self) -> str:
        return f"Memory(max_keys={self.max_keys})"


class Drawer:
    """The states of one limit by key."""

    __slots__ = ("_most", "limit", "name", "old", "origin", "sketch", "turn_ns", "young")

    def __init__(self, limiter: str, name: str, limit: Limit[Any], most: int) -> None:
        self.name = name
        self.limit = limit
        self.origin = Origin(limiter, name, limit)
        self.young: dict[str, Any] = {}
        self.old: dict[str, Any] = {}
        self.turn_ns = 0
        """When the older dictionary may be dropped; on the clock of the limit."""
        self._most = most
        self.sketch: Sketch | None = None

    def now(self) -> int:
        """The instant, on the clock that this limit follows."""
        return clock.wall_ns() if self.limit.civil else clock.now_ns()

    def turn(self, now: int) -> None:
        """Drop what must be empty again."""
        span = max(self.limit.forget_ns, LEAST_TURN_NS)
        if now >= self.turn_ns + span:
            self.young = {}  # it was not touched for so long either
        self.old, self.young = self.young, {}
        self.turn_ns = now + span
        if not self.old:
            self.sketch = None

    def find(self, key: str, now: int) -> Any:
        """The state of a key, if there is one; the key is among the younger ones then."""
        if now >= self.turn_ns:
            self.turn(now)
        state = self.young.get(key)
        if state is None and self.old:
            state = self.old.pop(key, None)
            if state is not None:
                self.young[key] = state
        return state

    def has_room(self) -> bool:
        """Whether one more key may be kept."""
        return len(self.young) + len(self.old) < self._most

    def spill(self, now: int) -> Sketch:
        """The sketch of keys for which there is no room."""
        if self.sketch is None:
            limit = self.limit.inner if isinstance(self.limit, WarmUp) else self.limit
            if isinstance(limit, TokenBucket):
                unit, burst = -(-limit.per_token // limit.per_ns), limit.burst
            elif isinstance(limit, LeakyBucket):
                unit, burst = -(-limit.per_unit // limit.per_ns), 1
            else:
                burst = max(1, limit.capacity // 2)
                unit = -(-limit.forget_ns // max(1, limit.capacity - burst))
            self.sketch = Sketch(unit, burst, now)
        return self.sketch

    def __len__(self) -> int:
        return len(self.young) + len(self.old)


class MemoryTable:
    """The drawers of one limiter."""

    def __init__(self, limiter: str, limits: Mapping[str, Limit[Any]], max_keys: int) -> None:
        self.limiter = limiter
        self.lock = threading.RLock()
        self.changing = _Changing(self)
        self.drawers = {name: Drawer(limiter, name, limit, max_keys) for name, limit in limits.items()}
        self.holds = Holds(max_keys)
        self.careful = False
        """Whether the fast way would miss something: a change that is under way, or holds."""
        forks.renew_after_fork(self)

    def renew_after_fork(self) -> None:
        self.lock = threading.RLock()
        self.changing = _Changing(self)
        self.careful = bool(self.holds.by_key)

    # -- one step each, without a coroutine ------------------------------------------------------------------------

    def decide(self, ask: Ask) -> Decision:
        """Take the costs of one subject, all or none."""
        with self.changing:
            looks = [self._look(self.drawers[name], ask, cost) for name, cost in ask.costs.items()]
            if not ask.peek and all(look.decision.allowed for look in looks):
                for look in looks:
                    look.commit()
        if len(looks) == 1:
            return looks[0].decision
        return combined({look.drawer.name: look.decision for look in looks})

    def _look(self, drawer: Drawer, ask: Ask, cost: int) -> _Look:
        key, now = ask.key, drawer.now()
        limit, state = drawer.limit, drawer.find(key, now)
        held = self._held(drawer, key) if self.holds.by_key else 0
        if state is None and not held and not drawer.has_room():
            return self._look_in_sketch(drawer, key, cost, now)
        after = limit.take(state, now, cost)
        allowed = after is not None
        if held:
            allowed = allowed and limit.take(state, now, cost + held) is not None
            left = limit.left(state, now) - held
            wait = 0 if allowed else self._wait_behind_holds(drawer, key, state, now, cost, held)
            decision = told(drawer.origin, cost, (left, wait, limit.rest(state, now)), allowed=allowed)
        else:
            decision = Decision()
            decision.allowed = allowed
            decision.cost = cost
            decision.origin = drawer.origin
            decision.state = after if allowed and cost and not ask.peek else state
            decision.now_ns = now
        return _Look(drawer, key, after, decision) if cost else _Look(drawer, key, None, decision)

    def _look_in_sketch(self, drawer: Drawer, key: str, cost: int, now: int) -> _Look:
        sketch, hashed = drawer.spill(now), _hashed(key)
        wait = sketch.take(hashed, now, cost, commit=False)
        numbers = (0 if wait else drawer.limit.capacity - cost, wait, wait)
        decision = told(drawer.origin, cost, numbers, allowed=not wait)
        return _Look(drawer, key, None, decision, (sketch, hashed, now, cost))

    def queue_up(self, key: str, cost: int, most_ns: int | None) -> tuple[Decision, int, Any]:
        """Take the next slot of the one `LeakyBucket`: the decision, the wait, and what `give_back` wants."""
        (drawer,) = self.drawers.values()
        limit = drawer.limit
        assert isinstance(limit, LeakyBucket), "only slots can be taken in advance"
        with self.changing:
            now = drawer.now()
            state = drawer.find(key, now)
            if state is None and not drawer.has_room():
                look = self._look_in_sketch(drawer, key, cost, now)
                if look.decision.allowed:
                    look.commit()
                return look.decision, 0, None
            placed = limit.queue_up(state, now, cost, most_ns)
            if placed is None:
                numbers = (0, limit.wait(state, now, cost), limit.rest(state, now))
                return told(drawer.origin, cost, numbers, allowed=False), 0, None
            after, wait = placed
            drawer.young[key] = after
            numbers = (0, 0, limit.rest(after, now))
            return told(drawer.origin, cost, numbers, allowed=True), wait, (drawer, key, after, cost)

    def leave_slot(self, slot: Any) -> None:
        """Free a slot that nobody will use, if it is the last."""
        if slot is None:
            return
        drawer, key, mine, cost = slot
        with self.changing:
            state = drawer.limit.leave(drawer.find(key, drawer.now()), mine, cost)
            if state is not None:
                drawer.young[key] = state

    def give_back(self, key: str, costs: Mapping[str, int], taken: Mapping[str, int]) -> None:
        """Undo a take of a moment ago; `taken` are the instants of it, by limit."""
        with self.changing:
            for name, cost in costs.items():
                drawer = self.drawers[name]
                now = drawer.now()
                state = drawer.limit.give_back(drawer.find(key, now), now, cost, taken[name])
                if state is not None:
                    drawer.young[key] = state

    # -- holds -----------------------------------------------------------------------------------------------------

    def _held(self, drawer: Drawer, key: str) -> int:
        """What is set aside of this limit; holds that have expired are counted first, as of when they expired."""
        self._count_expired()
        return self.holds.held(key, drawer.name)

    def _count_expired(self) -> None:
        now = clock.now_ns()
        for hold in self.holds.take_expired(now):
            for name, cost in hold.costs.items():
                self._count(name, hold.key, cost, late_ns=now - hold.expires_ns)

    def _count(self, name: str, key: str, cost: int, *, late_ns: int = 0) -> None:
        drawer = self.drawers[name]
        now = drawer.now()
        state = drawer.find(key, now)
        if cost:
            drawer.young[key] = drawer.limit.add(state, max(0, now - late_ns), cost)

    def _wait_behind_holds(self, drawer: Drawer, key: str, state: Any, now: int, cost: int, held: int) -> int:
        """Nanoseconds until it would be admitted: what is held stays held until its end at the latest."""
        limit = drawer.limit
        if cost + held <= limit.capacity:
            return max(1, limit.wait(state, now, cost + held))
        first = self.holds.first_expiry(key)
        return max(1, 0 if first is None else first - clock.now_ns())

    def hold_now(self, ask: Ask, lasts_ns: int) -> tuple[Decision, Hold | None]:
        """Set the costs aside, all or none."""
        with self.changing:
            self._count_expired()
            decision = self.decide(Ask(ask.key, ask.costs, True))
            if not decision.allowed:
                return decision, None
            hold = Hold(ask.key, dict(ask.costs), clock.now_ns() + lasts_ns)
            if not self.holds.add(hold):
                raise ConfigError(f"{self.limiter}: more than {self.holds.most} holds are open")
            return decision, hold

    def settle_now(self, hold: Hold, actual: Mapping[str, int]) -> bool:
        """End a hold and count what was used."""
        with self.changing:
            self._count_expired()
            if not self.holds.remove(hold):
                return False
            for name, cost in actual.items():
                self._count(name, hold.key, cost)
            return True

    def reset_now(self, key: str) -> None:
        """Forget a subject; what is held stays held."""
        with self.changing:
            for drawer in self.drawers.values():
                drawer.young.pop(key, None)
                drawer.old.pop(key, None)

    # -- the table of a store --------------------------------------------------------------------------------------

    async def take(self, runtime: Runtime, asks: Sequence[Ask]) -> list[Decision]:
        return [self.decide(ask) for ask in asks]

    async def hold(self, runtime: Runtime, ask: Ask, lasts_ns: int) -> tuple[Decision, Hold | None]:
        return self.hold_now(ask, lasts_ns)

    async def settle(self, runtime: Runtime, held: Hold, actual: Mapping[str, int]) -> bool:
        return self.settle_now(held, actual)

    async def reset(self, runtime: Runtime, key: str) -> None:
        self.reset_now(key)

    def reconfigure(self, limits: Mapping[str, Limit[Any]]) -> None:
        with self.changing:
            for name, limit in limits.items():
                drawer = self.drawers[name]
                old, now = drawer.limit, drawer.now()
                for states in (drawer.old, drawer.young):
                    for key, state in list(states.items()):
                        used = old.capacity - old.left(state, now)
                        states[key] = limit.add(None, now, max(0, min(used, limit.capacity)))
                drawer.limit = limit
                drawer.origin = Origin(self.limiter, name, limit)
                drawer.sketch = None
                drawer.turn_ns = now + max(limit.forget_ns, LEAST_TURN_NS)

    def snapshot(self) -> dict[str, Any]:
        with self.changing:
            return {
                "keys": {name: len(drawer) for name, drawer in self.drawers.items()},
                "holds": len(self.holds),
                "spilled": {
                    name: drawer.sketch.admitted + drawer.sketch.refused
                    for name, drawer in self.drawers.items()
                    if drawer.sketch is not None
                },
            }


class _Changing:
    """The lock of a table, which also turns the fast way off (see fast_hit.py)."""

    __slots__ = ("_depth", "_table")

    def __init__(self, table: MemoryTable) -> None:
        self._table = table
        self._depth = 0

    def __enter__(self) -> None:
        self._table.lock.acquire()
        self._depth += 1
        self._table.careful = True

    def __exit__(self, *_: object) -> None:
        self._depth -= 1
        if not self._depth:
            self._table.careful = bool(self._table.holds.by_key)
        self._table.lock.release()


class _Look:
    """What one limit would do, and how to make it so."""

    __slots__ = ("_after", "_in_sketch", "decision", "drawer", "key")

    def __init__(self, drawer: Drawer, key: str, after: Any, decision: Decision, in_sketch: Any = None) -> None:
        self.drawer = drawer
        self.key = key
        self.decision = decision
        self._after = after
        self._in_sketch = in_sketch

    def commit(self) -> None:
        if self._in_sketch is not None:
            sketch, hashed, now, cost = self._in_sketch
            sketch.take(hashed, now, cost)
        elif self._after is not None:
            self.drawer.young[self.key] = self._after


def _hashed(key: str) -> int:
    from hashlib import blake2b  # noqa: PLC0415  # eight milliseconds that only a flood of keys pays

    return int.from_bytes(blake2b(key.encode("utf-8", "surrogatepass"), key=SECRET, digest_size=16).digest(), "big")
