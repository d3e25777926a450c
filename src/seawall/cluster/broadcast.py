"""`Broadcast`: call every endpoint, and have them all succeed."""

from __future__ import annotations

import contextvars
from collections import deque
from functools import partial
from typing import Any, Literal, cast

from seawall import events
from seawall.cluster.member import Seat
from seawall.cluster.reading import is_programming
from seawall.cluster.serving import Serving
from seawall.cluster.strategy import LiveStrategy, Strategy
from seawall.errors import BroadcastError, ConfigError, DeadlineExceeded, NoEndpoints
from seawall.policies.layer import Ending
from seawall.runtime.blocking import drive
from seawall.runtime.race import Attempt, Race
from seawall.units import count_of

__all__ = ["Broadcast"]

RESERVE_NS = 10_000_000
"""How much of a deadline is kept for telling who was reached; at most a tenth of it, but `LEAST_NS` if it is short."""
LEAST_NS = 5_000_000

CLOSED: Ending = (None, None)
"""In the place of an ending that somebody has taken."""


class Broadcast(Strategy[Any]):
    """Call all endpoints beside each other, whatever their health, and answer with a mapping of endpoints to values.

    For what every replica must learn: a cache to invalidate, a new configuration. Every endpoint pays. It ends when
    all have ended: then, if fewer than `quorum` succeeded, `BroadcastError` tells `succeeded` and `failed`; an error of
    the program is raised as it is. Give the endpoints a `Timeout`, so that one that hangs does not hold all the others.
    In sync every endpoint takes a thread of the cluster; beyond `max_threads` one has to wait for another.

    Args:
        quorum: how many must succeed: a whole number from 1, "majority" or "all". Default "all".

    Raises:
        ConfigError: a setting is outside its range.

    Example:
        >>> from seawall import Broadcast, Cluster
        >>> caches = Cluster("caches", ["a:80", "b:80"], strategy=Broadcast())
        >>> answers = caches.call(lambda endpoint, key: f"dropped {key}", "k")
        >>> {str(endpoint): value for endpoint, value in answers.items()}
        {'a:80': 'dropped k', 'b:80': 'dropped k'}

    After Dubbo's broadcast cluster, which calls one after the other and returns the last result.
    """

    __slots__ = ("quorum",)

    quorum: int | Literal["all", "majority"]

    def __init__(self, quorum: int | Literal["all", "majority"] = "all", *, name: str | None = None) -> None:
        if isinstance(quorum, str):
            if quorum not in ("all", "majority"):
                raise ConfigError(f'Broadcast(quorum={quorum!r}): expected a whole number from 1, "majority" or "all"')
        else:
            count_of(quorum, "Broadcast(quorum)")
        self._init(name, quorum=quorum)

    def live(self, cluster: str) -> LiveBroadcast:
        return LiveBroadcast(cluster, self)


class LiveBroadcast(LiveStrategy):
    """A broadcast at work."""

    kind = "broadcast"
    forks = True
    answers_for_all = True

    def __init__(self, cluster: str, spec: Broadcast) -> None:
        super().__init__(cluster, spec)
        self._quorum = spec.quorum
        self.broadcasts = self.failed_broadcasts = 0

    def needed(self, size: int) -> int:
        """How many of `size` endpoints must succeed."""
        if isinstance(self._quorum, int):
            return self._quorum
        return size if self._quorum == "all" else size // 2 + 1

    async def serve(self, call: Serving) -> Ending:
        try:
            call.raise_obstacle()
        except (DeadlineExceeded, NoEndpoints) as obstacle:
            return None, obstacle
        told = Told([(call.branch(), seat) for seat in call.roster.seats()])
        # Nothing decides before all have ended: every endpoint is to be told, whatever happens to the others.
        race = Race(call.legs(), lambda error: not isinstance(error, Exception))
        self.broadcasts += 1
        ended = False
        try:
            for attempt in told.attempts(call.most_legs):
                race.start(attempt)
            unreached = _unreached(call, race, in_time=await race.all_ended(_patience(call)))
            ended = True
        finally:
            race.end(unwanted=False)
            if not ended:  # a cancellation, or an exit
                await _discard(call, told.close(DeadlineExceeded(policy=call.name))[0])
        return await self._end(call, *told.close(unreached))

    async def _end(self, call: Serving, succeeded: dict[Any, Any], failed: dict[Any, BaseException]) -> Ending:
        call.endpoint = None
        for error in failed.values():
            if not isinstance(error, Exception) or (is_programming(error) and not call.read(error).again):
                await _discard(call, succeeded)
                return None, error
        needed = self.needed(len(succeeded) + len(failed))
        if len(succeeded) >= needed:
            return succeeded, None
        self.failed_broadcasts += 1
        if events.sinks:
            events.emit(
                events.BroadcastFailed(
                    policy=call.name, layer=self.name, succeeded=len(succeeded), failed=len(failed), needed=needed
                )
            )
        return None, BroadcastError(call.name, succeeded=succeeded, failed=cast("Any", failed), needed=needed)

    def snapshot(self) -> dict[str, Any]:
        return {"broadcasts": self.broadcasts, "failed_broadcasts": self.failed_broadcasts}

    def explain(self) -> str:
        count = self._quorum if isinstance(self._quorum, int) else {"all": "all", "majority": "most"}[self._quorum]
        return f"Broadcast: every endpoint is called, and {count} of them must succeed."


def _patience(call: Serving) -> int | None:
    """How long to wait for the last: not quite until the deadline, at which in async nothing could be told any more."""
    left = call.time_left
    if left is None:
        return None
    return left - min(RESERVE_NS, max(left // 10, min(LEAST_NS, left // 2)))


class Told:
    """The endpoints of one broadcast: those that wait to be told, and how it ended with the others."""

    def __init__(self, legs: list[tuple[Serving, Seat]]) -> None:
        self._legs = legs
        self._waiting = deque(legs)
        self._endings: dict[Seat, Ending] = {}

    def attempts(self, most: int | None) -> list[Attempt]:
        """What has to run beside each other: an attempt for each endpoint, or `most` that take one after the other."""
        if most is not None:
            return [self._tell_more] * min(most, len(self._legs))
        self._waiting.clear()
        return [partial(self._tell, branch, seat) for branch, seat in self._legs]

    async def _tell_more(self) -> Ending:
        """On a thread: tell one after the other, as long as there are any."""
        ending: Ending = None, None
        while self._waiting and (ending[1] is None or isinstance(ending[1], Exception)):
            try:
                branch, seat = self._waiting.popleft()
            except IndexError:
                break  # another was quicker
            # Each in a context of its own: what one attempt sets is nothing to the next on this thread.
            ending = contextvars.copy_context().run(drive, self._tell(branch, seat))
        try:
            return ending
        finally:
            del ending  # an error in it knows this frame

    async def _tell(self, branch: Serving, seat: Seat) -> Ending:
        ending = await branch.at(seat)
        try:
            if self._endings.setdefault(seat, ending) is ending:
                return ending
            await branch.discard(ending)  # it came too late
            return CLOSED
        finally:
            del ending  # as above

    def close(self, unreached: BaseException) -> tuple[dict[Any, Any], dict[Any, BaseException]]:
        """The values and the errors by endpoint; those that have not ended failed with `unreached`."""
        self._waiting.clear()
        succeeded: dict[Any, Any] = {}
        failed: dict[Any, BaseException] = {}
        for _, seat in self._legs:
            value, error = self._endings.setdefault(seat, (None, unreached))
            self._endings[seat] = CLOSED  # the frames of the attempts know this object, and their errors know them
            if error is None:
                succeeded[seat.endpoint] = value
            else:
                failed[seat.endpoint] = error
        return succeeded, failed


async def _discard(call: Serving, values: dict[Any, Any]) -> None:
    for value in values.values():
        await call.discard((value, None))


def _unreached(call: Serving, race: Race, *, in_time: bool) -> BaseException:
    """What is to be said of endpoints that have not ended."""
    refusals = [ending[1] for ending in race.endings if ending is not None and ending[1] is not None]
    if in_time and refusals:
        return refusals[0]  # no thread was free for any of them
    return DeadlineExceeded("the deadline of the caller passed", policy=call.name, inherited=True)
