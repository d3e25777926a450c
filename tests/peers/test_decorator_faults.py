"""Faults of other libraries' decorators, fallbacks and parallel calls, none of which Seawall's may have."""

from __future__ import annotations

import asyncio
import inspect
import typing
from collections.abc import Callable

import pytest

from seawall import Bulkhead, CircuitBreaker, Fallback, Hedge, Policy, Retry, Timeout
from seawall.testing import Script, run, slow
from tests.policies.worlds import World, fail, in_both_worlds

LAYERS = (Fallback(0), Retry(on=OSError), CircuitBreaker(), Bulkhead(2), Timeout(1))


def typed(order: int, *, urgent: bool = False) -> str:
    """Charge an order."""
    return f"{order} {urgent}"


async def atyped(order: int, *, urgent: bool = False) -> str:
    """Charge an order, later."""
    return f"{order} {urgent}"


@pytest.mark.parametrize(
    ("layers", "function"),
    [
        pytest.param(LAYERS, typed, id="sync"),
        pytest.param(LAYERS, atyped, id="async"),
        pytest.param((Bulkhead(1, threads=True),), typed, id="threads"),
        pytest.param((Hedge(), Bulkhead(1)), atyped, id="hedge"),
    ],
)
def test_types_and_signatures_survive_the_decorator(layers: tuple, function: Callable[..., object]) -> None:
    """pybreaker, circuitbreaker, purgatory, aiobreaker, hyx retry lose them. (tests/typing asks the type checkers.)"""
    protected = Policy(*layers)(function)
    assert inspect.signature(protected) == inspect.signature(function)
    assert typing.get_type_hints(protected) == typing.get_type_hints(function)
    assert (protected.__name__, protected.__qualname__) == (function.__name__, function.__qualname__)
    assert (protected.__doc__, protected.__module__) == (function.__doc__, function.__module__)
    assert inspect.iscoroutinefunction(protected) == inspect.iscoroutinefunction(function)
    assert protected.__wrapped__ is function


def test_methods_are_still_methods() -> None:
    """Peers that return an object instead of a function lose `self`."""
    policy = Policy(*LAYERS)

    class Till:
        def __init__(self) -> None:
            self.total = 0

        @policy
        def add(self, amount: int) -> int:
            self.total += amount
            return self.total

    till = Till()
    assert [till.add(2), till.add(amount=3), Till.add(till, 1)] == [2, 5, 6]
    assert inspect.ismethod(till.add)


@pytest.mark.parametrize("outermost", [property, staticmethod, classmethod])
def test_decorators_in_the_other_order_are_not_silently_without_effect(outermost: Callable[..., object]) -> None:
    """slowapi: written in the other order, its decorators do nothing. Here they work, or say what to do instead."""
    policy = Policy(CircuitBreaker(consecutive=1))
    if outermost is property:
        with pytest.raises(TypeError, match="put @property above"):
            policy(property(fail()))
        return
    holder = type("Holder", (), {"ask": policy(outermost(fail()))})
    with pytest.raises(ConnectionError):
        holder.ask()
    assert policy[CircuitBreaker].state == "open"


@in_both_worlds
async def test_a_generator_is_refused_instead_of_passing_unprotected(world: World) -> None:
    """tenacity, pybreaker: the generator is made under protection, and its body fails outside it."""

    def rows() -> typing.Iterator[int]:
        yield 1

    async def arows() -> typing.AsyncIterator[int]:
        yield 1

    policy = Policy(*LAYERS)
    for function in (rows, arows):
        with pytest.raises(TypeError, match="generator"):
            policy(function)
    if not world.is_async:
        with pytest.raises(TypeError, match="generator"):
            policy.call(rows)


def test_a_fast_failure_does_not_win_over_a_later_success() -> None:
    """Dubbo's forking takes the first answer, a failure too."""
    target = Script(slow(2, "late but right"), ConnectionError)

    async def main() -> None:
        policy = Policy(Hedge(after=0.5, budget=None))
        assert await policy.acall(target.aio) == "late but right"

    run(main)
    assert target.times == [0, 0.5]


def test_a_fallback_sees_asynchronous_failures() -> None:
    """Dubbo's failback never sees those of async calls; pybreaker's fallbacks answer before the coroutine has run."""

    @Policy(Fallback("cached"))
    async def fetch() -> str:
        await asyncio.sleep(1)
        raise ConnectionError

    assert run(fetch) == "cached"


@in_both_worlds
async def test_a_policy_serves_sync_and_async_calls_with_one_state(world: World) -> None:
    """What users ask of all of them: failures in threads open the breaker for tasks, and the other way round."""
    policy = Policy(CircuitBreaker(consecutive=2))
    await world.error_of(policy, fail())
    with pytest.raises(ConnectionError):
        policy.call(fail())
    assert policy[CircuitBreaker].state == "open"
