"""`policy.lint()`: every rule finds what it is for, and the usual order raises no finding."""

from __future__ import annotations

import pytest

from seawall import Bulkhead, CircuitBreaker, Fallback, Hedge, Policy, Retry, Timeout

RETRY, BREAKER, BULKHEAD = Retry(on=OSError), CircuitBreaker(), Bulkhead(20)
USUAL = (Fallback("cached"), Timeout(10), RETRY, BREAKER, BULKHEAD, Timeout(2))


def rules(*layers: object, **expected: float) -> list[str]:
    return [finding.rule for finding in Policy(*layers).lint(**expected)]


def test_the_usual_order_is_in_order() -> None:
    assert rules(*USUAL) == []
    assert rules(*USUAL, calls_per_second=100) == []
    assert rules(Fallback("cached"), Timeout(10), Hedge(), BREAKER, BULKHEAD, Timeout(2)) == []
    assert rules() == []


@pytest.mark.parametrize(
    ("rule", "layers"),
    [
        ("retry-outside-fallback", (RETRY, Fallback("cached"))),
        ("retry-in-retry", (RETRY, Retry(on=KeyError))),
        ("retry-in-retry", (RETRY, Policy(Retry(on=KeyError), name="nested"))),
        ("attempt-timeout-total", (Timeout(2), RETRY, Timeout(5))),
        ("attempt-timeout-total", (Timeout("2s"), RETRY, Timeout(2))),
        ("slow-after-timeout", (CircuitBreaker(slow_after=2), Timeout(2))),
        ("slow-after-timeout", (CircuitBreaker(slow_after="3s"), Timeout("2s"))),
        ("breaker-outside-retry", (BREAKER, RETRY, Timeout(1))),
        ("breaker-outside-retry", (CircuitBreaker().per(len), RETRY, Timeout(1))),
        ("bulkhead-outside-retry", (BULKHEAD, RETRY, Timeout(1))),
        ("timeout-outside-only", (Timeout(2), RETRY)),
        ("timeout-outside-only", (Timeout(2), Hedge())),
        ("no-timeout", (BREAKER,)),
        ("no-timeout", (RETRY, BULKHEAD)),
        ("no-budget", (Retry(on=OSError, budget=None), Timeout(1))),
    ],
)
def test_each_rule_finds_what_it_is_for(rule: str, layers: tuple[object, ...]) -> None:
    assert rules(*layers) == [rule]


def test_min_calls_that_the_traffic_cannot_reach() -> None:
    layers = (CircuitBreaker(window=30, min_calls=10), Timeout(1))
    assert rules(*layers, calls_per_second=0.2) == ["min-calls-unreachable"]
    assert rules(*layers, calls_per_second=1) == []
    assert rules(*layers) == [], "without a figure nothing can be said"
    assert rules(CircuitBreaker(window_calls=100), Timeout(1), calls_per_second=0.001) == []
    assert rules(CircuitBreaker(consecutive=5), Timeout(1), calls_per_second=0.001) == []


def test_a_timeout_of_none_says_that_it_is_meant_so() -> None:
    assert rules(BREAKER, Timeout(None)) == []
    assert rules(Timeout(None), RETRY, Timeout(5)) == []


def test_a_finding_names_the_layer_and_the_remedy() -> None:
    (finding,) = Policy(Retry(on=OSError, budget=None, attempts=5, name="again")).lint()
    assert (finding.rule, finding.layer) == ("no-budget", "again")
    assert str(finding) == "again: no budget: when everything fails it sends 5 times the load [no-budget]"


def test_lint_looks_and_changes_nothing() -> None:
    policy = Policy(BREAKER, RETRY)
    before = policy.snapshot()
    policy.lint()
    assert policy.snapshot() == before
