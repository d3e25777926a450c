"""The members of a cluster now, and how they follow the list of endpoints.

An endpoint that leaves keeps what was learnt about it for a while: DNS answers flap, and a breaker that was open must
not be closed by that. An empty or failing answer of a source keeps the last good list. A source is asked by the first
call that finds it due, on a thread of its own; nobody waits for it but the very first callers, who have no list yet.
A source that does not answer in time is not asked again until it has; that it is late is told as a failure.
"""

from __future__ import annotations

import itertools
import threading
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from seawall import events
from seawall.cluster.endpoint import Endpoint, endpoints_of
from seawall.cluster.member import Member
from seawall.cluster.sources import Source
from seawall.context import CURRENT
from seawall.errors import DeadlineExceeded, NoEndpoints
from seawall.runtime import clock, forks
from seawall.runtime.jobs import Job, Workers
from seawall.units import duration_ns, show_seconds

if TYPE_CHECKING:
    from seawall.cluster.roster import Roster
    from seawall.machines.ejection import Health
    from seawall.policy import Policy
    from seawall.runtime.protocol import Parker, Runtime

__all__ = ["Directory"]

SOON_NS = 1_000_000_000
"""How soon a source is asked again that has never given a list."""
MOST_FORMER = 256
"""How many endpoints that have left are remembered."""


class Directory:
    """Members, in the order of the list that brought them; another order alone is no change."""

    def __init__(
        self, name: str, endpoints: tuple[Endpoint, ...] | Source, make_policy: Callable[[Endpoint], Policy]
    ) -> None:
        self.name = name
        self._make_policy = make_policy
        self.rosters: list[Roster] = []
        self.members: tuple[Member, ...] = ()
        self._former: OrderedDict[str, Member] = OrderedDict()
        self._lock = threading.RLock()
        self._source: Source | None = None
        self._every_ns = 0
        self.due_ns: int | None = None
        """When the source is asked next; None for a fixed list."""
        self._job: Job | None = None
        self._asked_ns = 0
        """When the look-up that `_job` makes was begun."""
        self._waiting: dict[Parker, None] = {}
        """Callers without any list, who wait for that job."""
        self._numbers = itertools.count(1)
        self._latest = 0
        """The number of the look-up that was answered last: an answer to an earlier one comes too late."""
        self._workers = Workers(f"seawall {name} endpoints")
        self.failed_lookups = 0
        self.last_problem = ""
        if isinstance(endpoints, tuple):
            self._replace(endpoints)
        else:
            self._source = endpoints
            self._every_ns = duration_ns(endpoints.every, "every", zero=False)
            self.due_ns = 0
        forks.renew_after_fork(self)

    def renew_after_fork(self) -> None:
        self._lock = threading.RLock()
        self._waiting = {}
        if self._job is not None and not self._job.done:
            self.due_ns = 0  # its thread is not here
        self._job = None
        self._workers.renew()
        for member in (*self.members, *self._former.values()):
            member.flying = deque()  # nor are the attempts of other threads

    def member(self, address: str) -> Member:
        """Raises `KeyError` if there is none of that address now."""
        for member in self.members:
            if member.endpoint.address == address:
                return member
        known = ", ".join(str(member.endpoint) for member in self.members) or "none"
        raise KeyError(f"{self.name} has no endpoint {address}; it has {known}")

    # -- following the list ------------------------------------------------------------------------------------------

    def update(self, endpoints: tuple[Endpoint, ...], number: int | None = None) -> bool:
        """Take a new list, and tell whether it changed anything; an empty one is refused, and the old one stays.

        `number` is that of the look-up it answers.
        """
        if not endpoints:
            self._problem("the list of endpoints is empty")
            return False
        with self._lock:
            if number is not None and number < self._latest:
                return False
            self._latest = max(self._latest, number or 0)
            self._put_off()
            self.last_problem = ""
            before = {member.endpoint.address: member.endpoint.__dict__ for member in self.members}
            after = {endpoint.address: endpoint.__dict__ for endpoint in endpoints}
            if before == after:
                return False
            self._replace(endpoints)
        for roster in self.rosters:
            roster.spoil()
        if events.sinks:
            added = tuple(sorted(after.keys() - before.keys()))
            removed = tuple(sorted(before.keys() - after.keys()))
            events.emit(events.EndpointsChanged(policy=self.name, layer="endpoints", added=added, removed=removed))
        return True

    def _replace(self, endpoints: tuple[Endpoint, ...]) -> None:
        known = {member.endpoint.address: member for member in self.members}
        since = clock.now_ns() if self.members else None
        members: list[Member] = []
        for endpoint in endpoints:
            member = known.get(endpoint.address) or self._former.get(endpoint.address)
            members.append(member or Member(endpoint, self._make_policy(endpoint), since))
        # From here on nothing can fail half-way.
        for member, endpoint in zip(members, endpoints, strict=True):
            member.endpoint = endpoint  # its weight may be another now
            member.there = True
            known.pop(endpoint.address, None)
            self._former.pop(endpoint.address, None)
        for address, member in known.items():
            member.there = False
            self._former[address] = member
            while len(self._former) > MOST_FORMER:
                self._former.popitem(last=False)
        self.members = tuple(members)

    def introduce(self, roster: Roster, member: Member, health: Health) -> None:
        """Have the attempts at a member told to `roster` as well."""
        with self._lock:  # two rosters may do so at once
            member.healths = (*member.healths, (roster, health))

    def _put_off(self) -> None:
        if self._source is not None:
            self.due_ns = clock.now_ns() + self._every_ns

    def _problem(self, what: str, error: Exception | None = None) -> None:
        with self._lock:
            self._put_off()
            if not self.members and self.due_ns is not None:
                # Nothing works without a list: ask again soon.
                self.due_ns = min(self.due_ns, clock.now_ns() + SOON_NS)
            self.failed_lookups += 1
            self.last_problem = what
        if events.sinks:
            events.emit(events.LookupFailed(policy=self.name, layer="endpoints", reason=what, error=error))

    # -- asking a source -------------------------------------------------------------------------------------------

    def begin_lookup(self) -> Job | None:
        """Ask the source if it is due and nobody does; returns the job that asks now, if there is one."""
        source = self._source
        if source is None:
            return None
        late, refusal = 0, None
        with self._lock:
            job = self._job if self._job is not None and not self._job.done else None
            now = clock.now_ns()
            if self.due_ns is None or now < self.due_ns:
                return job
            self.due_ns = now + self._every_ns
            if job is not None:
                late = now - self._asked_ns
            elif clock.is_real():
                try:
                    job = self._workers.submit(lambda: self.lookup(source))
                except RuntimeError as error:  # the system has no more threads
                    refusal = error
                else:
                    self._job, self._asked_ns = job, now
                    job.on_end(self._wake)
        if late:
            self._problem(f"the source has not answered for {show_seconds(late)}")
        elif refusal is not None:
            self._problem(_said(refusal), refusal)
        elif job is None:
            # In virtual time there are no threads: a test wants the answer in its own order.
            self.lookup(source)
        return job

    def lookup(self, source: Source | None = None) -> None:
        """Ask the source now, in this thread."""
        source = self._source if source is None else source
        if source is None:
            return
        number = next(self._numbers)
        try:
            endpoints = endpoints_of(source.read(), "the list of endpoints")
        except BaseException as error:  # whatever it is, the last good list stays
            self._problem(_said(error), error if isinstance(error, Exception) else None)
            if not isinstance(error, Exception):
                raise
            return
        self.update(endpoints, number)

    def _wake(self) -> None:
        for parker in tuple(self._waiting):
            if self._waiting.pop(parker, parker) is None:
                parker.unpark()

    async def first_lookup(self, runtime: Runtime) -> None:
        """Wait for the very first list.

        Raises `NoEndpoints` if there is none, `DeadlineExceeded` if it takes too long.
        """
        job = self.begin_lookup()
        if job is not None and not self.members:
            await self._wait_for(job, runtime)
        if not self.members:
            why = self.last_problem or "the list of endpoints is empty"
            wait = max(0, (self.due_ns or 0) - clock.now_ns()) / 1e9
            raise NoEndpoints(f"no endpoints: {why}", policy=self.name, measured=0, threshold=1, retry_after=wait)

    async def _wait_for(self, job: Job, runtime: Runtime) -> None:
        parker, due = runtime.parker(), CURRENT.get().deadline_ns
        self._waiting[parker] = None
        try:
            # It may have ended, and woken all who waited, before this one was among them.
            if job.done or await parker.park(None if due is None else max(0, due - clock.now_ns())):
                return
        finally:
            self._waiting.pop(parker, None)
        late = "the deadline passed while the endpoints were looked up"
        raise DeadlineExceeded(late, policy=self.name, inherited=True)


def _said(error: BaseException) -> str:
    """An error in one line."""
    try:
        text = f"{type(error).__name__}: {error}"
    except Exception:  # noqa: BLE001  # its own text is broken
        text = type(error).__name__
    return " ".join(text[:200].split())
