"""`Failover`: when an attempt fails, try another endpoint."""

from __future__ import annotations

from typing import Any, Never

from seawall import events
from seawall.cluster.serving import Serving
from seawall.cluster.strategy import LiveStrategy, Strategy
from seawall.errors import ConfigError
from seawall.machines.backoff import Backoff
from seawall.policies.budget import RetryBudget, check_budget, meter_for
from seawall.policies.causes import Earlier
from seawall.policies.classify import add_note, retry_after_of
from seawall.policies.layer import Ending
from seawall.runtime import chance, off
from seawall.units import Duration, count_of, duration_ns, factor_of, show_seconds

__all__ = ["Failover"]


class Failover(Strategy[Never]):
    """Make up to `retries` more attempts after a failure, each at an endpoint not tried yet while there is one.

    For calls that may be made twice; its price is time. No wait where the endpoint could not be reached and another is
    left; else jittered backoff. Endpoints whose own guards refuse are passed over at once; they cost no retry. When it
    gives up, the last error is raised with the earlier ones on its `__cause__` chain, and a note if it was not for lack
    of attempts.

    Args:
        retries: attempts beyond the first; whole number from 0. Default 2.
        base, factor, cap: the pause before the n-th retry is drawn evenly from 0 to `min(cap, base * factor**(n-1))`.
            Defaults 100 ms, 2, 2 s.
        max_retry_after: an error's wish (`retry_after` in seconds) is obeyed if no other endpoint is left to ask;
            beyond this, and beyond the deadline, it gives up instead. Default 60 s.
        budget: a `RetryBudget`, the name of a shared one, or None. Default: 20 % of the calls in 10 s, plus 3/s.

    Raises:
        ConfigError: a setting is outside its range.

    Example:
        >>> from seawall import Cluster, Failover
        >>> def fetch(endpoint, sku):
        ...     if endpoint.address == "a:80": raise ConnectionRefusedError("down")
        ...     return f"{sku} from {endpoint}"
        >>> stock = Cluster("stock", ["a:80", "b:80"], strategy=Failover(retries=1))
        >>> stock.call(fetch, "A-7")
        'A-7 from b:80'

    After Dubbo's failover cluster; the budget after Finagle.
    """

    __slots__ = ("retries", "base", "factor", "cap", "max_retry_after", "budget")

    retries: int
    base: Duration
    factor: float
    cap: Duration
    max_retry_after: Duration
    budget: RetryBudget | str | None

    def __init__(
        self,
        retries: int = 2,
        *,
        base: Duration = "100ms",
        factor: float = 2.0,
        cap: Duration = 2,
        max_retry_after: Duration = 60,
        budget: RetryBudget | str | None = RetryBudget(),  # noqa: B008  # a frozen value
        name: str | None = None,
    ) -> None:
        count_of(retries, "Failover(retries)", least=0)
        if duration_ns(base, "Failover(base)") > duration_ns(cap, "Failover(cap)"):
            raise ConfigError(f"Failover(base={base!r}): more than cap={cap!r}")
        factor_of(factor, "Failover(factor)")
        duration_ns(max_retry_after, "Failover(max_retry_after)")
        check_budget(budget, "Failover(budget)")
        self._init(
            name, retries=retries, base=base, factor=factor, cap=cap, max_retry_after=max_retry_after, budget=budget
        )

    def live(self, cluster: str) -> LiveFailover:
        return LiveFailover(cluster, self)


class LiveFailover(LiveStrategy):
    """A failover at work."""

    kind = "failover"

    def __init__(self, cluster: str, spec: Failover) -> None:
        super().__init__(cluster, spec)
        self._retries = spec.retries
        self._backoff = Backoff(duration_ns(spec.base, "base"), spec.factor, duration_ns(spec.cap, "cap"), True)
        self._max_retry_after_ns = duration_ns(spec.max_retry_after, "max_retry_after")
        self.budget = meter_for(spec.budget, "Failover(budget)", RetryBudget())
        self.retries = self.gave_up = 0

    async def failed(self, call: Serving, error: BaseException) -> Ending:
        earlier, made, last, closed = Earlier(), 0, error, False
        nobody: BaseException | None = None
        try:
            if call.found_nobody:
                self._give_up(call, 0, "final", "", error)
                return None, error
            while (pause := self._pause(call, made, last, paid=nobody is not None)) is not None:
                self._announce(made + 2, pause, last)
                closed = await call.discard((None, last))
                if pause and not off.waiting:
                    await call.runtime.sleep(pause)
                value, failure = await call.attempt()
                if failure is not None and call.found_nobody:
                    nobody = failure
                    if call.has_willing:
                        continue  # those not tried yet refuse; after a pause, one that has failed is asked again
                    self._give_up(call, made, "endpoints", getattr(nobody, "detail", str(nobody)), last)
                    break
                made += 1
                self.retries += 1
                if failure is None:
                    return value, None
                earlier.add(last)
                last, nobody = failure, None
            if nobody is not None and closed:
                # Nobody else could be asked, so what has failed would stand; but it is closed, and of no use.
                earlier.add(last)
                last = nobody
            earlier.chain_to(last)
            return None, last
        finally:
            del error, last, earlier, nobody  # errors know this frame: see Retry
            failure = None

    def _pause(self, call: Serving, made: int, error: BaseException, *, paid: bool) -> int | None:
        """How long to wait before the next attempt, or None to give up."""
        elsewhere = call.has_untried
        wish = 0 if elsewhere else retry_after_of(error) or 0
        reading = call.read(error)
        backoff = self._backoff.pause_ns(made + 1, chance.random())
        pause = 0 if reading.at_once and elsewhere else max(backoff, wish)
        obstacle = self._obstacle(call, made, error, pause, wish)
        if obstacle is None and not paid and self.budget is not None and not self.budget.take():
            named = f" {self.budget.name!r}" if self.budget.name else ""
            obstacle = "budget", f"the retry budget{named} is empty"
        if obstacle is None:
            return pause
        self._give_up(call, made, *obstacle, error)
        return None

    def _obstacle(
        self, call: Serving, made: int, error: BaseException, pause: int, wish: int
    ) -> tuple[str, str] | None:
        """What stands against another attempt: a code, and a note for the error; None if nothing does."""
        if not call.read(error).again:
            return "final", ""
        if made >= self._retries:
            return "attempts", ""
        if wish > self._max_retry_after_ns:
            return "retry_after", f"it asked to wait {show_seconds(wish)}"
        left = call.time_left
        if left is not None and pause >= left:
            return "deadline", f"the next attempt in {show_seconds(pause)} would miss the deadline"
        return None

    def _give_up(self, call: Serving, made: int, reason: str, note: str, error: BaseException) -> None:
        if not isinstance(error, Exception):
            return  # a cancellation, or an exit
        self.gave_up += 1
        if note:
            add_note(error, f"seawall: {call.name} did not fail over: ", note)
        if events.sinks:
            events.emit(
                events.GaveUp(policy=call.name, layer=self.name, attempts=call.attempts, reason=reason, error=error)
            )

    def _announce(self, attempt: int, pause: int, error: BaseException) -> None:
        if events.sinks:
            events.emit(
                events.FailedOver(policy=self.cluster, layer=self.name, attempt=attempt, delay=pause / 1e9, error=error)
            )

    def snapshot(self) -> dict[str, Any]:
        budget = None if self.budget is None else self.budget.snapshot()
        return {"retries": self.retries, "gave_up": self.gave_up, "budget": budget}

    def explain(self) -> str:
        more = f"up to {self._retries} more {'attempt' if self._retries == 1 else 'attempts'} elsewhere"
        if self.budget is None:
            return f"Failover: after a failure it makes {more}, without a budget."
        left = self.budget.snapshot()["left"]
        state = f"its budget has {left} left" if left else "its budget is empty, so a failure would be final"
        return f"Failover: after a failure it makes {more}; {state}."
