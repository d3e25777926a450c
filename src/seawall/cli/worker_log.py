"""What `seawall worker` logs: the end of every record, one line each, and what an operator should see."""

import logging
import sys
from collections.abc import Callable
from typing import Any

from seawall import events
from seawall.cli.outbox_print import age, safe
from seawall.outbox.record import error_text

__all__ = ["LEVELS", "listen"]

LEVELS = ("debug", "info", "warning", "error")


def listen(outbox: str, level: str) -> Callable[[], None]:
    """Log to stderr, unless the program has set up logging itself; returns what ends it."""
    logging.raiseExceptions = False  # a full disk under the log is no reason to print tracebacks into it
    logging.basicConfig(stream=sys.stderr, format="%(asctime)s %(levelname)s %(message)s")
    logger = logging.getLogger("seawall.worker")
    logger.setLevel(level.upper())

    def sink(event: events.Event) -> None:
        severity, words = _told(event)
        if words:
            whose = f"{event.policy} " if event.policy != outbox else ""
            logger.log(severity, "%s", safe(f"{whose}{words}"), extra={"seawall_event": event})

    return events.subscribe(sink)


def _told(event: Any) -> tuple[int, str]:
    """How grave it is, and one line; an empty one if it is not worth it."""
    for kind, told in _WORDS.items():
        if isinstance(event, kind):
            return told(event)
    return (logging.WARNING, repr(event)) if isinstance(event, events.GRAVE) else (logging.DEBUG, "")


def _done(event: events.WorkDone) -> tuple[int, str]:
    words = f"done at attempt {event.attempts}, {age(event.age)} after it was made"
    return logging.INFO, f"{event.layer} {event.id}: {words}"


def _retried(event: events.WorkRetried) -> tuple[int, str]:
    what = "refused" if event.refused else f"attempt {event.attempts} failed"
    words = f"{what}, due again in {age(max(0.0, event.delay))}: {error_text(event.error)}"
    return (logging.DEBUG if event.refused else logging.INFO), f"{event.layer} {event.id}: {words}"


def _died(event: events.WorkDied) -> tuple[int, str]:
    words = f"dead ({event.why}) at attempt {event.attempts}: {event.error}"
    return logging.WARNING, f"{event.layer} {event.id}: {words}"


def _failed(event: events.OutboxFailed) -> tuple[int, str]:
    return logging.WARNING, f"the store failed at {event.step}: {error_text(event.error)}"


def _breaker(event: events.BreakerChanged) -> tuple[int, str]:
    grave = event.after != "closed"
    return (logging.WARNING if grave else logging.INFO), f"{event.layer}: {event.after}: {event.why}"


def _alarm(event: events.BacklogAlarm) -> tuple[int, str]:
    show = age if event.layer == "age" else "{:.0f}".format
    what = {"depth": "records in the backlog", "age": "is how old the oldest record is", "drops": "records dropped"}
    words = f"{show(event.value)} {what.get(event.layer, event.layer)} (alarm from {show(event.threshold)})"
    return (logging.WARNING, f"ALARM: {words}") if event.on else (logging.INFO, f"alarm over: {words}")


_WORDS: dict[type[events.Event], Callable[[Any], tuple[int, str]]] = {
    events.WorkDone: _done,
    events.WorkRetried: _retried,
    events.WorkDied: _died,
    events.OutboxFailed: _failed,
    events.BacklogAlarm: _alarm,
    events.BreakerChanged: _breaker,
}
