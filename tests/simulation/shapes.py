"""Policies of many shapes and settings, all of them sensible, drawn from a seed."""

from __future__ import annotations

import asyncio
from random import Random
from typing import Any, NamedTuple

from seawall import Bulkhead, CircuitBreaker, Fallback, Hedge, Policy, Retry, RetryBudget, Switch, Timeout, same_args
from seawall.policies.registry import Registry
from seawall.policies.spec import Spec

__all__ = ["DEGRADED", "Shape", "draw", "guards"]

DEGRADED = -1
FALLBACK_TIME = 0.02
TROUBLE = (ConnectionError, TimeoutError)
Layer = Spec | Policy


class Shape(NamedTuple):
    """One policy, and what a test has to know about it."""

    policy: Policy
    total: float | None
    """Seconds within which every call ends, however its endpoint behaves; None if nothing limits it."""
    keyed: bool
    """Whether calls go through `for_key`."""
    switch: Switch | None
    budget: RetryBudget | None
    """The budget of its retries, if it has one of its own."""
    by_block: tuple[str, ...]
    """The block forms that fit."""


def draw(random: Random, name: str, shared: Policy | None, *, is_async: bool = True) -> Shape:
    """A policy. `shared`, if given, may stand in the place of its guards."""
    layers: list[Layer] = []
    switch = None
    if random.random() < 0.4:
        switch = Switch(f"{name} switch", names=Registry()) if random.random() < 0.3 else None
        layers.append(Fallback(_answer(random, is_async), when=switch))
    total = random.choice((None, 0.8, 2, 5))
    if total is not None:
        layers.append(Timeout(total, name="total"))
    driver, budget = _driver(random, is_async)
    layers += driver
    layers += [shared] if shared is not None and random.random() < 0.5 else _guards(random, is_async)
    attempt = random.choice((None, 0.25, 1))
    if attempt is not None:
        layers.append(Timeout(attempt, name="attempt"))
    policy = Policy(*layers, name=name, max_keys=3)
    patience = None if total is None else total + FALLBACK_TIME
    return Shape(policy, patience, random.random() < 0.2, switch, budget, _blocks(policy))


def guards(random: Random, name: str, *, is_async: bool = True) -> Policy:
    """A policy of guards only, to be shared."""
    return Policy(_breaker(random), _bulkhead(random, is_async), name=name)


def _answer(random: Random, is_async: bool) -> Any:
    async def later(_error: Exception) -> int:
        await asyncio.sleep(FALLBACK_TIME)
        return DEGRADED

    plain = DEGRADED, lambda _error: DEGRADED, same_args(lambda *_call: DEGRADED)
    return random.choice((*plain, later) if is_async else plain)


def _driver(random: Random, is_async: bool) -> tuple[list[Layer], RetryBudget | None]:
    kind = random.choice(("none", "retry", "retry", "retry", "hedge" if is_async else "retry"))
    if kind == "none":
        return [], None
    if kind == "hedge":
        budget = random.choice((None, RetryBudget(0.5, per_second=1)))
        return [Hedge(random.choice(("p95", 0.05, 0.2)), max=random.choice((1, 2)), budget=budget)], None
    budget = random.choice(
        (None, RetryBudget(), RetryBudget(0.1, per_second=0), RetryBudget(0.5, per_second=1, window=2))
    )
    retry = Retry(
        on=TROUBLE,
        attempts=random.choice((2, 3, 4)),
        base=random.choice((0, 0.05, 0.2)),
        delay=random.choice((None, None, 0.1)),
        total=random.choice((None, None, 1)),
        until=random.choice((None, None, lambda value: value is None or value % 7 != 3)),
        budget=budget,
    )
    return [retry], budget


def _guards(random: Random, is_async: bool) -> list[Layer]:
    layers: list[Layer] = []
    if random.random() < 0.7:
        breaker = _breaker(random)
        layers.append(breaker.per(_by_number, most=2) if random.random() < 0.2 else breaker)
    if random.random() < 0.7:
        bulkhead = _bulkhead(random, is_async)
        layers.append(bulkhead.per(_by_number, most=2) if random.random() < 0.2 else bulkhead)
        if random.random() < 0.2:
            layers.insert(0, Bulkhead(6, queue=6, max_wait=1, name="wide"))
    return layers


def _breaker(random: Random) -> CircuitBreaker:
    return CircuitBreaker(
        random.choice((0.3, 0.5, 0.8)),
        min_calls=random.choice((1, 3, 6)),
        window=random.choice((1, 5, 30)),
        window_calls=random.choice((None, None, 10)),
        buckets=random.choice((1, 10)),
        slow_after=random.choice((None, None, 0.2)),
        consecutive=random.choice((None, 3)),
        open_for=random.choice((0.1, 0.5, 2)),
        probes=random.choice((1, 2, 5)),
        probe_lease=random.choice((0.5, 60)),
        ok=random.choice((None, None, None, lambda value: value is None or value % 11 != 5)),
    )


def _bulkhead(random: Random, is_async: bool) -> Bulkhead:
    # One thread that calls within a call would wait for its own permit for ever.
    patience = (0.05, 0.5, None if is_async else 1)
    queue = random.choice((0, 2, 4, 6))
    return Bulkhead(random.choice((1, 1, 2, 5)), queue=queue, max_wait=random.choice(patience) if queue else 0)


def _by_number(_endpoint: object, number: int) -> int:
    return number % 3


def _blocks(policy: Policy) -> tuple[str, ...]:
    fitting: list[str] = []
    for form in ("guard", "attempts"):
        try:
            getattr(policy, form)()
        except TypeError:
            continue
        fitting.append(form)
    return tuple(fitting)
