"""Counts what users got and how long they waited; every figure of the demo comes from here."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from seawall.demo.deeds import Deeds
from seawall.demo.layout import DISPENSABLE, Side
from seawall.demo.phases import Phase

Ending = Literal["served", "degraded", "error"]


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least `share` of `values` do not exceed (nearest rank); 0.0 for none."""
    if not values:
        return 0.0
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


@dataclass(slots=True)
class Tally:
    """What the users of one side met in one phase, and what it took."""

    arrived: int = 0
    served: int = 0
    degraded: int = 0
    errors: int = 0
    waits: list[float] = field(default_factory=list[float])
    """Seconds from a user's arrival to whatever he was shown, errors included."""
    reasons: Counter[str] = field(default_factory=Counter[str])
    """Errors shown, as "service: why"."""
    orders_lost: set[str] = field(default_factory=set[str])
    """Numbers of the orders whose user was shown an error."""
    sent: Mapping[str, int] = field(default_factory=dict[str, int])
    """Requests that the front sent, by service."""
    charged: set[str] = field(default_factory=set[str])
    """Orders that payments charged."""
    audited: set[str] = field(default_factory=set[str])
    """Orders that audit has written down."""
    cpu_seconds: float = 0.0
    """What the front took."""

    def end(self, ending: Ending, waited: float, reason: str = "") -> None:
        """Note how one user's visit ended."""
        self.waits.append(waited)
        if ending == "served":
            self.served += 1
        elif ending == "degraded":
            self.degraded += 1
        else:
            self.errors += 1
            self.reasons[reason] += 1

    @property
    def waiting(self) -> int:
        """Users who came and have not been answered yet."""
        return self.arrived - len(self.waits)

    @property
    def attempts(self) -> int:
        """Requests sent to all services."""
        return sum(self.sent.values())

    @property
    def p50(self) -> float:
        """Seconds within which half of the users had an answer."""
        return percentile(self.waits, 0.50)

    @property
    def p99(self) -> float:
        """Seconds within which all but one in a hundred had one."""
        return percentile(self.waits, 0.99)

    @property
    def culprits(self) -> Counter[str]:
        """Errors shown, by the service whose fault they were."""
        found: Counter[str] = Counter()
        for reason, count in self.reasons.items():
            found[reason.partition(":")[0]] += count
        return found

    @property
    def needless(self) -> int:
        """Errors shown for something that the page could have been shown without."""
        return sum(count for service, count in self.culprits.items() if service in DISPENSABLE)

    @property
    def charged_in_vain(self) -> int:
        """Orders that were paid for, and whose user was shown an error."""
        return len(self.charged & self.orders_lost)

    @property
    def unaudited(self) -> int:
        """Orders that were paid for, and that audit knows nothing of."""
        return len(self.charged - self.audited)

    def as_json(self) -> dict[str, object]:
        """Everything counted, ready for JSON."""
        return {
            "users": self.arrived,
            "served": self.served,
            "degraded": self.degraded,
            "errors": self.errors,
            "p50_ms": round(self.p50 * 1e3, 3),
            "p99_ms": round(self.p99 * 1e3, 3),
            "attempts": self.attempts,
            "attempts_by_service": dict(self.sent),
            "errors_by_reason": dict(self.reasons),
            "orders_charged": len(self.charged),
            "orders_charged_in_vain": self.charged_in_vain,
            "orders_charged_but_not_audited": self.unaudited,
            "front_cpu_seconds": round(self.cpu_seconds, 3),
        }


@dataclass(slots=True)
class PhaseResult:
    """What was measured in one phase."""

    phase: Phase
    rate: float
    seconds: float
    plain: Tally = field(default_factory=Tally)
    seawall: Tally = field(default_factory=Tally)
    deeds: Deeds = field(default_factory=dict[str, Mapping[str, int]])
    backlog: int = 0
    """Work that still waited when the phase was over."""
    snapshot: object = None
    lateness: list[float] = field(default_factory=list[float])
    """Seconds by which users were sent later than planned: what this machine itself added."""

    def tally(self, side: Side) -> Tally:
        """What was counted on one side."""
        return self.plain if side == "plain" else self.seawall

    @property
    def late_p99(self) -> float:
        """How late all but one user in a hundred were sent at most, in seconds."""
        return percentile(self.lateness, 0.99)


@dataclass(slots=True)
class Run:
    """One run of the demo; it fills up as phases complete, so that a run cut short still has its results."""

    seconds: float
    seed: str
    results: list[PhaseResult] = field(default_factory=list[PhaseResult])
    pids: list[int] = field(default_factory=list[int])
    complete: bool = False
    error: str = ""
