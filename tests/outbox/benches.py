"""Where stores are tested: a fresh store in a world of its own, with virtual time and a civil clock that may jump."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from random import Random
from typing import Any

from seawall.outbox.record import Work, fresh_id
from seawall.outbox.store import Lease, OpenStore, Store
from seawall.runtime import chance, clock
from seawall.runtime.aio import ASYNCIO
from seawall.runtime.blocking import BLOCKING, drive
from seawall.testing import VirtualClock, VirtualLoop

__all__ = ["HOUR", "SECOND", "Bench", "make_work"]

SECOND = 1_000_000_000
HOUR = 3_600 * SECOND
DAY = 24 * HOUR


def make_work(**changes: Any) -> Work:
    """A record that is due now and expires in a day."""
    now = clock.wall_ns()
    fields: dict[str, Any] = {
        "id": fresh_id(),
        "operation": "audit.write",
        "payload": b'{"user":7}',
        "idempotency_key": "key",
        "due_ns": now,
        "created_ns": now,
        "expires_ns": now + DAY,
    }
    return Work(**{**fields, **changes})


class Bench:
    """A store, and the time it lives in. A store whose server keeps time overrides `passes`, `jump` and `run`."""

    def __init__(self, make: Callable[..., Store], *, is_async: bool) -> None:
        self._make = make
        self._is_async = is_async
        self._jump_ns = 0
        self.store: Store
        self.open: OpenStore

    def fresh(self, **settings: Any) -> OpenStore:
        """A new store in place of the old one, with other settings."""
        self.store = self._make(**settings)
        self.open = self.store.open(ASYNCIO if self._is_async else BLOCKING)
        return self.open

    async def passes(self, seconds: float) -> None:
        """Let time pass."""
        if self._is_async:
            await asyncio.sleep(seconds)
        else:
            clock.sleep_ns(round(seconds * SECOND))

    def jump(self, seconds: float) -> None:
        """The civil clock is set to another time; no time passes."""
        self._jump_ns += round(seconds * SECOND)

    # -- short forms for the scenarios -------------------------------------------------------------------------------

    async def put(self, **changes: Any) -> Work:
        work = make_work(**changes)
        await self.open.put(work)
        return work

    async def lease(self, *, ttl: float = 60, skip: Any = ()) -> Lease | None:
        """The one that goes next."""
        leases, _ = await self.open.lease(1, round(ttl * SECOND), skip)
        assert len(leases) <= 1
        return leases[0] if leases else None

    async def take(self, **options: Any) -> Lease:
        """The one that goes next; there must be one."""
        lease = await self.lease(**options)
        assert lease is not None, "nothing is due"
        return lease

    async def taken(self) -> list[str]:
        """The ids of all that can be leased now, in order; each is done at once."""
        found: list[str] = []
        while (lease := await self.lease()) is not None:
            found.append(lease.work.id)
            assert await self.open.ack(lease)
        return found

    async def ids(self, state: str) -> list[str]:
        return [work.id for work in await self.open.page(state, limit=10_000)]

    # -- the world -----------------------------------------------------------------------------------------------------

    def run(self, scenario: Callable[[Bench], Coroutine[Any, Any, None]]) -> None:
        """Run a scenario with a fresh store, in virtual time."""

        async def main() -> None:
            restore = clock.install(clock.now_ns, clock.sleep_ns, self._civil)
            try:
                self.fresh()
                await scenario(self)
                await self.open.close()
            finally:
                restore()

        if self._is_async:
            VirtualLoop(seed=0).run(main)
            return
        restore = chance.install(Random("jitter 0").random)
        try:
            with VirtualClock(start="10h"):
                drive(main())
        finally:
            restore()

    def _civil(self) -> int:
        return clock.EPOCH_NS + clock.now_ns() + self._jump_ns
