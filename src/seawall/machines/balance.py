"""Which of several replicas gets the next attempt: by load, in turn, or by chance; by weight in each case.

Rules
    A `Crowd` holds who may be picked, each with a weight, an integer of at least 1. It is a value.
    PowerOfTwo    draws two different ones by weight and takes the one with less in flight for its weight; between
                  equals the first drawn, so that an idle crowd is served by weight.
    RoundRobin    equal weights: strictly in turn. Others: the k-th pick is at the place frac(k / golden ratio) of the
                  line on which each has a stretch of its weight. So each gets its share, evenly spread, without a lock.
    Random        draws one by weight.

The machines keep no more than a number that is drawn atomically: any thread may pick at any time.

PowerOfTwo after Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing" (2001).
"""

from __future__ import annotations

import itertools
from bisect import bisect_right
from collections.abc import Callable, Sequence, Sized
from typing import Generic, Protocol, TypeVar

__all__ = ["Crowd", "Loaded", "Picker", "PowerOfTwo", "Random", "RoundRobin"]

GOLDEN = 0x9E3779B97F4A7C15
"""2**64 divided by the golden ratio."""
REDRAWS = 3


class Loaded(Protocol):
    """What a picker looks at: how much is in flight."""

    @property
    def flying(self) -> Sized: ...


M = TypeVar("M", bound=Loaded)


class Crowd(Generic[M]):
    """Who may be picked, and with what weight."""

    __slots__ = ("even", "members", "size", "sums", "total", "weights")

    def __init__(self, members: Sequence[M], weights: Sequence[int]) -> None:
        self.members = tuple(members)
        self.weights = tuple(weights)
        self.size = len(self.members)
        self.even = len(set(self.weights)) <= 1
        self.sums = tuple(itertools.accumulate(self.weights))
        self.total = self.sums[-1] if self.sums else 0

    def at(self, place: int) -> int:
        """Whose stretch of the line from 0 to `total` holds `place`."""
        return bisect_right(self.sums, place)

    def draw(self, rand: float) -> int:
        """The number of a member, drawn by weight."""
        return int(rand * self.size) if self.even else self.at(int(rand * self.total))


class Picker(Protocol):
    """Picks from a crowd that is not empty; `random` gives floats in [0, 1)."""

    def pick(self, crowd: Crowd[M], random: Callable[[], float]) -> M: ...


class PowerOfTwo:
    """The less loaded of two."""

    def pick(self, crowd: Crowd[M], random: Callable[[], float]) -> M:
        size, members = crowd.size, crowd.members
        if size == 1:
            return members[0]
        if crowd.even:
            one, two = int(random() * size), int(random() * (size - 1))
            first, second = members[one], members[two + (two >= one)]
            return first if len(first.flying) <= len(second.flying) else second
        one = crowd.draw(random())
        two = self._another(crowd, one, random)
        weights = crowd.weights
        lighter = len(members[one].flying) * weights[two] <= len(members[two].flying) * weights[one]
        return members[one if lighter else two]

    @staticmethod
    def _another(crowd: Crowd[M], one: int, random: Callable[[], float]) -> int:
        for _ in range(REDRAWS):
            two = crowd.draw(random())
            if two != one:
                return two
        return (one + 1 + int(random() * (crowd.size - 1))) % crowd.size


class RoundRobin:
    """Each in its turn, or as often as its weight says."""

    def __init__(self) -> None:
        self._turns = itertools.count()

    def pick(self, crowd: Crowd[M], random: Callable[[], float]) -> M:
        turn = next(self._turns)
        if crowd.even:
            return crowd.members[turn % crowd.size]
        place = (turn * GOLDEN & 0xFFFFFFFFFFFFFFFF) * crowd.total >> 64
        return crowd.members[crowd.at(place)]


class Random:
    """Any, by weight."""

    def pick(self, crowd: Crowd[M], random: Callable[[], float]) -> M:
        return crowd.members[crowd.draw(random())]
