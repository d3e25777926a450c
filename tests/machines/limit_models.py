"""The limits once more, naively: with fractions and lists of everything that ever happened, to hold the machines against."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any, NamedTuple

from hypothesis import strategies as st

from seawall.machines.fixed_window import FixedWindow
from seawall.machines.leaky_bucket import LeakyBucket
from seawall.machines.limit import Limit
from seawall.machines.sliding_log import SlidingLog
from seawall.machines.sliding_window import SlidingWindow
from seawall.machines.token_bucket import TokenBucket

__all__ = ["CLOCK", "KINDS", "Bucket", "Case", "Leaky", "Model", "Windowed", "most_in"]

HOUR = 3_600_000_000_000
YEAR = 365 * 24 * HOUR
AMOUNTS = st.one_of(st.integers(1, 12), st.sampled_from([100, 1_000, 999_999_937, 1_000_000_000]))
PERIODS = st.one_of(
    st.integers(1, 40),
    st.sampled_from([1_000_000_000, 60_000_000_000, 1_000_000_007, 86_400_000_000_000, YEAR]),
)


class Model:
    """What it has seen, and what follows from it."""

    capacity: int

    def used(self, now: int) -> Fraction:
        """How much of the capacity is used at an instant."""
        raise NotImplementedError

    def count(self, now: int, cost: int) -> None:
        """Count a cost, whether there is room or not, down to a debt of one capacity."""
        raise NotImplementedError

    def admits(self, now: int, cost: int) -> bool:
        return self.used(now) + cost <= self.capacity

    def take(self, now: int, cost: int) -> bool:
        if not self.admits(now, cost):
            return False
        self.count(now, cost)
        return True

    def left(self, now: int) -> int:
        return (self.capacity - self.used(now)).__floor__()


class Bucket(Model):
    """A level that sinks at the rate."""

    def __init__(self, limit: TokenBucket, amount: int, period: int) -> None:
        self.capacity, self.rate = limit.burst, Fraction(amount, period)
        self.level, self.at = Fraction(0), 0

    def used(self, now: int) -> Fraction:
        return max(Fraction(0), self.level - self.rate * (now - self.at))

    def count(self, now: int, cost: int) -> None:
        self.level, self.at = min(self.used(now) + cost, Fraction(2 * self.capacity)), now


class Leaky(Model):
    """The instants of all slots; one may start when the one before is a step behind."""

    def __init__(self, limit: LeakyBucket, amount: int, period: int) -> None:
        self.capacity, self.step = limit.queue + 1, Fraction(period, amount)
        self.following = Fraction(-1)

    def used(self, now: int) -> Fraction:
        return Fraction(self.capacity if self.following > now else 0)

    def admits(self, now: int, cost: int) -> bool:
        return not cost or self.following <= now

    def count(self, now: int, cost: int) -> None:
        after = max(self.following, Fraction(now)) + cost * self.step
        self.following = min(after, now + 2 * self.capacity * self.step)


class Windowed(Model):
    """A list of instants and costs; `begin(now)` is where the window that ends now begins, itself outside."""

    def __init__(self, capacity: int, begin: Callable[[int], int]) -> None:
        self.capacity, self.begin = capacity, begin
        self.seen: list[tuple[int, int]] = []

    def used(self, now: int) -> Fraction:
        begin = self.begin(now)
        return Fraction(sum(cost for at, cost in self.seen if at > begin))

    def count(self, now: int, cost: int) -> None:
        self.seen.append((now, min(cost, 2 * self.capacity - int(self.used(now)))))


class Case(NamedTuple):
    """A machine beside its model."""

    limit: Limit[Any]
    model: Model
    bound: Callable[[int], Fraction]
    """The most that may be admitted in a span `[t, t + length]`, both ends included."""

    @property
    def pace(self) -> int:
        """About as long as one unit takes, for clocks that go."""
        return max(1, self.limit.forget_ns // self.limit.capacity)


def _bucket(amount: int, period: int, burst: int) -> Case:
    limit = TokenBucket(amount, period, burst)
    return Case(limit, Bucket(limit, amount, period), lambda span: burst + Fraction(amount * span, period))


def _leaky(amount: int, period: int, queue: int) -> Case:
    limit = LeakyBucket(amount, period, queue)
    return Case(limit, Leaky(limit, amount, period), lambda span: queue + 1 + Fraction(amount * span, period))


def _fixed(amount: int, period: int) -> Case:
    limit = FixedWindow(amount, period)
    windows = Windowed(amount, lambda now: now - now % period - 1)
    return Case(limit, windows, lambda span: Fraction(amount * (2 + span // period)))


def _sliding(amount: int, period: int, buckets: int) -> Case:
    limit = SlidingWindow(amount, period, buckets)
    width = -(-period // buckets)
    windows = Windowed(amount, lambda now: (now // width - buckets) * width - 1)
    return Case(limit, windows, lambda span: Fraction(amount * (1 + span // period)))


def _log(amount: int, period: int) -> Case:
    limit = SlidingLog(amount, period)
    return Case(limit, Windowed(amount, lambda now: now - period), lambda span: Fraction(amount * (1 + span // period)))


BUCKETS = st.one_of(st.integers(1, 12), st.sampled_from([60, 100]))
buckets = st.builds(_bucket, AMOUNTS, PERIODS, AMOUNTS)
leaky = st.builds(_leaky, AMOUNTS, PERIODS, st.one_of(st.integers(0, 6), st.just(1_000_000)))
KINDS: dict[str, st.SearchStrategy[Case]] = {
    "token bucket": st.builds(_bucket, AMOUNTS, PERIODS, AMOUNTS),
    "leaky bucket": st.builds(_leaky, AMOUNTS, PERIODS, st.one_of(st.integers(0, 6), st.just(1_000_000))),
    "fixed window": st.builds(_fixed, AMOUNTS, PERIODS),
    "sliding window": st.builds(_sliding, AMOUNTS, PERIODS, BUCKETS),
    "sliding log": st.builds(_log, st.one_of(st.integers(1, 12), st.just(1_000)), PERIODS),
}

_PACES = [
    Fraction(*pair)
    for pair in ((1, 16), (1, 7), (1, 3), (1, 2), (5, 8), (1, 1), (17, 16), (2, 1), (3, 1), (9, 1), (40, 1))
]
CLOCK = st.one_of(
    st.sampled_from([0, 0, 0, 1, 1, 2]),  # it stands still, or goes by a tick
    st.sampled_from(_PACES),  # in units of the pace
    st.sampled_from([0, 1, Fraction(1), Fraction(1, 2), 8 * HOUR, 3 * YEAR]),
)
"""How far the clock goes before a step: nanoseconds, or a share of the pace."""


def most_in(events: Sequence[tuple[int, int]], allowed: Callable[[int], Fraction]) -> None:
    """Fails if any span of the events, both ends included, has more than is allowed in its length."""
    for first in range(len(events)):
        total = 0
        for at, cost in events[first:]:
            total += cost
            span = at - events[first][0]
            assert total <= allowed(span), f"{total} in {span} ns, of {float(allowed(span))}: {events}"
