"""One step on its way to the file, and who waits for its end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = ["ALONE", "HOLD", "READ", "WRITE", "Step"]

READ, WRITE, ALONE, HOLD = range(4)
"""Kinds: in a transaction that reads, or writes; outside of any, by itself; and one that no leader runs: it waits for
the lead, to keep it for a while."""


class Step:
    """A function of the connection, or of the file if its kind is `ALONE`; and its end."""

    __slots__ = ("begun", "deadline_ns", "done", "error", "kind", "lead", "ring", "run", "value", "waits")

    def __init__(self, run: Callable[[Any], Any], kind: int, deadline_ns: int, *, waits: bool) -> None:
        self.run = run
        self.kind = kind
        self.deadline_ns = deadline_ns
        self.begun = self.done = self.lead = False
        self.value: Any = None
        self.error: BaseException | None = None
        self.ring: Callable[[], object] | None = None
        """Tells its caller that it is done, or that he leads; None while he need not be told."""
        self.waits = waits
        """Whether its caller is a thread, which can lead."""

    def take(self) -> Any:
        error, self.error = self.error, None
        if error is not None:
            raise error
        return self.value
