"""Counts what users got and how long they waited; every figure of the demo comes from here."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from seawall.demo.traffic import Phase

Ending = Literal["served", "degraded", "error"]


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least `share` of `values` do not exceed (nearest rank); 0.0 for none."""
    if not values:
        return 0.0
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


@dataclass(slots=True)
class Tally:
    """What the users of one side met in one phase."""

    arrived: int = 0
    attempts: int = 0
    served: int = 0
    degraded: int = 0
    errors: int = 0
    waits: list[float] = field(default_factory=list[float])
    """Seconds from a user's arrival to whatever he was shown, errors included."""
    reasons: Counter[str] = field(default_factory=Counter[str])
    """Errors shown, by type."""

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

    def as_json(self) -> dict[str, object]:
        """Everything counted, ready for JSON."""
        return {
            "users": self.arrived,
            "served": self.served,
            "degraded": self.degraded,
            "errors": self.errors,
            "p50_ms": round(percentile(self.waits, 0.50) * 1e3, 3),
            "p99_ms": round(percentile(self.waits, 0.99) * 1e3, 3),
            "attempts": self.attempts,
            "errors_by_type": dict(self.reasons),
        }


@dataclass(slots=True)
class PhaseResult:
    """What was measured in one phase."""

    phase: Phase
    rate: float
    seconds: float
    plain: Tally = field(default_factory=Tally)
    seawall: Tally = field(default_factory=Tally)
    deeds: dict[str, int] = field(default_factory=dict[str, int])
    snapshot: object = None
    lateness: list[float] = field(default_factory=list[float])
    """Seconds by which users were sent later than planned: what this machine itself added."""

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
