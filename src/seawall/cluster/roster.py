"""Who may get the next attempt: the members of a cluster less those whose health speaks against them, by weight.

A roster keeps a `Crowd`, which is made anew when something changes: members come and go, are ejected or return, a
breaker opens, a ramp rises. In between a pick is a draw from it, without a lock. A cluster has one roster for each set
of ejection rules in use; each knows the health of every member by its own rules.

Panic: when fewer than half of the members are usable, health is ignored. Not so under strict rules.
"""

from __future__ import annotations

from collections.abc import Container, Iterator
from typing import TYPE_CHECKING, Any

from seawall import events
from seawall.cluster.member import Member, Seat
from seawall.errors import NoEndpoints
from seawall.machines.balance import Crowd
from seawall.machines.ejection import Change, Ejector, Health, Rules, Standing
from seawall.machines.slow_start import WHOLE, share
from seawall.machines.verdict import Verdict
from seawall.runtime import chance, clock, forks
from seawall.runtime.section import Section
from seawall.units import duration_ns

if TYPE_CHECKING:
    from seawall.cluster.balancers import Balancer
    from seawall.cluster.directory import Directory

__all__ = ["Roster"]

LOOK_AGAIN_NS = 100_000_000
"""How old a crowd may get while somebody in it is out, refuses or ramps up."""


class Roster:
    """Picks seats, and takes note of how attempts ended."""

    def __init__(self, directory: Directory, balancer: Balancer, rules: Rules | None) -> None:
        self._directory = directory
        self._picker = balancer.picker()
        self._ramp_ns = duration_ns(balancer.slow_start, "slow_start")
        self._ejector = None if rules is None else Ejector(rules)
        self.strict = rules is not None and rules.strict
        self._lock = Section()
        self._healths: dict[Member, Health] = {}
        self._crowd: Crowd[Seat] = Crowd((), ())
        self._stale_ns: int | None = 0
        """When the crowd has to be looked at again; None while nothing can change by time alone."""
        self.panic = False
        self.ejections = 0
        forks.renew_after_fork(self)

    # -- picking ---------------------------------------------------------------------------------------------------

    def pick(self) -> Seat:
        """A seat for an attempt. Raises `NoEndpoints` if there is none."""
        if self._stale_ns is not None and clock.now_ns() >= self._stale_ns:
            probe = self._look_again()
            if probe is not None:
                return probe
        crowd = self._crowd
        if not crowd.size:
            raise self._nobody()
        return self._picker.pick(crowd, chance.random)

    def pick_other(self, taken: Container[Member], avoided: Container[Member] = ()) -> Seat | None:
        """A seat at none of the `taken` or `avoided`; None if there is none left."""
        if self._stale_ns is not None and clock.now_ns() >= self._stale_ns:
            self._look_again(probe=False)
        rest = [
            (seat, weight)
            for seat, weight in zip(self._crowd.members, self._crowd.weights, strict=True)
            if seat.member not in taken and seat.member not in avoided
        ]
        if not rest:
            return None
        smaller = Crowd([seat for seat, _ in rest], [weight for _, weight in rest])
        return self._picker.pick(smaller, chance.random)

    def has_other(self, taken: Container[Member]) -> bool:
        """Whether one may be picked that is none of the `taken`."""
        return any(seat.member not in taken for seat in self._crowd.members)

    def seats(self) -> Iterator[Seat]:
        """A seat at every member, whatever its health."""
        for member in self._directory.members:
            health = self._healths.get(member)
            yield Seat(self, member, -1 if health is None else health.stay)

    @property
    def size(self) -> int:
        """How many may be picked now."""
        return self._crowd.size

    def spoil(self) -> None:
        """Something has changed: look again before the next pick."""
        self._stale_ns = 0

    # -- the crowd -------------------------------------------------------------------------------------------------

    def _look_again(self, *, probe: bool = True) -> Seat | None:
        """Make the crowd anew; returns a seat if this attempt is to be a probe."""
        taken: Seat | None = None
        with self._lock:
            now = clock.now_ns()
            members = self._directory.members
            self._follow(members)
            usable: list[Member] = []
            unusual = False
            for member in members:
                health = self._healths.get(member)
                if health is not None and health.standing is not Standing.IN:
                    unusual = True
                    if probe and taken is None:
                        taken = self._probe(member, health, now)
                elif member.look() is False:
                    usable.append(member)
            self.panic = not self.strict and 2 * len(usable) < len(members)
            chosen = members if self.panic else usable
            seats: list[Seat] = []
            weights: list[int] = []
            for member in chosen:
                part = share(now, self._began(member), self._ramp_ns)
                unusual = unusual or part < WHOLE
                health = self._healths.get(member)
                seats.append(Seat(self, member, -1 if health is None else health.stay))
                weights.append(member.endpoint.weight * part)
            unusual = unusual or len(usable) < len(members)
            self._crowd = Crowd(seats, weights)
            self._stale_ns = now + LOOK_AGAIN_NS if unusual else None
            if taken is not None:
                self._stale_ns = 0  # others may have a probe due as well
        return taken

    def _follow(self, members: tuple[Member, ...]) -> None:
        """Keep the healths in step with the members."""
        ejector = self._ejector
        if ejector is None or (ejector.size == len(members) and all(member in self._healths for member in members)):
            return
        ejector.size = len(members)
        gone = self._healths.keys() - set(members)
        for member in gone:
            ejector.forget(self._healths.pop(member))
        for member in members:
            if member not in self._healths:
                known = [health for roster, health in member.healths if roster is self]
                health = known[0] if known else Health(ejector.rules)
                if not known:
                    member.healths = (*member.healths, (self, health))
                self._healths[member] = health
                ejector.remember(health)

    def _probe(self, member: Member, health: Health, now: int) -> Seat | None:
        stay = None if self._ejector is None else self._ejector.take_probe(health, now)
        return None if stay is None else Seat(self, member, stay)

    def _began(self, member: Member) -> int | None:
        health = self._healths.get(member)
        returned = None if health is None else health.returned_ns
        if returned is None or member.since_ns is None:
            return member.since_ns if returned is None else returned
        return max(returned, member.since_ns)

    def _nobody(self) -> NoEndpoints:
        """Why there is nobody to ask, and how long that will last."""
        members, now = self._directory.members, clock.now_ns()
        silent = 0
        waits: list[float | None] = []
        for member in members:
            health = self._healths.get(member)
            if health is None or health.standing is Standing.IN:
                waits.append(member.retry_after)
                continue
            silent += 1
            if health.standing is Standing.OUT:
                waits.append(max(0, health.until_ns - now) / 1e9)
        why = f"all {len(members)} endpoints are silent" if silent == len(members) else "no endpoint may be tried now"
        known = [wait for wait in waits if wait is not None]
        return NoEndpoints(
            why, policy=self._directory.name, measured=0, threshold=1, retry_after=min(known) if known else 1.0
        )

    # -- how attempts ended ------------------------------------------------------------------------------------------

    def ended(self, seat: Seat, health: Health, verdict: Verdict, now_ns: int) -> None:
        """Note how an attempt ended: a success without a lock where it changes nothing but a count.

        A seat that another roster gave out does not know this one's stay, and counts for the present one.
        """
        stay = health.stay if seat.stay < 0 or seat.roster is not self else seat.stay
        if verdict is Verdict.OK and now_ns < health.edge_ns and stay == health.stay:
            next(health.ticks)
        else:
            self._settle(seat.member, health, stay, verdict, now_ns)

    def _settle(self, member: Member, health: Health, stay: int, verdict: Verdict, now_ns: int) -> None:
        if self._lock.put_off(lambda: self._settle(member, health, stay, verdict, now_ns)):
            return
        change = None
        with self._lock:
            # A member that has left meanwhile must not be counted among those who are out.
            if self._ejector is not None and self._healths.get(member) is health:
                change = self._ejector.settle(health, stay, verdict, now_ns, chance.random())
            if change is not None:
                self.ejections += change.out_ns is not None
                self.spoil()
        if change is not None and events.sinks:
            self._announce(str(member.endpoint), change)

    def _announce(self, address: str, change: Change) -> None:
        name = self._directory.name
        if change.out_ns is None:
            events.emit(events.EndpointReturned(policy=name, layer="ejection", endpoint=address))
        else:
            out_for = change.out_ns / 1e9
            events.emit(
                events.EndpointEjected(policy=name, layer="ejection", endpoint=address, why=change.why, out_for=out_for)
            )

    # -- looking ---------------------------------------------------------------------------------------------------

    def standing(self, member: Member) -> dict[str, Any]:
        """What this roster knows of a member, as JSON-ready values."""
        health = self._healths.get(member)
        if health is None:
            return {"standing": "in", "retry_after": None}
        left = max(0, health.until_ns - clock.now_ns()) / 1e9 if health.standing is Standing.OUT else None
        return {"standing": health.standing.value, "retry_after": left}

    def renew_after_fork(self) -> None:
        if self._lock.held_by_another():
            # Some thread was in the middle of a change that nobody will ever finish: begin with a clean record.
            self._healths = {}
            if self._ejector is not None:
                self._ejector = Ejector(self._ejector.rules)
            for member in self._directory.members:
                member.healths = tuple(entry for entry in member.healths if entry[0] is not self)
        self._lock = Section()
        self.spoil()
