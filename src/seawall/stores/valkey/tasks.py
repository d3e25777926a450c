"""The client of one event loop: all who come within one turn of the loop go out with one call.

While `most` calls to a server are on their way, those who come wait, and go out together when one of them is back.
Whatever a server does, everybody has an answer when his time is over; what was on its way then is cut off.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable

from seawall.runtime import clock
from seawall.stores.valkey.breakers import Breakers
from seawall.stores.valkey.exchange import Exchange, Pace
from seawall.stores.valkey.faults import LEFT_ALONE, Outage
from seawall.stores.valkey.parcels import Parcel
from seawall.stores.valkey.routes import Routes
from seawall.stores.valkey.site import Address

__all__ = ["TaskClient"]

MOST_TOGETHER = 4_096
MOST_WAITING = 65_536


class _Lane:
    """Those who want the same server."""

    __slots__ = ("flying", "timer", "until_ns", "waiting")

    def __init__(self) -> None:
        self.flying = 0
        self.waiting: list[Parcel] = []
        self.until_ns = 0
        self.timer: asyncio.TimerHandle | None = None


class TaskClient:
    """See above. It is closed when the loop shuts down, as asyncio.run() does at its end, or by `close`."""

    def __init__(
        self,
        exchange: Exchange,
        routes: Routes,
        breakers: Breakers,
        pace: Pace,
        more: Callable[[], list[Parcel]],
        most: int,
    ) -> None:
        self._exchange = exchange
        self._routes = routes
        self._breakers = breakers
        self._pace = pace
        self._more = more
        """What else is to be sent now."""
        self._most = most
        self._lanes: dict[Address | None, _Lane] = {}
        self._flights: set[asyncio.Task[None]] = set()
        self._keeper: AsyncGenerator[None, None] | None = None

    async def carry(self, parcel: Parcel) -> None:
        """Send it, and wait until it is settled."""
        loop = asyncio.get_running_loop()
        address = self._routes.address_of(parcel.slot)
        if address is not None and self._breakers.is_open(address) and not self._routes.must_ask():
            parcel.settle(Outage(LEFT_ALONE))
            return
        future: asyncio.Future[None] = loop.create_future()
        parcel.waiter = future
        self._put(loop, address, parcel)
        await future

    async def deliver(self, parcel: Parcel, orphaned: Callable[[], object] | None = None) -> None:
        """As `carry`, but it is sent even if the caller is cancelled; `orphaned` is called then, once it is settled."""
        loop = asyncio.get_running_loop()
        address = self._routes.address_of(parcel.slot)
        if address is not None and self._breakers.is_open(address) and not self._routes.must_ask():
            parcel.settle(Outage(LEFT_ALONE))
            return
        future: asyncio.Future[None] = loop.create_future()
        parcel.waiter = future
        self._put(loop, address, parcel)
        try:
            await asyncio.shield(future)
        except asyncio.CancelledError:
            if orphaned is not None:
                future.add_done_callback(lambda _: orphaned())
            raise

    async def post(self, parcel: Parcel) -> None:
        """Send it; whether it arrives is nobody's business. Does not suspend."""
        self._put(asyncio.get_running_loop(), self._routes.address_of(parcel.slot), parcel)

    async def close(self) -> None:
        """Close the connections."""
        if self._keeper is not None:
            await self._keeper.aclose()

    def _put(self, loop: asyncio.AbstractEventLoop, address: Address | None, parcel: Parcel) -> None:
        lane = self._lanes.get(address)
        if lane is None:
            lane = self._lanes[address] = _Lane()
        waiting = lane.waiting
        if not waiting:
            self._open(loop, lane, clock.now_ns() + self._pace.whole_ns)
            if lane.flying < self._most:
                loop.call_soon(self._depart, loop, lane)
        elif len(waiting) >= MOST_WAITING:
            parcel.settle(Outage(f"{MOST_WAITING} calls wait already"))
            return
        waiting.append(parcel)

    def _open(self, loop: asyncio.AbstractEventLoop, lane: _Lane, until_ns: int) -> None:
        """Those who wait from now on have until then."""
        lane.until_ns = until_ns
        lane.timer = loop.call_later((until_ns - clock.now_ns()) / 1e9, self._ring, loop, lane, lane.waiting)

    def _ring(self, loop: asyncio.AbstractEventLoop, lane: _Lane, parcels: list[Parcel]) -> None:
        # One more turn: a loop that was held up by other work may only now read what has come long ago.
        loop.call_soon(self._give_up, lane, parcels)

    def _give_up(self, lane: _Lane, parcels: list[Parcel]) -> None:
        for parcel in parcels:
            parcel.settle(Outage("no answer in time"))
        if lane.waiting is parcels:
            lane.waiting = []

    def _depart(self, loop: asyncio.AbstractEventLoop, lane: _Lane) -> None:
        if not lane.waiting or lane.flying >= self._most:
            return
        parcels, lane.waiting = lane.waiting, []
        until_ns, timer = lane.until_ns, lane.timer
        if len(parcels) > MOST_TOGETHER:
            lane.waiting = parcels[MOST_TOGETHER:]
            del parcels[MOST_TOGETHER:]
            self._open(loop, lane, until_ns)
        lane.flying += 1
        flight = loop.create_task(self._fly(lane, parcels, until_ns, timer))
        self._flights.add(flight)
        flight.add_done_callback(self._flights.discard)

    async def _fly(self, lane: _Lane, parcels: list[Parcel], until_ns: int, timer: asyncio.TimerHandle | None) -> None:
        try:
            if self._keeper is None:
                self._keeper = self._keep_open()
                await anext(self._keeper)
            # Whoever was cancelled meanwhile wants nothing any more, and nothing is taken for him.
            wanted = [parcel for parcel in parcels if parcel.waiter is None or not parcel.waiter.done()]
            if wanted:
                await self._exchange.serve([*wanted, *self._more()], until_ns)
        finally:
            lane.flying -= 1
            if timer is not None:
                timer.cancel()
            for parcel in parcels:
                if not parcel.settled:
                    parcel.settle(Outage("the loop is shutting down"))
            if lane.waiting:
                loop = asyncio.get_running_loop()
                loop.call_soon(self._depart, loop, lane)

    async def _keep_open(self) -> AsyncGenerator[None, None]:
        # A loop that shuts down closes the asynchronous generators that were begun in it: the one moment to close
        # connections in peace, without a word from the user.
        try:
            yield
        finally:
            await self._exchange.close()
