"""`Decision`: what a limiter answers."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from seawall.errors import RateLimited
from seawall.machines.limit import Limit

__all__ = ["Decision", "Origin", "combined", "told"]

NONE: Mapping[str, Decision] = MappingProxyType({})


class Origin:
    """Which limit of which limiter a decision is about; made once for each limit."""

    __slots__ = ("limit", "limiter", "name")

    def __init__(self, limiter: str, name: str, limit: Limit[Any]) -> None:
        self.limiter = limiter
        self.name = name
        self.limit = limit


class Decision:
    """The answer of a limiter: true if admitted, false if refused. Times and counts are worked out when asked for.

    >>> from seawall import Limiter, TokenBucket
    >>> search = Limiter(TokenBucket("2/s"), name="search")
    >>> [bool(search.hit("user:42")) for _ in range(3)]
    [True, True, False]
    """

    __slots__ = ("allowed", "cost", "now_ns", "origin", "state")
    # No __init__: one is made for each call on the hot path, and a call of the bare class is four times cheaper.

    allowed: bool
    cost: int
    origin: Origin
    state: Any
    now_ns: int
    """When it was made, on the clock of the limit; below 0 if no state was changed that could be changed back."""

    def __bool__(self) -> bool:
        return self.allowed

    @property
    def limiter(self) -> str:
        """The name of the limiter."""
        return self.origin.limiter

    @property
    def name(self) -> str:
        """The limit that it speaks of: the one that refused, or else the one with the least left."""
        return self.origin.name

    @property
    def limit(self) -> Limit[Any]:
        """The machine of that limit: its kind and its numbers."""
        return self.origin.limit

    @property
    def parts(self) -> Mapping[str, Decision]:
        """The answer of each limit, where there are several."""
        return NONE

    @property
    def capacity(self) -> int:
        """The most that can ever be admitted at once."""
        return self.origin.limit.capacity

    @property
    def remaining(self) -> int:
        """How much more would be admitted now; not below 0."""
        return max(0, self.origin.limit.left(self.state, self.now_ns))

    @property
    def retry_after(self) -> float:
        """Seconds until the same would be admitted, if nobody else comes; 0 if it was."""
        return self.retry_after_ns / 1e9

    @property
    def retry_after_ns(self) -> int:
        """The same in nanoseconds, exact to one tick of the store's clock."""
        return 0 if self.allowed else self.origin.limit.wait(self.state, self.now_ns, self.cost)

    @property
    def reset_after(self) -> float:
        """Seconds until nothing is used any more."""
        return self.origin.limit.rest(self.state, self.now_ns) / 1e9

    def headers(self, *, legacy: bool = False) -> dict[str, str]:
        """The HTTP fields to send: `RateLimit-Policy` and `RateLimit`, or `X-RateLimit-*`; Retry-After if refused."""
        from seawall.stores.fields import fields_of, legacy_fields_of  # noqa: PLC0415  # for edges only

        return legacy_fields_of(self) if legacy else fields_of(self)

    def raise_if_refused(self) -> None:
        """Raise `RateLimited` if it is a refusal."""
        if not self.allowed:
            raise self.error()

    def error(self) -> RateLimited:
        """The error that says what this refusal says."""
        used = self.capacity - self.remaining
        error = RateLimited(
            self._reason(used),
            policy=self.limiter,
            measured=used,
            threshold=self.capacity,
            retry_after=self.retry_after,
        )
        error.decision = self
        return error

    def _reason(self, used: int) -> str:
        return f"limit {self.name!r} reached ({used} of {self.capacity} used, {self.cost} more asked)"

    def __repr__(self) -> str:
        if self.allowed:
            return f"Decision(allowed, remaining={self.remaining})"
        return f"Decision(refused by {self.name!r}, retry_after={self.retry_after:.3g}, remaining={self.remaining})"


class Told(Decision):
    """A decision whose numbers came from elsewhere: a server, a sketch, a table with holds."""

    __slots__ = ("numbers",)

    numbers: tuple[int, int, int]
    """What is left, and the nanoseconds to wait and until nothing is used."""

    @property
    def remaining(self) -> int:
        return max(0, self.numbers[0])

    @property
    def retry_after_ns(self) -> int:
        return 0 if self.allowed else self.numbers[1]

    @property
    def reset_after(self) -> float:
        return self.numbers[2] / 1e9


class Unasked(Told):
    """A refusal of a store that could not be asked; how much is used nobody knows."""

    __slots__ = ()

    def _reason(self, used: int) -> str:
        return f"limit {self.name!r} cannot be asked: its store does not answer"


class Combined(Decision):
    """One answer of several limits; it speaks of the tightest."""

    __slots__ = ("_parts", "tightest")

    _parts: Mapping[str, Decision]
    tightest: Decision

    @property
    def parts(self) -> Mapping[str, Decision]:
        return self._parts

    @property
    def remaining(self) -> int:
        return self.tightest.remaining

    @property
    def retry_after_ns(self) -> int:
        return self.tightest.retry_after_ns

    @property
    def reset_after(self) -> float:
        return self.tightest.reset_after

    def _reason(self, used: int) -> str:
        return self.tightest._reason(used)


def told(origin: Origin, cost: int, numbers: tuple[int, int, int], *, allowed: bool, asked: bool = True) -> Decision:
    """A decision by its numbers: left, and nanoseconds to wait and until nothing is used."""
    decision = Told() if asked else Unasked()
    decision.allowed = allowed
    decision.cost = cost
    decision.origin = origin
    decision.state = None
    decision.now_ns = -1
    decision.numbers = numbers
    return decision


def combined(parts: Mapping[str, Decision]) -> Decision:
    """One answer of several limits, all or none: the refusal that lasts longest, or the one with the least left."""
    refused = [part for part in parts.values() if not part.allowed]
    if refused:
        tightest = max(refused, key=lambda part: part.retry_after_ns)
    else:
        tightest = min(parts.values(), key=lambda part: part.remaining / part.capacity)
    decision = Combined()
    decision.allowed = not refused
    decision.cost = tightest.cost
    decision.origin = tightest.origin
    decision.state = tightest.state
    decision.now_ns = tightest.now_ns
    decision.tightest = tightest
    decision._parts = dict(parts)  # pyright: ignore[reportPrivateUsage]  # of its own making
    return decision
