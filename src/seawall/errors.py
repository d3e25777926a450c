"""Every error Seawall raises, in one tree.

SeawallError
├── Rejected                 the call was not made, or not admitted: try later, or answer something else
│   ├── CircuitOpen          the breaker is open, or half-open with all its probes out
│   ├── BulkheadFull         no permit is free and the queue is full, or the wait was too long
│   ├── RateLimited          a limiter refused
│   ├── BudgetSpent          the caller's quota is spent
│   ├── NoEndpoints          no replica may be tried now
│   └── Degraded             a degradation switch is on
├── DeadlineExceeded         also a TimeoutError
├── NotQueued                failback could not store the work
├── BroadcastError           some replicas of a broadcast failed
├── ConfigError              also a ValueError: a setting is wrong; names field, value and what is allowed
└── BackendUnavailable       a store cannot be reached
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = [
    "BackendUnavailable",
    "BroadcastError",
    "BudgetSpent",
    "BulkheadFull",
    "CircuitOpen",
    "ConfigError",
    "DeadlineExceeded",
    "Degraded",
    "NoEndpoints",
    "NotQueued",
    "RateLimited",
    "Rejected",
    "SeawallError",
    "UnwantedResult",
]


LONGEST_WAIT = 100 * 365 * 86_400
"""Seconds beyond which nobody is told to come back."""


class SeawallError(Exception):
    """The root of all errors that Seawall raises on its own account."""


class ConfigError(SeawallError, ValueError):
    """A setting is wrong. The message names the field, the value given and what is allowed."""


class Rejected(SeawallError):
    """A guard did not admit the call; the function was not called.

    `policy` is the name of the policy, `reason` a short code (`"circuit_open"`), `detail` says it in words,
    `measured` stands against `threshold`, `retry_after` is seconds until it is worth trying again, or `None`
    if that cannot be known. The message is put together when it is read, so that refusing stays cheap.
    """

    reason: str = "rejected"
    status: int = 503
    """The HTTP status that an edge should answer with."""

    def __init__(
        self,
        detail: str = "rejected",
        *,
        policy: str = "",
        measured: float = 0,
        threshold: float = 0,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.policy = policy
        self.measured = measured
        self.threshold = threshold
        self.retry_after = retry_after

    def __str__(self) -> str:
        who = f"{self.policy}: " if self.policy else ""
        when = "" if self.retry_after is None else f"; retry in {_shown(self.retry_after)} s"
        return f"{who}{self.detail}{when}"

    def headers(self) -> Mapping[str, str]:
        """The HTTP headers an edge should send with the refusal; `Retry-After` is rounded up to whole seconds.

        >>> from seawall import CircuitOpen
        >>> CircuitOpen("breaker open", policy="pay", retry_after=1.2).headers()
        {'Retry-After': '2'}
        """
        wait = self.retry_after
        if wait is None or not 0 <= wait < LONGEST_WAIT:  # NaN is not
            return {}
        return {"Retry-After": str(max(1, -int(-wait // 1)))}


def _shown(seconds: float) -> str:
    """Three digits, but never an exponent, which nobody reads at a glance."""
    return f"{seconds:.3g}" if seconds < 999.5 else f"{seconds:.0f}"


class CircuitOpen(Rejected):
    """The breaker is open, or half-open with all its probes out."""

    reason = "circuit_open"


class BulkheadFull(Rejected):
    """No permit is free, and there is no room in the queue or the wait was too long."""

    reason = "bulkhead_full"


class RateLimited(Rejected):
    """A limiter refused. `decision` is its answer, if the error came from a limiter of this process."""

    reason = "rate_limited"
    status = 429
    decision: Any = None

    def headers(self) -> Mapping[str, str]:
        """Retry-After, and the RateLimit fields of the decision if there is one."""
        told: Mapping[str, str] = {} if self.decision is None else self.decision.headers()
        return {**told, **super().headers()}


class BudgetSpent(Rejected):
    """The caller's quota is spent."""

    reason = "budget_spent"
    status = 429


class NoEndpoints(Rejected):
    """No replica may be tried now."""

    reason = "no_endpoints"


class Degraded(Rejected):
    """A degradation switch is on, so the call was not made."""

    reason = "degraded"


class DeadlineExceeded(SeawallError, TimeoutError):
    """The time for the call ran out.

    `inherited` is true when the deadline came from the caller and was nearer than the layer's own timeout:
    then the impatience was the caller's, and no breaker counts it. `timeout` is the limit in seconds.
    """

    def __init__(
        self, detail: str = "deadline exceeded", *, policy: str = "", timeout: float = 0, inherited: bool = False
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.policy = policy
        self.timeout = timeout
        self.inherited = inherited

    def __str__(self) -> str:
        return f"{self.policy}: {self.detail}" if self.policy else self.detail


class BroadcastError(SeawallError):
    """Some replicas of a broadcast failed.

    `succeeded` maps endpoints to values, `failed` endpoints to errors; `needed` is how many had to succeed.
    """

    def __init__(
        self,
        policy: str = "",
        *,
        succeeded: Mapping[Any, Any] | None = None,
        failed: Mapping[Any, Exception] | None = None,
        needed: int = 0,
    ) -> None:
        super().__init__(policy)
        self.policy = policy
        self.succeeded: Mapping[Any, Any] = {} if succeeded is None else succeeded
        self.failed: Mapping[Any, Exception] = {} if failed is None else failed
        self.needed = needed

    def __str__(self) -> str:
        every = len(self.succeeded) + len(self.failed)
        if not every:
            return self.policy
        shown = [f"{endpoint}: {type(error).__name__}: {error}"[:160] for endpoint, error in self.failed.items()]
        more = f"; and {len(shown) - 3} more" if len(shown) > 3 else ""
        who = f"{self.policy}: " if self.policy else ""
        counts = f"{len(self.succeeded)} of {every} endpoints succeeded, {self.needed} had to"
        return f"{who}{counts}" + (f" ({'; '.join(shown[:3])}{more})" if shown else "")


class NotQueued(SeawallError):
    """Failback could not store the work; the cause is the original error."""


class BackendUnavailable(SeawallError):
    """A store cannot be reached."""


class UnwantedResult(SeawallError):
    """A result that `Retry(until=...)` did not accept, where an event has an error. It is never raised to a caller."""

    def __init__(self, result: object = None) -> None:
        super().__init__(result)
        self.result = result

    def __str__(self) -> str:
        return f"the result {self.result!r} was not accepted"
