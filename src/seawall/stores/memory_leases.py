"""Leases in this process: whoever holds one lives as long as the object in his hand, and need not renew it.

A lease that has run out is renewed at the next look if its holder still has it. If he has lost it without a word (his
loop was closed in mid-work), it is gone one length after somebody last looked.

Keys lie in two dictionaries. Each step moves two keys from the older to the younger one, if anybody is inside, and
forgets them otherwise: no timer, no sweep, and a key that nobody uses costs nothing.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any, cast
from weakref import WeakValueDictionary

from seawall.machines.leases import LeaseRules, Leases, Renewed
from seawall.runtime import clock, forks
from seawall.runtime.section import Section
from seawall.stores.decision import Decision
from seawall.stores.leases import Lease, decision_of, origin_of

if TYPE_CHECKING:
    from seawall.runtime.protocol import Runtime

__all__ = ["MemoryLeases"]

SOON_NS = 1_000_000
_numbers = itertools.count(1)


class MemoryLeases:
    """See above."""

    every_ns: int | None = None
    hears_of_releases = True

    def __init__(self, limiter: str, rules: LeaseRules, max_keys: int) -> None:
        self._limiter = limiter
        self._most_keys = max_keys
        self.reconfigure(rules)
        self.renew_after_fork()
        forks.renew_after_fork(self)

    def renew_after_fork(self) -> None:
        """Whoever is inside is inside in the parent."""
        self._section = Section()
        self._young: dict[str, Leases] = {}
        self._old: dict[str, Leases] = {}
        self._holders: WeakValueDictionary[int, Lease] = WeakValueDictionary()

    def reconfigure(self, rules: LeaseRules) -> None:
        self._origin = origin_of(self._limiter, rules)
        self._rules = rules

    # -- one step each, without a coroutine --------------------------------------------------------------------------

    def enter_now(self, key: str, most: int | None = None) -> tuple[Decision, Lease | None]:
        """A lease if fewer than `most` are inside; by default as many as the rules say."""
        rules = self._rules
        most = rules.capacity if most is None else most
        others = rules.capacity - most
        """What is not this one's to give."""
        if self._section.put_off(_nothing):
            return self._refuse(
                rules.capacity, SOON_NS, SOON_NS
            ), None  # a finalizer in the midst of a step of this very thread
        with self._section:
            now = clock.now_ns()
            leases = self._find(key, now)
            if leases is None:
                if len(self) >= self._most_keys:
                    return self._refuse(rules.capacity, rules.lease_ns, rules.lease_ns), None
                leases = self._young[key] = Leases()
            lease = Lease(key, next(_numbers))
            if not leases.enter(lease.number, now, most, rules.lease_ns):
                live, wait = leases.live(now), leases.wait(now, most)
                return self._refuse(others + live, wait, leases.rest(now)), None
            self._holders[lease.number] = lease
            live, rest = leases.live(now), leases.rest(now)
            return decision_of(self._origin, others + live, 0, rest, allowed=True), lease

    def _refuse(self, live: int, wait_ns: int, rest_ns: int) -> Decision:
        return decision_of(self._origin, live, wait_ns, rest_ns, allowed=False)

    def add(self, lease: Lease) -> None:
        """Keep account of a lease that somebody else has granted."""
        if self._section.put_off(lambda: self.add(lease)):
            return
        with self._section:
            now = clock.now_ns()
            leases = self._find(lease.key, now)
            if leases is None:
                leases = self._young[lease.key] = Leases()
            leases.add(lease.number, now, self._rules.lease_ns)
            self._holders[lease.number] = lease

    def release_now(self, lease: Lease) -> bool:
        """End it; tells whether it was live."""
        if self._section.put_off(lambda: self.release_now(lease)):
            return True
        with self._section:
            now = clock.now_ns()
            self._holders.pop(lease.number, None)
            leases = self._find(lease.key, now)
            if leases is None:
                return False
            was_live = leases.leave(lease.number, now)
            if not len(leases):
                self._young.pop(lease.key, None)
            return was_live

    def look_now(self, key: str) -> Decision:
        """What `enter_now` would answer."""
        most = self._rules.capacity
        if self._section.put_off(_nothing):
            return self._refuse(most, SOON_NS, SOON_NS)
        with self._section:
            now = clock.now_ns()
            leases = self._find(key, now)
            if leases is None:
                return decision_of(self._origin, 0, 0, 0, allowed=True)
            live = leases.live(now)
            return decision_of(self._origin, live, leases.wait(now, most), leases.rest(now), allowed=live < most)

    def reset_now(self, key: str) -> None:
        """Forget all leases of a key."""
        if self._section.put_off(lambda: self.reset_now(key)):
            return
        with self._section:
            self._young.pop(key, None)
            self._old.pop(key, None)

    def _find(self, key: str, now: int) -> Leases | None:
        """The leases of a key; those who live have renewed theirs."""
        self._tidy(now)
        leases = self._young.get(key)
        if leases is None:
            leases = self._old.pop(key, None)
            if leases is None:
                return None
            self._young[key] = leases
        self._prolong(leases, now)
        return leases

    def _prolong(self, leases: Leases, now: int) -> None:
        for number in leases.overdue(now):
            if cast("int", number) in self._holders:
                leases.prolong(number, now, self._rules.lease_ns)

    def _tidy(self, now: int) -> None:
        for _ in range(2):
            if not self._old:
                self._old, self._young = self._young, {}
                if not self._old:
                    return
            key, leases = self._old.popitem()
            self._prolong(leases, now)
            if leases.live(now):
                self._young[key] = leases

    def __len__(self) -> int:
        return len(self._young) + len(self._old)

    # -- the table of a store ----------------------------------------------------------------------------------------

    async def enter(self, runtime: Runtime, key: str) -> tuple[Decision, Lease | None]:
        return self.enter_now(key)

    async def renew(self, runtime: Runtime, lease: Lease) -> Renewed:
        return Renewed.KEPT

    async def release(self, runtime: Runtime, lease: Lease) -> bool:
        return self.release_now(lease)

    async def look(self, runtime: Runtime, key: str) -> Decision:
        return self.look_now(key)

    async def reset(self, runtime: Runtime, key: str) -> None:
        self.reset_now(key)

    def snapshot(self) -> dict[str, Any]:
        with self._section:
            return {"keys": len(self)}


def _nothing() -> None:
    """In the place of a step that is not put off, but refused."""
