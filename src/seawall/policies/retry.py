"""`Retry`: try again what failed, a few times, later and later, and never so often that it makes things worse."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from seawall import events
from seawall.context import CURRENT, derive, restore
from seawall.errors import ConfigError
from seawall.machines.backoff import Backoff
from seawall.policies.budget import BudgetMeter, RetryBudget, check_budget, meter_for
from seawall.policies.causes import Earlier
from seawall.policies.classify import Errors, add_note, matcher, retry_after_of
from seawall.policies.functions import check_predicate
from seawall.policies.layer import Again, Call, Ending, Fast, Lane, Live, Site, Unwanted
from seawall.policies.spec import Spec
from seawall.runtime import chance, clock, off
from seawall.units import Duration, count_of, duration_ns, factor_of, flag_of, show_seconds

__all__ = ["Retry", "RetryDriver"]


class Retry(Spec):
    """Call again after a failure, with exponential backoff and full jitter, within a retry budget.

    Retry only what may be done twice. Programming errors (`TypeError` and the like) and refusals by Seawall's own
    guards are retried only if they are named in `on` themselves. Cancellation never is. When it gives up, the last
    error is raised, with the earlier ones on its `__cause__` chain, and a note if it was not for lack of attempts.

    Args:
        on: exception types, or a predicate of the exception. Required: only you know what may be tried again.
        attempts: calls in all, the first included; whole number from 1. Default 3.
        until: a predicate of the result: try again until it is true. When attempts run out the last result is returned.
        delay: a fixed pause; or a function of the number of the retry (1, 2, ...) that returns one; or None for
            the schedule below.
        base, factor, cap, jitter: the n-th pause is drawn evenly from 0 to `min(cap, base * factor**(n-1))`;
            without `jitter` it is that ceiling. Defaults 100 ms, 2, 2 s, True.
        total: no attempt starts later than this after the first. Default None. It does not cut an attempt short: a
            `Timeout` outside does.
        max_retry_after: a target's Retry-After (an error's `retry_after` in seconds) is obeyed up to this; beyond it,
        and beyond
            the deadline, the retry gives up at once. Default 60 s.
        budget: a `RetryBudget`, the name of a shared one, or None for none. Default: 20 % of the calls in 10 s, plus
        3/s.

    Raises:
        ConfigError: a setting is outside its range.

    Example:
        >>> from seawall import Policy, Retry
        >>> answers = iter([ConnectionError("refused"), "pong"])
        >>> def ping():
        ...     answer = next(answers)
        ...     if isinstance(answer, Exception): raise answer
        ...     return answer
        >>> Policy(Retry(on=ConnectionError)).call(ping)
        'pong'

    After Brooker, "Exponential Backoff And Jitter"; the budget after Finagle.
    """

    __slots__ = (
        "on",
        "attempts",
        "until",
        "delay",
        "base",
        "factor",
        "cap",
        "jitter",
        "total",
        "max_retry_after",
        "budget",
    )  # in the order in which they are read, in repr() too

    on: Errors
    attempts: int
    until: Callable[[Any], object] | None
    delay: Duration | Callable[[int], Duration] | None
    base: Duration
    factor: float
    cap: Duration
    jitter: bool
    total: Duration | None
    max_retry_after: Duration
    budget: RetryBudget | str | None

    def __init__(
        self,
        on: Errors,
        *,
        attempts: int = 3,
        until: Callable[[Any], object] | None = None,
        delay: Duration | Callable[[int], Duration] | None = None,
        base: Duration = "100ms",
        factor: float = 2.0,
        cap: Duration = 2,
        jitter: bool = True,
        total: Duration | None = None,
        max_retry_after: Duration = 60,
        budget: RetryBudget | str | None = RetryBudget(),  # noqa: B008  # a frozen value
        name: str | None = None,
    ) -> None:
        self._init(
            name,
            on=on,
            attempts=attempts,
            until=until,
            delay=delay,
            base=base,
            factor=factor,
            cap=cap,
            jitter=jitter,
            total=total,
            max_retry_after=max_retry_after,
            budget=budget,
        )
        matcher(on, "Retry(on)", refusals=False)
        count_of(attempts, "Retry(attempts)")
        flag_of(jitter, "Retry(jitter)")
        for field in ("base", "cap", "max_retry_after"):
            duration_ns(getattr(self, field), f"Retry({field})")
        factor_of(factor, "Retry(factor)")
        if duration_ns(base, "Retry(base)") > duration_ns(cap, "Retry(cap)"):
            raise ConfigError(f"Retry(base={base!r}): more than cap={cap!r}")
        if delay is not None and not callable(delay):
            duration_ns(delay, "Retry(delay)")
        check_predicate(until, "Retry(until)", "a predicate of the result")
        if total is not None:
            duration_ns(total, "Retry(total)")
        check_budget(budget, "Retry(budget)")

    def bind(self, site: Site) -> Sequence[Live]:
        return (RetryDriver(site, self),)


class RetryDriver(Live):
    """A retry at work."""

    kind = "retry"
    is_guard = False
    repeats = True

    def __init__(self, site: Site, spec: Retry) -> None:
        super().__init__(site, spec)
        self._means = matcher(spec.on, "Retry(on)", refusals=False)
        self._attempts = spec.attempts
        self._until = spec.until
        self._delay = spec.delay
        self._backoff = Backoff(duration_ns(spec.base, "base"), spec.factor, duration_ns(spec.cap, "cap"), spec.jitter)
        self._total_ns = None if spec.total is None else duration_ns(spec.total, "total")
        self._max_retry_after_ns = duration_ns(spec.max_retry_after, "max_retry_after")
        self._budget: BudgetMeter | None = meter_for(spec.budget, "Retry(budget)", RetryBudget())
        self.retries = 0
        self.gave_up = 0

    def lane(self, *, is_async: bool) -> Lane:
        count = None if self._budget is None else self._budget.count_call
        until = self._until
        enter = None if self._total_ns is None else (lambda: clock.now_ns())  # noqa: PLW0108  # looked up at each call
        if until is None:
            fast = Fast() if self._budget is None else self._budget.fast()
            return Lane(enter, count, fast=None if enter else fast)

        def leave(token: object, now_ns: int, result: object) -> None:
            if not until(result):
                raise Unwanted(result)
            if count is not None:
                count(token, now_ns, result)

        return Lane(enter, leave)

    @property
    def judges_results(self) -> bool:
        return self._until is not None

    async def failed(self, call: Call, token: int | None, error: BaseException, again: Again) -> Ending:
        if self._budget is not None:
            self._budget.count_call(None, clock.now_ns(), None)
        value: Any = None
        failure: BaseException | None = error
        earlier = Earlier()
        attempt = 1
        try:
            while failure is not None and (isinstance(failure, Unwanted) or self._means(failure)):
                pause = self._next_pause(attempt, token, failure)
                if pause is None:
                    break
                if self.shadow:
                    self._announce(attempt + 1, pause, failure)
                    break
                if not isinstance(failure, Unwanted):
                    earlier.add(failure)
                attempt += 1
                self.retries += 1
                self._announce(attempt, pause, failure)
                if pause and not off.waiting:
                    await call.runtime.sleep(pause)
                value, failure = self._judge(await self._again(attempt, again))
            if isinstance(failure, Unwanted):
                return failure.result, None
            if failure is not None:
                earlier.chain_to(failure)
            return value, failure
        finally:
            # The errors of the attempts know this frame, which called them: a circle for the collector if it knew them.
            del error, failure, earlier

    def _judge(self, ending: Ending) -> Ending:
        """Read a result that `until` does not accept as a failure."""
        value, error = ending
        if error is None and self._until is not None and not self._until(value):
            return None, Unwanted(value)
        return ending

    async def _again(self, attempt: int, again: Again) -> Ending:
        reset = CURRENT.set(derive(CURRENT.get(), attempt=attempt))
        try:
            return await again()
        finally:
            restore(reset)

    def _next_pause(self, attempt: int, started_ns: int | None, error: BaseException) -> int | None:
        """How long to wait before the next attempt, or None to give up."""
        wish = retry_after_of(error.result if isinstance(error, Unwanted) else error)
        pause = 0 if attempt >= self._attempts else max(wish or 0, self._pause(attempt))
        obstacle = self._obstacle(attempt, started_ns, pause, wish or 0)
        if obstacle is None:
            return pause
        self._give_up(attempt, *obstacle, error)
        return None

    def _obstacle(self, attempt: int, started_ns: int | None, pause: int, wish: int) -> tuple[str, str] | None:
        """What stands against another attempt: a code, and a note for the error; None if nothing does."""
        if attempt >= self._attempts:
            return "attempts", ""
        if wish > self._max_retry_after_ns:
            return "retry_after", f"the target asked to wait {show_seconds(wish)}"
        now, due = clock.now_ns(), CURRENT.get().deadline_ns
        if due is not None and now + pause >= due:
            return "deadline", f"the next attempt in {show_seconds(pause)} would miss the deadline"
        if self._total_ns is not None and started_ns is not None and now + pause > started_ns + self._total_ns:
            return "total", f"the next attempt would start after total={show_seconds(self._total_ns)}"
        if self._budget is not None and not self.shadow and not self._budget.take():
            named = f" {self._budget.name!r}" if self._budget.name else ""
            return "budget", f"the retry budget{named} is empty"
        return None

    def _pause(self, retry: int) -> int:
        if self._delay is None:
            return self._backoff.pause_ns(retry, chance.random())
        if callable(self._delay):
            return duration_ns(self._delay(retry), f"what Retry(delay) gave for retry {retry}")
        return duration_ns(self._delay, "Retry(delay)")

    def _give_up(self, attempts: int, reason: str, note: str, error: BaseException) -> None:
        self.gave_up += 1
        if note and not isinstance(error, Unwanted):
            add_note(error, f"seawall: {self.policy} did not retry: ", note)
        if events.sinks:
            events.emit(
                events.RetryGaveUp(policy=self.policy, layer=self.name, attempts=attempts, reason=reason, error=error)
            )

    def _announce(self, attempt: int, pause: int, error: BaseException) -> None:
        if events.sinks:
            events.emit(
                events.RetryScheduled(
                    policy=self.policy,
                    layer=self.name,
                    attempt=attempt,
                    delay=pause / 1e9,
                    error=error,
                    shadow=self.shadow,
                )
            )

    def snapshot(self) -> dict[str, Any]:
        budget = None if self._budget is None else self._budget.snapshot()
        return {"retries": self.retries, "gave_up": self.gave_up, "budget": budget}

    def explain(self) -> str:
        if self._attempts == 1:
            return "The retry makes one attempt only."
        if self._budget is None:
            return f"The retry makes up to {self._attempts} attempts, without a budget."
        left = self._budget.snapshot()["left"]
        state = f"its budget has {left} left" if left else "its budget is empty, so a failure would be final"
        return f"The retry makes up to {self._attempts} attempts; {state}."
