"""`ValkeyLeases`: the leases of one concurrency limit on a server, counted by its clock (stores/lua/leases.lua).

Key: `prefix:{subject}:leases:policy`, a sorted set; `subject` and `policy` are hashes as in table.py.

Whoever is cancelled while he asks gets nothing: what the server may have granted is released when its answer is there.
The process keeps account of its own holders as well: while the store is out, its share is counted against all of them.
A lease that was granted here meanwhile is brought to the server, if there is room, when it is renewed.
"""

from __future__ import annotations

import itertools
import os
from hashlib import blake2b
from struct import Struct
from typing import TYPE_CHECKING, Any

from seawall import events
from seawall.machines.leases import LeaseRules, Renewed
from seawall.runtime import clock
from seawall.runtime.blocking import drive
from seawall.stores.decision import Decision, told
from seawall.stores.leases import Lease, decision_of, origin_of
from seawall.stores.memory_leases import MemoryLeases
from seawall.stores.valkey.faults import Outage
from seawall.stores.valkey.outage import SOON_NS
from seawall.stores.valkey.parcels import Op, Parcel, bulk, unit
from seawall.stores.valkey.routes import slot_of

if TYPE_CHECKING:
    from seawall.runtime.protocol import Runtime
    from seawall.stores.valkey.core import Core

__all__ = ["ValkeyLeases"]

WANTS = Struct(">8sdd")
TOLD = Struct(">Bddd")
NOBODY = bytes(8)
RENEWALS = 3
"""How many renewals are due while a lease lasts: two of them may fail."""
MOST_KEYS = 1_000_000
_numbers = itertools.count(-1, -1)  # apart from those of MemoryLeases


class ValkeyLeases:
    """See above."""

    hears_of_releases = False

    def __init__(self, core: Core, limiter: str, rules: LeaseRules) -> None:
        self._core = core
        self._limiter = limiter
        self._tail = b"leases:" + blake2b(limiter.encode("utf-8", "surrogatepass"), digest_size=6).hexdigest().encode()
        self._here = MemoryLeases(limiter, rules, MOST_KEYS)
        self.reconfigure(rules)

    def reconfigure(self, rules: LeaseRules) -> None:
        self._rules = rules
        self._origin = origin_of(self._limiter, rules)
        self._length_us = -(-rules.lease_ns // 1_000)
        self._here.reconfigure(rules)

    @property
    def every_ns(self) -> int | None:
        return self._rules.lease_ns // RENEWALS

    # -- the table of a store ----------------------------------------------------------------------------------------

    async def enter(self, runtime: Runtime, key: str) -> tuple[Decision, Lease | None]:
        lease = Lease(key, next(_numbers), os.urandom(8))
        asked_ns = clock.now_ns()
        parcel = self._parcel(Op.ENTER, key, lease.token, TOLD.size)
        client = self._core.client(runtime)
        back = self._parcel(Op.RELEASE, key, lease.token, 1)
        await client.deliver(parcel, lambda: drive(client.post(back)))
        if parcel.error is not None:
            outage = self._core.outage(parcel.error)
            if runtime.is_async:
                await client.post(back)  # the answer may be lost, and the question not; in threads it would take time
            return self._enter_without(key, outage, self._core.wait_ns(parcel.slot))
        decision = self._decision(parcel)
        if not decision.allowed:
            return decision, None
        self._counted(lease, asked_ns)
        self._here.add(lease)
        return decision, lease

    async def renew(self, runtime: Runtime, lease: Lease) -> Renewed:
        asked_ns = clock.now_ns()
        parcel = self._parcel(Op.RENEW, lease.key, lease.token, 1)
        lease.asked = True
        await self._core.client(runtime).carry(parcel)
        if parcel.error is not None:
            self._core.outage(parcel.error)
            return Renewed.UNKNOWN
        renewed = Renewed(parcel.reply[parcel.at])
        if renewed is not Renewed.LOST:
            was_there = lease.on_server
            self._counted(lease, asked_ns)
            return renewed if was_there else Renewed.KEPT
        return Renewed.LOST if lease.on_server else Renewed.KEPT  # it was granted here, and still is

    async def release(self, runtime: Runtime, lease: Lease) -> bool:
        """While the store is out it tells False: the lease runs out by itself."""
        was_live = self._here.release_now(lease)
        parcel = self._parcel(Op.RELEASE, lease.key, lease.token, 1)
        if not lease.asked:
            return was_live
        await self._core.client(runtime).deliver(parcel)
        return parcel.error is None and parcel.reply[parcel.at] == 1

    async def look(self, runtime: Runtime, key: str) -> Decision:
        parcel = self._parcel(Op.LOOK, key, NOBODY, TOLD.size)
        await self._core.client(runtime).carry(parcel)
        if parcel.error is not None:
            outage = self._core.outage(parcel.error)
            decision, lease = self._enter_without(key, outage, self._core.wait_ns(parcel.slot))
            if lease is not None:
                self._here.release_now(lease)
            return decision
        return self._decision(parcel)

    async def reset(self, runtime: Runtime, key: str) -> None:
        """Raises `BackendUnavailable` while the store is out: whoever wants this wants to know."""
        parcel = self._parcel(Op.VACATE, key, NOBODY, 0)
        await self._core.client(runtime).carry(parcel)
        if parcel.error is not None:
            raise self._core.unavailable(self._core.outage(parcel.error))

    def snapshot(self) -> dict[str, Any]:
        return {**self._here.snapshot(), **self._core.snapshot()}

    # -- there and back ----------------------------------------------------------------------------------------------

    def _parcel(self, op: Op, key: str, token: bytes, size: int) -> Parcel:
        subject = self._core.subject(key)
        keys = bulk(self._core.prefix + b":{" + subject + b"}:" + self._tail)
        wants = WANTS.pack(token, self._length_us, self._rules.capacity)
        return Parcel(unit(op, (), holds=True, extra=wants), keys, 1, slot_of(subject), size)

    def _decision(self, parcel: Parcel) -> Decision:
        allowed, live, wait, rest = TOLD.unpack_from(parcel.reply, parcel.at)
        return decision_of(self._origin, int(live), int(wait) * 1_000, int(rest) * 1_000, allowed=bool(allowed))

    def _counted(self, lease: Lease, asked_ns: int) -> None:
        lease.asked = lease.on_server = True
        lease.until_ns = asked_ns + self._rules.lease_ns

    # -- while the store is out --------------------------------------------------------------------------------------

    def _enter_without(self, key: str, outage: Outage, wait_ns: int) -> tuple[Decision, Lease | None]:
        """As `on_outage` says: this process keeps to its share, or all or nobody enters.

        Other processes may have got all there is just before: until their leases must have run out there is no share.
        """
        core, lease = self._core, None
        since_ns, nodes, wait = core.standing.begin(), core.standing.nodes, max(wait_ns, SOON_NS)
        if core.on_outage == "local" and core.standing.seen:
            share = self._rules.capacity // nodes
            if share and (nodes == 1 or clock.now_ns() >= since_ns + self._rules.lease_ns):
                decision, lease = self._here.enter_now(key, share)
            else:
                decision = self._flat(wait, allowed=False)
        else:
            decision = self._flat(wait, allowed=core.on_outage == "open")
            if decision.allowed:
                lease = Lease(key, next(_numbers))
                self._here.add(lease)
        if lease is not None:
            lease.token = os.urandom(8)
        self._tell(decision, outage)
        return decision, lease

    def _flat(self, wait_ns: int, *, allowed: bool) -> Decision:
        if allowed:
            return decision_of(self._origin, 0, 0, 0, allowed=True)
        return told(self._origin, 1, (0, wait_ns, wait_ns), allowed=False, asked=False)

    def _tell(self, decision: Decision, outage: Outage) -> None:
        core = self._core
        core.standing.decide("admitted" if decision.allowed else "refused")
        if events.sinks:
            event = events.BackendFailed(
                policy=self._limiter,
                layer=core.label,
                mode=core.on_outage,
                allowed=decision.allowed,
                why=outage.why,
            )
            events.emit(event)
