"""Counts, from its events, what Seawall did in this process."""

from collections import Counter, defaultdict
from collections.abc import Mapping

from seawall import events
from seawall.errors import NoEndpoints

Deeds = Mapping[str, Mapping[str, int]]
"""How often each cluster, policy or outbox did what."""


class DeedCounter:
    """Listens from its making on, for as long as the process lives."""

    def __init__(self) -> None:
        self._counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
        events.subscribe(self._note)

    @property
    def counts(self) -> Deeds:
        """What was counted so far."""
        return {who: dict(counts) for who, counts in self._counts.items()}

    def _note(self, event: events.Event) -> None:
        deed = _deed(event)
        if deed:
            # The policy of one endpoint is called "cluster[address]".
            self._counts[event.policy.partition("[")[0]][deed] += 1


_NAMES: Mapping[type[events.Event], str] = {
    events.EndpointEjected: "ejected",
    events.EndpointReturned: "returned",
    events.FailedOver: "failed over",
    events.FailedSafe: "failed safe",
    events.TimedOut: "timed out",
    events.WorkQueued: "queued",
    events.WorkDone: "delivered",
    events.WorkDied: "died",
    events.WorkDropped: "dropped",
}


def _deed(event: events.Event) -> str:
    if isinstance(event, events.AttemptFailed):
        return "" if event.refused else "failed attempts"
    if isinstance(event, events.BreakerChanged):
        return f"breaker {event.after}"
    if isinstance(event, events.CallRefused):
        return f"refused {event.reason}"
    if isinstance(event, events.GaveUp):
        return "" if event.reason == "final" else f"gave up {event.reason}"
    if isinstance(event, events.FellBack):
        return "fell back unasked" if isinstance(event.error, NoEndpoints) else "fell back"
    return _NAMES.get(type(event), "")
