"""Keys for which a drawer has no room share a sketch (machines/sketch.py), whatever their limit is."""

from __future__ import annotations

import os
from typing import Any

from seawall.machines.leaky_bucket import LeakyBucket
from seawall.machines.limit import Limit
from seawall.machines.sketch import Sketch
from seawall.machines.token_bucket import TokenBucket
from seawall.machines.warm_up import WarmUp
from seawall.runtime import clock

__all__ = ["SECRET", "Spill", "hashed"]

SECRET = os.urandom(32)
Numbers = tuple[int, int, int]


class Spill:
    """A sketch for one limit.

    Its clock is the monotonic one also for limits that follow the civil clock: when that one is set back, keys would be
    refused until it has caught up. With `was` it takes over what is used there.
    """

    __slots__ = ("_capacity", "_sketch", "_warm_up")

    def __init__(self, limit: Limit[Any], was: Spill | None = None) -> None:
        self._warm_up = limit if isinstance(limit, WarmUp) else None
        self._capacity = limit.capacity
        inner = limit.inner if isinstance(limit, WarmUp) else limit
        if isinstance(inner, TokenBucket):
            unit, burst = -(-inner.per_token // inner.per_ns), inner.burst
        elif isinstance(inner, LeakyBucket):
            unit, burst = -(-inner.per_unit // inner.per_ns), 1
        else:
            burst = max(1, inner.capacity // 2)
            unit = -(-inner.forget_ns // max(1, inner.capacity - burst))
        now = clock.now_ns()
        self._sketch = Sketch(unit, burst, self._inside(now))
        if was is not None:
            self._sketch.take_over(was._sketch, was._inside(now))

    def _inside(self, now: int) -> int:
        return now if self._warm_up is None else self._warm_up.inside(now)

    def _span(self, now: int, span: int) -> int:
        """How long a span takes on the clock outside."""
        if self._warm_up is None or not span:
            return span
        return max(1, self._warm_up.outside(self._warm_up.inside(now) + span) - now)

    def look(self, place: int, cost: int, held: int = 0) -> Numbers:
        """What is left, and the nanoseconds to wait and until nothing is used; a wait of 0: it would be admitted."""
        now = clock.now_ns()
        left, wait, rest = self._sketch.judge(place, self._inside(now), cost + held)
        if cost + held > self._capacity:
            wait = max(1, wait)
        return left - held, self._span(now, wait), self._span(now, rest)

    def take(self, place: int, cost: int) -> Numbers:
        """Count what `look` would admit; the numbers afterwards."""
        self._sketch.take(place, self._inside(clock.now_ns()), cost)
        return self.look(place, 0)

    def add(self, place: int, cost: int, late_ns: int) -> None:
        """Count without asking, as of `late_ns` ago."""
        self._sketch.add(place, self._inside(clock.now_ns() - late_ns), cost, 2 * self._capacity)

    def owes(self, place: int) -> bool:
        """Whether something is used of this key, or of those with which it shares its cells."""
        return self._sketch.judge(place, self._inside(clock.now_ns()), 0)[2] > 0

    @property
    def idle(self) -> bool:
        """Whether nothing is used of any key."""
        return self._sketch.idle(self._inside(clock.now_ns()))

    @property
    def judged(self) -> int:
        """How many it has admitted and refused."""
        return self._sketch.admitted + self._sketch.refused

    def refuse(self) -> None:
        """Count a refusal."""
        self._sketch.refused += 1


def hashed(key: str) -> int:
    """128 bits that nobody outside can foresee."""
    from hashlib import blake2b  # noqa: PLC0415  # eight milliseconds that only a flood of keys pays

    return int.from_bytes(blake2b(key.encode("utf-8", "surrogatepass"), key=SECRET, digest_size=16).digest(), "big")
