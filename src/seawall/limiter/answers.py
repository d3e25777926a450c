"""What a limiter says when it is not the state of a limit that speaks, and what it counts and tells of refusals."""

from __future__ import annotations

from seawall import events
from seawall.context import CURRENT
from seawall.errors import DeadlineExceeded, RateLimited
from seawall.runtime import clock
from seawall.stores.decision import Decision, Origin, told
from seawall.stores.protocol import Ask

__all__ = ["Answers"]

SOON_NS = 1_000_000


class Answers:
    """Of one limiter. `origin` is the first of its limits."""

    def __init__(self, limiter: str, origin: Origin, *, shadow: bool) -> None:
        self.limiter = limiter
        self.origin = origin
        self.shadow = shadow
        self.refused = 0

    def free(self, ask: Ask) -> Decision:
        """Admitted, because everything is switched off."""
        return told(self.origin, self._cost(ask), (self.origin.limit.capacity, 0, 0), allowed=True)

    def behind(self, ask: Ask) -> Decision:
        """Refused, because others wait; when it is worth trying again nobody knows."""
        return told(self.origin, self._cost(ask), (0, SOON_NS, 0), allowed=False)

    def _cost(self, ask: Ask) -> int:
        return ask.costs.get(self.origin.name, 0)

    def judged(self, decision: Decision) -> Decision:
        """Count a refusal; in shadow it becomes an admission."""
        if decision.allowed:
            return decision
        self.note(decision)
        if not self.shadow:
            return decision
        numbers = (decision.remaining, 0, round(decision.reset_after * 1e9))
        return told(decision.origin, decision.cost, numbers, allowed=True)

    def note(self, decision: Decision) -> None:
        """Count and tell a refusal."""
        self.refused += 1
        if events.sinks:
            events.emit(
                events.LimitReached(
                    policy=self.limiter,
                    layer=decision.name,
                    cost=decision.cost,
                    retry_after=decision.retry_after,
                    shadow=self.shadow,
                )
            )

    # -- errors of those who would have waited -------------------------------------------------------------------------

    def refusal(self, decision: Decision) -> RateLimited:
        self.note(decision)
        return decision.error()

    def too_many(self, ask: Ask, count: int, most: int) -> RateLimited:
        self.note(self.behind(ask))
        detail = f"too many callers wait already ({count})"
        return RateLimited(detail, policy=self.limiter, measured=count, threshold=most)

    def out_of_time(self, ask: Ask, began: int) -> Exception:
        self.note(self.behind(ask))
        due = CURRENT.get().deadline_ns
        if due is not None and clock.now_ns() >= due:
            detail = "the deadline of the caller passed in the line of the limiter"
            return DeadlineExceeded(detail, policy=self.limiter, inherited=True)
        waited = (clock.now_ns() - began) / 1e9
        return RateLimited(f"no turn within {waited:.3g} s", policy=self.limiter, measured=waited, threshold=waited)


def keep_quiet(decision: Decision) -> None:
    """In the place of `note`: nobody is told."""
