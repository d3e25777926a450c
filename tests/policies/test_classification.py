"""What an outcome means to each layer: failures, answers, refusals, impatience, cancellation, errors of the program."""

from __future__ import annotations

import asyncio

import pytest

from seawall import (
    Bulkhead,
    BulkheadFull,
    CircuitBreaker,
    ConfigError,
    DeadlineExceeded,
    Fallback,
    Policy,
    Rejected,
    Retry,
    Timeout,
    deadline,
)
from seawall.testing import Script, run
from tests.policies.worlds import World, fail, in_both_worlds

PROGRAMMING = [TypeError, NameError, UnboundLocalError, AttributeError, AssertionError, SyntaxError]
EXITS = [asyncio.CancelledError, KeyboardInterrupt, SystemExit, GeneratorExit]


def counts(policy: Policy) -> tuple[int, int]:
    """Calls and failures in the breaker's window; an open one would have forgotten them."""
    seen = policy[CircuitBreaker].snapshot()
    assert seen["state"] == "closed"
    return seen["calls"], seen["failed"]


@pytest.mark.parametrize("error", [ConnectionError, TimeoutError, ValueError, Exception, TypeError])
@in_both_worlds
async def test_any_exception_is_a_failure_to_the_breaker(world: World, error: type[Exception]) -> None:
    policy = Policy(CircuitBreaker())
    await world.error_of(policy, fail(error))
    assert counts(policy) == (1, 1)


@in_both_worlds
async def test_a_full_bulkhead_does_not_open_the_breaker_outside_it(world: World) -> None:
    policy = Policy(CircuitBreaker(consecutive=1, min_calls=1), Bulkhead(1))
    held = Policy(policy)  # the same state, another face
    with held.guard():
        for _ in range(5):
            assert isinstance(await world.error_of(policy, str), BulkheadFull)
        assert counts(policy) == (0, 0)
    assert await world.call(policy, str) == ""


@in_both_worlds
async def test_a_refusal_raised_by_the_function_is_ignored(world: World) -> None:
    policy = Policy(CircuitBreaker())
    await world.error_of(policy, fail(Rejected("busy")))
    assert counts(policy) == (0, 0)


@in_both_worlds
async def test_an_inherited_deadline_does_not_open_the_breaker(world: World) -> None:
    """One impatient caller must not cut off the others."""
    policy = Policy(CircuitBreaker(consecutive=1), Timeout(10))
    with deadline(1):
        error = await world.error_of(policy, fail(DeadlineExceeded(inherited=True)))
    assert isinstance(error, DeadlineExceeded)
    assert error.inherited
    assert counts(policy) == (0, 0)


def test_an_async_call_cut_off_by_its_callers_deadline_is_ignored() -> None:
    async def main() -> None:
        policy = Policy(CircuitBreaker(consecutive=1), Timeout(10))
        with deadline(1), pytest.raises(DeadlineExceeded) as caught:
            await policy.acall(asyncio.sleep, 5)
        assert caught.value.inherited
        assert counts(policy) == (0, 0)

    run(main)


def test_the_layers_own_timeout_is_a_failure() -> None:
    async def main() -> None:
        policy = Policy(CircuitBreaker(), Timeout(1))
        with deadline(10), pytest.raises(DeadlineExceeded) as caught:
            await policy.acall(asyncio.sleep, 5)
        assert not caught.value.inherited
        assert counts(policy) == (1, 1)

    run(main)


@in_both_worlds
async def test_a_deadline_seen_from_inside_is_the_timeouts_own_if_the_timeout_set_it(world: World) -> None:
    """A transport or queue inside sees only a deadline; whose it was, the timeout around it knows."""
    policy = Policy(CircuitBreaker(), Timeout(1))

    def waits_for_the_deadline() -> None:
        block(world, 1)
        raise DeadlineExceeded(inherited=True)

    error = await world.error_of(policy, waits_for_the_deadline)
    assert isinstance(error, DeadlineExceeded)
    assert not error.inherited
    assert counts(policy) == (1, 1)


def block(world: World, seconds: float) -> None:
    """Let time pass without giving anybody else a turn, in asyncio too."""
    from seawall.runtime import clock

    clock.sleep_ns(round(seconds * 1e9))


@pytest.mark.parametrize("error", EXITS)
@in_both_worlds
async def test_cancellation_and_exit_are_never_counted_swallowed_or_retried(
    world: World, error: type[BaseException]
) -> None:
    target = Script(error)
    policy = Policy(
        Fallback("hidden", on=lambda _: True),
        Retry(on=lambda _: True, budget=None),
        CircuitBreaker(consecutive=1, on=lambda _: True),
        Bulkhead(1),
        Timeout(5),
    )
    for _ in range(3):
        assert type(await world.error_of(policy, target)) is error
    assert len(target.calls) == 3
    assert counts(policy) == (0, 0)
    assert policy[Bulkhead].in_use == 0
    assert policy.snapshot()["cancelled"] == 3


@pytest.mark.parametrize("error", EXITS)
@pytest.mark.parametrize(
    "make", [lambda on: Retry(on=on), lambda on: Fallback(1, on=on), lambda on: CircuitBreaker(on=on)]
)
def test_cancellation_and_exit_cannot_be_named(make: object, error: type[BaseException]) -> None:
    with pytest.raises(ConfigError, match="never caught"):
        make(error)  # type: ignore[operator]
    with pytest.raises(ConfigError, match="never caught"):
        make((OSError, BaseException))  # type: ignore[operator]


@pytest.mark.parametrize("error", PROGRAMMING)
@in_both_worlds
async def test_programming_errors_are_not_retried_or_hidden(world: World, error: type[Exception]) -> None:
    target = Script(error)
    policy = Policy(Fallback("hidden"), Retry(on=Exception, budget=None))
    assert type(await world.error_of(policy, target)) is error
    assert len(target.calls) == 1


@pytest.mark.parametrize("error", PROGRAMMING)
@in_both_worlds
async def test_programming_errors_that_are_named_are_meant(world: World, error: type[Exception]) -> None:
    target = Script(error)
    policy = Policy(Fallback("hidden", on=(OSError, error)), Retry(on=(OSError, error), budget=None, delay=0))
    assert await world.call(policy, target) == "hidden"
    assert len(target.calls) == 3


@in_both_worlds
async def test_a_programming_error_in_a_fallback_is_not_hidden_by_the_next(world: World) -> None:
    policy = Policy(Fallback(fail(AttributeError), "hidden"))
    assert isinstance(await world.error_of(policy, fail()), AttributeError)


@in_both_worlds
async def test_each_layer_may_see_one_outcome_differently(world: World) -> None:
    """Retried as a failure, counted by the breaker as an answer."""
    policy = Policy(Retry(on=LookupError, budget=None, delay=0), CircuitBreaker(on=OSError))
    await world.error_of(policy, fail(KeyError))
    assert counts(policy) == (3, 0)


@in_both_worlds
async def test_what_the_breaker_ignores_counts_neither_way(world: World) -> None:
    policy = Policy(CircuitBreaker(ignore=(KeyError, TimeoutError)))
    for error in (KeyError, TimeoutError, OSError):
        await world.error_of(policy, fail(error))
    assert counts(policy) == (1, 1)


@in_both_worlds
async def test_what_the_breaker_does_not_mean_is_a_success(world: World) -> None:
    """The target did answer; so an error that is not meant ends a row of failures."""
    policy = Policy(CircuitBreaker(consecutive=2, failure_rate=None, on=OSError))
    for error in (OSError, KeyError, OSError, KeyError):
        await world.error_of(policy, fail(error))
    assert policy[CircuitBreaker].state == "closed"


@in_both_worlds
async def test_a_refused_result_is_a_failure_and_is_returned_all_the_same(world: World) -> None:
    policy = Policy(CircuitBreaker(consecutive=2, ok=lambda status: status < 500))
    assert [await world.call(policy, lambda: 503), await world.call(policy, lambda: 503)] == [503, 503]
    assert policy[CircuitBreaker].state == "open"


@in_both_worlds
async def test_refusals_are_retried_only_by_name(world: World) -> None:
    full = Script(BulkheadFull())
    await world.error_of(Policy(Retry(on=Exception, budget=None, delay=0)), full)
    assert len(full.calls) == 1
    await world.error_of(Policy(Retry(on=BulkheadFull, budget=None, delay=0)), full)
    assert len(full.calls) == 1 + 3
    await world.error_of(Policy(Retry(on=Rejected, budget=None, delay=0)), full)
    assert len(full.calls) == 1 + 3 + 3


@pytest.mark.parametrize(
    ("error", "meant"),
    [
        (ExceptionGroup("forks", [ConnectionError(), ConnectionResetError()]), True),
        (ExceptionGroup("forks", [ConnectionError(), ExceptionGroup("more", [ConnectionError()])]), True),
        (ExceptionGroup("forks", [ConnectionError(), ValueError()]), False),
        (ExceptionGroup("forks", [ConnectionError(), TypeError()]), False),
        (BaseExceptionGroup("forks", [ConnectionError(), KeyboardInterrupt()]), False),
    ],
)
def test_a_group_is_meant_if_all_that_is_in_it_is(error: BaseException, meant: bool) -> None:
    policy = Policy(Fallback("answer", on=ConnectionError))
    if meant:
        assert policy.call(fail(error)) == "answer"
    else:
        with pytest.raises(BaseExceptionGroup):
            policy.call(fail(error))
