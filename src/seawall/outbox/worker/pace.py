"""How fast a worker may begin work: the limiter of a worker, and the limits that stand in what work goes through.

Rules
    a limiter of the worker   is asked before a record is leased, and counts each target apart.
    a limit on the way        (a `RateLimit` in the operation's policy or cluster) is met by the record itself. Where it
                              counts all calls alike, its refusal says something of every record: the target rests until
                              it has room again, and then one record at a time finds out if it has. So a backlog of any
                              size costs one refusal for each admission at most, and none is sent through the store and
                              back in vain. Where it counts callers apart by a key, a refusal is of this record alone.
    neither is a sign of trouble: the target did not fail.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

from seawall.errors import ConfigError, NoEndpoints, RateLimited
from seawall.limiter.layer import RateLimit
from seawall.limiter.limiter import Limiter
from seawall.limiter.specs import LimitSpec
from seawall.policy import Policy
from seawall.runtime.protocol import Runtime
from seawall.stores.decision import Decision
from seawall.units import given

__all__ = ["Gait", "Limits", "Pace", "limit_reached", "limits_of"]

BOLD = 16
"""So many in a row that were let in, and the limit is no longer asked by one record at a time."""


class Limits:
    """What kind of limits stand in the way of a target."""

    NONE = "none"
    ALL = "all"
    """One that counts all calls alike, and no other."""
    KEYS = "keys"
    """At least one that counts callers apart."""


def limits_of(through: Any) -> str:
    """Which of `Limits` a policy or a cluster has."""
    found = list(_rate_limits(through))
    if not found:
        return Limits.NONE
    return Limits.KEYS if any(spec.key is not None for spec in found) else Limits.ALL


def _rate_limits(through: Any) -> Iterable[RateLimit]:
    if isinstance(through, Policy):
        parts: tuple[Any, ...] = tuple(through.specs)
    else:
        core = getattr(through, "_core", None)
        parts = (*getattr(core, "each", ()), *getattr(core, "around_specs", ()))
    for part in parts:
        if isinstance(part, RateLimit):
            yield part
        elif isinstance(part, Policy):
            yield from _rate_limits(part)


def limit_reached(error: BaseException | None) -> bool:
    """Whether a limit refused, or the last of a cluster's endpoints for that reason."""
    return isinstance(error, RateLimited) or (
        isinstance(error, NoEndpoints) and isinstance(error.__cause__, RateLimited)
    )


class Gait:
    """How a target stands with the limits on its way. Not safe for threads by itself."""

    __slots__ = ("_careful", "_knocking", "until_ns")

    def __init__(self) -> None:
        self.until_ns = 0
        """Nothing may begin before."""
        self._careful = 0
        """How many more have to be let in, one by one, before several begin at once."""
        self._knocking = 0

    def wait_ns(self, now_ns: int) -> int:
        """How much longer nothing may begin; 0 if there is nothing to wait for."""
        return max(0, self.until_ns - now_ns)

    def room(self, now_ns: int, room: int) -> int:
        """How many of `room` may begin now."""
        if now_ns < self.until_ns:
            return 0
        return max(0, min(room, 1 - self._knocking)) if self._careful else room

    def begin(self) -> bool:
        """One begins; tells whether the others wait for `know` of it."""
        if not self._careful:
            return False
        self._knocking += 1
        return True

    def know(self, *, admitted: bool) -> None:
        """What became of the one they waited for."""
        self._knocking -= 1
        self._careful = max(0, self._careful - 1) if admitted else self._careful

    def refused(self, now_ns: int, wait_ns: int) -> None:
        """A limit refused, for so long."""
        self.until_ns = max(self.until_ns, now_ns + wait_ns)
        self._careful = BOLD


class Pace:
    """The limiter of a worker."""

    def __init__(self, limiter: object, name: str) -> None:
        if isinstance(limiter, LimitSpec):
            limiter = Limiter(limiter, name=name)
        if limiter is not None and not isinstance(limiter, Limiter):
            raise ConfigError(
                f"{given('worker(limiter)', limiter)}: expected a Limiter, or a limit such as TokenBucket('50/s')"
            )
        self._limiter = limiter
        if limiter is not None:
            limiter.check_cost(1)

    @property
    def limits(self) -> bool:
        """Whether there is a limiter at all."""
        return self._limiter is not None

    async def look(self, target: str, runtime: Runtime) -> tuple[int, int]:
        """How many records may begin towards a target now; if none, in how many nanoseconds one may."""
        limiter = cast("Limiter", self._limiter)
        seen = await limiter.apeek(target) if runtime.is_async else limiter.peek(target)
        return (max(1, seen.remaining), 0) if seen.allowed else (0, seen.retry_after_ns)

    async def take(self, target: str, runtime: Runtime) -> Decision | None:
        """One begins. None if there is no limiter; else its decision, which may be a refusal."""
        if self._limiter is None:
            return None
        return await self._limiter.ahit(target) if runtime.is_async else self._limiter.hit(target)
