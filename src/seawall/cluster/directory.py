"""The members of a cluster now, and how they follow the list of endpoints.

An endpoint that leaves keeps what was learnt about it for a while: DNS answers flap, and a breaker that was open must
not be closed by that. An empty or failing answer of a source keeps the last good list. A source is asked by the first
call that finds it due, on a thread of its own; nobody waits for it but the very first callers, who have no list yet.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING

from seawall import events
from seawall.cluster.endpoint import Endpoint
from seawall.cluster.member import Member
from seawall.cluster.sources import Source
from seawall.context import CURRENT
from seawall.errors import DeadlineExceeded, NoEndpoints
from seawall.runtime import clock, forks
from seawall.runtime.jobs import Job, Workers
from seawall.units import duration_ns

if TYPE_CHECKING:
    from seawall.cluster.roster import Roster
    from seawall.policy import Policy
    from seawall.runtime.protocol import Runtime

__all__ = ["Directory"]

MOST_FORMER = 256
"""How many endpoints that have left are remembered."""


class Directory:
    """Members by address, in the order of the list."""

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
        self._job = None
        self._workers.renew()

    def member(self, address: str) -> Member:
        """Raises `KeyError` if there is none of that address now."""
        for member in self.members:
            if member.endpoint.address == address:
                return member
        known = ", ".join(str(member.endpoint) for member in self.members) or "none"
        raise KeyError(f"{self.name} has no endpoint {address}; it has {known}")

    # -- following the list ------------------------------------------------------------------------------------------

    def update(self, endpoints: tuple[Endpoint, ...]) -> bool:
        """Take a new list, and tell whether it changed anything; an empty one is refused, and the old one stays."""
        with self._lock:
            self.due_ns = None if self._source is None else clock.now_ns() + self._every_ns
            if not endpoints:
                self._problem("the list of endpoints is empty")
                return False
            self.last_problem = ""
            if [member.endpoint.__dict__ for member in self.members] == [each.__dict__ for each in endpoints]:
                return False
            before = {member.endpoint.address for member in self.members}
            self._replace(endpoints)
            after = {member.endpoint.address for member in self.members}
        for roster in self.rosters:
            roster.spoil()
        if events.sinks:
            added, removed = tuple(sorted(after - before)), tuple(sorted(before - after))
            events.emit(events.EndpointsChanged(policy=self.name, layer="endpoints", added=added, removed=removed))
        return True

    def _replace(self, endpoints: tuple[Endpoint, ...]) -> None:
        known = {member.endpoint.address: member for member in self.members}
        since = clock.now_ns() if self.members else None
        members: list[Member] = []
        for endpoint in endpoints:
            member = known.pop(endpoint.address, None) or self._former.pop(endpoint.address, None)
            if member is None:
                member = Member(endpoint, self._make_policy(endpoint), since)
            member.endpoint = endpoint  # its weight may be another now
            members.append(member)
        for address, member in known.items():
            self._former[address] = member
            while len(self._former) > MOST_FORMER:
                self._former.popitem(last=False)
        self.members = tuple(members)

    def _problem(self, what: str, error: Exception | None = None) -> None:
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
        with self._lock:
            if self._job is not None and not self._job.done:
                return self._job
            if self.due_ns is None or clock.now_ns() < self.due_ns:
                return None
            self.due_ns = clock.now_ns() + self._every_ns
            if clock.is_real():
                self._job = self._workers.submit(lambda: self.lookup(source))
                return self._job
        # In virtual time there are no threads: a test wants the answer in its own order.
        self.lookup(source)
        return None

    def lookup(self, source: Source | None = None) -> None:
        """Ask the source now, in this thread."""
        source = self._source if source is None else source
        if source is None:
            return
        try:
            endpoints = source.read()
        except Exception as error:  # noqa: BLE001  # whatever it is, the last good list stays
            with self._lock:
                self.due_ns = clock.now_ns() + self._every_ns
                self._problem(f"{type(error).__name__}: {error}"[:200], error)
            return
        self.update(endpoints)

    async def first_lookup(self, runtime: Runtime) -> None:
        """Wait for the very first list.

        Raises `NoEndpoints` if there is none, `DeadlineExceeded` if it takes too long.
        """
        job = self.begin_lookup()
        if job is not None and not self.members:
            parker = runtime.parker()
            job.on_end(parker.unpark)
            due = CURRENT.get().deadline_ns
            if not await parker.park(None if due is None else max(0, due - clock.now_ns())):
                raise DeadlineExceeded(
                    "the deadline passed while the endpoints were looked up", policy=self.name, inherited=True
                )
        if not self.members:
            why = self.last_problem or "the list of endpoints is empty"
            wait = max(0, (self.due_ns or 0) - clock.now_ns()) / 1e9
            raise NoEndpoints(f"no endpoints: {why}", policy=self.name, measured=0, threshold=1, retry_after=wait)
