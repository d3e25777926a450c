"""`Broadcast`: call every endpoint, and have them all succeed."""

from __future__ import annotations

from typing import Any, Literal

from seawall import events
from seawall.cluster.member import Seat
from seawall.cluster.serving import Serving
from seawall.cluster.strategy import LiveStrategy, Strategy
from seawall.errors import BroadcastError, ConfigError, DeadlineExceeded
from seawall.policies.classify import PROGRAMMING
from seawall.policies.layer import Ending
from seawall.runtime.race import Attempt, Race
from seawall.units import count_of

__all__ = ["Broadcast"]


class Broadcast(Strategy[Any]):
    """Call all endpoints beside each other, whatever their health, and answer with a mapping of endpoints to values.

    For what every replica must learn: a cache to invalidate, a new configuration. Every endpoint pays. It ends when
    all have ended: then, if fewer than `quorum` succeeded, `BroadcastError` tells `succeeded` and `failed`; an error of
    the program is raised as it is. Give the endpoints a `Timeout`, so that one that hangs does not hold all the others.
    In sync every endpoint takes a thread of the cluster (`max_threads`).

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
        seats = list(call.roster.seats())
        # Nothing decides before all have ended: every endpoint is to be told, whatever happens to the others.
        race = Race(call.legs(), lambda error: not isinstance(error, Exception))
        self.broadcasts += 1
        succeeded: dict[Any, Any] = {}
        failed: dict[Any, Exception] = {}
        try:
            for seat in seats:
                race.start(self._leg(call, seat))
            if not await race.all_ended(call.time_left):
                late = DeadlineExceeded("the deadline of the caller passed", policy=call.name, inherited=True)
            else:
                late = DeadlineExceeded(policy=call.name)
            for seat, ending in zip(seats, race.endings, strict=True):
                value, error = (None, late) if ending is None else ending
                if error is None:
                    succeeded[seat.endpoint] = value
                elif isinstance(error, Exception):
                    failed[seat.endpoint] = error
                else:
                    return None, error
            return self._end(call, succeeded, failed)
        finally:
            race.end(unwanted=False)
            failed = {}  # errors know this frame

    @staticmethod
    def _leg(call: Serving, seat: Seat) -> Attempt:
        branch = call.branch()
        return lambda: branch.at(seat)

    def _end(self, call: Serving, succeeded: dict[Any, Any], failed: dict[Any, Exception]) -> Ending:
        call.endpoint = None
        for error in failed.values():
            if isinstance(error, PROGRAMMING):
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
        return None, BroadcastError(call.name, succeeded=succeeded, failed=failed, needed=needed)

    def snapshot(self) -> dict[str, Any]:
        return {"broadcasts": self.broadcasts, "failed_broadcasts": self.failed_broadcasts}

    def explain(self) -> str:
        count = self._quorum if isinstance(self._quorum, int) else {"all": "all", "majority": "most"}[self._quorum]
        return f"Broadcast: every endpoint is called, and {count} of them must succeed."
