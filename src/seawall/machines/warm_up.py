"""A rate that begins at a share of itself and ramps up: for a service that just started, whose caches are cold.

Rules
    Time runs slowly at first. e nanoseconds after the beginning, `w(e)` nanoseconds have passed for the limit inside:
    w(e) = cold x e + (1 - cold) x e^2 / (2 x ramp) while e < ramp; from then on, one for one.
    So the rate rises in a straight line from `cold` to 1, and everything that the limit inside guarantees holds in its
    own time.

In the manner of Guava's SmoothWarmingUp, by another way: that one cools down again in quiet times, this one does not.
"""

from __future__ import annotations

from typing import Any, ClassVar

from seawall.machines.limit import Limit

__all__ = ["WarmUp"]

PPM = 1_000_000


class WarmUp:
    """A limit on a clock that gathers speed. `begin` sets its beginning; before that it has begun at 0."""

    __slots__ = ("_behind", "began", "cold_ppm", "inner", "ramp_ns")

    kind: ClassVar[str] = "warm_up"
    civil: ClassVar[bool] = False

    def __init__(self, inner: Limit[Any], ramp_ns: int, cold_ppm: int) -> None:
        self.inner = inner
        self.ramp_ns = ramp_ns
        self.cold_ppm = cold_ppm
        self.began = 0
        self._behind = ramp_ns - self._early(ramp_ns)

    def begin(self, now: int) -> None:
        """The ramp starts now."""
        self.began = now

    def _early(self, elapsed: int) -> int:
        cold, ramp = self.cold_ppm, self.ramp_ns
        return (2 * ramp * cold * elapsed + (PPM - cold) * elapsed * elapsed) // (2 * ramp * PPM)

    def inside(self, now: int) -> int:
        """The instant inside, for one outside."""
        elapsed = max(0, now - self.began)
        return self.began + (self._early(elapsed) if elapsed < self.ramp_ns else elapsed - self._behind)

    def outside(self, then: int) -> int:
        """The first instant outside at which it is `then` inside."""
        target = then - self.began
        if target > self.ramp_ns - self._behind:
            return self.began + target + self._behind
        low, high = 0, self.ramp_ns
        while low < high:
            middle = (low + high) // 2
            low, high = (middle + 1, high) if self._early(middle) < target else (low, middle)
        return self.began + low

    @property
    def capacity(self) -> int:
        return self.inner.capacity

    @property
    def forget_ns(self) -> int:
        return self.inner.forget_ns + self._behind

    def take(self, state: Any, now: int, cost: int) -> Any:
        return self.inner.take(state, self.inside(now), cost)

    def add(self, state: Any, now: int, cost: int) -> Any:
        return self.inner.add(state, self.inside(now), cost)

    def give_back(self, state: Any, now: int, cost: int, taken: int) -> Any:
        return self.inner.give_back(state, self.inside(now), cost, self.inside(taken))

    def left(self, state: Any, now: int) -> int:
        return self.inner.left(state, self.inside(now))

    def wait(self, state: Any, now: int, cost: int) -> int:
        inside = self.inside(now)
        wait = self.inner.wait(state, inside, cost)
        return max(1, self.outside(inside + wait) - now) if wait else 0

    def rest(self, state: Any, now: int) -> int:
        inside = self.inside(now)
        rest = self.inner.rest(state, inside)
        return max(0, self.outside(inside + rest) - now) if rest else 0
