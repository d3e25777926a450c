"""The values a breaker deals in: its settings, what it hands out, and what it tells."""

from __future__ import annotations

import itertools
from enum import Enum

from seawall.machines.window import CountWindow, TimeWindow
from seawall.record import Record

__all__ = ["PPM", "Mode", "Permit", "Refusal", "Rules", "State", "Transition", "Trip"]

PPM = 1_000_000


class State(Enum):
    """Where a breaker stands by itself."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class Mode(Enum):
    """What a breaker was told by hand."""

    AUTO = "auto"
    FORCED_OPEN = "forced_open"
    DISABLED = "disabled"
    SHADOW = "shadow"


class Rules(Record):
    """The settings of a breaker, in integers."""

    failure_rate_ppm: int | None = 500_000
    slow_rate_ppm: int = PPM
    slow_after_ns: int | None = None
    consecutive: int | None = None
    min_calls: int = 10
    window_ns: int | None = 30_000_000_000
    """The span of a time window; None for a window over the last `window_calls`."""
    window_calls: int = 100
    buckets: int = 10
    open_for_ns: int = 30_000_000_000
    probes: int = 5
    probe_lease_ns: int = 60_000_000_000

    def make_window(self) -> TimeWindow | CountWindow:
        if self.window_ns is None:
            return CountWindow(self.window_calls)
        return TimeWindow(self.window_ns, self.buckets)


class Trip(Record):
    """Why a breaker opened: `bad` of `calls` were failed or slow; `rule` tells which rule was broken."""

    rule: str
    bad: int
    calls: int
    threshold: float


class Transition(Record):
    """One change of state or mode; exactly one for each change."""

    before: str
    after: str
    trip: Trip | None = None
    open_ns: int = 0


class Permit:
    """Leave to make one attempt. Shared by all attempts while it is a `free_pass`."""

    __slots__ = ("lease_until_ns", "slow_mark", "started_ns", "stay", "ticks", "transition")

    def __init__(self, stay: int, started_ns: int) -> None:
        self.stay = stay
        self.started_ns = started_ns
        self.lease_until_ns = 0
        self.slow_mark: int | None = None
        self.transition: Transition | None = None
        self.ticks = itertools.count()


class Refusal:
    """No: `retry_after_ns` until it is worth asking again."""

    __slots__ = ("retry_after_ns", "transition", "trip", "why")

    def __init__(self, retry_after_ns: int, why: str, trip: Trip | None, transition: Transition | None) -> None:
        self.retry_after_ns = retry_after_ns
        self.why = why
        self.trip = trip
        self.transition = transition
