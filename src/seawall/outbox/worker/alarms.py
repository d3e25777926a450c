"""A worker looks at its backlog every ten seconds, keeps what it saw, and tells when there is too much of it.

Rules
    depth   waiting, leased and dead records together: what counts against the backlog.
    age     of the oldest that is waiting or leased, since it was made.
    drops   records thrown away to make room, since the last look.
    an alarm is told once when its threshold is reached, and once when it is over: the value is below nine tenths of the
    threshold, or nothing was dropped for five minutes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from seawall import events
from seawall.errors import ConfigError
from seawall.outbox.store import OpenStore, Stats
from seawall.outbox.urls import BACKLOG
from seawall.runtime import clock
from seawall.units import Duration, count_of, duration_ns, fraction_ppm

if TYPE_CHECKING:
    from seawall.outbox.box import Outbox

__all__ = ["Watch"]

SECOND = 1_000_000_000
EVERY_NS = 10 * SECOND
QUIET_NS = 300 * SECOND
KINDS: tuple[str, ...] = ("depth", "age", "drops")


class Watch:
    """Looks at the backlog of one worker's outbox."""

    def __init__(self, outbox: Outbox, depth: float | None, age: Duration | None) -> None:
        self._outbox = outbox
        self.backlog = _backlog_of(outbox)
        self._depth = None if depth is None else _depth(depth, self.backlog)
        self._age_ns = None if age is None else duration_ns(age, "worker(alarm_age)", zero=False)
        self._on = dict.fromkeys(KINDS, False)
        self._stats: Stats | None = None
        self._seen_ns = 0
        self._next_ns = 0
        self._dropped_ns = 0

    def wait_ns(self, now_ns: int) -> int:
        """How long until the next look."""
        return max(0, self._next_ns - now_ns)

    async def look(self, store: OpenStore) -> None:
        """Look, and tell what crossed its threshold. Raises what the store raises."""
        self._next_ns = clock.now_ns() + EVERY_NS
        stats = await store.stats()
        before, self._stats, self._seen_ns = self._stats, stats, clock.now_ns()
        dropped = 0 if before is None else max(0, stats.dropped - before.dropped)
        if self._depth is not None:
            self._weigh("depth", stats.waiting + stats.leased + stats.dead, self._depth)
        if self._age_ns is not None:
            self._weigh("age", _age_of(stats), self._age_ns / SECOND)
        if dropped:
            self._dropped_ns = self._seen_ns
        if dropped or self._seen_ns - self._dropped_ns >= QUIET_NS:
            self._weigh("drops", dropped, 1)

    def _weigh(self, kind: str, value: float, threshold: float) -> None:
        on = self._on[kind]
        now_on = value >= threshold if not on else value >= 0.9 * threshold
        if now_on == on:
            return
        self._on[kind] = now_on
        if events.sinks:
            event = events.BacklogAlarm(
                policy=self._outbox.name, layer=kind, on=now_on, value=value, threshold=threshold
            )
            events.emit(event)

    def snapshot(self) -> dict[str, Any]:
        """What was seen last, as JSON-ready values; None before the first look."""
        stats = self._stats
        seen: dict[str, Any] | None = None
        if stats is not None:
            seen = {
                "waiting": stats.waiting,
                "leased": stats.leased,
                "dead": stats.dead,
                "dropped": stats.dropped,
                # None where things wait and the store cannot see how old they are (RabbitMQ): 0 would be a lie.
                "oldest_age": None if stats.oldest_ns is None and stats.waiting else _age_of(stats),
                "most": self.backlog,
                "seen_before": max(0, clock.now_ns() - self._seen_ns) / SECOND,
            }
        return {"backlog": seen, "alarms": [kind for kind in KINDS if self._on[kind]]}


def _age_of(stats: Stats) -> float:
    return 0.0 if stats.oldest_ns is None else max(0, clock.wall_ns() - stats.oldest_ns) / SECOND


def _backlog_of(outbox: Outbox) -> int:
    try:
        most = outbox.store.snapshot().get("backlog")
    except Exception:  # noqa: BLE001  # a store of somebody else's; it is for a default only
        most = None
    return most if isinstance(most, int) and most > 0 else BACKLOG


def _depth(value: float, backlog: int) -> int:
    field = "worker(alarm_depth)"
    if isinstance(value, float):
        return max(1, backlog * fraction_ppm(value, field) // 1_000_000)
    try:
        return count_of(value, field)
    except ConfigError as error:
        raise ConfigError(f"{error}, or a share of the backlog such as 0.8") from None
