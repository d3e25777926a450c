"""One batch after another from the table into the store: claim, put, delete.

A record is put under the id that its row has had from the start, and the row is deleted when the store has it. Whatever
breaks in between, the row is still there, and is put again: at least once, and never less.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

import sqlalchemy as sa

from seawall import events
from seawall.integrations.sqlalchemy._doors import Door
from seawall.integrations.sqlalchemy._mailbox import Claimed, Mailbox
from seawall.machines.backoff import Backoff
from seawall.outbox.record import error_text
from seawall.runtime import chance, clock
from seawall.runtime.protocol import Runtime

if TYPE_CHECKING:
    from seawall.outbox.box import Outbox

__all__ = ["PAUSES", "Mover"]

T = TypeVar("T")

SECOND = 1_000_000_000
PAUSES = Backoff(SECOND, 2.0, 30 * SECOND)
MOST_FAILURES = 3
"""After so many in a row it is the store, and not the record."""


class Mover:
    """Moves records for one relay."""

    def __init__(
        self, box: Outbox, mailbox: Mailbox, door: Door, runtime: Runtime, *, batch: int, claim_ns: int
    ) -> None:
        self._box = box
        self._mailbox = mailbox
        self._door = door
        self._store = box.store.open(runtime)
        self._batch = batch
        self._claim_ns = claim_ns
        self._put: list[str] = []
        """Ids that the store has, and whose rows are still there."""
        self.moved = self.failed = 0
        self.last_error = ""
        self.error: Exception | None = None
        """The first of the last batch."""
        self.gave_up = False
        """Whether the last batch ended early, because the store failed again and again."""

    async def move(self, is_stopping: Callable[[], bool]) -> int:
        """Move one batch; returns how many rows were claimed. Raises what the database raises."""
        self.error, self.gave_up = None, False
        await self._delete()
        token, claimed, until = await self._claim()
        moved: set[str] = set()
        refused: dict[str, Claimed] = {}
        try:
            await self._carry(claimed, until, moved, refused, is_stopping)
        except GeneratorExit:
            raise  # nothing can be awaited any more; the claim runs out
        except BaseException:
            await self._settle(token, claimed, moved, refused)
            raise
        await self._settle(token, claimed, moved, refused)
        return len(claimed)

    async def _claim(self) -> tuple[str, Sequence[Claimed], int]:
        mailbox, now = self._mailbox, clock.wall_ns()
        # One that looks in vain must not take SQLite's only lock for it.
        if self._door.dialect == "sqlite" and await self._step("claim", lambda c: mailbox.is_idle(c, now)):
            return "", (), 0
        # Less than the claim lasts, so that what is begun in time also ends in time.
        until = clock.now_ns() + self._claim_ns * 3 // 4
        token, claimed = await self._step(
            "claim", lambda c: mailbox.claim(c, self._batch, now, clock.wall_ns() + self._claim_ns)
        )
        return token, claimed, until

    async def _carry(
        self,
        claimed: Sequence[Claimed],
        until: int,
        moved: set[str],
        refused: dict[str, Claimed],
        is_stopping: Callable[[], bool],
    ) -> None:
        stuck, in_a_row = set[str](), 0
        for row in claimed:
            work = row.work
            if is_stopping() or clock.now_ns() >= until:
                return
            if work.order_key is not None and work.order_key in stuck:
                continue
            try:
                dropped = await self._store.put(work)
            except Exception as error:  # noqa: BLE001  # whatever it is: the row stays, and is tried again
                self._trouble("put", error)
                refused[work.id] = row
                if work.order_key is not None:
                    stuck.add(work.order_key)
                in_a_row += 1
                if in_a_row >= MOST_FAILURES:
                    self.gave_up = True
                    return
                continue
            in_a_row = 0
            # Noted before anybody is told: from here on the row is only to be deleted.
            moved.add(work.id)
            self._put.append(work.id)
            self.moved += 1
            self._box.stored(work, dropped)

    async def _settle(
        self, token: str, claimed: Sequence[Claimed], moved: set[str], refused: dict[str, Claimed]
    ) -> None:
        """Tell the table what became of the rows. A row of which it does not hear is free when the claim runs out."""
        mailbox = self._mailbox
        idle = [row.work.id for row in claimed if row.work.id not in moved and row.work.id not in refused]
        with contextlib.suppress(Exception):  # it was told
            if idle:
                await self._step("release", lambda c: mailbox.give_back(c, idle, token))
            for id, row in refused.items():  # noqa: A001  # as the column is called
                await self._postpone(id, row, token)
        await self._delete()

    async def _postpone(self, id: str, row: Claimed, token: str) -> None:  # noqa: A002  # as above
        free_ns = clock.wall_ns() + PAUSES.pause_ns(min(row.failures + 1, 30), chance.random())
        await self._step("release", lambda c: self._mailbox.postpone(c, id, token, free_ns))

    async def _delete(self) -> None:
        """Delete the rows whose records are in the store; until that is done nothing else is taken up."""
        if self._put:
            done = list(self._put)
            await self._step("delete", lambda c: self._mailbox.delete(c, done))
            self._put = self._put[len(done) :]

    async def _step(self, step: str, act: Callable[[sa.Connection], T]) -> T:
        try:
            return await self._door.run(act)
        except Exception as error:
            self._trouble(step, error)
            raise

    def _trouble(self, step: str, error: Exception) -> None:
        self.failed += 1
        self.last_error = error_text(error)
        if self.error is None:
            self.error = error
        if events.sinks:
            events.emit(events.OutboxFailed(policy=self._box.name, layer="relay", step=step, error=error))
