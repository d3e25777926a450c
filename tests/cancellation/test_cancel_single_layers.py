"""A call through one layer gives everything back wherever it is cancelled, in every form in which it can be made."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from seawall import Bulkhead, CircuitBreaker, Fallback, Policy, Retry, RetryBudget, Switch, Timeout
from seawall.policies.registry import Registry
from seawall.testing import slow
from tests.cancellation.bench import ATTEMPT, FORMS, KEY, Case, Counted, cancel_each_point

BUDGET = RetryBudget(window="10h")
WINDOW = "10h"


def quick() -> Counted:
    return Counted(slow("1s", "answer"))


def troubled() -> Counted:
    return Counted(slow("100ms", ConnectionError), slow("1s", ConnectionError), slow("500ms", "answer"), then="cycle")


async def open_then_wait(policy: Policy) -> None:
    """Bring a breaker with `consecutive=1` to where the next call is a probe."""
    await policy.arun(Counted(ConnectionError).aio, KEY)
    assert policy[CircuitBreaker].state == "open"
    await asyncio.sleep(40)


async def spare(error: Exception) -> str:
    await asyncio.sleep(1)
    return f"instead of {error!r}"


def lit() -> Policy:
    switch = Switch("sale", names=Registry())
    switch.turn_on(why="test")
    return Policy(Fallback(spare, when=switch))


def tries() -> Retry:
    return Retry(on=OSError, attempts=4, delay=0.5, budget=BUDGET)


SINGLE: dict[str, Case] = {
    "nothing": Case(Policy, quick),
    "retry": Case(lambda: Policy(tries()), troubled),
    "retry with a total": Case(lambda: Policy(Retry(on=OSError, delay=1, total=2, budget=BUDGET)), troubled),
    "closed breaker": Case(lambda: Policy(CircuitBreaker(window=WINDOW)), quick),
    "breaker by count": Case(lambda: Policy(CircuitBreaker(window_calls=50)), troubled),
    "breaker for slow calls": Case(
        lambda: Policy(CircuitBreaker(window=WINDOW, slow_after="400ms", min_calls=50)), quick, holders=2
    ),
    "breaker that looks at results": Case(
        lambda: Policy(CircuitBreaker(window=WINDOW, ok=lambda result: result != "bad")), quick
    ),
    "half-open breaker": Case(
        lambda: Policy(CircuitBreaker(consecutive=1, window=WINDOW, probes=3)), quick, prepare=open_then_wait
    ),
    "bulkhead": Case(lambda: Policy(Bulkhead(1)), quick),
    "full bulkhead": Case(lambda: Policy(Bulkhead(1)), quick, holders=1),
    "bulkhead with a queue": Case(lambda: Policy(Bulkhead(1, queue=2, max_wait=None)), quick, holders=1),
    "queue of two": Case(lambda: Policy(Bulkhead(1, queue=2, max_wait=None)), quick, holders=2),
    "queue that loses patience as the permit comes": Case(
        lambda: Policy(Bulkhead(1, queue=1, max_wait="999ms")), quick, holders=1
    ),
    "timeout": Case(lambda: Policy(Timeout(2)), quick),
    "timeout as the answer comes": Case(lambda: Policy(Timeout(1, name=ATTEMPT)), quick),
    "timeout before the answer": Case(lambda: Policy(Timeout("500ms", name=ATTEMPT)), quick),
    "timeout without a limit": Case(lambda: Policy(Timeout(None)), quick),
    "fallback": Case(lambda: Policy(Fallback("cached")), troubled),
    "async fallback": Case(lambda: Policy(Fallback(spare)), troubled),
    "fallback by switch": Case(lit, quick),
    "breaker by key": Case(lambda: Policy(CircuitBreaker(window=WINDOW).per(lambda key: key)), quick),
    "bulkhead by key": Case(lambda: Policy(Bulkhead(1, queue=1, max_wait=None).per(lambda key: key)), quick, holders=1),
    "shadow": Case(lambda: Policy(tries(), CircuitBreaker(window=WINDOW), Bulkhead(1), shadow=True), quick, holders=2),
}


def fits(case: Case, form: str) -> bool:
    """Whether the policy may be used in this form."""
    try:
        if form in ("guard", "attempts"):
            getattr(case.policy(), form)()
    except TypeError:
        return False
    return True


BOTH = [
    pytest.param(case, form, id=f"{name}-{form}") for name, case in SINGLE.items() for form in FORMS if fits(case, form)
]


@pytest.mark.parametrize(("case", "form"), BOTH)
def test_one_layer_gives_everything_back_cancelled_at_every_point_once_and_twice(case: Case, form: str) -> None:
    assert cancel_each_point(case, FORMS[form], twice=True) > 2


@pytest.mark.parametrize(("case", "form"), BOTH)
def test_one_layer_gives_everything_back_beside_a_timeout_of_the_caller(case: Case, form: str) -> None:
    for outer in (0.5, 0.999, 1.0, 1.5):
        assert cancel_each_point(case._replace(outer=outer), FORMS[form]) > 2


@pytest.mark.parametrize("form", ["acall", "attempts"])
def test_a_leak_would_be_found(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bench itself: a bulkhead that forgets a ticket granted at the instant of cancellation."""
    from seawall.policies.bulkhead import BulkheadGuard

    monkeypatch.setattr(BulkheadGuard, "_give_up", forget)
    with pytest.raises(AssertionError):
        cancel_each_point(SINGLE["bulkhead with a queue"], FORMS[form])


forget: Callable[..., None] = lambda guard, ticket: guard._gate.waiting.pop(ticket, None)  # noqa: E731
