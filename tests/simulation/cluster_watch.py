"""What must hold in a simulated cluster: while it runs, when a call ends, and once it has come to rest."""

from __future__ import annotations

from collections.abc import Container
from contextvars import ContextVar
from typing import Any

from seawall import Bulkhead, Cluster, RetryBudget, events
from seawall.cluster.member import Member, Seat
from seawall.cluster.roster import Roster
from seawall.machines.ejection import Health, Standing
from seawall.machines.verdict import Verdict
from tests.simulation.replicas import Network

__all__ = ["CALL", "Call", "Watch", "budget_held"]


class Call:
    """One call of a user, and what is seen of it on its way."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.picked: dict[str, None] = {}
        """Whom the cluster has chosen for it."""
        self.attempts: list[tuple[str, int, int]] = []
        """Address, number and instant of each call of the function."""
        self.running = 0
        self.answered_ns: list[int] = []
        """When an attempt had an answer."""


CALL: ContextVar[Call] = ContextVar("call")


class Watch:
    """Looks at one cluster: at every choice and every end of an attempt, and at all of it when nobody can run."""

    def __init__(self, cluster: Cluster[Any], network: Network, now: Any) -> None:
        self._directory = cluster._core.directory
        self._network = network
        self._now = now
        self.members: dict[Member, None] = {}
        """All that ever were."""
        self.ejected: dict[Roster, int] = {}
        self._probes: dict[Seat, Health] = {}
        self.steps = self.probes = 0
        self.broken = ""

    def follow(self) -> None:
        """Members and rosters may be new."""
        self.members.update(dict.fromkeys(self._directory.members))
        for roster in self._directory.rosters:
            if roster not in self.ejected:
                self.ejected[roster] = 0
                self._spy_on(roster)

    def _spy_on(self, roster: Roster) -> None:
        pick, pick_other, ended = roster.pick, roster.pick_other, roster.ended

        def picked() -> Seat:
            seat = pick()
            self._note_probe(roster, seat)
            CALL.get().picked[str(seat.endpoint)] = None
            return seat

        def picked_other(taken: Container[Member], avoided: Container[Member] = ()) -> Seat | None:
            seat, call = pick_other(taken, avoided), CALL.get()
            if seat is not None:
                if str(seat.endpoint) in call.picked:
                    untried = [str(each.endpoint) for each in roster._crowd.members]
                    left = [address for address in untried if address not in call.picked]
                    assert not left, f"call {call.number}: {seat.endpoint} is tried again while {left} are left"
                call.picked[str(seat.endpoint)] = None
            return seat

        def has_ended(seat: Seat, health: Health, verdict: Verdict, now_ns: int) -> None:
            self._probes.pop(seat, None)
            ended(seat, health, verdict, now_ns)

        for name, spy in (("pick", picked), ("pick_other", picked_other), ("ended", has_ended)):
            setattr(roster, name, spy)

    def _note_probe(self, roster: Roster, seat: Seat) -> None:
        health = roster._healths.get(seat.member)
        if health is None or health.standing is not Standing.PROBING or seat.stay != health.stay:
            return
        self.probes += 1
        beside = [other for other, known in self._probes.items() if known is health and other.stay == seat.stay]
        assert not beside, f"{seat.endpoint}: a second probe beside the first"
        self._probes[seat] = health

    def take_event(self, event: events.Event) -> None:
        """After an ejection: were so many allowed? What a listener raises goes no further, so it is told later."""
        if not isinstance(event, events.EndpointEjected):
            return
        for roster, before in self.ejected.items():
            ejector = roster._ejector
            if ejector is None or roster.ejections == before:
                continue
            self.ejected[roster] = roster.ejections
            most = ejector.size if roster.strict else max(1, ejector.size // 2) if ejector.size > 1 else 0
            # One that was out before the list shrank may be ejected again by its probe.
            if ejector.out > most and event.why != "its probe failed":
                self.broken = self.broken or f"{ejector.out} of {ejector.size} are ejected, {most} may be: {event}"

    def look(self) -> None:
        """When nobody can run before time passes: what is in flight really runs, or waits at its guard."""
        self.steps += 1
        assert not self.broken, self.broken
        replicas = self._network.replicas
        for member in self.members:
            flying = len(member.flying)
            if flying or replicas[member.endpoint.address].running:
                running, waiting = replicas[member.endpoint.address].running, _waiting(member)
                assert flying == running + waiting, f"{member}: {flying} in flight, {running} run, {waiting} wait"

    def at_rest(self) -> None:
        """Nothing is in flight, and no probe is out that nobody makes."""
        assert not self.broken, self.broken
        for member in self.members:
            assert not member.flying, f"{member}: {len(member.flying)} in flight"
        assert not self._probes, f"probes are lost: {[str(seat.endpoint) for seat in self._probes]}"
        for roster in self.ejected:
            for member, health in roster._healths.items():
                assert health.standing is not Standing.PROBING, f"{member} is being probed by nobody"


def _waiting(member: Member) -> int:
    try:
        return int(member.policy[Bulkhead].waiting)
    except KeyError:
        return 0


def budget_held(budget: RetryBudget, extra: list[float], calls: int, slack: float) -> None:
    """Extra attempts at these times keep to the budget; each may begin `slack` seconds after it was granted."""
    span = float(budget.window)
    most = budget.share * calls + budget.per_second * span
    for first, start in enumerate(extra):
        within = sum(time - start < 0.9 * span - slack for time in extra[first:])
        assert within <= most, f"{within} extra attempts in {span} s, for {calls} calls"
