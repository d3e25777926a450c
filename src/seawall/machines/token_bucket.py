"""A bucket of `burst` tokens that fills at `amount` per period: GCRA, with one integer for each key.

With g = gcd(amount, period), L = amount / g and P = period / g, time runs as v = now x L, and a token takes P of it.

State
    `tat`: the v at which the bucket is full again.
Rules
    n = max(tat, v) + cost x P.   Admitted iff n - v <= burst x P; then tat = n.
Guarantee
    at most burst + rate x t in any span of length t.

Everything is exact: no rounding anywhere, at any rate.

GCRA: ITU-T I.371; in this form after the crate `governor`.
"""

from __future__ import annotations

from math import gcd
from typing import ClassVar

__all__ = ["TokenBucket"]


class TokenBucket:
    """See above. `amount`, `period_ns` and `burst` are whole numbers of at least 1."""

    __slots__ = ("burst", "full", "per_ns", "per_token")

    kind: ClassVar[str] = "token_bucket"
    civil: ClassVar[bool] = False

    def __init__(self, amount: int, period_ns: int, burst: int) -> None:
        common = gcd(amount, period_ns)
        self.per_ns = amount // common
        """L: how far v runs in a nanosecond."""
        self.per_token = period_ns // common
        """P: how much v a token takes."""
        self.burst = burst
        self.full = burst * self.per_token

    @property
    def capacity(self) -> int:
        return self.burst

    @property
    def forget_ns(self) -> int:
        return -(-self.full // self.per_ns)

    def take(self, state: int | None, now: int, cost: int) -> int | None:
        v = now * self.per_ns
        after = (v if state is None or state < v else state) + cost * self.per_token
        return after if after - v <= self.full else None

    def add(self, state: int | None, now: int, cost: int) -> int:
        v = now * self.per_ns
        after = (v if state is None or state < v else state) + cost * self.per_token
        return min(after, v + 2 * self.full)

    def give_back(self, state: int | None, now: int, cost: int, taken: int) -> int | None:
        unspent = max(0, cost * self.per_token - max(0, now - taken) * self.per_ns)
        return None if state is None else state - unspent

    def left(self, state: int | None, now: int) -> int:
        used = 0 if state is None else max(0, state - now * self.per_ns)
        return (self.full - used) // self.per_token

    def wait(self, state: int | None, now: int, cost: int) -> int:
        used = 0 if state is None else max(0, state - now * self.per_ns)
        return max(0, -((self.full - used - cost * self.per_token) // self.per_ns))

    def rest(self, state: int | None, now: int) -> int:
        used = 0 if state is None else max(0, state - now * self.per_ns)
        return -(-used // self.per_ns)
