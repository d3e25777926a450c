"""`Outcome`: how a call ended, as a value instead of a return or a raise."""

from __future__ import annotations

from typing import Any, Generic, TypeVar, cast

__all__ = ["Outcome"]

T = TypeVar("T")


class Outcome(Generic[T]):
    """The end of one call.

    `value` or `error`; `attempts`, how often the function was called; `degraded`, whether the value is a lesser answer;
    `endpoint`, the replica that answered, and `queued`, whether the work was stored for later: both for clusters.

    >>> from seawall import Policy, Fallback
    >>> outcome = Policy(Fallback("cached")).run(lambda: int("x"))
    >>> outcome.value, outcome.degraded, outcome.attempts
    ('cached', True, 1)
    """

    __slots__ = ("attempts", "degraded", "endpoint", "error", "queued", "value")

    def __init__(
        self,
        value: T | None,
        error: Exception | None,
        *,
        attempts: int,
        degraded: bool = False,
        endpoint: Any = None,
        queued: bool = False,
    ) -> None:
        self.value = value
        self.error = error
        self.attempts = attempts
        self.degraded = degraded
        self.endpoint = endpoint
        self.queued = queued

    @property
    def ok(self) -> bool:
        """Whether there is a value, be it a lesser one."""
        return self.error is None

    def unwrap(self) -> T:
        """The value; raises the error if there is one."""
        if self.error is not None:
            raise self.error
        return cast("T", self.value)

    def __repr__(self) -> str:
        end = f"error={self.error!r}" if self.error is not None else f"value={self.value!r}"
        return f"Outcome({end}, attempts={self.attempts}, degraded={self.degraded})"
