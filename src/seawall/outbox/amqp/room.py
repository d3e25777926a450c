"""How full an outbox is: all its queues together hold no more than the backlog.

The broker limits each queue. All together are counted here, every two seconds, more often when they are nearly full.

Between two counts only the records that this process puts are known; several processes may together exceed the backlog
by what they put in that time. What other processes have on lease is in no queue, and is not counted.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

from seawall.errors import NotQueued
from seawall.outbox.amqp.broker import Broker
from seawall.outbox.amqp.desk import Desk
from seawall.outbox.amqp.envelope import read
from seawall.outbox.amqp.topology import BANDS, STEPS_MS
from seawall.outbox.record import Work
from seawall.record import Record
from seawall.runtime import clock

__all__ = ["Counts", "Room"]

SECOND = 1_000_000_000
RARE_NS = 2 * SECOND
OFTEN_NS = SECOND // 10
NEARLY = 0.8
MOST_VICTIMS = 10


class Counts(Record, kw_only=True):
    """How many messages are where, and when they were counted."""

    waiting: int
    dead: int
    dropped: int
    at_ns: int


class Room:
    """The backlog of one outbox."""

    def __init__(self, broker: Broker, desk: Desk, most: int, *, drops: bool) -> None:
        self._broker = broker
        self._desk = desk
        self._most = most
        self._drops = drops
        self._counts: Counts | None = None
        self._counting: asyncio.Task[Counts] | None = None
        self._added = 0
        """Records put since the last count began, those under way included."""
        self._sent_back = 0
        self.dropped = 0

    @property
    def known(self) -> Counts | None:
        """The last count."""
        return self._counts

    async def count(self) -> Counts:
        """Count now."""
        self._added, self._sent_back, at_ns = 0, self._desk.sent_back, clock.now_ns()
        names = self._broker.topology
        waiting = 0
        for queue in names.held:
            waiting += await self._broker.count(queue)
        counts = self._counts = Counts(
            waiting=waiting + len(self._desk.aside),
            dead=await self._broker.count(names.dead),
            dropped=await self._broker.count(names.dropped),
            at_ns=at_ns,
        )
        return counts

    async def enter(self) -> list[Work]:
        """There is to be one record more. Raises `NotQueued`, or returns what was dropped to make room."""
        counts = self._counts
        if counts is None or clock.now_ns() - counts.at_ns > (OFTEN_NS if self._fill(counts) > NEARLY else RARE_NS):
            counts = await self._shared_count()
        if self._total(counts) >= self._most:
            counts = await self._shared_count()
        dropped: list[Work] = []
        while self._total(counts) - len(dropped) >= self._most:
            victim = await self._drop() if self._drops and len(dropped) < MOST_VICTIMS else None
            if victim is None:
                raise NotQueued(self._full(counts))
            dropped.append(victim)
        self._added += 1 - len(dropped)
        return dropped

    async def _shared_count(self) -> Counts:
        """One count serves all who come while it is under way."""
        if self._counting is None or self._counting.done():
            self._counting = asyncio.create_task(self.count())
            self._counting.add_done_callback(lambda done: None if done.cancelled() else done.exception())
        return await asyncio.shield(self._counting)

    def _total(self, counts: Counts) -> int:
        since = self._added + self._desk.sent_back - self._sent_back
        return counts.waiting + counts.dead + len(self._desk.leases) + since

    def _fill(self, counts: Counts) -> float:
        return self._total(counts) / self._most

    def _full(self, counts: Counts) -> str:
        why = ", and nothing may be dropped for it" if self._drops else ""
        if counts.dead:
            why += f"; {counts.dead} of them are dead letters"
        return f"the backlog is full ({self._total(counts)} of {self._most} records{why})"

    async def _drop(self) -> Work | None:
        """Throw one record away: a dead letter, or the first of a queue, those of low priority first."""
        names = self._broker.topology
        waiting = [*map(names.ready, reversed(BANDS)), *map(names.waiting, reversed(STEPS_MS))]
        for queue in (names.dead, *waiting):
            held = await self._desk.get(queue)
            if held is not None:
                trace = read(held.raw).replace(payload=b"", ended="backlog")
                await self._desk.move(held, partial(self._broker.publish, trace, "", names.dropped))
                self.dropped += 1
                return trace
        return None

    def snapshot(self) -> dict[str, Any]:
        """The last count as JSON-ready values."""
        counts = self._counts
        return {
            "waiting": None if counts is None else counts.waiting,
            "dead": None if counts is None else counts.dead,
            "counted_ago": None if counts is None else max(0, clock.now_ns() - counts.at_ns) / 1e9,
            "dropped": self.dropped,
        }
