"""A call through the whole stack, nested policies and compartments gives everything back wherever it is cancelled."""

from __future__ import annotations

import asyncio

import pytest

from seawall import Bulkhead, CircuitBreaker, Fallback, Policy, Retry, RetryBudget, Timeout
from seawall.testing import hang, run, slow
from tests.cancellation.bench import ATTEMPT, FORMS, Case, Counted, cancel_each_point
from tests.cancellation.test_cancel_single_layers import open_then_wait

WINDOW = "10h"


def tries(**settings: object) -> Retry:
    return Retry(**{"on": (OSError, TimeoutError), "delay": 0.5, "budget": RetryBudget(window="10h"), **settings})


def core() -> tuple[CircuitBreaker, Bulkhead, Timeout]:
    return CircuitBreaker(window=WINDOW), Bulkhead(1, queue=2, max_wait=5), Timeout(1, name=ATTEMPT)


def troubled() -> Counted:
    """Fails, hangs until the timeout of the attempt, and answers as that timeout passes."""
    return Counted(slow("100ms", ConnectionError), hang, slow("1s", "answer"), then="cycle")


def full() -> Policy:
    return Policy(Fallback("cached"), Timeout(10, name="total"), tries(), *core())


def without_fallback() -> Policy:
    return Policy(Timeout(10, name="total"), tries(), *core())


def total_meets_attempt() -> Policy:
    """Both timeouts pass at the same instant, in the second attempt: 0.1 s + 0.5 s + 1 s."""
    return Policy(Timeout(1.6, name="total"), tries(), *core()[:1], *core()[2:])


def nested() -> Policy:
    shared = Policy(*core(), name="shared")
    return Policy(Fallback("cached"), tries(), shared, Timeout(1.2, name="inner"), name="outer")


def by_key() -> Policy:
    breaker, bulkhead, timeout = core()
    return Policy(tries(), breaker.per(lambda key: key), bulkhead.per(lambda key: key), timeout)


def two_queues() -> Policy:
    return Policy(Bulkhead(2, queue=2, max_wait=None, name="wide"), *core())


def probing() -> Policy:
    shared = Policy(Bulkhead(1, queue=2, max_wait=None), name="shared")
    return Policy(CircuitBreaker(consecutive=1, window=WINDOW, probes=3), shared, Timeout(1, name=ATTEMPT))


def shared_part(policy: Policy) -> Policy:
    return next(part for part in policy.specs if isinstance(part, Policy))


def by_total() -> Policy:
    return Policy(tries(total=1.7, attempts=9), *core())


STACKS: dict[str, Case] = {
    "full": Case(full, troubled, holders=1),
    "full, two in the way": Case(full, troubled, holders=2),
    "without a fallback": Case(without_fallback, troubled, holders=1),
    "two timeouts at once": Case(total_meets_attempt, troubled),
    "nested": Case(nested, troubled, holders=1),
    "by key": Case(by_key, troubled, holders=1),
    "two queues": Case(two_queues, lambda: Counted(slow("800ms", "answer")), holders=2),
    "probes in a queue": Case(
        probing, lambda: Counted(slow("500ms", "answer")), 1, prepare=open_then_wait, holds=shared_part
    ),
    "retry with a total": Case(by_total, troubled, holders=1),
}
WHOLE = [
    pytest.param(case, form, id=f"{name}-{form}")
    for name, case in STACKS.items()
    for form in ("acall", "decorated", "arun")
]
# A block cannot be answered for by a fallback, nor has it arguments to take a key from.
BLOCKS = [
    pytest.param(STACKS[name], form, id=f"{name}-{form}")
    for name, form in [
        ("without a fallback", "attempts"),
        ("two timeouts at once", "attempts"),
        ("retry with a total", "attempts"),
        ("two queues", "attempts"),
        ("two queues", "guard"),
        ("probes in a queue", "guard"),
        ("probes in a queue", "attempts"),
    ]
]


@pytest.mark.parametrize(("case", "form"), [*WHOLE, *BLOCKS])
def test_the_stack_gives_everything_back_cancelled_at_every_point(case: Case, form: str) -> None:
    assert cancel_each_point(case, FORMS[form]) > 10


@pytest.mark.parametrize(("case", "form"), [*WHOLE[::3], *BLOCKS])
def test_the_stack_gives_everything_back_cancelled_twice(case: Case, form: str) -> None:
    assert cancel_each_point(case, FORMS[form], twice=True) > 10


@pytest.mark.parametrize("outer", [0.1, 0.999, 1.0, 1.1, 1.6, 2.1])
@pytest.mark.parametrize(("case", "form"), [*WHOLE[::3], *BLOCKS])
def test_the_stack_gives_everything_back_beside_a_timeout_of_the_caller(case: Case, form: str, outer: float) -> None:
    assert cancel_each_point(case._replace(outer=outer), FORMS[form]) > 5


def test_who_waits_in_a_queue_keeps_no_probe_from_others() -> None:
    async def main() -> None:
        policy = probing()
        await open_then_wait(policy)
        breaker, shared = policy[CircuitBreaker], shared_part(policy)
        holder = asyncio.create_task(shared.acall(asyncio.sleep, 1))
        await asyncio.sleep(0.1)
        probe = asyncio.create_task(policy.acall(asyncio.sleep, 0.9))
        await asyncio.sleep(0.4)
        assert (shared[Bulkhead].waiting, breaker.state, len(breaker._machine._out)) == (1, "half_open", 0)
        await asyncio.sleep(1)
        assert (shared[Bulkhead].in_use, len(breaker._machine._out)) == (1, 1)
        await asyncio.gather(holder, probe)

    run(main)
