"""The two connections of a store to its broker: one publishes, the other reads.

Two, since a broker that is short of memory stops hearing those who publish, and what is done must be reported all the
same. Each is made at need, by one for all who need it, and after a failure not again at once.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from seawall.errors import BackendUnavailable, SeawallError
from seawall.machines.backoff import Backoff
from seawall.outbox.amqp.envelope import packed
from seawall.outbox.amqp.link import Link
from seawall.outbox.amqp.topology import Topology, band_of, step_ms
from seawall.outbox.record import Work, error_text
from seawall.runtime import chance, clock

__all__ = ["Broker", "Full"]

T = TypeVar("T")
SECOND = 1_000_000_000
PAUSES = Backoff(SECOND // 10, 2.0, 2 * SECOND)
LARGE = 16_384
PERHAPS = "; it may have happened"


class Full(Exception):
    """The broker refused a record, because its queue is full."""


class Broker:
    """RabbitMQ, as one loop speaks with it."""

    def __init__(self, url: str, shown: str, topology: Topology, seconds: float) -> None:
        self.topology = topology
        self.seconds = seconds
        self.on_lost: Callable[[], object] = lambda: None
        """Called when the connection that reads is lost."""
        self.filled_ns: dict[str, int] = {}
        """When this process put a record into a band."""
        self.reconnects = 0
        self.last_error = ""
        self._shown = shown
        self._publishes = _Way(url, lanes=1)
        self._reads = _Way(url, lanes=READING_LANES)
        self._barriers: dict[Any, _Barrier] = {}

    async def within(self, name: str, seconds: float, step: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """A step with an end. What the client library raises becomes `BackendUnavailable`."""
        from aiormq import AMQPError  # noqa: PLC0415  # an extra

        waited_ns = round(seconds * SECOND / 2)
        try:
            async with asyncio.timeout(seconds):
                return await step()
        except TimeoutError:
            for way in (self._publishes, self._reads):
                if way.link is not None and way.link.owes_since(clock.now_ns() - waited_ns):
                    way.link.drop()
            raise self._failed(name, f"no answer within {seconds:.2g} s{PERHAPS}") from None
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            # The client library ends so what waits for a connection that ended.
            raise self._failed(name, f"the connection ended{PERHAPS}") from None
        except SeawallError:
            raise
        except (AMQPError, OSError, RuntimeError) as error:
            raise self._failed(name, error_text(error) + PERHAPS) from error

    def _failed(self, name: str, why: str) -> BackendUnavailable:
        self.last_error = f"{name}: {why}"
        return BackendUnavailable(f"{name}: RabbitMQ at {self._shown}: {why}")

    # -- connections -----------------------------------------------------------------------------------------------

    async def reader(self) -> Link:
        """The connection that reads."""
        return await self._link(self._reads)

    def reading(self) -> Link | None:
        """The connection that reads, if there is one."""
        link = self._reads.link
        if link is not None and not link.alive:
            link.drop()  # and with it go its leases
            return None
        return link

    async def _link(self, way: _Way) -> Link:
        if way.link is not None:
            if way.link.alive:
                return way.link
            way.link.drop()
        if way.opening is None:
            if clock.now_ns() < way.rest_until_ns:
                raise BackendUnavailable(f"RabbitMQ at {self._shown}: {way.trouble}; it was tried a moment ago")
            way.opening = asyncio.create_task(self._open(way))
            way.opening.add_done_callback(_seen)
        return await asyncio.shield(way.opening)

    async def _open(self, way: _Way) -> Link:
        from aiormq import AMQPError  # noqa: PLC0415  # an extra

        link = Link(way.url)
        try:
            async with asyncio.timeout(self.seconds):
                await link.open(way.lanes, self.topology.declare)
        except BaseException as error:
            link.drop()
            way.troubles += 1
            way.trouble = "no answer" if isinstance(error, TimeoutError) else error_text(error)
            way.rest_until_ns = clock.now_ns() + PAUSES.pause_ns(way.troubles, chance.random())
            if isinstance(error, (TimeoutError, AMQPError, OSError)):
                raise BackendUnavailable(f"RabbitMQ at {self._shown} cannot be reached: {way.trouble}") from error
            raise
        finally:
            way.opening = None
        way.troubles = way.rest_until_ns = 0
        way.link = link
        self.reconnects += 1
        if way is self._reads:
            link.on_drop = self._lost
        return link

    def _lost(self) -> None:
        self._barriers.clear()
        self.on_lost()

    async def close(self) -> None:
        """Let the connections go."""
        for way in (self._publishes, self._reads):
            if way.link is not None:
                await way.link.close()

    def let_go(self) -> None:
        """In a forked child: they are the parent's."""
        for way in (self._publishes, self._reads):
            if way.link is not None:
                way.link.let_go()

    @property
    def connected(self) -> bool:
        """Whether a connection is open."""
        links = (self._publishes.link, self._reads.link)
        return any(link is not None and link.alive for link in links)

    # -- publishing ------------------------------------------------------------------------------------------------

    async def publish(self, work: Work, exchange: str, key: str) -> None:
        """Send a record and wait for the broker's word that it has it. Raises `Full`."""
        from aiormq import DeliveryError, PublishError, spec  # noqa: PLC0415  # an extra

        link = await self._link(self._publishes)
        properties = spec.Basic.Properties(**packed(work))
        link.asks()
        try:
            await link.channels[0].basic_publish(
                work.payload,
                exchange=exchange,
                routing_key=key,
                properties=properties,
                mandatory=True,
                # Large ones one after another, so that no more than one lies in memory if the broker does not read.
                wait=len(work.payload) > LARGE,
            )
        except PublishError:
            link.drop()  # the next connection declares everything again
            where = f"{key!r} of {exchange!r}" if exchange else f"{key!r}"
            raise self._failed("publish", f"it has no queue for {where}: was it deleted?") from None
        except DeliveryError:
            link.heard_ns = clock.now_ns()
            raise Full from None
        link.heard_ns = clock.now_ns()

    async def publish_due(self, work: Work, *, is_new: bool = False) -> None:
        """To where it belongs by its due time. What is not new is never refused for want of room."""
        left_ns, band = work.due_ns - clock.wall_ns(), band_of(work.priority)
        if left_ns > 0:
            return await self.put_off(work, left_ns)
        try:
            await self.publish(work, self.topology.main, f"now.{band}")
            self.filled_ns[band] = clock.now_ns()
        except Full:
            if is_new:
                raise
            # It waits for a moment where there is no limit, and on until there is room.
            await self.put_off(work, 0)

    async def put_off(self, work: Work, wait_ns: int) -> None:
        """To the step of delay that is next for this wait."""
        await self.publish(work, self.topology.delay, f"{step_ms(wait_ns)}.{band_of(work.priority)}")

    async def bury(self, work: Work) -> None:
        """To the dead letters."""
        await self.publish(work, self.topology.dead, "")

    # -- reading ---------------------------------------------------------------------------------------------------

    async def get(self, queue: str, late: Callable[[Any], object], lane: int = 0) -> Any | None:
        """The first message of a queue, unanswered. One that comes when nobody waits for it any more goes to `late`."""
        link = await self.reader()

        def found(message: Any) -> Any | None:
            return message if message.delivery.name == "Basic.GetOk" else None

        def too_late(message: Any) -> None:
            if found(message) is not None:
                late(message)

        return found(await link.ask(link.channels[lane].basic_get(queue), late=too_late))

    async def count(self, queue: str) -> int:
        """How many messages of a queue are out with nobody."""
        link = await self.reader()
        told = await link.ask(link.channels[-1].queue_declare(queue, passive=True))
        return told.message_count or 0

    async def purge(self, queue: str) -> int:
        """Forget what lies in a queue."""
        link = await self.reader()
        told = await link.ask(link.channels[-1].queue_purge(queue))
        return told.message_count or 0

    async def barrier(self, channel: Any) -> None:
        """Until the broker has read everything that was sent on this channel. Those who come meanwhile share one."""
        link = await self.reader()
        barrier = self._barriers.setdefault(channel, _Barrier())
        await barrier.passed(lambda: link.ask(channel.basic_qos(prefetch_count=0)))


READING_LANES = 4
"""Channels of the connection that reads: on each the broker answers one question at a time."""


class _Way:
    """A connection that is there, or is being made, or could not be made."""

    def __init__(self, url: str, lanes: int) -> None:
        self.url = url
        self.lanes = lanes
        self.link: Link | None = None
        self.opening: asyncio.Task[Link] | None = None
        self.troubles = 0
        self.trouble = ""
        self.rest_until_ns = 0


class _Barrier:
    """One question at a time, whose answer serves all who came before it was asked."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self._came = self._passed = 0

    async def passed(self, ask: Callable[[], Awaitable[Any]]) -> None:
        self._came += 1
        mine = self._came
        async with self._lock:
            if self._passed < mine:
                came = self._came
                await ask()
                self._passed = came


def _seen(task: asyncio.Task[Any]) -> None:
    with contextlib.suppress(asyncio.CancelledError):
        task.exception()
