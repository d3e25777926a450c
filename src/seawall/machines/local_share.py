"""The part of a limit that one of several processes keeps to while nobody can tell what the others do.

Each of n processes admits a n-th, rounded down: together never more than the limit. What was used before is not known,
so every key counts as used up at the instant `since`, and gets its share back as time passes: there is no burst.

    token bucket  a n-th of the rate, and of the burst
    leaky bucket  a n-th of the rate, and of the queue; it has no burst to begin with
    windows       a n-th of the amount in a window, and at the same time a bucket of that rate and size: without it, the
                  first window would begin with all of its share at once
"""

from __future__ import annotations

from typing import Any, ClassVar

from seawall.machines.fixed_window import FixedWindow
from seawall.machines.leaky_bucket import LeakyBucket
from seawall.machines.limit import Limit
from seawall.machines.sliding_log import SlidingLog
from seawall.machines.sliding_window import SlidingWindow
from seawall.machines.token_bucket import TokenBucket

__all__ = ["CivilShare", "LocalShare", "share_of"]


class LocalShare:
    """Two limits at once, of which `pace` is empty at `since` for every key. The state is a pair."""

    __slots__ = ("pace", "since", "window")

    kind: ClassVar[str] = "local_share"
    civil: ClassVar[bool] = False

    def __init__(self, pace: TokenBucket, window: Limit[Any] | None, since: int) -> None:
        self.pace = pace
        self.window = window
        self.since = since

    @property
    def capacity(self) -> int:
        return self.pace.capacity

    @property
    def forget_ns(self) -> int:
        return self.pace.forget_ns if self.window is None else max(self.pace.forget_ns, self.window.forget_ns)

    def _paced(self, state: Any) -> int:
        """What is used up at `since`, or more."""
        empty = self.since * self.pace.per_ns + self.pace.full
        return empty if state is None else max(state[0], empty)

    @staticmethod
    def _counted(state: Any) -> Any:
        return None if state is None else state[1]

    def take(self, state: Any, now: int, cost: int) -> Any:
        paced = self.pace.take(self._paced(state), now, cost)
        if self.window is None:
            return None if paced is None else (paced, None)
        counted = self.window.take(self._counted(state), now, cost)
        return None if paced is None or counted is None else (paced, counted)

    def add(self, state: Any, now: int, cost: int) -> Any:
        counted = None if self.window is None else self.window.add(self._counted(state), now, cost)
        return self.pace.add(self._paced(state), now, cost), counted

    def give_back(self, state: Any, now: int, cost: int, taken: int) -> Any:
        """What was taken meanwhile stays taken: it is a time of shortage."""
        return state

    def left(self, state: Any, now: int) -> int:
        left = self.pace.left(self._paced(state), now)
        return left if self.window is None else min(left, self.window.left(self._counted(state), now))

    def wait(self, state: Any, now: int, cost: int) -> int:
        wait = self.pace.wait(self._paced(state), now, cost)
        return wait if self.window is None else max(wait, self.window.wait(self._counted(state), now, cost))

    def rest(self, state: Any, now: int) -> int:
        rest = self.pace.rest(self._paced(state), now)
        return rest if self.window is None else max(rest, self.window.rest(self._counted(state), now))


class CivilShare(LocalShare):
    """On the clock of the civil calendar."""

    __slots__ = ()

    civil: ClassVar[bool] = True


def share_of(limit: Limit[Any], nodes: int, since: int) -> Limit[Any] | None:
    """The share of one of `nodes`, or None if nothing is left of it. `since` is on the clock of the limit."""
    if isinstance(limit, LeakyBucket):
        return LeakyBucket(limit.per_ns, limit.per_unit * nodes, limit.queue // nodes)
    amount = limit.capacity // nodes
    if not amount:
        return None
    if isinstance(limit, TokenBucket):
        return LocalShare(TokenBucket(limit.per_ns, limit.per_token * nodes, amount), None, since)
    if isinstance(limit, FixedWindow):
        pace = TokenBucket(amount, limit.period_ns, amount)
        return CivilShare(pace, FixedWindow(amount, limit.period_ns), since)
    if isinstance(limit, SlidingWindow):
        span = limit.bucket_ns * limit.buckets
        return LocalShare(TokenBucket(amount, span, amount), SlidingWindow(amount, span, limit.buckets), since)
    if isinstance(limit, SlidingLog):
        pace = TokenBucket(amount, limit.period_ns, amount)
        return LocalShare(pace, SlidingLog(amount, limit.period_ns), since)
    raise TypeError(f"{type(limit).__name__} has no share")
