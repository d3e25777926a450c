"""`Relay`: takes what was committed from the table into the outbox's store, beside the program or once."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from seawall.integrations.sqlalchemy._doors import Door, door_to
from seawall.integrations.sqlalchemy._mailbox import MOST_BATCH, Mailbox
from seawall.integrations.sqlalchemy._moving import PAUSES, Mover
from seawall.outbox.beside import Beside
from seawall.outbox.worker.bell import Bell
from seawall.runtime import chance, clock
from seawall.runtime.blocking import BLOCKING, drive
from seawall.runtime.protocol import Runtime
from seawall.runtime.which import asyncio_runtime
from seawall.units import Duration, count_of, duration_ns

if TYPE_CHECKING:
    import sqlalchemy as sa
    from sqlalchemy.ext.asyncio import AsyncEngine

    from seawall.outbox.box import Outbox

__all__ = ["Relay"]

Listen = Callable[[Callable[[], object]], Callable[[], None]]


class Relay(Beside):
    """Takes records from the table to the outbox's store until it is stopped. Made by `transactional.relay(engine)`.

    `with relay: ...` works beside the block in a thread, `async with relay: ...` in a task; `relay.run()` and
    `await relay.arun()` until `stop()`; `relay.once()` and `await relay.aonce()` take what is there now, and return.
    The async forms need an `AsyncEngine`, the others an `Engine`. Several relays may share a table.

    It is woken by commits of this process, and looks by itself every `poll`. While the store or the database fails it
    waits longer and longer, up to 30 s, and tells it by `events.OutboxFailed`; the rows stay.

    Args:
        batch: how many rows at once; whole number from 1 to 500. Default 100.
        poll: how often it looks for what other processes committed; above 0. Default 1 s.
        claim: how long rows are taken for; above 0. If the process dies, others have them after this time. Longer than
            a put into the store may last. Default 60 s.

    Raises:
        ConfigError: a setting is outside its range.
    """

    def __init__(
        self,
        outbox: Outbox,
        mailbox: Mailbox,
        listen: Listen,
        engine: sa.Engine | AsyncEngine,
        *,
        batch: int = 100,
        poll: Duration = 1,
        claim: Duration = 60,
    ) -> None:
        super().__init__(f"seawall {outbox.name} relay")
        self.outbox = outbox
        self._mailbox = mailbox
        self._listen = listen
        self._engine = engine
        self._batch = count_of(batch, "relay(batch)", most=MOST_BATCH)
        self._poll_ns = duration_ns(poll, "relay(poll)", zero=False)
        self._claim_ns = duration_ns(claim, "relay(claim)", zero=False)
        self._lock = threading.RLock()
        self._bell: Bell | None = None
        self._stopping = False
        self._mover: Mover | None = None
        self._moved = self._failed = 0

    # -- until it is stopped ---------------------------------------------------------------------------------------

    def stop(self) -> None:
        """Take up nothing more and end; from any thread, and from signal handlers. Does not wait for the end."""
        self._stopping = True
        bell = self._bell
        if bell is not None:
            bell.ring()

    def _start(self, runtime: Runtime) -> Coroutine[Any, Any, None]:
        return self._work(*self._begin(runtime))

    def _context(self) -> contextvars.Context:
        # Not that of the block: a deadline there is none of the relay's.
        return contextvars.Context()

    def _begin(self, runtime: Runtime) -> tuple[Mover, Bell]:
        door = door_to(self._engine, is_async=runtime.is_async)
        with self._lock:
            if self._bell is not None:
                raise RuntimeError(f"this relay of {self.outbox.name} works already; make another one")
            self._stopping, self._bell = False, Bell(runtime)
            self._mover = self._new_mover(door, runtime)
            return self._mover, self._bell

    def _new_mover(self, door: Door, runtime: Runtime) -> Mover:
        return Mover(self.outbox, self._mailbox, door, runtime, batch=self._batch, claim_ns=self._claim_ns)

    async def _work(self, mover: Mover, bell: Bell) -> None:
        deaf, troubles = self._listen(bell.ring), 0
        try:
            while not self._stopping:
                claimed = await self._turn(mover)
                troubles = troubles + 1 if mover.error is not None else 0
                if troubles:
                    await self._rest(bell, PAUSES.pause_ns(troubles, chance.random()))
                elif not claimed and not self._stopping:
                    await bell.wait(self._poll_ns)
        finally:
            deaf()
            with self._lock:
                self._bell, self._mover = None, None
                self._moved += mover.moved
                self._failed += mover.failed

    async def _turn(self, mover: Mover) -> int:
        try:
            return await mover.move(lambda: self._stopping)
        except Exception:  # noqa: BLE001  # it was told; a database that is down is no reason to stop
            return 0

    async def _rest(self, bell: Bell, pause_ns: int) -> None:
        """After a failure: news of more work are no reason to try again sooner, a stop is one to end."""
        end = clock.now_ns() + max(pause_ns, self._poll_ns)
        while not self._stopping and (left := end - clock.now_ns()) > 0:
            await bell.wait(left)

    # -- once ------------------------------------------------------------------------------------------------------

    def once(self) -> int:
        """Take what is there now into the store, and return how many records. For cron, scripts and tests.

        Raises what the store or the database raises, when it has done what could be done; the rows stay.
        """
        return drive(self._once(BLOCKING))

    async def aonce(self) -> int:
        """As `once`, for async code."""
        return await self._once(asyncio_runtime())

    async def _once(self, runtime: Runtime) -> int:
        mover = self._new_mover(door_to(self._engine, is_async=runtime.is_async), runtime)
        first: Exception | None = None
        try:
            moved = -1
            # A batch of which nothing could be moved is the last: what is refused now is not there to be taken.
            while moved < mover.moved and not mover.gave_up:
                moved = mover.moved
                await mover.move(_never)
                first = first or mover.error
            if first is not None:
                raise first
            return mover.moved
        finally:
            del first  # the error knows this frame
            with self._lock:
                self._moved += mover.moved
                self._failed += mover.failed

    # -- looking ---------------------------------------------------------------------------------------------------

    def snapshot(self) -> dict[str, Any]:
        """The state as JSON-ready values."""
        with self._lock:
            mover = self._mover
            state = "idle" if mover is None else "stopping" if self._stopping else "working"
            return {
                "outbox": self.outbox.name,
                "table": self._mailbox.table.fullname,
                "state": state,
                "relayed": self._moved + (0 if mover is None else mover.moved),
                "failures": self._failed + (0 if mover is None else mover.failed),
                "last_error": "" if mover is None else mover.last_error,
            }

    def __repr__(self) -> str:
        return f"Relay(outbox={self.outbox.name!r}, table={self._mailbox.table.fullname!r})"


def _never() -> bool:
    return False
