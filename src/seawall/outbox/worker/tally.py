"""What a worker has done so far: counts, the latest troubles, and the events that tell of each record."""

from __future__ import annotations

from typing import Any

from seawall import events
from seawall.outbox.record import Work
from seawall.outbox.worker.judgement import Step
from seawall.policies.classify import PROGRAMMING
from seawall.runtime import clock
from seawall.runtime.section import Section

__all__ = ["Tally"]


class Tally:
    """Counts of one worker, over all its runs."""

    def __init__(self) -> None:
        self._lock = Section()
        self.done = self.retried = self.refused = self.died = self.lost = self.program_errors = 0
        self.store_failures = 0
        self.last_error = self.last_store_error = ""

    def ended(self, outbox: str, work: Work, step: Step, error: Exception | None, *, told: bool) -> None:
        """A record has come to the end of an attempt; `told`, whether the store took it from this worker."""
        with self._lock:
            if step.text:
                self.last_error = f"{work.operation}: {step.text}"
            self.program_errors += isinstance(error, PROGRAMMING)
            if not told:
                self.lost += 1
                return
            self.done += step.what == "ack"
            self.retried += step.what == "retry"
            self.refused += step.what == "release"
            self.died += step.what == "bury"
        if events.sinks:
            events.emit(_event(outbox, work, step, error))

    def note(self, work: Work, text: str) -> None:
        """A record was given back because of an error that no worker may catch."""
        with self._lock:
            self.last_error = f"{work.operation}: {text}"

    def store_failed(self, text: str) -> None:
        """The store failed this worker."""
        with self._lock:
            self.store_failures += 1
            self.last_store_error = text

    def snapshot(self) -> dict[str, Any]:
        """The counts as JSON-ready values."""
        with self._lock:
            return {
                "done": self.done,
                "retried": self.retried,
                "refused": self.refused,
                "died": self.died,
                "lost": self.lost,
                "program_errors": self.program_errors,
                "last_error": self.last_error,
                "store_failures": self.store_failures,
                "last_store_error": self.last_store_error,
            }


def _event(outbox: str, work: Work, step: Step, error: Exception | None) -> events.Event:
    where: dict[str, Any] = {"policy": outbox, "layer": work.operation, "id": work.id}
    refused = step.what == "release"
    attempts = work.attempts - refused
    if step.what == "ack":
        return events.WorkDone(**where, attempts=attempts, age=max(0, clock.wall_ns() - work.created_ns) / 1e9)
    if step.what == "bury":
        return events.WorkDied(**where, attempts=attempts, why=step.why, error=step.text)
    assert error is not None, "only an error sends work back"
    return events.WorkRetried(**where, attempts=attempts, delay=step.pause_ns / 1e9, error=error, refused=refused)
