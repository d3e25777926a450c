"""`Held`: a record in the hands of a worker, from its lease to its end."""

from __future__ import annotations

from typing import Any

from seawall.machines.verdict import Verdict
from seawall.outbox.operations import Operation
from seawall.outbox.store import Lease
from seawall.outbox.worker.judgement import Step
from seawall.outbox.worker.targets import Target

__all__ = ["Held"]


class Held:
    """A record in work."""

    __slots__ = (
        "admitted",
        "began",
        "error",
        "knocks",
        "lease",
        "on_thread",
        "operation",
        "renew_ns",
        "step",
        "target",
        "task",
        "verdict",
    )

    def __init__(self, lease: Lease, operation: Operation | None, target: Target | None, renew_ns: int) -> None:
        self.lease = lease
        self.operation = operation
        self.target = target
        self.began = 0
        self.renew_ns: int | None = renew_ns
        """When its lease is renewed next; None once it is lost."""
        self.on_thread = False
        """Whether a thread works at it, which cannot be stopped."""
        self.knocks = False
        """Whether others wait to see if a limit lets it in."""
        self.admitted = False
        """Whether its function was called: no layer before it refused."""
        self.verdict = Verdict.IGNORE
        self.error: Exception | None = None
        self.step: Step | None = None
        """What is to be told to the store, once it is known."""
        self.task: Any = None
