"""Who goes next: the records of each operation in the order of priority, due time and arrival.

State, for each operation
    later   records that are not due yet, by due time.
    ready   records that are due, by priority, due time, arrival.

Rules
    time moves records from `later` to `ready`; it never goes back.
    a place that is `gone` (dropped, purged) is skipped when it comes up; when such places outnumber the others by 64,
    the lane is rebuilt, so that memory stays bounded also while nobody leases.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Collection

from seawall.outbox.record import Work

__all__ = ["Lanes", "Place"]

SLACK = 64


class Place:
    """Where a record stands. Instants in it are of the monotonic clock."""

    __slots__ = ("arrival", "due_ns", "gone", "token", "until_ns", "work")

    def __init__(self, work: Work, arrival: int, due_ns: int) -> None:
        self.work = work
        self.arrival = arrival
        self.due_ns = due_ns
        self.token: int | None = None
        """The lease that is out, or ran out last."""
        self.until_ns: int | None = None
        """When the lease runs out; None while it is waiting."""
        self.gone = False


class _Lane:
    __slots__ = ("gone", "later", "ready")

    def __init__(self) -> None:
        # Serials differ, so that places themselves are never compared; one that is gone may have a successor beside it.
        self.later: list[tuple[int, int, int, Place]] = []
        self.ready: list[tuple[int, int, int, int, Place]] = []
        self.gone = 0

    def add(self, place: Place, serial: int) -> None:
        heapq.heappush(self.later, (place.due_ns, place.arrival, serial, place))

    def roll(self, now_ns: int) -> None:
        later, ready = self.later, self.ready
        while later and (later[0][0] <= now_ns or later[0][3].gone):
            due_ns, arrival, serial, place = heapq.heappop(later)
            if place.gone:
                self.gone -= 1
            else:
                heapq.heappush(ready, (-place.work.priority, due_ns, arrival, serial, place))
        while ready and ready[0][4].gone:
            heapq.heappop(ready)
            self.gone -= 1

    def lose(self) -> None:
        """A place in it has gone."""
        self.gone += 1
        if self.gone > len(self.later) + len(self.ready) - self.gone + SLACK:
            self.later = [each for each in self.later if not each[-1].gone]
            self.ready = [each for each in self.ready if not each[-1].gone]
            heapq.heapify(self.later)
            heapq.heapify(self.ready)
            self.gone = 0


class Lanes:
    """The lanes of all operations."""

    def __init__(self) -> None:
        self._lanes: dict[str, _Lane] = {}
        self._serials = itertools.count()

    def add(self, place: Place) -> None:
        """A record may be leased from its due time on."""
        name = place.work.operation
        lane = self._lanes.get(name)
        if lane is None:
            lane = self._lanes[name] = _Lane()
        lane.add(place, next(self._serials))

    def lose(self, place: Place) -> None:
        """A record that stands in its lane is gone."""
        place.gone = True
        lane = self._lanes.get(place.work.operation)
        if lane is not None:
            lane.lose()

    def take(self, now_ns: int, skip: Collection[str]) -> Place | None:
        """The record that goes next, out of its lane; None if none is due."""
        best: _Lane | None = None
        empty: list[str] = []
        for name, lane in self._lanes.items():
            if name not in skip:
                lane.roll(now_ns)
                if lane.ready and (best is None or lane.ready[0] < best.ready[0]):
                    best = lane
            if not lane.ready and not lane.later:
                empty.append(name)
        for name in empty:
            del self._lanes[name]
        return None if best is None else heapq.heappop(best.ready)[-1]

    def next_ns(self, skip: Collection[str]) -> int | None:
        """When the next record is due; None if there is none."""
        instants: list[int] = []
        for name, lane in self._lanes.items():
            if name not in skip:
                instants += [lane.ready[0][1]] if lane.ready else []
                instants += [lane.later[0][0]] if lane.later else []
        return min(instants, default=None)
