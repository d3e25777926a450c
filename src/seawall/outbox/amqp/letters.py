"""Dead letters, and traces of what was dropped: looked at by taking them from their queue and handing them back.

AMQP cannot look into a queue. A scan takes message after message on a channel of its own, and ends by handing back
what it took. That goes to the end of the queue, so a scan for a page goes through all of them, at most 10,000. While it
is under way, others do not see what it has taken; those of this process go one after another.
"""

from __future__ import annotations

import asyncio
from bisect import insort
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Any

from seawall.outbox.amqp.broker import Broker, Full
from seawall.outbox.amqp.envelope import read
from seawall.outbox.amqp.link import Link
from seawall.outbox.record import Work
from seawall.runtime import clock

__all__ = ["Letters"]

MOST_BYTES = 256 * 1024 * 1024
"""Payload that one page may hold."""
MOST_LOOKED_AT = 10_000
BATCH = 50


class Letters:
    """The dead letters of one outbox."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._lock = asyncio.Lock()
        self._taken: list[Any] = []
        """What the scan that is under way has taken, and has not answered."""

    @asynccontextmanager
    async def _scan(self, queue: str) -> AsyncGenerator[AsyncIterator[tuple[Any, Work]]]:
        async with self._lock:
            link = await self._broker.reader()
            channel = await link.ask(link.spare_channel(), late=lambda found: link.later(found.close()))
            self._taken = []
            try:
                async with aclosing(self._messages(link, channel, queue)) as messages:
                    yield messages
            except BaseException:
                link.later(channel.close())  # there is no time to wait, and it must not keep what it took
                raise
            await link.ask(_put_back(channel, self._taken))

    async def _messages(self, link: Link, channel: Any, queue: str) -> AsyncGenerator[tuple[Any, Work]]:
        while True:
            raw = await link.ask(channel.basic_get(queue))
            if raw.delivery.name != "Basic.GetOk":
                return
            self._taken.append(raw)
            yield raw, read(raw)

    async def page(self, queue: str, limit: int, after: str | None) -> Sequence[Work]:
        """Up to `limit` records after the id `after`, in the order of ids, which is that in which they were made."""
        found: list[Work] = []
        size, left = 0, MOST_LOOKED_AT
        async with self._scan(queue) as messages:
            async for _, work in messages:
                if after is None or work.id > after:
                    insort(found, work, key=_id_of)
                    size += len(work.payload)
                while len(found) > limit or (size > MOST_BYTES and len(found) > 1):
                    size -= len(found.pop().payload)
                left -= 1
                if left <= 0:
                    break
        return found

    async def find(self, key: str) -> Work | None:
        """The dead letter with this id."""
        async with self._scan(self._broker.topology.dead) as messages:
            async for _, work in messages:
                if work.id == key:
                    return work
        return None

    async def replay(self, ids: Collection[str] | None) -> int:
        """Dead letters are due again now, as if newly put."""
        return await self._take(self._broker.topology.dead, ids, self._replayed)

    async def purge(self, queue: str, ids: Collection[str]) -> int:
        """Forget those with these ids."""
        return await self._take(queue, ids, None)

    async def _replayed(self, work: Work) -> None:
        now = clock.wall_ns()
        life_ns = work.expires_ns - work.created_ns
        times = {"created_ns": now, "due_ns": now, "expires_ns": now + life_ns}
        await self._broker.publish_due(work.replace(attempts=0, ended="", **times))

    async def _take(self, queue: str, ids: Collection[str] | None, move: Callable[[Work], Any] | None) -> int:
        """Take those with these ids out, in batches; a dead letter that comes meanwhile is left for the next time."""
        count, left = 0, None if ids is None else set(ids)
        most = await self._broker.count(queue)
        async with self._scan(queue) as messages:
            batch: list[tuple[Any, Work]] = []
            async for raw, work in messages:
                most -= 1
                if left is None or work.id in left:
                    batch.append((raw, work))
                    if left is not None:
                        left.discard(work.id)
                ended = most <= 0 or (left is not None and not left)
                if len(batch) >= BATCH or ended:
                    count += await self._move(batch, move)
                    batch = []
                if ended:
                    break
            count += await self._move(batch, move)
        return count

    async def _move(self, batch: list[tuple[Any, Work]], move: Callable[[Work], Any] | None) -> int:
        async def one(raw: Any, work: Work) -> int:
            if move is not None:
                try:
                    await move(work)
                except Full:
                    return 0
            self._taken.remove(raw)
            await raw.channel.basic_ack(raw.delivery.delivery_tag)
            return 1

        counts = await asyncio.gather(*(one(raw, work) for raw, work in batch))
        return sum(counts)


async def _put_back(channel: Any, taken: list[Any]) -> None:
    # Not by closing the channel: the broker says that it is closed before its messages are back.
    for raw in taken:
        await channel.basic_nack(raw.delivery.delivery_tag, requeue=True, wait=False)
    await channel.basic_qos(prefetch_count=0)
    await channel.close()


def _id_of(work: Work) -> str:
    return work.id
