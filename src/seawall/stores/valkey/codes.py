"""Limits as the script knows them: their numbers on the way there, what they tell on the way back.

A server counts in microseconds. Each limit gets a machine of its own kind whose instants are microseconds, with exactly
the same rate; what the script tells of a bucket is the state of that machine, and of a window its numbers.
"""

from __future__ import annotations

from struct import Struct
from typing import Any

from seawall.errors import ConfigError
from seawall.machines.fixed_window import FixedWindow
from seawall.machines.leaky_bucket import LeakyBucket
from seawall.machines.limit import Limit
from seawall.machines.sliding_log import SlidingLog
from seawall.machines.sliding_window import SlidingWindow
from seawall.machines.token_bucket import TokenBucket

__all__ = ["ASKED", "Code", "Raw", "code_of"]

LONGEST_US = 10 * 365 * 86_400 * 1_000_000
"""Ten years: a state that lives longer is a mistake."""
MOST_PARTS = 1 << 40
MOST = (1 << 31) - 1
NUMBERS = Struct(">B6d")
ASKED = Struct(">d")

Raw = tuple[float, ...]
"""What the script tells of a limit: whether it admits, two numbers, how long to wait, and how much is held."""


class Code:
    """One limit in numbers."""

    __slots__ = ("_buckets", "capacity", "kind", "longest_us", "machine", "numbers")

    def __init__(self, number: int, machine: Limit[Any], *numbers: int) -> None:
        self.kind = machine.kind
        self.machine: Any = machine
        self.capacity = machine.capacity
        self.numbers = NUMBERS.pack(number, *numbers)
        self.longest_us = 2 * machine.forget_ns  # of a machine whose instants are microseconds
        self._buckets = isinstance(machine, TokenBucket | LeakyBucket)

    def left(self, raw: Raw) -> int:
        """How much would be admitted now."""
        if not self._buckets:
            return self.capacity - int(raw[1] + raw[4])
        # What is used is the state of the machine at the instant 0.
        left: int = self.machine.left(int(raw[1]) * self.machine.per_ns + int(raw[2]), 0)
        return left - int(raw[4])

    def rest_us(self, raw: Raw) -> int:
        """Microseconds until nothing is used."""
        return int(raw[1]) + (raw[2] > 0) if self._buckets else int(raw[2])


def code_of(limiter: str, name: str, limit: Limit[Any]) -> Code:
    """Raises `ConfigError` for a limit that the script cannot keep exactly."""
    where = f"{limiter}: limit {name!r}"
    if isinstance(limit, TokenBucket):
        bucket = TokenBucket(limit.per_ns * 1_000, limit.per_token, limit.burst)
        return _bucket(where, 1, bucket, bucket.per_token, bucket.burst)
    if isinstance(limit, LeakyBucket):
        leaky = LeakyBucket(limit.per_ns * 1_000, limit.per_unit, limit.queue)
        return _bucket(where, 2, leaky, leaky.per_unit, leaky.capacity)
    if isinstance(limit, FixedWindow):
        if limit.period_ns % 1_000:
            raise ConfigError(f"{where}: a window of {limit.period_ns} ns: expected whole microseconds on a server")
        window = FixedWindow(limit.amount, limit.period_ns // 1_000)
        return _checked(where, Code(3, window, 0, window.period_ns, 0, window.amount, 0, 0))
    # Longer by less than a microsecond: never more than the limit in any span of the length that was asked for.
    period = -(-limit.period_ns // 1_000) if isinstance(limit, SlidingLog) else 0
    if isinstance(limit, SlidingLog):
        log = SlidingLog(limit.amount, period)
        return _checked(where, Code(5, log, 0, log.period_ns, 0, log.amount, 0, 0))
    if isinstance(limit, SlidingWindow):
        sliding = SlidingWindow(limit.amount, limit.buckets * -(-limit.bucket_ns // 1_000), limit.buckets)
        return _checked(where, Code(4, sliding, 0, sliding.bucket_ns, sliding.buckets + 1, sliding.amount, 0, 0))
    known = "TokenBucket, LeakyBucket, FixedWindow, SlidingWindow or SlidingLog"
    raise ConfigError(f"{where}: {type(limit).__name__}: a server keeps {known} only")


def _bucket(where: str, number: int, machine: TokenBucket | LeakyBucket, per_token: int, tokens: int) -> Code:
    parts = machine.per_ns
    if parts > MOST_PARTS:
        raise ConfigError(
            f"{where}: {parts} parts in a microsecond: expected at most {MOST_PARTS}, about 10**12 a second"
        )
    numbers = (parts, *divmod(per_token, parts), tokens, *divmod(tokens * per_token, parts))
    return _checked(where, Code(number, machine, *numbers))


def _checked(where: str, code: Code) -> Code:
    if code.capacity > MOST:
        raise ConfigError(f"{where}: {code.capacity} at once: expected at most {MOST} on a server")
    if code.longest_us > 2 * LONGEST_US:
        raise ConfigError(f"{where}: it takes more than ten years until it is as new")
    return code
