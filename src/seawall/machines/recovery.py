"""How much work may be under way towards a target that was down, so that its recovery is not a storm.

State
    allowed   how much may be under way at once, from 1 to `limit`; 1 at the start.
    rest      while it lasts nothing may begin.

Rules
    a success lets one more in (allowed + 1) and ends the rest: each round of successes doubles what is under way.
    a failure halves `allowed`. Where that is 1 already, the work is at its first or second attempt, and it is another
    piece of work than the one that failed so before it, the target is in trouble: a rest begins, twice as long each
    time (1 s to 30 s, drawn from the upper half), or as long as the target asks for, up to the longest rest.
    a failure of what began before the latest rest only halves: ten that fail together are one sign of trouble.
    what says nothing about the target (a cancellation, an error of the program) changes nothing.

Consequences
    n successes after a failure of all let at most 2n + 1 begin, whatever waits.
    one poison message that fails again and again never begins a rest; many of them only by their first two attempts.

After TCP's slow start: Jacobson, "Congestion Avoidance and Control" (1988).
"""

from __future__ import annotations

from seawall.machines.backoff import Backoff
from seawall.machines.verdict import Verdict

__all__ = ["Recovery"]

SECOND = 1_000_000_000
FRESH = 2
"""Work that failed more often than this tells more of itself than of the target."""
RESTS = Backoff(SECOND, 2.0, 30 * SECOND, jitter=False)


class Recovery:
    """Admits work towards one target. Not safe for threads by itself."""

    __slots__ = ("_culprit", "_rests", "_troubles", "allowed", "limit", "rest_until_ns", "running")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.allowed = 1
        self.running = 0
        self.rest_until_ns: int | None = None
        self._rests = 0
        self._troubles = 0
        self._culprit: str | None = None

    def room(self, now_ns: int) -> int:
        """How many more pieces of work may begin now."""
        return 0 if self.rest_ns(now_ns) else max(0, self.allowed - self.running)

    def rest_ns(self, now_ns: int) -> int:
        """How much longer the rest lasts; 0 if there is none."""
        return 0 if self.rest_until_ns is None else max(0, self.rest_until_ns - now_ns)

    @property
    def probing(self) -> bool:
        """Whether the next piece of work is to find out if the target is well again."""
        return self._troubles > 0 and self.allowed == 1

    def begin(self) -> int:
        """One begins; its `end` wants the number that is returned."""
        self.running += 1
        return self._rests

    def end(
        self,
        began: int,
        verdict: Verdict,
        work: str,
        now_ns: int,
        rand: float,
        *,
        attempts: int = 1,
        retry_after_ns: int = 0,
    ) -> None:
        """One has ended; `work` tells it from others, `attempts` counts those at it, this one included; `rand` is in
        [0, 1), `retry_after_ns` is the target's wish."""
        self.running -= 1
        if verdict is Verdict.OK:
            self.allowed = min(self.limit, self.allowed + 1)
            self.rest_until_ns = self._culprit = None
            self._troubles = 0
        elif verdict is Verdict.FAIL:
            fresh = attempts <= FRESH
            if self.allowed > 1:
                self.allowed //= 2
            elif fresh and began == self._rests and self._culprit not in (None, work):
                self._rest(now_ns, rand, retry_after_ns)
            if fresh:
                self._culprit = work

    def _rest(self, now_ns: int, rand: float, retry_after_ns: int) -> None:
        self._rests += 1
        self._troubles += 1
        ceiling = RESTS.ceiling_ns(self._troubles)
        pause = max(ceiling // 2 + int(ceiling // 2 * rand), min(retry_after_ns, RESTS.cap_ns))
        self.rest_until_ns = now_ns + pause
