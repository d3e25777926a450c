"""`Policy` around functions: decorating, calling, outcomes; and everything it refuses instead of doing nothing."""

from __future__ import annotations

import asyncio
import inspect
import types
from collections.abc import Generator
from functools import cached_property, partial, partialmethod

import pytest

from seawall import (
    Bulkhead,
    CircuitBreaker,
    ConfigError,
    Fallback,
    Hedge,
    Policy,
    Retry,
    Timeout,
)
from seawall.runtime.blocking import drive
from seawall.testing import Script, run
from tests.policies.worlds import World, fail, in_both_worlds

FUSED = (Retry(on=OSError), CircuitBreaker(), Bulkhead(4), Timeout(5))
THREADED = (Retry(on=OSError), CircuitBreaker(), Bulkhead(4, threads=True))


@in_both_worlds
async def test_without_layers_it_only_counts(world: World) -> None:
    policy = Policy(name="bare")
    assert await world.call(policy, str, 5) == "5"
    await world.error_of(policy, fail(KeyError))
    shown = policy.snapshot()
    assert (shown["calls"], shown["ok"], shown["failed"], shown["layers"]) == (2, 1, 1, [])


@in_both_worlds
async def test_arguments_and_results_pass_untouched(world: World) -> None:
    def target(*args: object, **kwargs: object) -> object:
        return args, kwargs

    policy = Policy(*FUSED)
    assert await world.call(policy, target, 1, function=2, self=3, args=4) == (
        (1,),
        {"function": 2, "self": 3, "args": 4},
    )


@pytest.mark.parametrize("layers", [FUSED, THREADED], ids=["fused", "threads"])
def test_it_decorates_functions_methods_statics_and_classmethods(layers: tuple) -> None:
    policy = Policy(*layers)

    class Till:
        rate = 2

        @policy
        def method(self, amount: int) -> int:
            return self.rate * amount

        @policy
        @staticmethod
        def outside_static(amount: int) -> int:
            return amount

        @staticmethod
        @policy
        def inside_static(amount: int) -> int:
            return amount

        @policy
        @classmethod
        def outside_class(cls, amount: int) -> int:
            return cls.rate * amount

        @classmethod
        @policy
        def inside_class(cls, amount: int) -> int:
            return cls.rate * amount

        @property
        @policy
        def below_property(self) -> int:
            return self.rate

    till = Till()
    assert [till.method(3), till.outside_static(3), Till.inside_static(3)] == [6, 3, 3]
    assert [till.outside_class(3), Till.inside_class(3), till.below_property] == [6, 6, 2]
    assert policy.snapshot()["calls"] == 6


def test_it_decorates_async_methods_and_keeps_them_async() -> None:
    policy = Policy(*FUSED)

    class Till:
        @policy
        async def method(self, amount: int) -> int:
            await asyncio.sleep(1)
            return amount

    assert inspect.iscoroutinefunction(Till.method)
    assert run(lambda: Till().method(3)) == 3


def test_it_decorates_partials_callables_and_builtins() -> None:
    policy = Policy(*FUSED)

    class Callable:
        def __call__(self, number: int) -> int:
            return number

    class AsyncCallable:
        async def __call__(self, number: int) -> int:
            return number

    async def plus(number: int, other: int) -> int:
        return number + other

    assert policy(partial(int, base=16))("ff") == 255
    assert policy(Callable())(3) == 3
    assert policy(len)("abc") == 3
    assert policy(lambda: 1)() == 1
    assert run(lambda: policy(partial(plus, 1))(2)) == 3
    assert run(lambda: policy(AsyncCallable())(3)) == 3


def test_a_decorated_function_can_be_decorated_again() -> None:
    inner, outer = Policy(Retry(on=OSError, delay=0)), Policy(Fallback("cached"))
    target = Script(OSError)
    assert outer(inner(lambda: target()))() == "cached"
    assert len(target.calls) == 3


@pytest.mark.parametrize(
    ("thing", "hint"),
    [
        (int, "a class: decorate its methods"),
        (property(len), "put @property above the policy"),
        (cached_property(len), "not callable"),
        (partialmethod(len), "not callable"),
        (3, "not callable"),
        ("name", "not callable"),
        (None, "not callable"),
    ],
)
def test_what_cannot_be_protected_is_refused_with_the_remedy(thing: object, hint: str) -> None:
    with pytest.raises(TypeError, match=hint):
        Policy(*FUSED)(thing)


def test_generator_functions_are_refused() -> None:
    def rows() -> object:
        yield 1

    async def arows() -> object:
        yield 1

    for function in (rows, arows, partial(rows), staticmethod(rows)):
        with pytest.raises(TypeError, match="generator function"):
            Policy(*FUSED)(function)
    for function in (rows, arows):
        with pytest.raises(TypeError, match="generator"):
            Policy(*FUSED).call(function)


@pytest.mark.parametrize("layers", [(), FUSED, THREADED, (Fallback("x"), Retry(on=Exception))])
def test_a_synchronous_call_of_an_async_function_is_a_type_error(layers: tuple) -> None:
    """No fallback hides it, no retry repeats it, and the coroutine is closed: no warning follows."""

    async def fetch() -> None: ...

    policy = Policy(*layers)
    expected = ConfigError if layers is THREADED else TypeError
    with pytest.raises(expected):
        policy.call(fetch)
    outcome = policy.run(fetch) if expected is TypeError else None
    assert outcome is None or isinstance(outcome.error, TypeError)


@pytest.mark.parametrize("layers", [(), FUSED, (Hedge(), Bulkhead(1))])
def test_an_async_call_of_a_blocking_function_is_a_type_error(layers: tuple) -> None:
    async def main() -> None:
        policy = Policy(*layers)
        with pytest.raises(TypeError):
            await policy.acall(str)
        assert isinstance((await policy.arun(str)).error, TypeError)

    run(main)


@in_both_worlds
async def test_run_tells_how_the_call_ended(world: World) -> None:
    policy = Policy(Retry(on=OSError, delay=0))
    good = await world.outcome(policy, Script(OSError, "well"))
    assert (good.value, good.error, good.ok, good.attempts, good.degraded) == ("well", None, True, 2, False)
    assert good.unwrap() == "well"
    bad = await world.outcome(policy, fail(KeyError("lost")))
    assert (bad.value, bad.ok, bad.attempts) == (None, False, 1)
    with pytest.raises(KeyError, match="lost"):
        bad.unwrap()
    assert repr(bad) == "Outcome(error=KeyError('lost'), attempts=1, degraded=False)"
    refused = Policy(CircuitBreaker())
    refused[CircuitBreaker].force_open()
    assert (await world.outcome(refused, str)).attempts == 0


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, asyncio.CancelledError])
@in_both_worlds
async def test_run_raises_exit_and_cancellation(world: World, error: type[BaseException]) -> None:
    with pytest.raises(error):
        await world.outcome(Policy(*FUSED), fail(error))


@in_both_worlds
async def test_a_function_may_raise_stop_iteration(world: World) -> None:
    """Inside coroutines it would become a RuntimeError; a caller of `next` wants it as it is."""
    if world.is_async:
        return
    empty = iter(())
    for layers in (FUSED, (Retry(on=OSError), Bulkhead(1, threads=True))):
        with pytest.raises(StopIteration):
            Policy(*layers).call(next, empty)


@in_both_worlds
async def test_the_careful_way_and_the_frame_decide_alike(world: World) -> None:
    """`run` passes the layers one by one, `call` in one generated frame."""
    framed, careful = Policy(*FUSED), Policy(*FUSED)
    for step in ("ok", "fail", "type", "ok", *["fail"] * 12, "ok", "fail"):
        target = {"ok": str, "fail": fail(OSError), "type": fail(TypeError)}[step]
        try:
            ended = type(await world.call(framed, target))
        except Exception as error:
            ended = type(error)
        outcome = await world.outcome(careful, target)
        assert ended is type(outcome.error if outcome.error is not None else outcome.value)
        ours, theirs = framed[CircuitBreaker].snapshot(), careful[CircuitBreaker].snapshot()
        assert {**ours, "retry_after": 0} == {**theirs, "retry_after": 0}


def test_one_policy_can_be_used_before_and_after_it_is_first_called() -> None:
    policy = Policy(*FUSED)
    early = policy.call
    assert early(str) == policy.call(str) == policy(str.upper)("") == ""
    assert policy.snapshot()["calls"] == 3


def test_a_synchronous_call_never_hangs_on_something_that_needs_a_loop() -> None:
    """Synchronous calls drive the coroutines of the layers; one that suspends after all is closed and reported."""
    closed: list[bool] = []

    @types.coroutine
    def suspends() -> Generator[object, None, None]:
        try:
            yield "for ever"
        finally:
            closed.append(True)

    async def layer() -> None:
        await suspends()

    with pytest.raises(RuntimeError, match="needs an event loop"):
        drive(layer())
    assert closed == [True]
