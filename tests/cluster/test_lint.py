"""`cluster.lint()`: every rule finds what it is for, and a sound cluster raises no finding."""

from __future__ import annotations

from typing import Any

import pytest

from seawall import (
    Broadcast,
    Bulkhead,
    CircuitBreaker,
    Cluster,
    Ejection,
    Failfast,
    Failover,
    Failsafe,
    Failsilent,
    Fallback,
    Forking,
    Hedge,
    Policy,
    Retry,
    Timeout,
)
from seawall.policies.registry import Registry
from tests.cluster.service import Service

EACH = (CircuitBreaker(), Bulkhead(20), Timeout("500ms"))
RETRY = Retry(on=OSError)
ALL = [Failover(), Failfast(), Failsafe(), Failsilent(), Forking(2), Forking(2, stagger="p95"), Broadcast()]


def rules(strategy: Any, size: int = 3, *, calls_per_second: float | None = None, **settings: Any) -> list[str]:
    found = Service(size).cluster(strategy, **settings).lint(calls_per_second=calls_per_second)
    assert all(finding.layer and finding.text for finding in found)
    return [finding.rule for finding in found]


@pytest.mark.parametrize("strategy", ALL, ids=str)
def test_a_sound_cluster_raises_no_finding(strategy: Any) -> None:
    assert rules(strategy, each=EACH) == []
    assert rules(strategy, each=EACH, around=(Fallback("cached"), Timeout(3)), ejection=Ejection()) == []
    assert rules(strategy, each=EACH, calls_per_second=1_000, ejection=Ejection()) == []
    assert rules(strategy, each=(Timeout(1),)) == []


CASES: list[tuple[str, Any, dict[str, Any]]] = [
    *(("no-timeout", strategy, {}) for strategy in ALL),
    *(("no-timeout", strategy, {"each": (CircuitBreaker(), Bulkhead(5))}) for strategy in ALL),
    ("retry-in-each", Failover(), {"each": (RETRY, *EACH)}),
    ("retry-in-each", Forking(2), {"each": (RETRY, *EACH)}),
    ("retry-in-each", Failover(), {"each": (Policy(RETRY, name="nested"), *EACH)}),
    ("hedge-in-forking", Forking(2), {"each": (Hedge(), *EACH)}),
    ("fallback-in-each", Failover(), {"each": (Fallback("cached"), *EACH)}),
    ("fallback-in-each", Failsilent(), {"each": (Fallback("cached"), *EACH)}),
    ("retry-around", Failover(), {"each": EACH, "around": (RETRY,)}),
    ("breaker-around", Failfast(), {"each": EACH, "around": (CircuitBreaker(), Timeout(3))}),
    ("attempt-timeout-total", Failfast(), {"each": (Timeout(2),), "around": (Timeout(2),)}),
    ("attempt-timeout-total", Failsafe(), {"each": (Timeout("3s"),), "around": (Timeout(2),)}),
    ("one-endpoint", Failover(), {"each": EACH, "size": 1}),
    ("one-endpoint", Forking(2), {"each": EACH, "size": 1}),
    ("quorum", Broadcast(4), {"each": EACH}),
    ("more-retries-than-time", Failover(), {"each": (Timeout(2),), "around": (Timeout(3),)}),
    ("shared-policy", Failover(), {"each": (Policy(CircuitBreaker(), Timeout(1), name="shared"),)}),
    ("no-budget", Failover(budget=None), {"each": EACH}),
    ("min-calls-unreachable", Failfast(), {"each": EACH, "calls_per_second": 0.5}),
    ("min-calls-unreachable", Failsilent(Ejection(None)), {"each": (Timeout(1),), "calls_per_second": 0.5}),
    ("min-calls-unreachable", Failfast(), {"each": (Timeout(1),), "ejection": Ejection(None), "calls_per_second": 0.5}),
]


@pytest.mark.parametrize(("rule", "strategy", "settings"), CASES, ids=str)
def test_each_rule_finds_what_it_is_for(rule: str, strategy: Any, settings: dict[str, Any]) -> None:
    assert rules(strategy, **settings) == [rule]


@pytest.mark.parametrize(
    ("strategy", "settings"),
    [
        (Failfast(), {"each": (RETRY, Timeout("500ms"))}),  # one endpoint, tried again, is what was asked for
        (Forking(2), {"each": EACH, "around": (RETRY,)}),
        (Failover(0), {"each": EACH, "around": (RETRY,)}),
        (Failover(0, budget=None), {"each": EACH}),
        (Failfast(), {"each": EACH, "size": 1}),
        (Failfast(), {"each": (Timeout(2),), "around": (Timeout(3),)}),
        (Failover(), {"each": (Policy(Bulkhead(9), name="shared"), Timeout(1))}),
        (Broadcast(3), {"each": EACH}),
        (Failfast(), {"each": (Timeout(1),), "ejection": Ejection(), "calls_per_second": 0.001}),  # in a row
    ],
    ids=str,
)
def test_and_nothing_else(strategy: Any, settings: dict[str, Any]) -> None:
    assert rules(strategy, **settings) == []


@pytest.mark.parametrize("strategy", ALL, ids=str)
def test_a_timeout_of_none_says_that_it_is_meant_so(strategy: Any) -> None:
    assert rules(strategy, each=(CircuitBreaker(), Timeout(None))) == []


def test_the_reasons_fit_the_strategy() -> None:
    reasons = {strategy.name: Service(2).cluster(strategy).lint()[0].text for strategy in ALL}
    assert "holds the caller" in reasons["Failsafe"]
    assert "never for failed" in reasons["Forking"]
    assert "holds the answer of all" in reasons["Broadcast"]
    assert "falls silent" in reasons["Failsilent"]


def test_the_traffic_is_shared_out_except_by_a_broadcast() -> None:
    settings: dict[str, Any] = {"each": (CircuitBreaker(window=30, min_calls=10), Timeout(1)), "calls_per_second": 1.0}
    assert rules(Failfast(), 2, **settings) == []
    assert rules(Failfast(), 10, **settings) == ["min-calls-unreachable"]
    assert rules(Broadcast(), 10, **settings) == []


def test_the_layers_of_an_endpoint_are_looked_at_too() -> None:
    assert rules(Failfast(), each=(Bulkhead(5), RETRY, Timeout(1))) == ["bulkhead-outside-retry"]


def test_before_the_first_list_nothing_is_said_about_numbers() -> None:
    cluster: Cluster[Any] = Cluster("stock", lambda: ["a:80"], each=EACH, names=Registry())
    assert cluster.lint(calls_per_second=0.001) == []
    cluster.refresh()
    assert [finding.rule for finding in cluster.lint()] == ["one-endpoint"]


def test_a_view_is_judged_by_its_own_strategy() -> None:
    cluster = Service(1).cluster(Failfast(), each=EACH)
    assert cluster.lint() == []
    assert [finding.rule for finding in cluster.using(Failover()).lint()] == ["one-endpoint"]
