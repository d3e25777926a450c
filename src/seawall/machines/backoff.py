"""How long to wait before the next attempt: exponential, capped, then jittered.

Rules
    ceiling(n) = min(cap, base * factor ** (n - 1)) before the n-th retry; no number of retries overflows it.
    full jitter draws evenly from 0 to the ceiling, so that callers who failed together do not come back together.
    The cap comes before the jitter; jitter first and cap after would bring everybody back at the cap.

After Brooker, "Exponential Backoff And Jitter" (2015).
"""

from __future__ import annotations

import math

from seawall.record import Record

__all__ = ["Backoff"]


class Backoff(Record):
    """A schedule of pauses in nanoseconds. `factor` is at least 1; without `jitter` the ceiling itself is used."""

    base_ns: int = 100_000_000
    factor: float = 2.0
    cap_ns: int = 2_000_000_000
    jitter: bool = True

    def ceiling_ns(self, retry: int) -> int:
        """The longest pause before retry number `retry` (1, 2, ...)."""
        if not 0 < self.base_ns < self.cap_ns or self.factor <= 1:
            return min(self.base_ns, self.cap_ns)
        # How many steps it takes to reach the cap; beyond it the power need not be computed.
        steps = math.log(self.cap_ns / self.base_ns, self.factor)
        if retry - 1 >= steps:
            return self.cap_ns
        return min(self.cap_ns, round(self.base_ns * self.factor ** (retry - 1)))

    def pause_ns(self, retry: int, rand: float) -> int:
        """The pause before retry number `retry` (1, 2, ...), with `rand` in [0, 1)."""
        ceiling = self.ceiling_ns(retry)
        return int(ceiling * rand) if self.jitter else ceiling
