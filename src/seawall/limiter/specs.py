"""The limits as users write them: small values that are checked at once."""

from __future__ import annotations

from typing import Any

from seawall.errors import ConfigError
from seawall.machines import fixed_window, leaky_bucket, sliding_log, sliding_window, token_bucket
from seawall.machines.limit import Limit
from seawall.machines.warm_up import WarmUp
from seawall.policies.spec import Spec
from seawall.units import Duration, count_of, duration_ns, fraction_ppm, given, rate_of

__all__ = ["FixedWindow", "LeakyBucket", "LimitSpec", "SlidingLog", "SlidingWindow", "TokenBucket"]

MOST = 1_000_000_000
LONGEST_FILL_NS = 10 * 365 * 86_400 * 1_000_000_000


class LimitSpec(Spec):
    """The base of limits."""

    __slots__ = ("rate",)

    rate: str

    def machine(self) -> Limit[Any]:
        """The pure machine of this limit."""
        raise ConfigError(f"{type(self).__name__} is not a limit: expected TokenBucket(...), SlidingWindow(...), ...")

    def _rate(self) -> tuple[int, int]:
        field = f"{type(self).__name__}(rate)"
        amount, period = rate_of(self.rate, field)
        if amount > MOST:
            raise ConfigError(f"{given(field, self.rate)}: expected at most {MOST} in a period")
        return amount, period


class TokenBucket(LimitSpec):
    """Up to `burst` at once, and `rate` in the long run. The usual choice for the entrance of a service.

    In any span of length t at most burst + rate x t are admitted: with the default burst that is up to twice the limit
    in one period. Against a provider's quota, where no period may have more than so many, use `SlidingWindow`.

    Args:
        rate: `"100/s"`, `"5000/h"`, `"10/5s"`.
        burst: tokens the bucket holds; whole number from 1. Default: the amount of the rate.
        warm_up: a duration in which the rate ramps up from `cold`, once, from when the limiter is made; for a service
            that just started. Give a small burst beside it. In memory only. Default: none.
        cold: the share of the rate at the beginning, above 0 to 1. Default 0.3.

    Raises:
        ConfigError: not a rate, or a burst that takes more than ten years to fill.

    Example:
        >>> from seawall import Limiter, TokenBucket
        >>> search = Limiter(TokenBucket("100/s", burst=20), name="search")
        >>> bool(search.hit("user:42", cost=3))
        True

    GCRA: ITU-T I.371.
    """

    __slots__ = ("burst", "warm_up", "cold")

    burst: int | None
    warm_up: Duration | None
    cold: float

    def __init__(
        self,
        rate: str,
        *,
        burst: int | None = None,
        warm_up: Duration | None = None,
        cold: float = 0.3,
        name: str | None = None,
    ) -> None:
        if warm_up is not None:
            duration_ns(warm_up, "TokenBucket(warm_up)", zero=False)
        fraction_ppm(cold, "TokenBucket(cold)")
        self._init(name, rate=rate, burst=burst, warm_up=warm_up, cold=cold)
        self.machine()

    def machine(self) -> token_bucket.TokenBucket | WarmUp:
        amount, period = self._rate()
        burst = amount if self.burst is None else count_of(self.burst, "TokenBucket(burst)", most=MOST)
        machine = token_bucket.TokenBucket(amount, period, burst)
        if machine.forget_ns > LONGEST_FILL_NS:
            raise ConfigError(f"TokenBucket(burst={burst}): at {self.rate} it takes more than ten years to fill")
        if self.warm_up is None:
            return machine
        return WarmUp(machine, duration_ns(self.warm_up, "warm_up"), fraction_ppm(self.cold, "cold"))


class LeakyBucket(LimitSpec):
    """Evenly spaced, one after the other: for calls going out to somebody who dislikes bursts.

    `take` waits for its slot; `hit` admits only if no wait is needed. At most `queue` wait, each for at most
    `max_wait`. A caller who gives up gives his slot back if nobody stands behind him; otherwise it is spent.

    Args:
        rate: `"10/s"` is one each 100 ms.
        queue: how many may wait; whole number from 0. Default 0.
        max_wait: a duration, or None for as long as the queue is. Default None.

    Raises:
        ConfigError: a setting is outside its range.

    Example:
        >>> from seawall import Limiter, LeakyBucket
        >>> scraper = Limiter(LeakyBucket("10/s", queue=100), name="scraper")
        >>> bool(scraper.take("example.org")), bool(scraper.hit("example.org"))
        (True, False)
    """

    __slots__ = ("queue", "max_wait")

    queue: int
    max_wait: Duration | None

    def __init__(self, rate: str, *, queue: int = 0, max_wait: Duration | None = None, name: str | None = None) -> None:
        if max_wait is not None:
            duration_ns(max_wait, "LeakyBucket(max_wait)")
        count_of(queue, "LeakyBucket(queue)", least=0, most=1_000_000)
        self._init(name, rate=rate, queue=queue, max_wait=max_wait)
        self.machine()

    def machine(self) -> leaky_bucket.LeakyBucket:
        machine = leaky_bucket.LeakyBucket(*self._rate(), self.queue)
        if machine.forget_ns > LONGEST_FILL_NS:
            raise ConfigError(f"LeakyBucket(queue={self.queue}): at {self.rate} the last waits more than ten years")
        return machine


class FixedWindow(LimitSpec):
    """So many in each full minute, hour, day (UTC) of the calendar: simple, and what many providers count by.

    Across the edge of two windows up to twice the limit may pass. It follows the civil clock, as its windows do; a step
    of that clock starts at most one new window.

    Args:
        rate: `"100/min"`, `"1000/d"`; the period is the window.

    Raises:
        ConfigError: not a rate.

    Example:
        >>> from seawall import Limiter, FixedWindow
        >>> exports = Limiter(FixedWindow("10/d"), name="exports")
        >>> exports.hit("user:42").remaining
        9
    """

    __slots__ = ()

    def __init__(self, rate: str, *, name: str | None = None) -> None:
        self._init(name, rate=rate)
        self.machine()

    def machine(self) -> fixed_window.FixedWindow:
        return fixed_window.FixedWindow(*self._rate())


class SlidingWindow(LimitSpec):
    """Never more than so many in any span of that length: against somebody else's quota.

    The span is kept in `buckets`, and the oldest, which lies partly outside, counts in full: at least 0.9 of the limit
    gets through with 10 buckets, 0.98 with 60.

    Args:
        rate: `"60/min"`; the period is the window.
        buckets: whole number from 1 to 100. Default 10.

    Raises:
        ConfigError: a setting is outside its range, or a window of less than a nanosecond for each bucket.

    Example:
        >>> from seawall import Limiter, SlidingWindow
        >>> outgoing = Limiter(SlidingWindow("60/min"), name="provider")
        >>> outgoing.hit().remaining
        59
    """

    __slots__ = ("buckets",)

    buckets: int

    def __init__(self, rate: str, *, buckets: int = 10, name: str | None = None) -> None:
        self._init(name, rate=rate, buckets=buckets)
        self.machine()

    def machine(self) -> sliding_window.SlidingWindow:
        amount, period = self._rate()
        count_of(self.buckets, "SlidingWindow(buckets)", most=100)
        if period < self.buckets:
            raise ConfigError(f"SlidingWindow(rate={self.rate!r}): shorter than {self.buckets} ns, one for each bucket")
        return sliding_window.SlidingWindow(amount, period, self.buckets)


class SlidingLog(LimitSpec):
    """Never more than so many in any span of that length, exactly, at the price of a list of every take.

    Its memory grows with the limit, and its cost too: for small limits that must not lose a single one.

    Args:
        rate: `"5/min"`, at most 10,000 in a period.

    Raises:
        ConfigError: not a rate, or too many.

    Example:
        >>> from seawall import Limiter, SlidingLog
        >>> logins = Limiter(SlidingLog("5/min"), name="logins")
        >>> logins.hit("user:42").remaining
        4
    """

    __slots__ = ()

    def __init__(self, rate: str, *, name: str | None = None) -> None:
        self._init(name, rate=rate)
        self.machine()

    def machine(self) -> sliding_log.SlidingLog:
        amount, period = self._rate()
        if amount > 10_000:
            raise ConfigError(f"SlidingLog(rate={self.rate!r}): expected at most 10000 in a period; use SlidingWindow")
        return sliding_log.SlidingLog(amount, period)
