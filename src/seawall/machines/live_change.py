"""What becomes of a state when its limit takes other numbers: what is used stays used, as far as there is room.

Nothing is rounded to whole units and nothing is dated anew, so that a limit that is set again and again, to other
numbers or the same, is left as free as time has made it.
"""

from __future__ import annotations

from typing import Any

from seawall.machines.fixed_window import FixedWindow
from seawall.machines.leaky_bucket import LeakyBucket
from seawall.machines.limit import Limit
from seawall.machines.sliding_window import SlidingWindow
from seawall.machines.token_bucket import TokenBucket
from seawall.machines.warm_up import WarmUp

__all__ = ["carried"]


def carried(was: Limit[Any], limit: Limit[Any], state: Any, now: int) -> Any:
    """`state` of the limit `was` as one of `limit`, which is of the same kind."""
    if isinstance(was, WarmUp) and isinstance(limit, WarmUp):
        return _bucket(was.inner, limit.inner, state, was.inside(now), limit.inside(now))
    if isinstance(was, TokenBucket) and isinstance(limit, TokenBucket):
        return _bucket(was, limit, state, now, now)
    if isinstance(was, LeakyBucket) and isinstance(limit, LeakyBucket):
        return _slots(was, limit, state)
    if isinstance(was, FixedWindow) and isinstance(limit, FixedWindow):
        return state if was.period_ns == limit.period_ns else limit.add(None, now, was.amount - was.left(state, now))
    if isinstance(was, SlidingWindow) and isinstance(limit, SlidingWindow):
        return _buckets(was, limit, state, now)
    return state  # a log says when each was taken, whatever the limit is


def _bucket(was: Limit[Any], limit: Limit[Any], state: int, before: int, now: int) -> int:
    """The same level in tokens. A bucket that has become smaller is full, unless it was in debt."""
    assert isinstance(was, TokenBucket) and isinstance(limit, TokenBucket), "only these are warmed up"
    used = max(0, state - before * was.per_ns)
    most = 2 * limit.full if used > was.full else limit.full
    return now * limit.per_ns + min(-(-used * limit.per_token // was.per_token), most)


def _slots(was: LeakyBucket, limit: LeakyBucket, state: int) -> int:
    """Slots that are handed out stay where they are; the next is a new step behind the last."""
    last = -(-(state - was.per_unit) // was.per_ns)
    return last * limit.per_ns + limit.per_unit


def _buckets(was: SlidingWindow, limit: SlidingWindow, state: int, now: int) -> int:
    """Each count goes to the bucket in which the end of its old one lies, or this instant if that is sooner."""
    if was.bucket_ns == limit.bucket_ns and was.buckets == limit.buckets:
        return state
    newest = now // limit.bucket_ns
    counts = [0] * (limit.buckets + 1)
    for begin, count in was.counts(state, now):
        lane = newest - min(begin + was.bucket_ns - 1, now) // limit.bucket_ns
        if lane < len(counts):
            counts[lane] += count
    return limit.packed(newest, counts)
