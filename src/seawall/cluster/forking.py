"""`Forking`: ask several endpoints beside each other, and take the first good answer."""

from __future__ import annotations

from typing import Any, Literal, Never

from seawall import events
from seawall.cluster.reading import is_final
from seawall.cluster.serving import Serving
from seawall.cluster.strategy import LiveStrategy, Strategy
from seawall.errors import ConfigError, DeadlineExceeded, NoEndpoints
from seawall.machines.latency import Latency
from seawall.machines.verdict import Verdict
from seawall.policies.budget import RetryBudget, check_budget, meter_for
from seawall.policies.hedge import quantile_of
from seawall.policies.layer import Ending
from seawall.runtime import clock
from seawall.runtime.race import Race
from seawall.units import Duration, count_of, duration_ns, show_seconds

__all__ = ["Forking"]

OWN_BUDGET = RetryBudget(0.1, per_second=1)


class Forking(Strategy[Never]):
    """Start `n` attempts at different endpoints, at once or staggered; the first success wins, the others are closed.

    For calls that may be made twice, when latency matters more than resources. A fast failure never beats a later
    success. If all fail, an `ExceptionGroup` holds their errors in the order in which they were started; an error of
    the program decides at once. In async losers are cancelled. In sync they run on threads of the cluster
    (`max_threads`), and go on to their end; what they bring is closed.

    Args:
        n: how many, whole number from 1, or "all". Default 2. No more than there are endpoints.
        stagger: start the next only when the ones before were silent for this: a duration, or `"p50"` to `"p99"` of the
            recent durations (no second fork before 20 of them); a failure starts the next at once. Default None: all at
            once.
        budget: for staggered forks, as in `Hedge`: default 10 % of the calls in 10 s, plus 1/s. Forks at once have
            none: they were asked for.

    Raises:
        ConfigError: a setting is outside its range.

    Example:
        >>> from seawall import Cluster, Forking
        >>> prices = Cluster("prices", ["a:80", "b:80"], strategy=Forking(stagger="50ms"))

    After Dubbo's forking cluster, and Dean and Barroso, "The Tail at Scale" (2013).
    """

    __slots__ = ("n", "stagger", "budget")

    n: int | Literal["all"]
    stagger: Duration | None
    budget: RetryBudget | str | None

    def __init__(
        self,
        n: int | Literal["all"] = 2,
        *,
        stagger: Duration | None = None,
        budget: RetryBudget | str | None = OWN_BUDGET,
        name: str | None = None,
    ) -> None:
        if isinstance(n, str):
            if n != "all":
                raise ConfigError(f'Forking(n={n!r}): expected a whole number from 1, or "all"')
        else:
            count_of(n, "Forking(n)", most=1_000)
        if stagger is not None and quantile_of(stagger, "Forking(stagger)") is None:
            duration_ns(stagger, "Forking(stagger)")
        check_budget(budget, "Forking(budget)")
        self._init(name, n=n, stagger=stagger, budget=budget)

    def live(self, cluster: str) -> LiveForking:
        return LiveForking(cluster, self)


class LiveForking(LiveStrategy):
    """A forking at work."""

    kind = "forking"
    forks = True

    def __init__(self, cluster: str, spec: Forking) -> None:
        super().__init__(cluster, spec)
        self._n = spec.n
        self._staggered = spec.stagger is not None
        self._quantile = None if spec.stagger is None else quantile_of(spec.stagger)
        fixed = None if spec.stagger is None or self._quantile is not None else duration_ns(spec.stagger, "stagger")
        self._stagger_ns = fixed
        self._latency = Latency()
        self.budget = meter_for(spec.budget, "Forking(budget)", OWN_BUDGET) if self._staggered else None
        self.extra = self.wins = 0

    @property
    def stagger_ns(self) -> int | None:
        """How long a fork may be silent before the next starts; None for ever."""
        return self._stagger_ns if self._quantile is None else self._latency.quantile(self._quantile)

    async def serve(self, call: Serving) -> Ending:
        race = Race(call.legs(), lambda error: _decides(call, error))
        branches: list[Serving] = []
        started = clock.now_ns()
        try:
            branch = call.fork()
            while branch is not None:
                branches.append(branch)
                race.start(branch.attempt)
                branch = await self._next(call, race, branches)
            if not await race.decided(call.time_left):
                late = "the deadline of the caller passed before a fork had answered"
                return None, DeadlineExceeded(late, policy=call.name, inherited=True)
            if race.winner is not None:
                self.wins += race.winner > 0
                self._latency.record(clock.now_ns() - started)
            if not race.settled:
                return None, self._all_failed(call, race, branches)
            call.endpoint = branches[race.decisive].endpoint
            return race.ending
        except (DeadlineExceeded, NoEndpoints) as nobody:
            return None, nobody
        finally:
            race.end()
            for branch in branches:
                branch.release()

    async def _next(self, call: Serving, race: Race, branches: list[Serving]) -> Serving | None:
        """The next fork, when it is time for it; None if there is to be none."""
        most = self._n if isinstance(self._n, int) else len(branches) + 1
        if call.most_legs is not None:
            most = min(most, call.most_legs)
        if len(branches) >= most:
            return None
        if not self._staggered:
            return call.fork()
        failures, left, after = race.failures, call.time_left, self.stagger_ns
        # Silence for long enough, or one more failure.
        await race.decided(min((wait for wait in (after, left) if wait is not None), default=None), failures=failures)
        if race.settled or (left is not None and (call.time_left or 0) <= 0):
            return None
        branch = call.fork()
        if branch is None:
            return None
        if self.budget is not None and not self.budget.take():
            branch.release()
            return None
        self.extra += 1
        if events.sinks:
            silent = 0.0 if race.failures > failures else (after or 0) / 1e9
            events.emit(events.ForkStarted(policy=self.cluster, layer=self.name, after=silent))
        return branch

    @staticmethod
    def _all_failed(call: Serving, race: Race, branches: list[Serving]) -> BaseException:
        """The one error there is, or a group of them in the order in which the forks were started."""
        errors = [ending[1] for ending in race.endings if ending is not None]
        failures = [error for error in errors if isinstance(error, Exception)]
        # A fork that found nobody left to ask says nothing beside those that did.
        told = [error for error, fork in zip(failures, branches, strict=True) if not fork.found_nobody]
        if not told:
            # Each knew only of those that had refused by then.
            return call.nobody(next((error.__cause__ for error in failures if error.__cause__ is not None), None))
        return told[0] if len(told) == 1 else ExceptionGroup(f"{call.name}: all {len(told)} forks failed", told)

    def snapshot(self) -> dict[str, Any]:
        after = self.stagger_ns
        return {"stagger": None if after is None else after / 1e9, "extra": self.extra, "wins": self.wins}

    def explain(self) -> str:
        count = (
            "all endpoints are" if self._n == "all" else "1 endpoint is" if self._n == 1 else f"{self._n} endpoints are"
        )
        if not self._staggered:
            return f"Forking: {count} asked at once, and the first good answer is taken."
        after, most = self.stagger_ns, "" if self._n == "all" else "up to "
        known = "as soon as enough is known to call one slow"
        when = known if after is None else f"after {show_seconds(after)} of silence"
        return f"Forking: {most}{count} asked, the next one {when}, or at once when one fails."


def _decides(call: Serving, error: BaseException) -> bool:
    """Whether this error ends the race: it is an answer, or nobody's failure. A refusal is neither."""
    reading = call.read(error)
    return reading.verdict is Verdict.OK or (is_final(error) and not reading.again)
