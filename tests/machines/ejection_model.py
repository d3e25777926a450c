"""Ejection as SEMANTICS puts it: every outcome of a stay is kept in a list, and shares are fractions.

It shares nothing with the machine but the names of standings. Slow on purpose.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction

from seawall.machines.ejection import Rules
from seawall.machines.verdict import Verdict

__all__ = ["Attempt", "EjectionModel", "Replica"]

IN, OUT, PROBING = "in", "out", "probing"


@dataclass(eq=False)
class Stay:
    """What happened to a replica between two changes of its standing."""

    standing: str
    until_ns: int = 0
    """When it may be probed, or the probe is given up."""
    outcomes: list[tuple[int, bool]] = field(default_factory=list)
    """When, by the latest time seen, and whether it failed."""
    row: int = 0
    returned_ns: int | None = None


@dataclass(eq=False)
class Replica:
    """One of them."""

    stay: Stay = field(default_factory=lambda: Stay(IN))
    latest_ns: int = 0
    times: int = 0
    there: bool = True

    @property
    def standing(self) -> str:
        return self.stay.standing


@dataclass(eq=False)
class Attempt:
    """What the model knows of an attempt: the stay in which it began."""

    replica: Replica
    stay: Stay | None


@dataclass
class EjectionModel:
    """All replicas of a cluster. Steps return what changed: None, "ejected" or "returned"."""

    rules: Rules
    replicas: list[Replica] = field(default_factory=list)

    def members(self) -> list[Replica]:
        return [replica for replica in self.replicas if replica.there]

    def out(self) -> list[Replica]:
        return [replica for replica in self.members() if replica.standing != IN]

    def allowed(self) -> float:
        size = len(self.members())
        if self.rules.strict:
            return float("inf")
        return 0 if size == 1 else max(1, size // 2)

    # -- probes ----------------------------------------------------------------------------------------------------

    def due(self, replica: Replica, now_ns: int) -> bool:
        return replica.standing != IN and now_ns >= replica.stay.until_ns

    def take_probe(self, replica: Replica, now_ns: int) -> Attempt | None:
        if not self.due(replica, now_ns):
            return None
        replica.stay = Stay(PROBING, now_ns + self.rules.probe_lease_ns)
        return Attempt(replica, replica.stay)

    # -- ends ------------------------------------------------------------------------------------------------------

    def window(self, replica: Replica) -> list[bool]:
        length = -(-self.rules.window_ns // 10)
        oldest = replica.latest_ns // length - 9
        return [failed for at_ns, failed in replica.stay.outcomes if at_ns // length >= oldest]

    def settle(self, attempt: Attempt, verdict: Verdict, now_ns: int) -> str | None:
        replica = attempt.replica
        replica.latest_ns = max(replica.latest_ns, now_ns)
        stay = replica.stay
        if attempt.stay is not stay or stay.standing == OUT:
            return None
        if stay.standing == PROBING:
            return self.settle_probe(replica, verdict, now_ns)
        if verdict is Verdict.IGNORE:
            return None
        failed = verdict is Verdict.FAIL
        stay.outcomes.append((replica.latest_ns, failed))
        stay.row = stay.row + 1 if failed else 0
        if not failed or not self.too_sick(replica) or len(self.out()) >= self.allowed():
            return None
        if stay.returned_ns is not None:
            healthy = max(0, now_ns - stay.returned_ns) // self.rules.base_ns
            replica.times = max(0, replica.times - healthy)
        replica.times += 1
        return self.eject(replica)

    def settle_probe(self, replica: Replica, verdict: Verdict, now_ns: int) -> str | None:
        if verdict is Verdict.IGNORE:
            replica.stay = Stay(OUT, now_ns)
            return None
        if verdict is Verdict.OK:
            replica.stay = Stay(IN, returned_ns=now_ns)
            return "returned"
        replica.times += 1
        return self.eject(replica)

    def too_sick(self, replica: Replica) -> bool:
        rules, window = self.rules, self.window(replica)
        if rules.consecutive is not None and replica.stay.row >= rules.consecutive:
            return True
        share = rules.failure_rate_ppm
        if share is None or len(window) < rules.min_calls:
            return False
        return Fraction(sum(window), len(window)) >= Fraction(share, 1_000_000)

    def eject(self, replica: Replica) -> str:
        replica.stay = Stay(OUT)
        return "ejected"

    def bounds(self, replica: Replica) -> tuple[Fraction, Fraction]:
        """Between what lengths the latest ejection may last."""
        rules = self.rules
        length = min(Fraction(rules.base_ns * replica.times), Fraction(rules.cap_ns) / Fraction(6, 5))
        return length * Fraction(4, 5), length * Fraction(6, 5)
