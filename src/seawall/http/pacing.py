"""`Pace`: requests wait until the server they go to has room for them, by what its answers say of its limits."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from seawall import events
from seawall.context import CURRENT
from seawall.errors import ConfigError, RateLimited
from seawall.http.rate_fields import Announced, Get, announced
from seawall.http.retry_after import retry_after
from seawall.limiter.line import Lines
from seawall.machines.pacing import Pacing
from seawall.policies.functions import check_predicate
from seawall.runtime import clock, forks, off
from seawall.runtime.protocol import Runtime
from seawall.units import SECOND, Duration, count_of, duration_ns, given, show_seconds

__all__ = ["Pace", "Paced", "Turn", "pace_of"]

MOST_TRIES = 8
"""How many origins are looked at to find one that may be forgotten."""


class Paced(RateLimited):
    """A request was not sent, because its server would not have room for it soon enough."""


class Pace:
    """Send no more to a server than its answers say it will take: `RateLimit`, `X-RateLimit-*`, `Retry-After`.

    Once half of what the server grants is used, requests to it are spread over the time for which the rest has to last;
    when nothing is left they wait until there is more. They wait in one line for each origin (scheme, host and port; in
    a cluster the endpoint), threads and tasks alike. Who would wait longer than `max_wait`, or beyond his deadline, is
    refused at once, and nothing is sent. The first request to a server goes alone, and the others wait for its answer,
    at most a second; so does the first after the time of a limit has passed. Servers that say nothing are left alone.

    One `Pace` may serve several transports, sync and async: then they share the lines. It knows of this process only.

    Args:
        max_wait: how long a request waits at most. Default 5 s; 0: it never waits, and is refused instead.
        cap: how long a server can hold requests up at most, whatever it says: then one is sent all the same. Default
            60 s; make it longer for servers whose limits are by the hour.
        queue: how many requests wait at most, for all servers together.
        origins: how many servers are known at most; beyond it those not asked for longest are forgotten.
        key: a function of the client's request that tells those apart which the server counts apart, such as by the
            API key they carry; it returns a text. Default: all requests to an origin are counted together.
        name: stands in errors and events.

    Raises:
        ConfigError: a setting is wrong.
        RateLimited: by a request that would wait too long, with `retry_after`; it is of the client's own kind as well.

    Example:
        >>> import httpx
        >>> from seawall.http import Pace
        >>> from seawall.integrations.httpx import Transport
        >>> def server(request):  # in place of the network
        ...     return httpx.Response(200, headers={"RateLimit": '"default";r=0;t=30'})
        >>> client = httpx.Client(transport=Transport(inner=httpx.MockTransport(server), pace=Pace(max_wait="5s")))
        >>> client.get("http://a.example/1").status_code
        200
        >>> client.get("http://a.example/2")
        Traceback (most recent call last):
        ...
        seawall.http.pacing.Paced: pace: http://a.example has no room for 30 s, which is over 5 s; retry in 30 s
    """

    def __init__(
        self,
        *,
        max_wait: Duration = 5,
        cap: Duration = 60,
        queue: int = 1_000,
        origins: int = 1_000,
        key: Callable[[Any], str] | None = None,
        name: str = "pace",
    ) -> None:
        self.name = name
        self._max_wait_ns = duration_ns(max_wait, "Pace(max_wait)")
        self._cap_ns = duration_ns(cap, "Pace(cap)", zero=False)
        self._most_origins = count_of(origins, "Pace(origins)")
        check_predicate(key, "Pace(key)", "a function of the request")
        self._key = key
        self._lines = Lines(count_of(queue, "Pace(queue)"))
        self._origins: OrderedDict[str, Pacing] = OrderedDict()
        self._lock = threading.RLock()  # finalizers of those who wait come through here as well
        self._waited = self._refused = 0
        forks.renew_after_fork(self)

    def renew_after_fork(self) -> None:
        self._lock = threading.RLock()
        for origin in self._origins.values():
            origin.flying.clear()

    def key_of(self, origin: str, request: Any) -> str:
        """By what a request to `origin` is counted. What comes behind the space may be a secret, and is never shown."""
        return origin if self._key is None else f"{origin} {self._key(request)}"

    async def enter(self, runtime: Runtime, key: str) -> Turn:
        """Wait for one's turn; the end of the request is told to what this returns.

        Raises `RateLimited`, having sent nothing, if it would take too long.
        """
        if off.everything:
            return Turn(self, key, None, 0)
        now = clock.now_ns()
        due, deadline = now + self._max_wait_ns, CURRENT.get().deadline_ns
        if deadline is not None and deadline < due:
            due = deadline
        line = self._lines.waiting.get(key)
        turn, wait, least = self._try(key, now, 0 if line is None else len(line))
        if turn is not None:
            return turn
        patience = max(0, due - now)
        if now + least > due:
            raise self._refusal(key, least, patience)
        hurry = now + patience // 2
        place = self._lines.join(key, runtime)
        if place is None:
            raise self._refusal(key, wait, patience, full=True)
        self._waited += 1
        try:
            while True:
                now, at_head = clock.now_ns(), self._lines.is_head(key, place)
                turn, wait, least = self._try(key, now, 0 if at_head else 1, hurried=now >= hurry)
                if turn is not None:
                    return turn
                if now + least > due or now >= due:
                    raise self._refusal(key, max(wait, least), patience)
                left = (due if now >= hurry else hurry) - now
                await self._lines.wait(place, min(wait, left) if at_head else left)
        finally:
            self._lines.leave(key, place)

    def _try(self, key: str, now: int, ahead: int, *, hurried: bool = False) -> tuple[Turn | None, int, int]:
        """A turn, if nobody is ahead and the server has room; when there may be one, and before when for sure not.

        Who is `hurried` does not wait for the first answer of a server of which nothing is known.
        """
        with self._lock:
            origin = self._origin(key, now)
            wait, least = origin.wait(now), origin.least(now, ahead)
            if not ahead and (not wait or (hurried and origin.windows is None)):
                return Turn(self, key, origin, origin.send(now)), 0, 0
            return None, wait, least

    def _origin(self, key: str, now: int) -> Pacing:
        origin = self._origins.get(key)
        if origin is not None:
            self._origins.move_to_end(key)
            return origin
        if len(self._origins) >= self._most_origins:
            oldest = [name for name, _ in zip(self._origins, range(MOST_TRIES), strict=False)]
            idle = (name for name in oldest if name not in self._lines and self._origins[name].idle(now))
            del self._origins[next(idle, oldest[0])]
        origin = self._origins[key] = Pacing(self._cap_ns)
        return origin

    def _refusal(self, key: str, wait: int, patience: int, *, full: bool = False) -> Paced:
        self._refused += 1
        origin = key.partition(" ")[0]
        if events.sinks:
            events.emit(events.LimitReached(policy=self.name, layer=origin, cost=1, retry_after=wait / SECOND))
        seconds, most = wait / SECOND, patience / SECOND
        if full:
            count = self._lines.most
            detail = f"too many requests wait already ({count})"
            return Paced(detail, policy=self.name, measured=count, threshold=count, retry_after=seconds)
        if wait > patience:
            detail = f"{origin} has no room for {show_seconds(wait)}, which is over {show_seconds(patience)}"
        else:
            detail = f"no turn for {origin} within {show_seconds(patience)}"
        return Paced(detail, policy=self.name, measured=seconds, threshold=most, retry_after=seconds)

    def ended(self, key: str, origin: Pacing, end: Callable[[Pacing], None]) -> None:
        """A request has ended; whoever waits asks again."""
        with self._lock:
            end(origin)
        self._lines.wake(key)

    def snapshot(self) -> dict[str, Any]:
        """As JSON-ready values: how many `origins` are known, how many requests are `waiting`, and have `waited` and
        been `refused` so far."""
        return {
            "origins": len(self._origins),
            "waiting": len(self._lines),
            "waited": self._waited,
            "refused": self._refused,
        }

    def __repr__(self) -> str:
        return f"Pace({self.name}, max_wait={show_seconds(self._max_wait_ns)}, cap={show_seconds(self._cap_ns)})"


class Turn:
    """A request that may go now; it must be closed. The first end that it is told counts."""

    __slots__ = ("_begun", "_key", "_number", "_origin", "_pace")

    def __init__(self, pace: Pace, key: str, origin: Pacing | None, number: int) -> None:
        self._pace = pace
        self._key = key
        self._origin = origin
        self._number = number
        self._begun = False

    def begin(self) -> None:
        """It is being sent: from now on the server may count it."""
        self._begun = True

    def answered(self, status: int, get: Get) -> None:
        """There is a response, with the headers that `get` gives."""
        origin, self._origin = self._origin, None
        if origin is None:
            return
        told = [(limit.left, _time_of(limit), limit.quota) for limit in announced(get)]
        asked = retry_after(get("retry-after"), date=get("date")) if status in (429, 503) else None
        if asked is not None:
            told.append((0, round(asked * SECOND), None))
        now = clock.now_ns()
        self._pace.ended(self._key, origin, lambda origin: origin.answered(self._number, now, told))

    def failed(self, error: BaseException, never_left: tuple[type[Exception], ...]) -> None:
        """Sending it ended with this error."""
        self._begun = self._begun and not isinstance(error, never_left)
        self.close()

    def close(self) -> None:
        """There will be no response: if it was not sent, its place is free again."""
        origin, self._origin = self._origin, None
        if origin is not None:
            end = Pacing.lost if self._begun else Pacing.give_back
            self._pace.ended(self._key, origin, lambda origin: end(origin, self._number))


def _time_of(limit: Announced) -> int:
    """For how long it holds. Many servers round down, and who believes that nothing is left for no time asks at once,
    and again at once, until a second is over."""
    return (limit.seconds or (0 if limit.left else 1)) * SECOND


def pace_of(pace: Pace | bool, field: str) -> Pace | None:
    """What was said of pacing, as a `Pace` or None. Raises `ConfigError` for anything else."""
    if isinstance(pace, bool):
        return Pace() if pace else None
    if not isinstance(pace, Pace):  # pyright: ignore[reportUnnecessaryIsInstance]  # callers without a type checker
        raise ConfigError(f"{given(field, pace)}: expected True, False or a Pace")
    return pace
