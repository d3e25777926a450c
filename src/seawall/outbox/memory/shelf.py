"""The records of a `MemoryOutbox` and what may happen to them: waiting, leased, dead, dropped, or done and forgotten.

Rules
    put      waiting. At most `most` records, the dead included, with at most `most_bytes` of payload: beyond that a
             record is refused, or with `drops` the oldest make room: dead letters first, then those that wait, never
             those out on lease.
    lease    waiting -> leased. Only the first of an order key is in its lane at all.
    ack      leased -> forgotten. retry, release, an expired lease: leased -> waiting. bury: leased -> dead.
    replay   dead -> waiting, with a new place at the end.

`now_ns` is of the monotonic clock, so that a jump of the civil one moves nothing here. Not safe for threads by itself.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Collection, Iterable, Iterator

from seawall.errors import NotQueued
from seawall.outbox.memory.lanes import Lanes, Place
from seawall.outbox.record import Work

__all__ = ["Shelf"]

MOST_DROPPED_LISTED = 1_000


class Shelf:
    """Records in memory."""

    def __init__(self, most: int, most_bytes: int, *, drops: bool) -> None:
        self.most = most
        self.most_bytes = most_bytes
        self._drops = drops
        self.held: OrderedDict[str, Place] = OrderedDict()
        """Waiting or leased, longest held first."""
        self.dead: OrderedDict[str, Work] = OrderedDict()
        self.dropped_list: deque[Work] = deque(maxlen=MOST_DROPPED_LISTED)
        self.leased: dict[str, Place] = {}
        self.bytes = 0
        self.puts = self.done = self.dropped = self.purged = self.ran_out = 0
        self._lanes = Lanes()
        self._lines: dict[str, OrderedDict[int, Place]] = {}
        """For each order key its records, in their order; the first is in its lane, or leased."""
        self._arrivals = 0
        self._tokens = 0
        self._next_end_ns: int | None = None
        """No lease runs out before this."""

    # -- in --------------------------------------------------------------------------------------------------------

    def put(self, work: Work, due_ns: int) -> list[Work]:
        """Take a record in; returns those dropped for it. Raises `NotQueued`, and then nothing has changed."""
        if work.id in self.held or work.id in self.dead:
            return []
        dropped = self._make_room(len(work.payload))
        self._add(work, due_ns)
        self.puts += 1
        return dropped

    def _add(self, work: Work, due_ns: int) -> None:
        self._arrivals += 1
        place = self.held[work.id] = Place(work, self._arrivals, due_ns)
        self.bytes += len(work.payload)
        if work.order_key is None:
            self._lanes.add(place)
            return
        line = self._lines.setdefault(work.order_key, OrderedDict())
        line[place.arrival] = place
        if len(line) == 1:
            self._lanes.add(place)

    def _make_room(self, size: int) -> list[Work]:
        excess, excess_bytes = self._total + 1 - self.most, self.bytes + size - self.most_bytes
        if excess <= 0 and excess_bytes <= 0:
            return []
        if not self._drops:
            raise NotQueued(self._full(f"; {len(self.dead)} of them are dead letters" if self.dead else ""))
        victims: list[Work] = []
        candidates = self._oldest()
        while excess > 0 or excess_bytes > 0:
            victim = next(candidates, None)
            if victim is None:
                raise NotQueued(self._full(", and nothing may be dropped for it"))
            victims.append(victim)
            excess -= 1
            excess_bytes -= len(victim.payload)
        return [self._drop(victim) for victim in victims]

    @property
    def _total(self) -> int:
        return len(self.held) + len(self.dead)

    def _full(self, why: str) -> str:
        fill = f"{self._total} of {self.most} records, {self.bytes} of {self.most_bytes} bytes"
        return f"the backlog is full ({fill}{why})"

    def _oldest(self) -> Iterator[Work]:
        yield from self.dead.values()
        yield from (place.work for place in self.held.values() if place.until_ns is None)

    def _drop(self, victim: Work) -> Work:
        dead = self.dead.pop(victim.id, None)
        if dead is None:
            self._lose(self.held[victim.id])
        else:
            self.bytes -= len(dead.payload)
        self.dropped += 1
        trace = victim.replace(payload=b"", ended="backlog")
        self.dropped_list.append(trace)
        return trace

    # -- leases ----------------------------------------------------------------------------------------------------

    def lease(self, now_ns: int, n: int, ttl_ns: int, skip: Collection[str]) -> list[tuple[Work, int]]:
        """Up to `n` records that are due, each with the token of its lease."""
        self._expire(now_ns)
        leased: list[tuple[Work, int]] = []
        while len(leased) < n and (place := self._lanes.take(now_ns, skip)) is not None:
            self._tokens += 1
            place.token = self._tokens
            place.work = place.work.replace(attempts=place.work.attempts + 1)
            self.leased[place.work.id] = place
            self._extend(place, now_ns + ttl_ns)
            leased.append((place.work, place.token))
        return leased

    def _extend(self, place: Place, until_ns: int) -> None:
        place.until_ns = until_ns
        if self._next_end_ns is None or until_ns < self._next_end_ns:
            self._next_end_ns = until_ns

    def _expire(self, now_ns: int) -> None:
        if self._next_end_ns is None or now_ns < self._next_end_ns:
            return
        for place in list(self.leased.values()):
            if place.until_ns is not None and place.until_ns <= now_ns:
                self.ran_out += 1
                self._give_back(place, now_ns)
        ends = [place.until_ns for place in self.leased.values() if place.until_ns is not None]
        self._next_end_ns = min(ends, default=None)

    def next_ns(self, skip: Collection[str]) -> int | None:
        """When it is worth asking for a lease again, if nothing else happens before."""
        instants = (self._lanes.next_ns(skip), self._next_end_ns if self.leased else None)
        return min((instant for instant in instants if instant is not None), default=None)

    def _whose(self, key: str, token: int) -> Place | None:
        """The record, if no other lease of it was given out since `token`."""
        place = self.held.get(key)
        return place if place is not None and place.token == token else None

    def renew(self, key: str, token: int, until_ns: int) -> bool:
        place = self._whose(key, token)
        if place is None:
            return False
        if place.until_ns is None:
            # It ran out, and nobody has leased it since: take it out of its lane again.
            place = self._afresh(place)
            self.leased[key] = place
        self._extend(place, until_ns)
        return True

    def _afresh(self, place: Place) -> Place:
        """The same place out of its lane: the one in the lane is left behind as gone."""
        twin = Place(place.work, place.arrival, place.due_ns)
        twin.token = place.token
        self._lanes.lose(place)
        self.held[place.work.id] = twin
        if place.work.order_key is not None:
            self._lines[place.work.order_key][place.arrival] = twin
        return twin

    def _give_back(self, place: Place, due_ns: int) -> None:
        """leased -> waiting; the token stays good until the next lease."""
        self.leased.pop(place.work.id, None)
        place.until_ns = None
        place.due_ns = due_ns
        self._lanes.add(place)

    def ack(self, key: str, token: int) -> bool:
        place = self._whose(key, token)
        if place is None:
            return False
        self._lose(place)
        self.done += 1
        return True

    def again(self, key: str, token: int, due_ns: int, changes: dict[str, object]) -> bool:
        """leased -> waiting, with changes to the record."""
        place = self._whose(key, token)
        if place is None:
            return False
        if place.until_ns is None:
            place = self._afresh(place)
        place.work = place.work.replace(**changes)
        place.token = None
        self._give_back(place, due_ns)
        return True

    def bury(self, key: str, token: int, why: str, error: str) -> bool:
        place = self._whose(key, token)
        if place is None:
            return False
        self._lose(place)
        self.dead[key] = place.work.replace(ended=why, last_error=error)
        self.bytes += len(place.work.payload)
        return True

    def _lose(self, place: Place) -> None:
        """Out of everything that is held."""
        work = place.work
        del self.held[work.id]
        self.leased.pop(work.id, None)
        self.bytes -= len(work.payload)
        line = None if work.order_key is None else self._lines[work.order_key]
        was_first = line is None or next(iter(line)) == place.arrival
        if place.until_ns is None and was_first:
            self._lanes.lose(place)
        place.gone = True
        if line is None or work.order_key is None:
            return
        del line[place.arrival]
        if not line:
            del self._lines[work.order_key]
        elif was_first:
            self._lanes.add(next(iter(line.values())))

    # -- by hand ---------------------------------------------------------------------------------------------------

    def records(self, state: str) -> Iterable[Work]:
        """The records in a state, oldest first."""
        if state == "dead":
            return self.dead.values()
        if state == "dropped":
            return self.dropped_list
        leased = state == "leased"
        return (place.work for place in self.held.values() if (place.until_ns is not None) is leased)

    def replay(self, ids: Collection[str] | None, wall_ns: int, now_ns: int) -> int:
        """Dead letters are due again now, as if newly put."""
        chosen = [key for key in self.dead if ids is None or key in ids]
        for key in chosen:
            work = self.dead.pop(key)
            self.bytes -= len(work.payload)
            life_ns = work.expires_ns - work.created_ns
            times = {"created_ns": wall_ns, "due_ns": wall_ns, "expires_ns": wall_ns + life_ns}
            self._add(work.replace(attempts=0, ended="", **times), now_ns)
        return len(chosen)

    def purge(self, state: str, ids: Collection[str] | None) -> int:
        """Forget records that are not out on lease."""
        if state == "dropped":
            kept = [] if ids is None else [work for work in self.dropped_list if work.id not in ids]
            gone = len(self.dropped_list) - len(kept)
            self.dropped_list = deque(kept, MOST_DROPPED_LISTED)
            return gone
        chosen = [work.id for work in self.records(state) if ids is None or work.id in ids]
        for key in chosen:
            if state == "dead":
                self.bytes -= len(self.dead.pop(key).payload)
            else:
                self._lose(self.held[key])
        self.purged += len(chosen)
        return len(chosen)
