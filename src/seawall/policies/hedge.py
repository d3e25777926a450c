"""`Hedge`: when an answer is slow, ask once more beside it and take the first good one. Async only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from seawall import events
from seawall.errors import ConfigError
from seawall.machines.latency import Latency
from seawall.policies.budget import RetryBudget, check_budget, meter_for
from seawall.policies.classify import PROGRAMMING
from seawall.policies.layer import Again, Call, Ending, Live, Site
from seawall.policies.spec import Spec
from seawall.runtime import clock
from seawall.runtime.race import Race
from seawall.units import Duration, count_of, duration_ns, given, show_seconds

__all__ = ["Hedge", "HedgeDriver", "is_final", "quantile_of"]


class Hedge(Spec):
    """Start another attempt when the first has taken longer than `after`; the first good answer wins, the rest are
    cancelled.

    For calls that may be made twice, whose slowest few are much slower than the rest. A fast failure never beats a
    later success. What a loser returns all the same is closed, if it has `aclose` or `close`.

    Args:
        after: `"p95"` (any of p50 to p99: a quantile of the recent durations; no hedge before 20 of them), or a
            duration. Default "p95".
        max: more attempts at most, whole number from 1 to 10. Default 1.
        budget: as in `Retry`, but counted apart: default 10 % of the calls in 10 s, plus 1/s.

    Raises:
        ConfigError: a setting is outside its range; or the policy is used for a synchronous call.

    Example:
        >>> from seawall import Policy, Hedge
        >>> prices = Policy(Hedge(after="30ms"), name="prices")

    After Dean and Barroso, "The Tail at Scale" (2013).
    """

    __slots__ = ("after", "max", "budget")  # in the order in which they are read, in repr() too

    after: Duration
    max: int
    budget: RetryBudget | str | None

    def __init__(
        self,
        after: Duration = "p95",
        *,
        max: int = 1,
        budget: RetryBudget | str | None = RetryBudget(0.1, per_second=1),  # noqa: B008  # a frozen value
        name: str | None = None,
    ) -> None:
        if quantile_of(after) is None:
            duration_ns(after, "Hedge(after)")
        count_of(max, "Hedge(max)", most=10)
        check_budget(budget, "Hedge(budget)")
        self._init(name, after=after, max=max, budget=budget)

    def bind(self, site: Site) -> Sequence[Live]:
        return (HedgeDriver(site, self),)


def quantile_of(after: Duration, field: str = "Hedge(after)") -> int | None:
    """The quantile in parts per million, or None if it is a duration. Raises `ConfigError` for p0 to p49."""
    if not isinstance(after, str) or not after.startswith("p"):
        return None
    digits = after[1:]
    if not (digits.isascii() and digits.isdigit() and len(digits) == 2 and int(digits) >= 50):
        raise ConfigError(f'{given(field, after)}: expected "p50" to "p99", or a duration')
    return int(digits) * 10_000


def is_final(error: BaseException) -> bool:
    """Whether it decides a race at once: an exit, a cancellation, an error of the program."""
    return not isinstance(error, Exception) or isinstance(error, PROGRAMMING)


class HedgeDriver(Live):
    """A hedge at work."""

    kind = "hedge"
    is_guard = False
    wraps = True
    repeats = True

    def __init__(self, site: Site, spec: Hedge) -> None:
        super().__init__(site, spec)
        self._quantile = quantile_of(spec.after)
        self._after_ns = None if self._quantile is not None else duration_ns(spec.after, "after")
        self._max = spec.max
        self._budget = meter_for(spec.budget, "Hedge(budget)", RetryBudget(0.1, per_second=1))
        self._latency = Latency()
        self.hedges = 0
        self.wins = 0

    def check(self, *, is_async: bool) -> None:
        if not is_async:
            raise ConfigError(f"{self.policy}: Hedge works in async calls only; a thread cannot be cancelled")

    @property
    def delay_ns(self) -> int | None:
        """How long an attempt may take before the next starts; None while too little is known."""
        return self._after_ns if self._quantile is None else self._latency.quantile(self._quantile)

    async def around(self, call: Call, again: Again) -> Ending:
        if self._budget is not None:
            self._budget.count_call(None, clock.now_ns(), None)
        delay, started = self.delay_ns, clock.now_ns()
        if self.shadow or delay is None:
            ending = await again()
        else:
            from seawall.runtime.task_legs import TaskLegs  # noqa: PLC0415  # asyncio, not before the first async use

            ending = await self._race(Race(TaskLegs(), is_final), again, delay)
        if ending[1] is None:
            self._latency.record(clock.now_ns() - started)
        try:
            return ending
        finally:
            del ending  # an error in it knows this frame: see Chain.attempt

    async def _race(self, race: Race, again: Again, delay_ns: int) -> Ending:
        """Start an attempt whenever the ones before it have been silent for `delay_ns`."""
        try:
            race.start(again)
            for _ in range(self._max):
                if await race.decided(delay_ns):
                    break
                if self._budget is not None and not self._budget.take():
                    break
                self.hedges += 1
                race.start(again)
                if events.sinks:
                    events.emit(events.HedgeStarted(policy=self.policy, layer=self.name, after=delay_ns / 1e9))
            await race.decided(None)
            self.wins += race.winner not in (None, 0)
            return race.ending
        finally:
            race.end()

    def snapshot(self) -> dict[str, Any]:
        delay = self.delay_ns
        return {"after": None if delay is None else delay / 1e9, "hedges": self.hedges, "wins": self.wins}

    def explain(self) -> str:
        delay = self.delay_ns
        if delay is None:
            return "The hedge has seen too few calls to know what is slow, and starts no second attempt yet."
        return f"The hedge starts another attempt when {show_seconds(delay)} have passed without an answer."
