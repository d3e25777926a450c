"""`Fallback`: a chain of lesser answers, tried in order; what it may hide and what it may not."""

from __future__ import annotations

import asyncio
from functools import partial

import pytest

from seawall import (
    Bulkhead,
    BulkheadFull,
    CircuitBreaker,
    CircuitOpen,
    ConfigError,
    Fallback,
    Policy,
    Retry,
    Timeout,
    same_args,
)
from seawall.events import FellBack
from seawall.testing import Script, run
from tests.policies.worlds import World, fail, heard, in_both_worlds


@pytest.mark.parametrize("value", ["cached", 0, None, [], {"a": 1}, False])
@in_both_worlds
async def test_a_value_is_the_answer(world: World, value: object) -> None:
    outcome = await world.outcome(Policy(Fallback(value)), fail())
    assert (outcome.value, outcome.degraded, outcome.ok, outcome.error) == (value, True, True, None)


@in_both_worlds
async def test_a_healthy_call_is_not_degraded(world: World) -> None:
    outcome = await world.outcome(Policy(Fallback("cached")), lambda: "live")
    assert (outcome.value, outcome.degraded) == ("live", False)


@in_both_worlds
async def test_a_function_is_given_the_error(world: World) -> None:
    error = ConnectionError("refused")
    assert await world.call(Policy(Fallback(lambda given: (given is error, "cached"))), fail(error)) == (True, "cached")


@in_both_worlds
async def test_same_args_is_given_the_arguments(world: World) -> None:
    policy = Policy(Fallback(same_args(lambda sku, *, currency: f"list price of {sku} in {currency}")))
    assert await world.call(policy, fail(), "A7", currency="EUR") == "list price of A7 in EUR"


@in_both_worlds
async def test_the_chain_is_tried_in_order_until_one_does_not_raise(world: World) -> None:
    tried: list[str] = []

    def broken(error: Exception) -> None:
        tried.append(type(error).__name__)
        raise LookupError

    policy = Policy(Fallback(broken, same_args(fail(ValueError)), lambda error: "third", "never"))
    assert await world.call(policy, fail()) == "third"
    assert tried == ["ConnectionError"]


@in_both_worlds
async def test_if_all_fail_the_last_error_is_raised_with_the_earlier_ones_as_its_cause(world: World) -> None:
    first, second, third = ConnectionError(), LookupError(), ValueError()
    error = await world.error_of(Policy(Fallback(fail(second), fail(third))), fail(first))
    assert (error, error.__cause__, error.__cause__.__cause__) == (third, second, first)


@in_both_worlds
async def test_a_fallback_that_raises_the_original_error_again_makes_no_circle(world: World) -> None:
    def again(error: Exception) -> None:
        raise error

    original = ConnectionError()
    error = await world.error_of(Policy(Fallback(again, again)), fail(original))
    assert error is original
    assert error.__cause__ is None


@in_both_worlds
async def test_only_the_errors_it_means_are_hidden(world: World) -> None:
    policy = Policy(Fallback("cached", on=(ConnectionError, CircuitOpen)))
    assert await world.call(policy, fail(ConnectionRefusedError)) == "cached"
    assert isinstance(await world.error_of(policy, fail(KeyError)), KeyError)


@in_both_worlds
async def test_refusals_of_the_guards_inside_are_answered(world: World) -> None:
    policy = Policy(Fallback(lambda error: type(error).__name__), CircuitBreaker(), Bulkhead(1), name="stock")
    place = policy[Bulkhead]._gate.take()
    assert await world.call(policy, str) == BulkheadFull.__name__
    policy[Bulkhead]._give_back(place)
    policy[CircuitBreaker].force_open()
    assert await world.call(policy, str) == CircuitOpen.__name__


@in_both_worlds
async def test_the_last_error_of_a_retry_and_a_passed_deadline_are_answered(world: World) -> None:
    policy = Policy(Fallback(lambda error: str(error)), Timeout(0), Retry(on=OSError), name="stock")
    assert await world.call(policy, str) == "stock: no answer within 0 ms"
    policy = Policy(Fallback(lambda error: str(error)), Retry(on=OSError, delay=0))
    assert await world.call(policy, Script(OSError("1"), OSError("2"), OSError("3"))) == "3"


@pytest.mark.parametrize("error", [KeyboardInterrupt, asyncio.CancelledError])
@in_both_worlds
async def test_an_exit_inside_a_fallback_goes_through(world: World, error: type[BaseException]) -> None:
    assert type(await world.error_of(Policy(Fallback(fail(error), "cached")), fail())) is error


@in_both_worlds
async def test_each_answer_is_an_event_and_is_counted(world: World) -> None:
    policy = Policy(Fallback("cached"), name="prices")
    error = ConnectionError()
    with heard(FellBack) as seen:
        await world.call(policy, fail(error))
        await world.call(policy, str)
    assert [(event.policy, event.error, event.shadow) for event in seen] == [("prices", error, False)]
    assert policy["Fallback"].fell_back == 1


def test_an_async_fallback_answers_async_calls() -> None:
    async def cached(error: Exception) -> str:
        await asyncio.sleep(1)
        return "cached"

    async def broken(error: Exception) -> str:
        await asyncio.sleep(1)
        raise LookupError

    async def main() -> None:
        assert await Policy(Fallback(broken, cached)).acall(Script(ConnectionError).aio) == "cached"
        policy = Policy(Fallback(same_args(Script("other source").aio)))
        assert await policy.acall(Script(ConnectionError).aio, "A7") == "other source"

    run(main)


def test_an_async_fallback_of_a_synchronous_call_is_refused_before_it_is_needed() -> None:
    async def cached(error: Exception) -> str:
        return "cached"

    for answer in (cached, same_args(cached), partial(cached)):
        policy = Policy(Fallback(answer), name="prices")
        with pytest.raises(ConfigError, match="prices: the async fallback"):
            policy.call(str)
        with pytest.raises(ConfigError, match="prices: the async fallback"):
            policy(lambda: 1)


def test_an_awaitable_that_a_plain_fallback_returns_is_refused_too() -> None:
    """It cannot be known before; the coroutine is closed, so that no warning follows."""

    async def cached() -> str:
        return "cached"

    with pytest.raises(ConfigError, match="answers async calls only"):
        Policy(Fallback(lambda error: cached())).call(fail())


def test_cancellation_in_an_async_fallback_cancels_the_call() -> None:
    async def main() -> None:
        policy = Policy(Fallback(lambda error: asyncio.sleep(60), "never"))
        call = asyncio.create_task(policy.acall(Script(ConnectionError).aio))
        await asyncio.sleep(1)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call

    run(main)


def test_settings_are_checked() -> None:
    with pytest.raises(ConfigError, match="at least one answer"):
        Fallback()
    with pytest.raises(ConfigError, match=r"Fallback\(when="):
        Fallback(1, when=True)
    with pytest.raises(ConfigError, match=r"Fallback\(on="):
        Fallback(1, on="OSError")
    with pytest.raises(ConfigError, match="same_args"):
        same_args("value")


def test_the_spec_can_be_changed_by_copy() -> None:
    spec = Fallback("a", on=OSError, name="first")
    changed = spec.replace(answers=("b",))
    assert (changed.answers, changed.on, changed.name) == (("b",), OSError, "first")
    assert spec.answers == ("a",)
