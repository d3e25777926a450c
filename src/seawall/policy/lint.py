"""`policy.lint()`: combinations of layers that work against each other, found before they hurt.

Rules
    retry-outside-fallback   a fallback inside a retry answers before the retry sees the failure.
    fallback-in-timeout      a fallback inside a timeout is ended with what it guards.
    retry-in-retry           attempts multiply.
    attempt-timeout-total    the timeout of an attempt is not shorter than the one of the whole call.
    slow-after-timeout       an attempt is ended before the breaker would call it slow.
    order                    a breaker outside a fallback never sees a failure; a bulkhead outside a breaker holds
                             permits for calls that the breaker refuses; a hedge and a retry multiply attempts.
    no-timeout-in-breaker    only the whole call has a timeout: to the breaker a hanging attempt looks cancelled, not
                             failed.
    breaker-outside-retry    the breaker sees calls, not attempts: it notices failures late.
    bulkhead-outside-retry   a permit is held while the retry waits.
    timeout-outside-only     retries without a timeout of the attempt: a hanging one takes all the time there is.
    no-timeout               nothing ends a call that hangs.
    min-calls-unreachable    the window cannot hold `min_calls` at the expected traffic.
    no-budget                retries without a budget multiply the load when everything fails.
    limit-in-retry           a rate limit inside a retry or hedge counts attempts, and its refusals are no failures to
                             retry.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from seawall.policies.bulkhead import Bulkhead
from seawall.policies.circuit_breaker import CircuitBreaker
from seawall.policies.fallback import Fallback
from seawall.policies.hedge import Hedge
from seawall.policies.keyed import Per
from seawall.policies.retry import Retry
from seawall.policies.spec import Spec
from seawall.policies.timeout import Timeout
from seawall.units import duration_ns

if TYPE_CHECKING:
    from seawall.policy import Policy

__all__ = ["Finding", "lint"]


class Finding(NamedTuple):
    """One oddity: `rule` is its code, `layer` the name of the layer to look at, `text` says what is wrong and what to
    do."""

    rule: str
    layer: str
    text: str

    def __str__(self) -> str:
        return f"{self.layer}: {self.text} [{self.rule}]"


def lint(policy: Policy, *, calls_per_second: float | None = None) -> list[Finding]:
    """All findings for a policy: first those on the order of layers, then on times, then on load."""
    specs = [_inner(layer.spec) for layer in policy.layers if layer.by_hand]
    return [*_order(specs), *_limits(policy), *_times(specs), *_load(specs, calls_per_second)]


def _limits(policy: Policy) -> Iterator[Finding]:
    repeated = False
    for layer in policy.layers:
        repeated = repeated or layer.kind in ("retry", "hedge")
        if layer.kind == "rate_limit" and repeated:
            text = "it counts attempts instead of calls; put it outside the retry or hedge"
            yield Finding("limit-in-retry", layer.name, text)


def _inner(spec: Spec) -> Spec:
    return spec.layer if isinstance(spec, Per) else spec


def _order(specs: list[Spec]) -> Iterator[Finding]:
    retried = False
    for index, spec in enumerate(specs):
        inside = specs[index + 1 :]
        if isinstance(spec, Retry):
            if retried:
                yield Finding(
                    "retry-in-retry", spec.name, "a retry inside a retry: attempts multiply; keep one of them"
                )
            retried = True
            for other in inside:
                if isinstance(other, Fallback):
                    text = "it answers before the retry outside it can see the failure; put the fallback outermost"
                    yield Finding("retry-outside-fallback", other.name, text)
        elif isinstance(spec, Timeout) and any(isinstance(other, Fallback) for other in inside):
            text = "a fallback inside it cannot answer when the time is over; put the fallback outermost"
            yield Finding("fallback-in-timeout", spec.name, text)
        elif isinstance(spec, Hedge) and any(isinstance(other, Retry) for other in inside):
            yield Finding("order", spec.name, "a retry inside the hedge: attempts multiply; keep one of them")
        elif isinstance(spec, CircuitBreaker) and any(isinstance(other, Fallback) for other in inside):
            text = "a fallback inside it answers for every failure, so it never sees one; put the fallback outermost"
            yield Finding("order", spec.name, text)
        elif isinstance(spec, Bulkhead) and any(isinstance(other, CircuitBreaker) for other in inside):
            text = "it takes a permit for calls that the breaker inside it refuses; put it inside the breaker"
            yield Finding("order", spec.name, text)
        elif isinstance(spec, (CircuitBreaker, Bulkhead)) and any(isinstance(other, Retry) for other in inside):
            if isinstance(spec, CircuitBreaker):
                text = "it stands outside the retry and sees calls instead of attempts; put it inside"
                yield Finding("breaker-outside-retry", spec.name, text)
            else:
                text = "it stands outside the retry and holds a permit while the retry waits; put it inside"
                yield Finding("bulkhead-outside-retry", spec.name, text)


def _times(specs: list[Spec]) -> Iterator[Finding]:
    repeating = [index for index, spec in enumerate(specs) if isinstance(spec, (Retry, Hedge))]
    timeouts = [
        (index, spec) for index, spec in enumerate(specs) if isinstance(spec, Timeout) and spec.time is not None
    ]
    for index, inner in timeouts:
        for before, outer in timeouts:
            if before < index and _ns(outer.time) <= _ns(inner.time):
                text = f"its {inner.time!r} is not shorter than the {outer.time!r} around it: it never ends anything"
                yield Finding("attempt-timeout-total", inner.name, text)
    for index, spec in enumerate(specs):
        if isinstance(spec, CircuitBreaker) and spec.slow_after is not None:
            ends = [
                timeout for after, timeout in timeouts if after > index and _ns(timeout.time) <= _ns(spec.slow_after)
            ]
            if ends:
                limit = f"the timeout of {ends[0].time!r} inside it"
                text = f"slow_after={spec.slow_after!r} is not below {limit}: no attempt lives to be slow"
                yield Finding("slow-after-timeout", spec.name, text)
    if repeating and timeouts and all(index < repeating[0] for index, _ in timeouts):
        text = "only the whole call has a timeout: one attempt that hangs uses it up; add a Timeout inside"
        yield Finding("timeout-outside-only", specs[repeating[0]].name, text)
    for index, spec in enumerate(specs):
        if isinstance(spec, CircuitBreaker) and timeouts and all(place < index for place, _ in timeouts):
            text = "no timeout inside it: an attempt that hangs is cancelled from outside and does not count; add one"
            yield Finding("no-timeout-in-breaker", spec.name, text)
    guards = [spec for spec in specs if isinstance(spec, (Bulkhead, CircuitBreaker))]
    if guards and not timeouts and not any(isinstance(spec, Timeout) for spec in specs):
        yield Finding(
            "no-timeout", guards[0].name, "nothing ends a call that hangs; add a Timeout (or one in the client)"
        )


def _load(specs: list[Spec], calls_per_second: float | None) -> Iterator[Finding]:
    for spec in specs:
        if isinstance(spec, CircuitBreaker) and spec.window_calls is None and calls_per_second is not None:
            expected = calls_per_second * _ns(spec.window) / 1e9
            if expected < spec.min_calls and spec.consecutive is None:
                held = f"at {calls_per_second:g} calls/s the window holds {expected:.3g} calls"
                text = f"{held}, below min_calls={spec.min_calls}: it never opens"
                yield Finding("min-calls-unreachable", spec.name, text)
        if isinstance(spec, Retry) and spec.budget is None and spec.attempts > 1:
            text = f"no budget: when everything fails it sends {spec.attempts} times the load"
            yield Finding("no-budget", spec.name, text)


def _ns(time: float | str | None) -> int:
    return 0 if time is None else duration_ns(time, "time")
