"""One connection to the broker: made within a time, given up at once, and never half used.

Rules
    What asks the broker is a task of the link's own (`ask`): whoever waits for it may be cancelled or out of time, and
    the channel, whose leases are others' work, still reads the answer.
    A link that has lost a channel is lost as a whole. It is dropped without a farewell that somebody would wait for.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from seawall.runtime import clock

__all__ = ["Link"]

T = TypeVar("T")
HEARTBEAT = 10
"""Seconds, unless the URL says otherwise: a broker that is silent for three of them is gone."""


class Link:
    """A connection with its channels. Everything in it belongs to the loop it was made in."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._connection: Any = None
        self._transport: Any = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self.channels: list[Any] = []
        self.heard_ns = 0
        """When the broker answered last."""
        self.asked_ns = 0
        """When it was asked first what it has not answered."""
        self.dropped = False
        self.on_drop: Callable[[], object] = lambda: None

    async def open(self, lanes: int, declare: Callable[[Any], Coroutine[Any, Any, None]]) -> None:
        """Connect, see that the queues are there, and open as many channels."""
        import aiormq  # noqa: PLC0415  # an extra

        url = self._url
        if "heartbeat=" not in url.partition("?")[2]:
            url += f"{'&' if '?' in url else '?'}heartbeat={HEARTBEAT}"
        self._connection = aiormq.Connection(url, transport_factory=self._factory(aiormq))
        await self._connection.connect({"connection_name": "seawall outbox"})
        await declare(self._connection)
        self.channels = [await self._connection.channel(publisher_confirms=lanes == 1) for _ in range(lanes)]
        self.heard_ns = clock.now_ns()

    def _factory(self, aiormq: Any) -> Any:
        from aiormq.connection import TCPTransportFactory, TLSTransportFactory  # noqa: PLC0415  # as above

        base: Any = TLSTransportFactory if self._url.startswith("amqps") else TCPTransportFactory
        link = self

        class Known(base):  # type: ignore[misc]  # chosen by the URL
            """Remembers the transport, so that it can be cut off."""

            async def create(self, url: Any, **options: Any) -> Any:
                streams: Any = await base.create(self, url, **options)
                link._transport = streams[1].transport
                return streams

        return Known()

    @property
    def alive(self) -> bool:
        """Whether it can still be used, as far as is known here."""
        return (
            not self.dropped
            and self._connection is not None
            and self._connection.is_opened
            and not any(channel.is_closed for channel in self.channels)
        )

    async def ask(self, question: Coroutine[Any, Any, T], late: Callable[[T], object] | None = None) -> T:
        """The answer of the broker. If it comes when nobody waits for it any more, `late` gets it."""
        self.asks()
        task = asyncio.create_task(question)
        self._tasks.add(task)
        task.add_done_callback(self._heard)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if late is not None:
                task.add_done_callback(lambda done: None if _failed(done) else late(done.result()))
            raise

    def asks(self) -> None:
        """The broker is asked something now."""
        if self.asked_ns <= self.heard_ns:
            self.asked_ns = max(clock.now_ns(), self.heard_ns + 1)

    def owes_since(self, instant_ns: int) -> bool:
        """Whether the broker was asked something before this instant and has said nothing since."""
        return self.heard_ns < self.asked_ns <= instant_ns

    def _heard(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not _failed(task):
            self.heard_ns = clock.now_ns()

    async def spare_channel(self) -> Any:
        """A channel for one purpose; whoever asked for it closes it."""
        return await self._connection.channel(publisher_confirms=False)

    def drop(self) -> None:
        """Cut it off. What was leased through it is due again as soon as the broker notices, which is at once."""
        if self.dropped:
            return
        self.dropped = True
        if self._transport is not None:
            self._transport.abort()
        self.on_drop()
        if self._connection is not None:
            self.later(self._bury())

    async def _bury(self) -> None:
        from aiormq import AMQPConnectionError  # noqa: PLC0415  # as above

        with contextlib.suppress(Exception, asyncio.CancelledError):
            await self._connection.close(AMQPConnectionError("the connection was given up"), timeout=5)

    async def close(self) -> None:
        """Say farewell, for a short time."""
        if self._connection is not None and not self.dropped:
            with contextlib.suppress(Exception, asyncio.CancelledError):
                await asyncio.wait_for(self._connection.close(), 1)
        self.drop()

    def later(self, work: Coroutine[Any, Any, Any]) -> None:
        """Have it done, with nobody waiting."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def let_go(self) -> None:
        """In a forked child: give up the parent's socket, so that the broker sees the parent's end.

        Its number stays taken, since objects of the parent still know it.
        """
        socket = None if self._transport is None else self._transport.get_extra_info("socket")
        number = -1 if socket is None else socket.fileno()
        if number >= 0:
            nothing = os.open(os.devnull, os.O_RDWR)
            os.dup2(nothing, number)
            os.close(nothing)


def _failed(task: asyncio.Task[Any]) -> bool:
    """Whether it gave no answer; its error counts as seen."""
    return task.cancelled() or task.exception() is not None
