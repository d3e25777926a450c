"""A slot of a concurrency limit in a caller's hand, and the block that takes one and gives it back.

A slot is known to whoever renews it only by a weak reference: one that was lost without a word runs out.
"""

from __future__ import annotations

import threading
from types import TracebackType
from typing import TYPE_CHECKING

from seawall import events
from seawall.errors import BackendUnavailable
from seawall.machines.leases import Renewed
from seawall.runtime import clock
from seawall.runtime.blocking import BLOCKING, drive
from seawall.runtime.which import asyncio_runtime

if TYPE_CHECKING:
    import asyncio

    from seawall.limiter.renewing import TimedRenewal
    from seawall.limiter.turnstile import Turnstile
    from seawall.runtime.protocol import Runtime
    from seawall.stores.decision import Decision
    from seawall.stores.leases import Lease

__all__ = ["Slot", "SlotBlock"]

MOST_SECONDS = 1.0


class Slot:
    """A place among those who run. `decision` is the answer of the store: how many more there is room for."""

    __slots__ = (
        "__weakref__",
        "_turnstile",
        "_since_ns",
        "closed",
        "decision",
        "generation",
        "lease",
        "lock",
        "lost_for",
        "renewing",
    )

    def __init__(self, turnstile: Turnstile, decision: Decision, lease: Lease | None) -> None:
        self._turnstile = turnstile
        self._since_ns = clock.now_ns()
        self.generation = turnstile.generation
        self.decision = decision
        self.lease = lease
        self.lost_for: str | None = None
        self.closed = lease is None
        self.renewing = False
        self.lock = threading.RLock()

    @property
    def lost(self) -> bool:
        """Whether its lease ran out, so that somebody else may have run in its place.

        It happens when nothing could renew it in time: the process was frozen, the store could not be asked for the
        length of a lease, somebody has reset the key. Work that must not go on then looks here. The slot is taken again
        as soon as there is room, since the work runs; `lost` stays true.
        """
        until_ns = None if self.lease is None else self.lease.until_ns
        return self.lost_for is not None or (until_ns is not None and clock.now_ns() >= until_ns)

    async def renew(self, runtime: Runtime) -> bool:
        """One renewal; tells whether the store could be asked. Whoever closes the slot meanwhile leaves the release
        to it."""
        lease, table, renewed = self.lease, self._turnstile.table, Renewed.KEPT
        if self.closed or lease is None:
            return True
        self.renewing = True
        try:
            try:
                renewed = await table.renew(runtime, lease)
            except Exception:  # noqa: BLE001  # what is wrong is told to those who want to enter; this goes on trying
                renewed = Renewed.UNKNOWN
            if renewed in (Renewed.LOST, Renewed.RETAKEN):
                self._lose("it had run out", retaken=renewed is Renewed.RETAKEN)
            elif renewed is Renewed.UNKNOWN and self.lost:
                self._lose("the store could not be asked", retaken=False)
        finally:
            self.renewing = False
            if self.closed:
                await self._give_back(runtime, lease)
        return renewed is not Renewed.UNKNOWN

    def _lose(self, why: str, *, retaken: bool) -> None:
        if self.lost_for is not None:
            return
        self.lost_for = why
        self._turnstile.lost += 1
        if events.sinks:
            held = (clock.now_ns() - self._since_ns) / 1e9
            event = events.LeaseLost(
                policy=self._turnstile.name, layer=self.decision.name, why=why, held=held, retaken=retaken
            )
            events.emit(event)

    async def release(self, runtime: Runtime) -> None:
        """Give it back, once."""
        # A thread that renews it ends first; the very thread that renews it sees to it afterwards. So does another one
        # after a while: this may be a finalizer in a thread for which that one waits.
        locked = self.lock.acquire(timeout=MOST_SECONDS)
        try:
            lease, first = self.lease, not self.closed
            self.closed = True
            if first and lease is not None and not self.renewing:
                await self._give_back(runtime, lease)
        finally:
            if locked:
                self.lock.release()

    async def arelease(self, runtime: Runtime, renewal: asyncio.Task[None] | None) -> None:
        """As `release`, in a task. A renewal that is under way ends first, and sees to it."""
        lease, first = self.lease, not self.closed
        self.closed = True
        if renewal is not None and self.renewing:
            import asyncio  # noqa: PLC0415  # loaded by whoever comes here

            await asyncio.wait([renewal])
        elif first and lease is not None:
            await self._give_back(runtime, lease)

    async def _give_back(self, runtime: Runtime, lease: Lease) -> None:
        try:
            await self._turnstile.table.release(runtime, lease)
        except BackendUnavailable:
            return  # the work is done: it runs out by itself
        finally:
            self._turnstile.woken(lease.key)

    def __repr__(self) -> str:
        return f"Slot(of {self._turnstile.name!r}{', lost' if self.lost else ''})"


class SlotBlock:
    """`with exports.slot(key):`, or `async with`: takes a slot, or raises `RateLimited` before the block."""

    __slots__ = ("_key", "_turnstile", "_patience", "_in_use", "_renewal", "_slot")

    def __init__(self, turnstile: Turnstile, key: str, patience: int | None) -> None:
        self._turnstile = turnstile
        self._key = key
        self._patience = patience
        self._in_use = False
        self._slot: Slot | None = None
        self._renewal: TimedRenewal | None = None

    def _begin(self) -> None:
        if self._in_use:
            raise RuntimeError(f"{self._turnstile.name}: this block is in use: call slot() for each")
        self._in_use = True

    def _leave(self) -> Slot | None:
        self._in_use = False
        slot, self._slot = self._slot, None
        # In a forked child the slot is still that of the parent.
        return slot if slot is not None and slot.generation == self._turnstile.generation else None

    def __enter__(self) -> Slot:
        self._begin()
        try:
            slot = drive(self._turnstile.enter(BLOCKING, self._key, self._patience))
            if self._turnstile.table.every_ns is not None and not slot.closed:
                try:
                    self._turnstile.keeper.add(slot)
                except BaseException:  # no thread could be started, or this one was interrupted
                    drive(slot.release(BLOCKING))
                    raise
        except BaseException:
            self._in_use = False
            raise
        self._slot = slot
        return slot

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        slot = self._leave()
        if slot is not None:
            self._turnstile.keeper.remove(slot)
            drive(slot.release(BLOCKING))

    async def __aenter__(self) -> Slot:
        self._begin()
        try:
            slot = self._slot = await self._turnstile.enter(asyncio_runtime(), self._key, self._patience)
        except BaseException:
            self._in_use = False
            raise
        if self._turnstile.table.every_ns is not None and not slot.closed:
            from seawall.limiter.renewing import TimedRenewal  # noqa: PLC0415  # asyncio, not before the first async use

            self._renewal = TimedRenewal(slot, self._turnstile.table)
        return slot

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        slot, renewal, self._renewal = self._leave(), self._renewal, None
        if slot is not None:
            await slot.arelease(asyncio_runtime(), None if renewal is None else renewal.stop())
