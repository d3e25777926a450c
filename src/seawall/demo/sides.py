"""The two sides of the comparison: the same request, made plainly and through Seawall."""

from collections import Counter
from typing import Protocol

from seawall import Policy, events
from seawall.demo.measure import Ending, Tally
from seawall.demo.shop import FAILURES, Shop

Shown = tuple[Ending, str]


class Side(Protocol):
    """One way to serve users; `tally` is what they met."""

    tally: Tally

    async def visit(self, user: int) -> Shown:
        """Serve one user, and tell how it ended and, for an error, which."""
        ...


class Plain:
    """A sensible client without Seawall: one attempt under a total timeout, an error shown when it fails."""

    def __init__(self, shop: Shop, tally: Tally) -> None:
        self.tally = tally
        self._shop = shop

    async def visit(self, user: int) -> Shown:
        """Serve one user by one attempt."""
        try:
            await self._shop.fetch(user)
        except FAILURES as error:
            return "error", type(error).__name__
        return "served", ""


class Guarded:
    """The same request through a Seawall policy."""

    def __init__(self, shop: Shop, tally: Tally, policy: Policy) -> None:
        self.tally = tally
        self._shop = shop
        self._policy = policy

    async def visit(self, user: int) -> Shown:
        """Serve one user through the policy."""
        outcome = await self._policy.arun(self._shop.fetch, user)
        if outcome.error is not None:
            return "error", type(outcome.error).__name__
        return ("degraded" if outcome.degraded else "served"), ""


class Deeds:
    """Counts, from its events, what one policy did. Use it as `with`; `counts` stays afterwards."""

    def __init__(self, policy: str) -> None:
        self._policy = policy
        self.counts: Counter[str] = Counter()

    def __enter__(self) -> "Deeds":
        self._stop = events.subscribe(self._note)
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def _note(self, event: events.Event) -> None:
        if event.policy != self._policy:
            return
        if isinstance(event, events.BreakerChanged):
            self.counts[f"breaker {event.after}"] += 1
        elif isinstance(event, events.CallRefused):
            self.counts[f"refused {event.reason}"] += 1
        elif isinstance(event, events.RetryScheduled):
            self.counts["retries"] += 1
        elif isinstance(event, events.RetryGaveUp):
            self.counts[f"gave up: {event.reason}"] += 1
        elif isinstance(event, events.TimedOut):
            self.counts["timeouts"] += 1
        elif isinstance(event, events.FellBack):
            self.counts["fallbacks"] += 1
