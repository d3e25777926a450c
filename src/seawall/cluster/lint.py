"""`cluster.lint()`: settings of a cluster that work against each other, found before they hurt.

Rules, besides those of `seawall.policy.lint` for the layers of `each` and of `around`
    no-timeout               nothing ends an attempt that hangs; under some strategies that hurts more than a failure.
    retry-in-each            a retry per endpoint inside a failover: attempts multiply, where one has just failed.
    hedge-in-forking         a hedge inside a forking: attempts multiply.
    fallback-in-each         it answers for the endpoint, so nobody ever sees the endpoint fail.
    retry-around             a retry around a strategy that tries again by itself: attempts multiply.
    breaker-around           one breaker over all endpoints: a single sick one opens it for all.
    attempt-timeout-total    the timeout of an attempt is not shorter than the one of the whole call.
    one-endpoint             a strategy that needs several endpoints has one only.
    stagger-timeout          an attempt is ended before the next fork would start: a fork is never slow.
    quorum                   a broadcast wants more successes than there are endpoints.
    more-retries-than-time   no time is left for another attempt after one that timed out.
    min-calls-unreachable    an endpoint gets its share of the traffic only: breaker or ejection never see enough.
    shared-policy            a live `Policy` in `each` has a breaker: one sick endpoint opens it for all.
    layer-around-failback    a retry or fallback around a failback: it hides that work was neither done nor stored.
    no-budget                failover without a budget multiplies the load when everything fails.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from seawall.cluster.broadcast import Broadcast
from seawall.cluster.core import Core
from seawall.cluster.failover import Failover
from seawall.cluster.failsafe import Failsafe
from seawall.cluster.failsilent import Failsilent
from seawall.cluster.forking import Forking
from seawall.cluster.strategy import Strategy
from seawall.policies.circuit_breaker import CircuitBreaker
from seawall.policies.fallback import Fallback
from seawall.policies.hedge import Hedge, quantile_of
from seawall.policies.retry import Retry
from seawall.policies.spec import Spec
from seawall.policies.timeout import Timeout
from seawall.policy import Policy
from seawall.policy.lint import Finding
from seawall.units import duration_ns

__all__ = ["lint"]


def lint(core: Core, strategy: Strategy[Any], *, calls_per_second: float | None) -> list[Finding]:
    """All findings: on the strategy, on `each`, on `around`, then those on the layers among themselves."""
    each, around = _flat(core.each), _flat(core.around_specs)
    later = _failback(strategy, around)
    # What a failback tries first is what sends the attempts.
    strategy = getattr(strategy, "after", strategy)
    found = [
        *later,
        *_strategy(core, strategy, each),
        *_each(core, strategy, each),
        *_around(strategy, each, around),
        *_load(core, strategy, calls_per_second),
    ]
    own = {finding.rule for finding in found}
    inner = core.template.lint() if core.each else []
    return [*found, *(finding for finding in inner if finding.rule not in own)]


def _flat(layers: tuple[Spec | Policy, ...]) -> list[Spec]:
    specs: list[Spec] = []
    for layer in layers:
        specs += [live.spec for live in layer.layers if live.by_hand] if isinstance(layer, Policy) else [layer]
    return specs


def _timeouts(specs: list[Spec]) -> list[int]:
    return [duration_ns(spec.time, "time") for spec in specs if isinstance(spec, Timeout) and spec.time is not None]


def _failback(strategy: Strategy[Any], around: list[Spec]) -> list[Finding]:
    """What stands around a failback: it has stored the work when it answers, so it is not to be asked again."""
    found: list[Finding] = []
    if not hasattr(strategy, "after"):
        return found
    for spec in around:
        if isinstance(spec, Retry):
            text = "a retry around a failback repeats what could not even be stored; let the caller see NotQueued"
            found.append(Finding("layer-around-failback", spec.name, text))
        elif isinstance(spec, Fallback):
            text = "a fallback around a failback hides that the work could not be stored; let the caller see NotQueued"
            found.append(Finding("layer-around-failback", spec.name, text))
    return found


def _strategy(core: Core, strategy: Strategy[Any], each: list[Spec]) -> Iterator[Finding]:
    if not any(isinstance(spec, Timeout) for spec in each):  # Timeout(None) says that it is meant so
        reason = "nothing ends an attempt that hangs"
        if isinstance(strategy, Failsafe):
            reason = "a side call that hangs is not safe: it holds the caller"
        elif isinstance(strategy, Forking):
            reason = "a fork that hangs is taken for slow, never for failed"
        elif isinstance(strategy, Broadcast):
            reason = "one endpoint that hangs holds the answer of all"
        elif isinstance(strategy, Failsilent):
            reason = "without a timeout no endpoint ever times out, so none falls silent"
        yield Finding("no-timeout", strategy.name, f"{reason}; put a Timeout into each=(...)")
    stagger = strategy.stagger if isinstance(strategy, Forking) else None
    if stagger is not None and quantile_of(stagger) is None:
        attempts = _timeouts(each)
        if attempts and duration_ns(stagger, "stagger") >= min(attempts):
            text = (
                f"stagger={stagger!r} is not below the timeout of an attempt: the next fork starts only after a failure"
            )
            yield Finding("stagger-timeout", strategy.name, text)
    endpoints = core.directory.members
    if isinstance(strategy, Broadcast) and isinstance(strategy.quorum, int) and 0 < len(endpoints) < strategy.quorum:
        text = f"it wants {strategy.quorum} successes of {len(endpoints)} endpoints: it can never succeed"
        yield Finding("quorum", strategy.name, text)
    if len(endpoints) == 1 and isinstance(strategy, (Failover, Forking)):
        what = "fail over to" if isinstance(strategy, Failover) else "fork to"
        yield Finding("one-endpoint", strategy.name, f"there is one endpoint only, and nothing to {what}")
    if isinstance(strategy, Failover) and strategy.budget is None and strategy.retries:
        text = f"no budget: when everything fails it sends {strategy.retries + 1} times the load"
        yield Finding("no-budget", strategy.name, text)


def _each(core: Core, strategy: Strategy[Any], each: list[Spec]) -> Iterator[Finding]:
    for spec in each:
        if isinstance(spec, Retry) and isinstance(strategy, (Failover, Forking)):
            text = "a retry at one endpoint inside a strategy that goes to others: attempts multiply; drop it"
            yield Finding("retry-in-each", spec.name, text)
        if isinstance(spec, Hedge) and isinstance(strategy, Forking):
            yield Finding("hedge-in-forking", spec.name, "a hedge inside a forking: attempts multiply; drop it")
        if isinstance(spec, Fallback):
            text = "it answers for its endpoint, so nobody sees the endpoint fail; put it into around=(...)"
            yield Finding("fallback-in-each", spec.name, text)
    for layer in core.each:
        if isinstance(layer, Policy) and any(isinstance(spec, CircuitBreaker) for spec in _flat((layer,))):
            text = "its breaker is shared by all endpoints: one sick endpoint opens it for all; give the spec instead"
            yield Finding("shared-policy", layer.name, text)


def _around(strategy: Strategy[Any], each: list[Spec], around: list[Spec]) -> Iterator[Finding]:
    totals = _timeouts(around)
    for spec in around:
        if isinstance(spec, Retry) and isinstance(strategy, Failover) and strategy.retries:
            yield Finding("retry-around", spec.name, "a retry around a failover: attempts multiply; keep one of them")
        if isinstance(spec, CircuitBreaker):
            text = "one breaker over all endpoints: a single sick one opens it for all; put it into each=(...)"
            yield Finding("breaker-around", spec.name, text)
    for attempt in _timeouts(each):
        for total in totals:
            if attempt >= total:
                text = "the timeout of an attempt is not shorter than the one around the call: it never ends anything"
                yield Finding("attempt-timeout-total", strategy.name, text)
            elif isinstance(strategy, Failover) and strategy.retries and total // attempt < 2:
                text = "the total timeout leaves no time for a second attempt after one that timed out"
                yield Finding("more-retries-than-time", strategy.name, text)


def _load(core: Core, strategy: Strategy[Any], calls_per_second: float | None) -> Iterator[Finding]:
    members = core.directory.members
    if calls_per_second is None or not members:
        return
    share = calls_per_second if isinstance(strategy, Broadcast) else calls_per_second / len(members)
    yield from (
        finding for finding in core.template.lint(calls_per_second=share) if finding.rule == "min-calls-unreachable"
    )
    ejection = strategy.ejection if isinstance(strategy, Failsilent) else core.ejection
    if ejection is not None and ejection.failure_rate is not None and ejection.consecutive is None:
        expected = share * duration_ns(ejection.window, "window") / 1e9
        if expected < ejection.min_calls:
            held = f"at {share:g} calls/s for each endpoint the window holds {expected:.3g} calls"
            text = f"{held}, below min_calls={ejection.min_calls}: it never ejects"
            yield Finding("min-calls-unreachable", ejection.name, text)
