"""`Memory`: the states of limits in this process, exact to the nanosecond, and bounded however many keys there are.

States lie in drawers (drawer.py), one for each limit. Above `max_keys` new keys share a sketch (spill.py).

A limiter with one limit gets its `hit` as one closure (fast_hit.py); everything else comes by the careful way here, a
step at a time (looking.py).
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from seawall.errors import ConfigError
from seawall.machines.leaky_bucket import LeakyBucket
from seawall.machines.limit import Limit
from seawall.machines.warm_up import WarmUp
from seawall.runtime import clock, forks
from seawall.stores.decision import Decision, told
from seawall.stores.drawer import Drawer
from seawall.stores.holds import Hold, Holds
from seawall.stores.looking import Changing, Look, answer, commit, refuse
from seawall.stores.memory_leases import MemoryLeases
from seawall.stores.protocol import Ask
from seawall.stores.spill import Spill
from seawall.units import count_of

if TYPE_CHECKING:
    from seawall.machines.leases import LeaseRules
    from seawall.runtime.protocol import Runtime

__all__ = ["Memory", "MemoryTable"]


class Memory:
    """Keep the states in this process. Every worker process has limits of its own.

    Args:
        max_keys: keys that are kept exactly; whole number from 1. New keys above it share a sketch, which may refuse
            one for the sake of others, but never admits more than the limit; a `reset` does not reach them there.
            Default 1,000,000.

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

    def open_leases(self, limiter: str, rules: LeaseRules) -> MemoryLeases:
        return MemoryLeases(limiter, rules, self.max_keys)

    def __repr__(self) -> str:
        return f"Memory(max_keys={self.max_keys})"


class MemoryTable:
    """The drawers of one limiter."""

    def __init__(self, limiter: str, limits: Mapping[str, Limit[Any]], max_keys: int) -> None:
        self.limiter = limiter
        self.lock = threading.RLock()
        self.changing = Changing(self)
        self.drawers = {name: Drawer(limiter, name, limit, max_keys) for name, limit in limits.items()}
        self.holds = Holds(max_keys)
        self.careful = False
        """Whether the fast way would miss something: a change that is under way, or holds."""
        forks.renew_after_fork(self)

    def renew_after_fork(self) -> None:
        self.lock = threading.RLock()
        self.changing = Changing(self)
        self.careful = bool(self.holds.by_key)

    # -- one step each, without a coroutine ------------------------------------------------------------------------

    def decide(self, ask: Ask) -> Decision:
        """Take the costs of one subject, all or none."""
        with self.changing:
            self._count_expired()
            while True:
                looks = self._look_at(ask)
                if ask.peek or refuse(looks) or commit(looks):
                    break
        return answer(looks)

    def _look_at(self, ask: Ask) -> list[Look]:
        """What each limit would do. Raises `ConfigError` for a cost that a live change has made impossible."""
        looks: list[Look] = []
        for name, cost in ask.costs.items():
            drawer = self.drawers[name]
            if cost > drawer.limit.capacity:
                raise ConfigError(
                    f"{self.limiter}: cost={cost}: more than the limit can ever admit, which is {drawer.limit.capacity}"
                )
            looks.append(self._look(drawer, ask.key, cost))
        return looks

    def _look(self, drawer: Drawer, key: str, cost: int) -> Look:
        now, limit = drawer.now(), drawer.limit
        state = drawer.find(key, now)
        held = self.holds.held(key, drawer.name) if self.holds.by_key else 0
        place = drawer.place_in_spill(key) if state is None else None
        if place is not None and drawer.spill is not None:
            return self._look_in_spill(drawer, drawer.spill, place, key, cost, held)
        after = limit.take(state, now, cost)
        if not held:
            decision = Decision()
            decision.allowed = after is not None
            decision.cost = cost
            decision.origin = drawer.origin
            decision.state = state
        else:
            allowed = after is not None and limit.take(state, now, cost + held) is not None
            wait = 0 if allowed else self._wait_behind_holds(drawer, key, state, now, cost, held)
            decision = told(
                drawer.origin, cost, (limit.left(state, now) - held, wait, limit.rest(state, now)), allowed=allowed
            )
        decision.now_ns = now
        return Look(drawer, key, decision, state, after if cost else None, held)

    def _look_in_spill(self, drawer: Drawer, spill: Spill, place: int, key: str, cost: int, held: int) -> Look:
        numbers = spill.look(place, cost, held)
        if cost + held > drawer.limit.capacity:
            first = min(hold.expires_ns for hold in self.holds.of(key))
            numbers = numbers[0], max(numbers[1], first - clock.now_ns()), numbers[2]
        decision = told(drawer.origin, cost, numbers, allowed=not numbers[1])
        return Look(drawer, key, decision, None, None, held, place if cost else None)

    def queue_up(self, key: str, cost: int, most_ns: int | None) -> tuple[Decision, int, Any]:
        """Take the next slot of the one `LeakyBucket`: the decision, the wait, and what `leave_slot` wants."""
        (drawer,) = self.drawers.values()
        limit = drawer.limit
        assert isinstance(limit, LeakyBucket), "only slots can be taken in advance"
        with self.changing:
            while True:
                (look,) = self._look_at(Ask(key, {drawer.name: cost}))
                if look.place is not None or not cost:
                    _ = look.decision.allowed and commit([look])
                    return look.decision, 0, None
                state, now = look.state, look.decision.now_ns
                placed = limit.queue_up(state, now, cost, most_ns)
                if placed is None:
                    numbers = (0, limit.wait(state, now, cost), limit.rest(state, now))
                    return told(drawer.origin, cost, numbers, allowed=False), 0, None
                after, wait = placed
                if drawer.put(key, state, after):
                    numbers = (0, 0, limit.rest(after, now))
                    return told(drawer.origin, cost, numbers, allowed=True), wait, (drawer, key, after, cost)

    def leave_slot(self, slot: Any) -> None:
        """Free a slot that nobody will use, if it is the last."""
        if slot is None or self.changing.put_off(lambda: self.leave_slot(slot)):
            return
        with self.changing:
            self._leave(*slot)

    def _leave(self, drawer: Drawer, key: str, mine: int, cost: int) -> None:
        limit = drawer.limit
        assert isinstance(limit, LeakyBucket), "only this one hands out slots"
        drawer.change_state(key, lambda state, _now: limit.leave(state, mine, cost))

    def give_back(self, key: str, costs: Mapping[str, int], taken: Mapping[str, Decision]) -> None:
        """Undo a take of a moment ago; `taken` are its answers, by limit."""
        if self.changing.put_off(lambda: self.give_back(key, costs, taken)):
            return
        with self.changing:
            for name, cost in costs.items():
                drawer, part = self.drawers[name], taken[name]
                # What a sketch counted is spent; what was taken under other numbers is no cost of these.
                if part.now_ns < 0 or part.origin is not drawer.origin:
                    continue
                back = min(cost, part.cost)
                part.cost -= back  # not twice
                self._give_back(drawer, key, back, part.now_ns)

    def _give_back(self, drawer: Drawer, key: str, cost: int, taken_ns: int) -> None:
        drawer.change_state(key, lambda state, now: drawer.limit.give_back(state, now, cost, taken_ns))

    # -- holds -----------------------------------------------------------------------------------------------------

    def _count_expired(self) -> None:
        """Count holds that have expired, as of when they did."""
        if not self.holds.by_key or self.changing.depth > 1:
            return  # a finalizer in the midst of this very loop would count one of them twice
        now = clock.now_ns()
        while (hold := self.holds.expired(now)) is not None:
            for name, cost in hold.costs.items():
                if cost:
                    self.drawers[name].add(hold.key, cost, now - hold.expires_ns)
            self.holds.remove(hold)

    def _wait_behind_holds(self, drawer: Drawer, key: str, state: Any, now: int, cost: int, held: int) -> int:
        """Nanoseconds until it would be admitted if nobody settles: each hold counts in full as it expires."""
        limit, at, ahead = drawer.limit, now, now - clock.now_ns()
        for hold in self.holds.of(key):
            if cost + held <= limit.capacity:
                break
            part = hold.costs.get(drawer.name, 0)
            at = max(at, hold.expires_ns + ahead)
            state = limit.add(state, at, part)
            held -= part
        return max(1, at - now + limit.wait(state, at, cost + held))

    def hold_now(self, ask: Ask, lasts_ns: int) -> tuple[Decision, Hold | None]:
        """Set the costs aside, all or none."""
        with self.changing:
            self._count_expired()
            while True:
                number, looks = self.holds.number, self._look_at(ask)
                decision = answer(looks)
                if not decision.allowed:
                    return decision, None
                hold = Hold(ask.key, dict(ask.costs), clock.now_ns() + lasts_ns)
                if not self.holds.add(hold):
                    wait = self.holds.first_expiry() - clock.now_ns()
                    return told(decision.origin, decision.cost, (0, wait, wait), allowed=False), None
                alone = hold.number == number + 1 == self.holds.number
                if alone and all(look.holds_good for look in looks):
                    return decision, hold
                self.holds.remove(hold)  # a finalizer came in between

    def settle_now(self, hold: Hold, actual: Mapping[str, int]) -> bool:
        """End a hold and count what was used."""
        if self.changing.put_off(lambda: self.settle_now(hold, actual)):
            return self.holds.is_open(hold)
        with self.changing:
            self._count_expired()
            if not self.holds.is_open(hold):
                return False
            for name, cost in actual.items():
                if cost:
                    self.drawers[name].add(hold.key, cost)
            return self.holds.remove(hold)  # counted first, so that nobody in between finds it free

    def reset_now(self, key: str) -> None:
        """Forget a subject; what is held stays held."""
        if self.changing.put_off(lambda: self.reset_now(key)):
            return
        with self.changing:
            for drawer in self.drawers.values():
                drawer.forget(key)

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
                self.drawers[name].change(limit)

    def snapshot(self) -> dict[str, Any]:
        with self.changing:
            self._count_expired()
            drawers = self.drawers.items()
            return {
                "keys": {name: len(drawer) for name, drawer in drawers},
                "holds": len(self.holds),
                "spilled": {name: drawer.spill.judged for name, drawer in drawers if drawer.spill is not None},
            }
