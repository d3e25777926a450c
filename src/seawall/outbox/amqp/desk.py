"""The leases of a store: which messages of the broker are out, with whom, and how each ends.

A lease is a message that the reading connection has and has not answered. If the connection ends, the broker gives the
message to the next who asks and counts the delivery: the leases of that connection are void.

Messages are asked for one by one, never sent ahead: those that nobody works at would count as attempts if the process
died.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Awaitable, Callable, Collection, Sequence
from functools import partial
from typing import Any

from seawall.errors import SeawallError
from seawall.outbox.amqp.broker import READING_LANES, Broker
from seawall.outbox.amqp.envelope import Foreign, foreign, unpacked
from seawall.outbox.amqp.topology import BANDS, band_of
from seawall.outbox.record import Work
from seawall.runtime import clock

__all__ = ["Desk", "Held"]

SECOND = 1_000_000_000
MOST_LOOKED_AT = 256
"""Records that one `lease` looks at and puts off, because they are not due or their operation rests."""
MOST_ASIDE = 32
"""Records of operations that rest, kept in hand until they may go; more of them are put off, if others wait behind."""
MOST_SEEN = 1_000
EMPTY_NS = SECOND // 20
"""So long a band that was empty is not asked again while another has records, unless this process put one there."""
REST_NS = 2 * SECOND
"""For how long they are put off."""
LINGER_NS = 10 * SECOND
"""So long at least a lease that ran out is still good, unless a worker of this process takes the record up again."""
ASIDE_NS = 5 * SECOND
"""Records that were put aside are given back if nobody leases for so long."""


class Held:
    """A message of the broker that was not answered yet."""

    __slots__ = ("channel", "raw", "tag", "ttl_ns", "until_ns", "work")

    def __init__(self, raw: Any) -> None:
        self.raw = raw
        self.channel = raw.channel
        self.tag: int = raw.delivery.delivery_tag
        self.work: Work
        self.ttl_ns = self.until_ns = 0

    async def answer(self) -> None:
        """Tell the broker to forget it."""
        await self.channel.basic_ack(self.tag)


class Desk:
    """The leases of one store in one loop."""

    def __init__(self, broker: Broker) -> None:
        self.leases: dict[str, Held] = {}
        self.aside: list[Held] = []
        """In hand, not leased: of operations that rest, or they came too late for whoever asked. They go first."""
        self.redelivered = self.run_out = 0
        self.sent_back = 0
        """Records that were leased and lie in a queue again."""
        self._broker = broker
        self._nonce = os.urandom(8).hex()
        self._serial = 0
        self._leased_ns = 0
        self._seen: set[str] = set()
        self._empty_ns: dict[str, int] = {}
        """When a band was found empty."""
        self._sweeper: asyncio.Task[None] | None = None
        broker.on_lost = self._lost

    def _lost(self) -> None:
        self.leases.clear()
        self.aside.clear()

    async def get(self, queue: str, lane: int = 0) -> Held | None:
        """The first message of a queue."""
        raw = await self._broker.get(queue, lambda message: self.aside.append(Held(message)), lane)
        return None if raw is None else Held(raw)

    async def move(self, held: Held, publish: Callable[[], Awaitable[None]]) -> None:
        """Publish a copy, then forget the message; if that fails, it is put aside."""
        try:
            await publish()
        except BaseException:
            self.aside.append(held)
            raise
        await held.answer()

    # -- out -------------------------------------------------------------------------------------------------------

    async def lease(self, n: int, ttl_ns: int, skip: Collection[str]) -> list[tuple[str, Work]]:
        """Up to `n` records that are due, with their tokens. What is not due, or rests, goes on to wait elsewhere."""
        await self._broker.reader()
        if self._sweeper is None or self._sweeper.done():
            self._sweeper = asyncio.create_task(self._sweep())
        await self._take_back(lambda held, now: held.until_ns <= now and held.work.operation not in skip)
        self._leased_ns = clock.now_ns()
        found: list[Held] = []
        try:
            await self._gather(n, skip, found)
        except BaseException:
            self.aside += found
            raise
        now = clock.now_ns()
        found = [held for held in found if self._is_ours(held)]
        found.sort(key=lambda held: (BANDS.index(band_of(held.work.priority)), held.work.due_ns, held.work.id))
        return [self._hand_out(held, now, ttl_ns) for held in found]

    async def _gather(self, n: int, skip: Collection[str], found: list[Held]) -> None:
        for _ in range(len(self.aside)):
            if self.aside and len(found) < n:
                held = self.aside.pop(0)
                if self._is_ours(held):
                    await self._sort(held, found, n, skip)
        looked = 0
        for band in self._worth_asking():
            while len(found) < n and looked < MOST_LOOKED_AT + n and self._is_worth_looking(skip):
                batch = await self._batch(self._broker.topology.ready(band), min(n - len(found), READING_LANES))
                looked += len(batch)
                sorting = [self._sort(held, found, n, skip) for held in batch if held is not None]
                for outcome in await asyncio.gather(*sorting, return_exceptions=True):
                    if isinstance(outcome, BaseException):
                        raise outcome
                if None in batch:
                    self._empty_ns[band] = clock.now_ns()
                    break

    def _worth_asking(self) -> Sequence[str]:
        """Not a band that was empty a moment ago, if another was not: asking takes as long as a record does."""
        since_ns = clock.now_ns() - EMPTY_NS
        emptied, filled = self._empty_ns, self._broker.filled_ns
        asked = [band for band in BANDS if emptied.get(band, 0) <= max(since_ns, filled.get(band, 0))]
        return asked or BANDS

    def _is_worth_looking(self, skip: Collection[str]) -> bool:
        """Whether something may be found that does not rest, as far as the operations seen so far tell."""
        return len(self.aside) < MOST_ASIDE or any(name not in skip for name in self._seen)

    async def _batch(self, queue: str, lanes: int) -> list[Held | None]:
        outcomes = await asyncio.gather(*(self.get(queue, lane) for lane in range(lanes)), return_exceptions=True)
        batch: list[Held | None] = []
        error: BaseException | None = None
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                error = outcome
            else:
                batch.append(outcome)
        if error is not None:
            self.aside += [held for held in batch if held is not None]
            raise error
        return batch

    async def _sort(self, held: Held, found: list[Held], n: int, skip: Collection[str]) -> None:
        """A message from the broker: to be leased, or to be put off, or no record at all."""
        try:
            work = held.work = unpacked(held.raw)
        except Foreign as error:
            await self.move(held, partial(self._broker.bury, foreign(held.raw, error)))
            return
        if work.due_ns > clock.wall_ns():
            await self.move(held, partial(self._broker.publish_due, work))
        elif work.operation not in skip:
            self._see(work.operation)
            (found if len(found) < n else self.aside).append(held)
        elif len(self.aside) < MOST_ASIDE:
            self.aside.append(held)
        else:
            await self.move(held, partial(self._broker.put_off, work, REST_NS))

    def _see(self, operation: str) -> None:
        if len(self._seen) < MOST_SEEN:
            self._seen.add(operation)

    def _hand_out(self, held: Held, now: int, ttl_ns: int) -> tuple[str, Work]:
        self._serial += 1
        token = f"{self._nonce}.{self._serial}"
        self.redelivered += bool(held.raw.delivery.redelivered)
        held.work = held.work.replace(attempts=held.work.attempts + 1)
        held.ttl_ns, held.until_ns = ttl_ns, now + ttl_ns
        self.leases[token] = held
        return token, held.work

    async def undo_lease(self, leased: Sequence[tuple[str, Work]]) -> None:
        """A lease that nobody took: it goes to the next who asks, as if it had not been."""
        for token, _ in leased:
            held = self.leases.pop(token, None)
            if held is not None:
                self.aside.append(held)

    # -- the ends of a lease ---------------------------------------------------------------------------------------

    def _is_ours(self, held: Held) -> bool:
        """Whether the connection that has it is still there."""
        link = self._broker.reading()
        return link is not None and held.channel in link.channels

    def _whose(self, token: str) -> Held | None:
        held = self.leases.get(token)
        return held if held is not None and self._is_ours(held) else None

    async def renew(self, token: str, ttl_ns: int) -> bool:
        """Ask the broker whether it still counts us in; then the lease lasts longer."""
        held = self._whose(token)
        if held is None:
            return False
        await self._broker.barrier(held.channel)
        if self._whose(token) is not held:
            return False
        held.ttl_ns, held.until_ns = ttl_ns, clock.now_ns() + ttl_ns
        return True

    async def ack(self, token: str) -> bool:
        """It is done. True when the broker has read it."""
        held = self._whose(token)
        if held is None:
            return False
        del self.leases[token]
        await held.answer()
        await self._broker.barrier(held.channel)
        return True

    async def settle(self, token: str, change: Callable[[Work], Work], *, dead: bool = False) -> bool:
        """Put a changed copy where it belongs, then forget the message: in this order it may be there twice, never not
        at all."""
        held = self._whose(token)
        if held is None:
            return False
        # Out at once: another report on the same lease must not make another copy.
        del self.leases[token]
        work = change(held.work)
        try:
            await (self._broker.bury(work) if dead else self._broker.publish_due(work))
        except BaseException:
            if self._is_ours(held):
                self.leases[token] = held
            raise
        self.sent_back += 1
        await held.answer()
        return True

    async def _take_back(self, is_over: Callable[[Held, int], bool]) -> None:
        """Leases that ran out go back to the broker, which counts them."""
        now = clock.now_ns()
        for token, held in list(self.leases.items()):
            if is_over(held, now) and self.leases.pop(token, None) is not None:
                self.run_out += 1
                self.sent_back += 1
                await held.channel.basic_nack(held.tag, requeue=True)

    async def _sweep(self) -> None:
        """What nobody here takes up again goes back to the broker for others."""
        while True:
            await asyncio.sleep(1)
            if self._broker.reading() is None:
                return
            with contextlib.suppress(Exception):  # the next round is soon
                await self._take_back(lambda held, now: held.until_ns + max(held.ttl_ns, LINGER_NS) <= now)
                if clock.now_ns() - self._leased_ns > ASIDE_NS:
                    async with asyncio.timeout(self._broker.seconds):
                        await self.give_back()

    async def give_back(self) -> None:
        """Records that were put aside are due again, uncounted."""
        while self.aside:
            held = self.aside.pop(0)
            if not self._is_ours(held):
                continue
            try:
                work = unpacked(held.raw)
            except Foreign as error:
                await self.move(held, partial(self._broker.bury, foreign(held.raw, error)))
            else:
                await self.move(held, partial(self._broker.publish_due, work))

    async def close(self) -> None:
        """Give back what is aside, and let the connections go."""
        if self._sweeper is not None:
            self._sweeper.cancel()
        with contextlib.suppress(SeawallError):
            await self.give_back()
        await self._broker.close()
