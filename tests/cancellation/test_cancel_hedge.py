"""A hedged call that is cancelled leaves no attempt running and no permit out, whichever attempts were under way."""

from __future__ import annotations

import pytest

from seawall import Bulkhead, CircuitBreaker, Fallback, Hedge, Policy, Retry, RetryBudget, Timeout
from seawall.testing import hang, slow
from tests.cancellation.bench import FORMS, Case, Counted, cancel_each_point, everything_is_home

WINDOW = "10h"
FREE = RetryBudget(1.0, per_second=100, window="10h")


def hedge(**settings: object) -> Hedge:
    return Hedge(**{"after": "200ms", "max": 2, "budget": FREE, **settings})


def first_wins() -> Counted:
    return Counted(slow("500ms", "first"), hang, then="cycle")


def second_wins() -> Counted:
    return Counted(hang, slow("100ms", ConnectionError), slow("300ms", "third"), then="cycle")


def at_once() -> Counted:
    """The first answers at the instant at which the second starts."""
    return Counted(slow("200ms", "first"), slow("200ms", "second"), then="cycle")


def all_fail() -> Counted:
    return Counted(
        slow("250ms", ConnectionError), slow("50ms", ConnectionError), slow("1s", ConnectionError), then="cycle"
    )


SCRIPTS = {"first wins": first_wins, "a later one wins": second_wins, "a tie": at_once, "all fail": all_fail}
POLICIES = {
    "hedge": lambda: Policy(hedge()),
    "hedge over guards": lambda: Policy(
        hedge(), CircuitBreaker(None, consecutive=50), Bulkhead(2, queue=3, max_wait=None), Timeout(2)
    ),
    "guards over hedge": lambda: Policy(
        Fallback("cached"), Timeout(2), Bulkhead(1, queue=1, max_wait=3), hedge(), Timeout("700ms")
    ),
    "retry over hedge": lambda: Policy(
        Timeout(5), Retry(on=OSError, delay=0.1, budget=None), hedge(max=1), Bulkhead(3)
    ),
    "hedge by quantile": lambda: Policy(Timeout(5), hedge(after="p95"), Bulkhead(1)),
}


@pytest.mark.parametrize("form", ["acall", "decorated", "arun"])
@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize("policy", POLICIES)
def test_no_attempt_of_a_hedge_outlives_the_cancelled_call(policy: str, script: str, form: str) -> None:
    case = Case(POLICIES[policy], SCRIPTS[script], uncounted=True)
    assert cancel_each_point(case, FORMS[form], twice=form == "acall") > 5


@pytest.mark.parametrize("policy", POLICIES)
def test_a_hedge_is_cancelled_by_a_timeout_of_the_caller_at_any_instant(policy: str) -> None:
    for outer in (0.2, 0.25, 0.3, 0.5):
        case = Case(POLICIES[policy], second_wins, outer=outer, uncounted=True)
        assert cancel_each_point(case, FORMS["acall"]) > 5


def test_the_bench_looks_at_the_layers_inside_a_hedge() -> None:
    policy = POLICIES["hedge over guards"]()
    everything_is_home(policy)
    policy[Bulkhead]._enter()
    with pytest.raises(AssertionError):
        everything_is_home(policy)
