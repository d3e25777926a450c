"""The client of all threads: those who come while a connection is in use go out together with its next call.

The first to come leads: it sends what is there, hands out the answers, and passes the lead on to one of those who came
meanwhile. No thread works for others for longer than its own call, and none is started.

A finalizer, or a handler of signals, may come in the midst of a call of its own thread, and must not wait for it: what
it gives back goes out when that call has ended.
"""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Callable

from seawall.runtime import clock
from seawall.runtime.blocking import drive
from seawall.stores.valkey.breakers import Breakers
from seawall.stores.valkey.exchange import Exchange, Pace
from seawall.stores.valkey.faults import LEFT_ALONE, Outage
from seawall.stores.valkey.parcels import Parcel
from seawall.stores.valkey.routes import Routes
from seawall.stores.valkey.site import Address

__all__ = ["ThreadClient"]

MOST_TOGETHER = 4_096


class _Gate:
    """Where one thread waits for its answer, or for the lead."""

    __slots__ = ("_lock", "leads")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()
        self.leads = False

    def wait(self, timeout_ns: int) -> bool:
        return clock.wait_for(self._lock, timeout_ns)

    def done(self) -> bool:
        return not self._lock.locked()

    def set_result(self, result: None, /) -> None:
        with contextlib.suppress(RuntimeError):  # the leader, and the one who gave up, at the same instant
            self._lock.release()


class _Lane:
    """Those who want the same server."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.waiting: list[tuple[Parcel, _Gate]] = []
        self.led = False
        self.until_ns = 0
        """Whoever leads has passed the lead on by then, unless he was interrupted while he did so."""


class ThreadClient:
    """See above. A forked child makes another."""

    def __init__(
        self, exchange: Exchange, routes: Routes, breakers: Breakers, pace: Pace, more: Callable[[], list[Parcel]]
    ) -> None:
        self._exchange = exchange
        self._routes = routes
        self._breakers = breakers
        self._pace = pace
        self._more = more
        """What else is to be sent now."""
        self._lanes: dict[Address | None, _Lane] = {}
        self._inside: set[int] = set()
        """The threads that are in a call."""
        self._later: deque[Parcel] = deque()

    async def carry(self, parcel: Parcel) -> None:
        """Send it, and wait until it is settled; never suspends."""
        me = threading.get_ident()
        if me in self._inside:
            parcel.settle(Outage("this thread is in the midst of another call"))
            return
        self._enclosed(me, parcel)
        while self._later:
            with contextlib.suppress(IndexError):  # another thread was quicker
                self._enclosed(me, self._later.popleft())

    def _enclosed(self, me: int, parcel: Parcel) -> None:
        try:
            self._inside.add(me)
            self._carry(parcel)
        finally:
            self._inside.discard(me)

    def _carry(self, parcel: Parcel) -> None:
        address = self._routes.address_of(parcel.slot)
        if address is not None and self._breakers.is_open(address) and not self._routes.must_ask():
            parcel.settle(Outage(LEFT_ALONE))
            return
        lane = self._lanes.get(address) or self._lanes.setdefault(address, _Lane())
        now = clock.now_ns()
        until_ns = now + self._pace.whole_ns
        gate = None
        with lane.lock:
            if lane.led and now < lane.until_ns:
                gate = parcel.waiter = _Gate()
                lane.waiting.append((parcel, gate))
            else:
                lane.until_ns = until_ns + self._pace.whole_ns
            lane.led = True
        if gate is None:
            self._lead(lane, parcel, until_ns)
        else:
            self._follow(lane, parcel, gate, until_ns)

    async def deliver(self, parcel: Parcel, orphaned: Callable[[], object] | None = None) -> None:
        """As `carry`; `orphaned` is called if the thread is interrupted."""
        if orphaned is None and threading.get_ident() in self._inside:
            self._later.append(Parcel(parcel.body, parcel.keys, parcel.count, parcel.slot, parcel.size))
        try:
            await self.carry(parcel)
        except BaseException:
            if orphaned is not None:
                orphaned()
            raise

    async def post(self, parcel: Parcel) -> None:
        """Send it; whether it arrives is nobody's business."""
        await self.deliver(parcel)

    async def close(self) -> None:
        """Close the connections."""
        await self._exchange.close()

    def _follow(self, lane: _Lane, parcel: Parcel, gate: _Gate, until_ns: int) -> None:
        try:
            gate.wait(until_ns - clock.now_ns())
        finally:
            with lane.lock:
                leads = gate.leads
                if not leads:
                    lane.waiting[:] = [place for place in lane.waiting if place[0] is not parcel]
            if leads:
                self._lead(lane, parcel, until_ns)
        if not parcel.settled:
            parcel.settle(Outage("no answer in time: the connection was in use"))

    def _lead(self, lane: _Lane, mine: Parcel, until_ns: int) -> None:
        parcels: list[Parcel] = [mine]
        try:
            with lane.lock:
                together, lane.waiting[:] = lane.waiting[:MOST_TOGETHER], lane.waiting[MOST_TOGETHER:]
            parcels += [parcel for parcel, _ in together]
            drive(self._exchange.serve([*parcels, *self._more()], until_ns))
        finally:
            for parcel in parcels:
                if not parcel.settled:
                    parcel.settle(Outage("the thread that had sent it was interrupted"))
            with lane.lock:
                follower = lane.waiting.pop(0)[1] if lane.waiting else None
                if follower is None:
                    lane.led = False
                else:
                    follower.leads = True
                    lane.until_ns = clock.now_ns() + 2 * self._pace.whole_ns
            if follower is not None:
                follower.set_result(None)
