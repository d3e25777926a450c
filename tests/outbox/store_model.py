"""An open store beside a model of it: lists and numbers, searched anew each time. Any store may run it.

Steps are those of the contract, with leases that run out, stale tokens, order keys, priorities, full backlogs and clocks
that jump. After each of them

    ids put  =  ids done + dead + dropped + purged + held
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, ClassVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from seawall.errors import NotQueued
from seawall.outbox.record import Work
from seawall.outbox.store import Lease, OpenStore, Store
from seawall.runtime import clock
from seawall.runtime.blocking import BLOCKING, drive
from seawall.testing import VirtualClock
from tests.outbox.benches import HOUR, SECOND, make_work

__all__ = ["StoreModel"]

DELAYS = st.sampled_from([-HOUR, -1, 0, 0, 0, SECOND, 10 * SECOND, HOUR])
TTLS = st.sampled_from([1, SECOND, 10 * SECOND, HOUR])
SPANS = st.sampled_from([0.0, 0.5, 1.0, 10.0, 61.0, 3_600.0, 100_000.0])
ERRORS = st.sampled_from(["", "ConnectionError: refused"])


class Entry:
    """What the model knows of a record that is held."""

    def __init__(self, work: Work, arrival: int, due: int) -> None:
        self.work = work
        self.arrival = arrival
        self.due = due
        self.lease: Lease | None = None
        """The last one given out, until it is settled or another is given out."""
        self.until: int | None = None


class StoreModel(RuleBasedStateMachine):
    """Steps of both. Subclasses give `make_store`."""

    backlog: ClassVar[int] = 8
    drops: ClassVar[bool] = False
    civil: ClassVar[bool] = False
    """Whether the store's instants are of the civil clock, which jumps; else a jump moves nothing."""

    def make_store(self) -> Store:
        raise NotImplementedError

    def __init__(self) -> None:
        super().__init__()
        self.jump = 0
        self.time = VirtualClock(start="1000h")
        self.time.__enter__()
        self.restore = clock.install(clock.now_ns, clock.sleep_ns, self.wall)
        self.store = self.make_store()
        self.open: OpenStore = self.store.open(BLOCKING)
        self.held: dict[str, Entry] = {}
        self.dead: dict[str, Work] = {}
        self.dropped: list[str] = []
        self.put_ids: set[str] = set()
        self.done: set[str] = set()
        self.purged: set[str] = set()
        self.arrivals = 0
        self.stale: list[Lease] = []

    def teardown(self) -> None:
        self.restore()
        self.time.__exit__(None, None, None)

    def wall(self) -> int:
        return clock.EPOCH_NS + self.time.now_ns + self.jump

    @property
    def now(self) -> int:
        return self.wall() if self.civil else self.time.now_ns

    def instant(self, wall_ns: int) -> int:
        """The model's time of a civil instant, as of now."""
        return wall_ns if self.civil else self.time.now_ns + wall_ns - self.wall()

    # -- time ----------------------------------------------------------------------------------------------------------

    @rule(seconds=SPANS)
    def time_passes(self, seconds: float) -> None:
        self.time.advance(seconds)

    @rule(hours=st.sampled_from([-1, 1]))
    def the_civil_clock_jumps(self, hours: int) -> None:
        self.jump += hours * HOUR

    def _let_leases_run_out(self) -> None:
        for entry in self.held.values():
            if entry.until is not None and entry.until <= self.now:
                entry.due = self.now
                entry.until = None

    # -- in ------------------------------------------------------------------------------------------------------------

    @rule(
        delay=DELAYS,
        priority=st.sampled_from([0, 5, 5, 9]),
        order=st.sampled_from([None, None, "a", "b"]),
        operation=st.sampled_from(["mail", "audit"]),
        size=st.integers(0, 3),
    )
    def put(self, delay: int, priority: int, order: str | None, operation: str, size: int) -> None:
        due = self.wall() + delay
        work = make_work(due_ns=due, priority=priority, order_key=order, operation=operation, payload=b"x" * size)
        try:
            dropped = drive(self.open.put(work))
        except NotQueued:
            assert self._victim() is None and len(self.held) + len(self.dead) == self.backlog
            return
        self.put_ids.add(work.id)
        if len(self.held) + len(self.dead) == self.backlog:
            victim = self._victim()
            assert victim is not None, "a full store took a record in"
            assert [each.id for each in dropped] == [victim]
            self.held.pop(victim, None)
            self.dead.pop(victim, None)
            self.dropped.append(victim)
        else:
            assert not dropped
        self._add(work)

    def _add(self, work: Work) -> None:
        self.arrivals += 1
        self.held[work.id] = Entry(work, self.arrivals, self.instant(work.due_ns))

    def _victim(self) -> str | None:
        if not self.drops:
            return None
        waiting = sorted((entry.arrival, key) for key, entry in self.held.items() if entry.until is None)
        return next(iter(self.dead), None) or next((key for _, key in waiting), None)

    @precondition(lambda self: self.held)
    @rule(which=st.integers(0, 100))
    def put_again(self, which: int) -> None:
        entry = list(self.held.values())[which % len(self.held)]
        assert not drive(self.open.put(entry.work))

    # -- leases --------------------------------------------------------------------------------------------------------

    @rule(n=st.integers(1, 4), ttl=TTLS, skip=st.sampled_from([(), (), ("mail",), ("mail", "audit")]))
    def lease(self, n: int, ttl: int, skip: Collection[str]) -> None:
        leases, hint = drive(self.open.lease(n, ttl, skip))
        self._let_leases_run_out()
        for lease in leases:
            expected = self._next(skip)
            assert expected is not None and lease.work.id == expected.work.id
            if expected.lease is not None:
                self.stale.append(expected.lease)
            expected.work = expected.work.replace(attempts=expected.work.attempts + 1)
            expected.lease, expected.until = lease, self.now + ttl
            assert lease.work == expected.work
        if len(leases) < n:
            assert self._next(skip) is None
            instants = [entry.due for entry in self._in_line(skip)]
            instants += [entry.until for entry in self.held.values() if entry.until is not None]
            if not instants:
                assert hint is None
            else:
                assert hint is not None and 0 <= hint <= min(instants) - self.now

    def _in_line(self, skip: Collection[str]) -> list[Entry]:
        """Those that wait only for their time."""
        heads: dict[str, Entry] = {}
        for entry in sorted(self.held.values(), key=lambda entry: entry.arrival):
            if entry.work.order_key is not None:
                heads.setdefault(entry.work.order_key, entry)
        return [
            entry
            for entry in self.held.values()
            if entry.until is None
            and entry.work.operation not in skip
            and (entry.work.order_key is None or heads[entry.work.order_key] is entry)
        ]

    def _next(self, skip: Collection[str]) -> Entry | None:
        due = [entry for entry in self._in_line(skip) if entry.due <= self.now]
        return min(due, key=lambda entry: (-entry.work.priority, entry.due, entry.arrival), default=None)

    def _leased(self, which: int) -> Entry | None:
        """One whose last lease is not settled, be it run out or not."""
        entries = [entry for entry in self.held.values() if entry.lease is not None]
        return entries[which % len(entries)] if entries else None

    @rule(which=st.integers(0, 100))
    def ack(self, which: int) -> None:
        entry = self._leased(which)
        if entry is not None and entry.lease is not None:
            assert drive(self.open.ack(entry.lease))
            self.stale.append(entry.lease)
            del self.held[entry.work.id]
            self.done.add(entry.work.id)

    @rule(which=st.integers(0, 100), ttl=TTLS)
    def renew(self, which: int, ttl: int) -> None:
        entry = self._leased(which)
        if entry is not None and entry.lease is not None:
            assert drive(self.open.renew(entry.lease, ttl))
            entry.until = self.now + ttl

    @rule(which=st.integers(0, 100), delay=DELAYS, error=ERRORS, attempted=st.booleans())
    def again(self, which: int, delay: int, error: str, attempted: bool) -> None:
        entry = self._leased(which)
        if entry is None or entry.lease is None:
            return
        at = self.wall() + delay
        changes: dict[str, Any] = {"due_ns": at, "last_error": error}
        if attempted:
            assert drive(self.open.retry(entry.lease, at, error))
        else:
            assert drive(self.open.release(entry.lease, at, error or None))
            changes = {"due_ns": at, "attempts": entry.work.attempts - 1, **({"last_error": error} if error else {})}
        self.stale.append(entry.lease)
        entry.work = entry.work.replace(**changes)
        entry.lease = entry.until = None
        entry.due = self.instant(at)

    @rule(which=st.integers(0, 100), error=ERRORS)
    def bury(self, which: int, error: str) -> None:
        entry = self._leased(which)
        if entry is not None and entry.lease is not None:
            assert drive(self.open.bury(entry.lease, "final", error))
            self.stale.append(entry.lease)
            del self.held[entry.work.id]
            self.dead[entry.work.id] = entry.work.replace(ended="final", last_error=error)

    @precondition(lambda self: self.stale)
    @rule(which=st.integers(0, 100), end=st.sampled_from(["ack", "renew", "retry", "release", "bury"]))
    def a_stale_lease_changes_nothing(self, which: int, end: str) -> None:
        lease = self.stale[which % len(self.stale)]
        told = {
            "ack": lambda: self.open.ack(lease),
            "renew": lambda: self.open.renew(lease, SECOND),
            "retry": lambda: self.open.retry(lease, self.wall(), "stale"),
            "release": lambda: self.open.release(lease, self.wall(), "stale"),
            "bury": lambda: self.open.bury(lease, "final", "stale"),
        }[end]()
        assert drive(told) is False

    # -- by hand -------------------------------------------------------------------------------------------------------

    @rule(which=st.none() | st.integers(0, 100))
    def replay(self, which: int | None) -> None:
        chosen = list(self.dead) if which is None else list(self.dead)[which % 3 : which % 3 + 1]
        assert drive(self.open.replay(None if which is None else chosen)) == len(chosen)
        for key in chosen:
            work, now = self.dead.pop(key), self.wall()
            life = work.expires_ns - work.created_ns
            self._add(work.replace(attempts=0, ended="", created_ns=now, due_ns=now, expires_ns=now + life))

    @rule(which=st.integers(0, 100), dead=st.booleans())
    def purge(self, which: int, dead: bool) -> None:
        waiting = [key for key, entry in self.held.items() if entry.until is None]
        found = list(self.dead) if dead else waiting
        chosen = found[which % 4 : which % 4 + 1]
        # A lease that has run out unnoticed still counts as out.
        if drive(self.open.purge("dead" if dead else "waiting", chosen)) == len(chosen):
            for key in chosen:
                entry = self.held.pop(key, None)
                if entry is not None and entry.lease is not None:
                    self.stale.append(entry.lease)
                self.dead.pop(key, None)
                self.purged.add(key)
        else:
            raise AssertionError("what was chosen was not purged")

    # -- at every instant ----------------------------------------------------------------------------------------------

    @invariant()
    def every_id_is_in_one_place(self) -> None:
        waiting = {work.id for work in drive(self.open.page("waiting", limit=10_000))}
        leased = {work.id for work in drive(self.open.page("leased", limit=10_000))}
        dead = {work.id for work in drive(self.open.page("dead", limit=10_000))}
        assert waiting | leased == set(self.held) and not waiting & leased
        assert dead == set(self.dead)
        parts = [self.done, set(self.dead), set(self.dropped), self.purged, set(self.held)]
        assert set[str]().union(*parts) == self.put_ids
        assert sum(map(len, parts)) == len(self.put_ids), "one id in two places"
        for key, entry in self.held.items():
            assert drive(self.open.find(key)) == entry.work
        for key, work in self.dead.items():
            assert drive(self.open.find(key)) == work

    @invariant()
    def stats_agree(self) -> None:
        stats = drive(self.open.stats())
        assert stats.waiting + stats.leased == len(self.held)
        assert (stats.dead, stats.dropped) == (len(self.dead), len(self.dropped))
        assert len(self.held) + len(self.dead) <= self.backlog
