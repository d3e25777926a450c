"""What happened, as frozen values on one bus that costs nothing while nobody listens.

A sink is any function of one event. It is called in the thread and task in which the thing happened, so it
must not block; what it raises is reported to the logger `seawall.events` and goes no further.

    >>> from seawall import Policy, Fallback, events
    >>> seen = []
    >>> stop = events.subscribe(seen.append, events.FellBack)
    >>> Policy(Fallback("cached"), name="prices").call(lambda: 1 / 0)
    'cached'
    >>> seen[0].policy, type(seen[0].error).__name__
    ('prices', 'ZeroDivisionError')
    >>> stop()
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from seawall.record import Record

if TYPE_CHECKING:
    import logging

__all__ = [
    "AttemptFailed",
    "BackendFailed",
    "BacklogAlarm",
    "BreakerChanged",
    "BroadcastFailed",
    "CallRefused",
    "EndpointEjected",
    "EndpointReturned",
    "EndpointsChanged",
    "Event",
    "FailedOver",
    "FailedSafe",
    "FellBack",
    "ForkStarted",
    "GaveUp",
    "HedgeStarted",
    "LeaseLost",
    "LimitReached",
    "LookupFailed",
    "OutboxFailed",
    "RetryGaveUp",
    "RetryScheduled",
    "Sink",
    "SwitchChanged",
    "TimedOut",
    "WorkDied",
    "WorkDone",
    "WorkDropped",
    "WorkQueued",
    "WorkRetried",
    "emit",
    "log_to",
    "subscribe",
]


class Event(Record, kw_only=True):
    """The base of all events."""

    policy: str
    """The name of the policy, or of the switch."""
    layer: str
    """The name of the layer in it."""


class BreakerChanged(Event, kw_only=True):
    """A breaker changed its state; exactly one event for each transition."""

    before: str
    after: str
    why: str
    retry_after: float | None
    """Seconds until the next probe, when the breaker opened."""


class CallRefused(Event, kw_only=True):
    """A guard refused a call; with `shadow` it only would have."""

    reason: str
    shadow: bool = False


class RetryScheduled(Event, kw_only=True):
    """An attempt failed, and `attempt` (2, 3, ...) starts after `delay` seconds."""

    attempt: int
    delay: float
    error: BaseException
    shadow: bool = False


class RetryGaveUp(Event, kw_only=True):
    """An attempt failed and is not retried: `reason` is `"attempts"`, `"deadline"`, `"total"`, `"retry_after"` or
    `"budget"`."""

    attempts: int
    reason: str
    error: BaseException


class TimedOut(Event, kw_only=True):
    """An attempt or a call was ended by its timeout, or by a nearer deadline of the caller (`inherited`)."""

    timeout: float
    inherited: bool
    shadow: bool = False


class FellBack(Event, kw_only=True):
    """A fallback answered in place of the error."""

    error: BaseException
    shadow: bool = False


class HedgeStarted(Event, kw_only=True):
    """The first attempt was slow, and another one was started beside it after `after` seconds."""

    after: float


class SwitchChanged(Event, kw_only=True):
    """A degradation switch was turned; `by` and `why` say who did it and for what."""

    on: bool
    by: str
    why: str
    expires_in: float | None


class EndpointsChanged(Event, kw_only=True):
    """The list of endpoints of a cluster changed. Here and below `policy` is the name of the cluster."""

    added: tuple[str, ...]
    removed: tuple[str, ...]


class LookupFailed(Event, kw_only=True):
    """A source of endpoints failed, or had none; the last good list stays."""

    reason: str
    error: Exception | None


class EndpointEjected(Event, kw_only=True):
    """An endpoint gets no traffic for `out_for` seconds."""

    endpoint: str
    why: str
    out_for: float


class EndpointReturned(Event, kw_only=True):
    """The probe of an ejected endpoint succeeded."""

    endpoint: str


class AttemptFailed(Event, kw_only=True):
    """An attempt at an endpoint failed, or its own guards refused it (`refused`); `attempt` counts from 1."""

    endpoint: str
    attempt: int
    error: BaseException
    refused: bool


class FailedOver(Event, kw_only=True):
    """A call goes on after a failed attempt: `attempt` (2, 3, ...) starts after `delay` seconds."""

    attempt: int
    delay: float
    error: BaseException


class GaveUp(Event, kw_only=True):
    """A failover ended with an error: `reason` is `"attempts"`, `"budget"`, `"deadline"`, `"retry_after"`,
    `"endpoints"` if nobody else could be asked, or `"final"` for an error that is not tried again."""

    attempts: int
    reason: str
    error: BaseException


class ForkStarted(Event, kw_only=True):
    """One more fork was started: after `after` seconds of silence, or because one had failed (0)."""

    after: float


class FailedSafe(Event, kw_only=True):
    """`Failsafe` recorded the error and answered with its default."""

    error: BaseException


class BroadcastFailed(Event, kw_only=True):
    """A broadcast reached too few endpoints."""

    succeeded: int
    failed: int
    needed: int


class WorkQueued(Event, kw_only=True):
    """Work was stored for later. Here and below `policy` is the name of the outbox, `layer` that of the operation."""

    id: str
    due: float
    """When its first attempt is due, in seconds of the civil calendar."""
    durable: bool
    error: BaseException | None
    """The error of the call it comes from; None if it was put there at once."""


class WorkDone(Event, kw_only=True):
    """Stored work was done, `age` seconds after it was made; `attempts` are those of workers."""

    id: str
    attempts: int
    age: float


class WorkRetried(Event, kw_only=True):
    """Stored work was not done, and is due again in `delay` seconds; with `refused` no attempt was made."""

    id: str
    attempts: int
    delay: float
    error: BaseException
    refused: bool


class WorkDied(Event, kw_only=True):
    """Stored work was given up and is a dead letter: `why` is `"attempts"`, `"age"`, or `"final"` for an error that
    another attempt would not mend."""

    id: str
    attempts: int
    why: str
    error: str


class WorkDropped(Event, kw_only=True):
    """Stored work was thrown away to make room for other work."""

    id: str
    why: str


class OutboxFailed(Event, kw_only=True):
    """The store of an outbox failed a worker at a `step`, such as `"lease"` or `"ack"`; `layer` is `"worker"`.

    With the layer `"relay"` it, or the database, failed the relay of a transactional outbox: `"claim"`, `"put"`,
    `"delete"`, `"release"`."""

    step: str
    error: Exception


class BacklogAlarm(Event, kw_only=True):
    """A worker saw that its outbox holds too much, or with `on` false that this is over. `layer` says of what:
    `"depth"` (records), `"age"` (seconds since the oldest was made), `"drops"` (records thrown away since the last
    look)."""

    on: bool
    value: float
    threshold: float


class LimitReached(Event, kw_only=True):
    """A limiter refused, or with `shadow` only would have; `layer` is the limit, and `policy` names the limiter."""

    cost: int
    retry_after: float
    shadow: bool = False


class LeaseLost(Event, kw_only=True):
    """The lease of a `ConcurrencyLimit` ran out while its holder, who has had it for `held` seconds, still worked:
    somebody else may have run in its place. With `retaken` there was room to take a slot again."""

    why: str
    held: float
    retaken: bool


class BackendFailed(Event, kw_only=True):
    """A store could not be asked, and a limiter decided without it; `policy` is the limiter, `layer` the store, and
    `mode` its `on_outage`."""

    mode: str
    allowed: bool
    why: str


class Sink(Protocol):
    """Anything that takes events."""

    def __call__(self, event: Any, /) -> object: ...


GRAVE = (
    SwitchChanged,
    EndpointEjected,
    LookupFailed,
    BroadcastFailed,
    WorkDied,
    WorkDropped,
    OutboxFailed,
    BackendFailed,
    LeaseLost,
)
"""What is logged as a warning; so are breakers that open, and alarms."""

_changing = threading.RLock()
# Replaced as a whole: readers take no lock and see the old or the new tuple. The hot path asks only if it is empty.
sinks: tuple[tuple[Sink, tuple[type[Event], ...]], ...] = ()


def subscribe(sink: Sink, *kinds: type[Event]) -> Callable[[], None]:
    """Send events of the given kinds (all, if none is given) to `sink`; call the result to stop."""
    global sinks
    if not callable(sink) or getattr(getattr(sink, "__code__", None), "co_flags", 0) & 0x80:
        raise TypeError(f"subscribe({sink!r}): expected a function of one event that is not async")
    entry = (sink, kinds or (Event,))
    with _changing:
        sinks = (*sinks, entry)

    def stop() -> None:
        global sinks
        with _changing:
            sinks = tuple(other for other in sinks if other is not entry)

    return stop


def emit(event: Event) -> None:
    """Hand `event` to every sink that wants it; what a sink raises is logged and goes no further."""
    for sink, kinds in sinks:
        if isinstance(event, kinds):
            try:
                sink(event)
            except Exception:
                import logging  # noqa: PLC0415  # six milliseconds that only a broken sink pays

                logging.getLogger("seawall.events").exception("the sink %r failed on %r", sink, event)


def log_to(logger: logging.Logger | None = None) -> Callable[[], None]:
    """Log every event to `logger` (default: `seawall`): warnings for what an operator should see
    (opened breakers, switches, ejected endpoints, failed lookups and broadcasts, work given up, a backlog that is too
    long or too old), info for the rest.

    Returns the function that stops it.
    """
    import logging  # noqa: PLC0415  # only those who log pay for the import

    target = logging.getLogger("seawall") if logger is None else logger

    def sink(event: Event) -> None:
        grave = (
            isinstance(event, GRAVE)
            or (isinstance(event, BreakerChanged) and event.after != "closed")
            or (isinstance(event, BacklogAlarm) and event.on)
        )
        target.log(logging.WARNING if grave else logging.INFO, "%r", event, extra={"seawall_event": event})

    return subscribe(sink)
