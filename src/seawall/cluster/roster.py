"""Who may get the next attempt: the members of a cluster less those whose health speaks against them, by weight.

A roster keeps a `Crowd`, which is made anew when something changes: members come and go, are ejected or return, a
breaker opens, a ramp rises. In between a pick is a draw from it, without a lock. A cluster has one roster for each set
of ejection rules in use; each knows the health of every member by its own rules.

Panic: when fewer than half of the members are usable, health is ignored. Not so under strict rules.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from seawall import events
from seawall.cluster.member import Member, Seat
from seawall.errors import NoEndpoints
from seawall.machines.balance import Crowd, Random, RoundRobin
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
SECOND = 1_000_000_000
NO_PROBE = -1
"""No health is ever in this stay: an attempt made beside the probe decides nothing."""
MANY, DRAWS = 16, 3
"""From so many on, one that was not tried is found by drawing, as a rule, and not by looking at all."""


class Roster:
    """Picks seats, and takes note of how attempts ended."""

    def __init__(self, directory: Directory, balancer: Balancer, rules: Rules | None) -> None:
        self._directory = directory
        self._picker = balancer.picker()
        # In turn, those that follow a sick one would get all that fails there, and turns would fall in step with it.
        self._elsewhere = Random() if isinstance(self._picker, RoundRobin) else self._picker
        self._ramp_ns = duration_ns(balancer.slow_start, "slow_start")
        self._ejector = None if rules is None else Ejector(rules)
        self.strict = rules is not None and rules.strict
        self._lock = Section()
        self._healths: dict[Member, Health] = {}
        self._crowd: Crowd[Seat] = Crowd((), ())
        self._stale_ns: int | None = 0
        """When the crowd has to be looked at again; None while nothing can change by time alone."""
        self._spoiled = False
        """Whether something has changed since the latest look began."""
        self._again_ns: int | None = None
        """When one who is not in the crowd may be asked again, as far as that is known."""
        self._silent = 0
        self.panic = False
        self.ejections = 0
        forks.renew_after_fork(self)

    # -- picking ---------------------------------------------------------------------------------------------------

    def pick(self) -> Seat:
        """A seat for an attempt. Raises `NoEndpoints` if there is none."""
        stale = self._stale_ns
        if stale is not None and clock.now_ns() >= stale:
            probe = self._look_again()
            if probe is not None:
                return probe
        crowd = self._crowd
        if not crowd.size:
            raise self._nobody()
        return self._picker.pick(crowd, chance.random)

    def pick_other(self, taken: Container[Member], avoided: Container[Member] = ()) -> Seat | None:
        """A seat at none of the `taken` or `avoided`; None if there is none left."""
        crowd = self._present()
        for _ in range(DRAWS if crowd.size >= MANY else 0):
            seat = self._elsewhere.pick(crowd, chance.random)
            if seat.member not in taken and seat.member not in avoided:
                return seat
        rest = [
            (seat, weight)
            for seat, weight in zip(crowd.members, crowd.weights, strict=True)
            if seat.member not in taken and seat.member not in avoided
        ]
        if not rest:
            return None
        smaller = Crowd([seat for seat, _ in rest], [weight for _, weight in rest])
        return self._elsewhere.pick(smaller, chance.random)

    def has_other(self, taken: Container[Member]) -> bool:
        """Whether one may be picked that is none of the `taken`."""
        return any(seat.member not in taken for seat in self._present().members)

    def seats(self) -> Iterator[Seat]:
        """A seat at every member, whatever its health."""
        self._present()  # a member that is new gets its health
        for member in self._directory.members:
            yield Seat(self, member, self._stay_of(member))

    @property
    def size(self) -> int:
        """How many may be picked now."""
        return self._present().size

    def spoil(self) -> None:
        """Something has changed: look again before the next pick."""
        self._spoiled = True  # first: a look that is under way may have missed it
        self._stale_ns = 0

    # -- the crowd -------------------------------------------------------------------------------------------------

    def _present(self) -> Crowd[Seat]:
        """The crowd as it is now."""
        stale = self._stale_ns
        if stale is not None and clock.now_ns() >= stale:
            self._look_again(probe=False)
        return self._crowd

    def _look_again(self, *, probe: bool = True) -> Seat | None:
        """Make the crowd anew; returns a seat if this attempt is to be a probe."""
        with self._lock:
            now = clock.now_ns()
            stale = self._stale_ns
            if stale is None or now < stale:
                return None  # another thread was quicker
            self._spoiled = False  # whatever changes from here on is for the next look
            members = self._directory.members
            self._follow(members)
            taken = self._take_probe(members, now) if probe else None
            usable = self._usable(members, now)
            self.panic = not self.strict and 2 * len(usable) < len(members)
            changes = self._fill(members if self.panic else usable, now) or len(usable) < len(members)
            soon = now + LOOK_AGAIN_NS
            self._stale_ns = None if not changes else soon if self._again_ns is None else min(soon, self._again_ns)
            if self._spoiled:
                self._stale_ns = 0
        return taken

    def _usable(self, members: tuple[Member, ...], now: int) -> list[Member]:
        """Those whose health allows an attempt; notes when the first of the others will be due for one."""
        usable: list[Member] = []
        whens: list[int] = []
        self._silent = 0
        for member in members:
            health = self._healths.get(member)
            well = health is None or health.standing is Standing.IN
            if not member.look() and well:
                usable.append(member)
                continue
            self._silent += not well
            when = _due(member, health, now)
            if when is not None:
                whens.append(when)
        self._again_ns = min(whens, default=None)
        return usable

    def _fill(self, members: Sequence[Member], now: int) -> bool:
        """Put them into the crowd; tells whether the weight of one will change by time alone."""
        parts = [share(now, self._began(member), self._ramp_ns) for member in members]
        seats = [Seat(self, member, self._stay_of(member)) for member in members]
        self._crowd = Crowd(seats, [member.endpoint.weight * part for member, part in zip(members, parts, strict=True)])
        return any(part < WHOLE for part in parts)

    def _stay_of(self, member: Member) -> int | None:
        """The stay that an attempt begins in which is not its probe."""
        health = self._healths.get(member)
        if health is None:
            return None
        return NO_PROBE if health.standing is Standing.PROBING else health.stay

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
                    self._directory.introduce(self, member, health)
                self._healths[member] = health
                ejector.remember(health)

    def _take_probe(self, members: tuple[Member, ...], now: int) -> Seat | None:
        """A probe that is due, where no breaker would refuse it."""
        ejector = self._ejector
        if ejector is None or not ejector.out:
            return None
        for member in members:
            health = self._healths[member]
            if ejector.probe_due(health, now) and not member.refuses:
                return Seat(self, member, ejector.take_probe(health, now))
        return None

    def _began(self, member: Member) -> int | None:
        health = self._healths.get(member)
        returned = None if health is None else health.returned_ns
        if returned is None or member.since_ns is None:
            return member.since_ns if returned is None else returned
        return max(returned, member.since_ns)

    def _nobody(self) -> NoEndpoints:
        """Why there is nobody to ask, and how long that will last."""
        count, again = len(self._directory.members), self._again_ns
        why = f"all {count} endpoints are silent" if 0 < count == self._silent else "no endpoint may be tried now"
        wait = 1.0 if again is None else max(0, again - clock.now_ns()) / 1e9
        return NoEndpoints(why, policy=self._directory.name, measured=0, threshold=1, retry_after=wait)

    # -- how attempts ended ------------------------------------------------------------------------------------------

    def ended(self, seat: Seat, health: Health, verdict: Verdict, now_ns: int) -> None:
        """Note how an attempt ended: a success without a lock where it changes nothing but a count.

        A seat that another roster gave out does not know this one's stay. It counts for the present one, but it is
        nobody's probe.
        """
        stay = seat.stay if seat.roster is self else None
        if stay is None:
            stay = health.stay  # before its standing: a change in between is a new stay
            if health.standing is not Standing.IN:
                return
        if verdict is Verdict.OK and now_ns < health.edge_ns and stay == health.stay:
            next(health.ticks)
        else:
            self._settle(seat.member, health, stay, verdict, now_ns)

    def _settle(self, member: Member, health: Health, stay: int, verdict: Verdict, now_ns: int) -> None:
        if self._lock.put_off(lambda: self._settle(member, health, stay, verdict, now_ns)):
            return
        change = None
        with self._lock:
            stayed = health.stay
            if self._ejector is not None:
                # That of a member that has left says nothing, but a probe has ended.
                known = member.there and self._healths.get(member) is health
                counts = verdict if known else Verdict.IGNORE
                change = self._ejector.settle(health, stay, counts, now_ns, chance.random())
            if change is not None:
                self.ejections += change.out_ns is not None
            if health.stay != stayed:  # ejected, back, or a probe that said nothing
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


def _due(member: Member, health: Health | None, now: int) -> int | None:
    """When a member that is not usable may be asked again; None if that cannot be known."""
    when = now
    if health is not None and health.standing is Standing.OUT:
        when = health.until_ns
    elif health is not None and health.standing is Standing.PROBING:
        when = min(health.lease_until_ns, now + SECOND)  # the probe may end at any time
    if not member.shunned:
        return when
    wait = member.retry_after
    return None if wait is None else max(when, now + round(wait * 1e9))
