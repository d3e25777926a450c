"""`shadow=True`: nothing changes and everything is counted. `disable()`: nothing is done at all."""

from __future__ import annotations

import asyncio

import pytest

import seawall
from seawall import Bulkhead, CircuitBreaker, Fallback, Hedge, Policy, Retry, Switch, Timeout, remaining
from seawall.events import BreakerChanged, CallRefused, FellBack, RetryScheduled, TimedOut
from seawall.policies.registry import Registry
from seawall.testing import Script, run, slow
from tests.policies.worlds import World, fail, heard, in_both_worlds


@in_both_worlds
async def test_in_shadow_a_failing_call_is_made_once_and_its_error_comes_out(world: World) -> None:
    target, error = Script(ConnectionError("refused")), None
    policy = Policy(Fallback("hidden"), Retry(on=OSError), CircuitBreaker(), Bulkhead(1), Timeout(1), shadow=True)
    with heard(FellBack, RetryScheduled) as seen:
        error = await world.error_of(policy, target)
    assert str(error) == "refused"
    assert not hasattr(error, "__notes__")
    assert len(target.calls) == 1
    assert world.now == 0
    assert [(type(event), event.shadow) for event in seen] == [(RetryScheduled, True), (FellBack, True)]


@in_both_worlds
async def test_in_shadow_a_breaker_counts_what_it_would_refuse(world: World) -> None:
    policy = Policy(CircuitBreaker(consecutive=2), shadow=True)
    with heard(BreakerChanged, CallRefused) as seen:
        for _ in range(5):
            assert isinstance(await world.error_of(policy, fail()), ConnectionError)
    shown = policy.snapshot()["layers"][0]
    assert (shown["state"], shown["mode"], shown["would_refuse"]) == ("open", "shadow", 3)
    assert [type(event) for event in seen] == [BreakerChanged] + [CallRefused] * 3
    assert all(event.shadow for event in seen[1:])


@in_both_worlds
async def test_in_shadow_a_bulkhead_counts_what_it_would_refuse(world: World) -> None:
    policy = Policy(Bulkhead(1), shadow=True)
    with heard(CallRefused) as seen, policy.guard(), policy.guard():
        assert await world.call(policy, str) == ""
        assert policy[Bulkhead].in_use == 1
    assert policy[Bulkhead].in_use == 0
    assert policy[Bulkhead].refused == 2
    assert [event.shadow for event in seen] == [True, True]


@in_both_worlds
async def test_in_shadow_a_timeout_looks_back(world: World) -> None:
    policy = Policy(Timeout(1), shadow=True)
    deadlines: list[object] = []
    with heard(TimedOut) as seen:
        assert await world.call(policy, Script(slow(2, "late"))) == "late"
        await world.error_of(policy, Script(slow(2, OSError)))
        assert await world.call(policy, Script(slow(0.5, "in time"))) == "in time"
        await world.call(policy, lambda: deadlines.append(remaining()))
    assert [(event.timeout, event.shadow) for event in seen] == [(1, True)] * 2
    assert policy["Timeout"].timed_out == 2
    assert deadlines == [None]


@in_both_worlds
async def test_in_shadow_a_timeout_of_zero_still_calls(world: World) -> None:
    assert await world.call(Policy(Timeout(0), shadow=True), str) == ""


@in_both_worlds
async def test_in_shadow_a_switch_only_tells(world: World) -> None:
    switch = Switch("peak", names=Registry())
    switch.turn_on(why="peak")
    with heard(CallRefused) as seen:
        assert await world.call(Policy(Fallback("lesser", when=switch), shadow=True), str) == ""
    assert [(event.reason, event.shadow) for event in seen] == [("degraded", True)]


@in_both_worlds
async def test_in_shadow_an_unwanted_result_is_returned(world: World) -> None:
    target = Script("pending")
    policy = Policy(Retry(on=OSError, until=lambda end: end == "done"), shadow=True)
    assert await world.call(policy, target) == "pending"
    assert len(target.calls) == 1


def test_in_shadow_a_hedge_starts_nothing() -> None:
    target = Script(slow(10, "late"))

    async def main() -> None:
        assert await Policy(Hedge(after=1), shadow=True).acall(target.aio) == "late"
        assert len(target.calls) == 1

    run(main)


def test_in_shadow_nothing_moves_to_another_thread() -> None:
    import threading

    policy = Policy(Bulkhead(1, threads=True), shadow=True)
    assert policy.call(threading.get_ident) == threading.get_ident()


@in_both_worlds
async def test_in_shadow_no_budget_is_taken(world: World) -> None:
    policy = Policy(Retry(on=OSError), shadow=True)
    for _ in range(50):
        await world.error_of(policy, fail(OSError))
    assert policy.snapshot()["layers"][0]["budget"]["extra"] == 0


def test_for_key_watches_too() -> None:
    assert Policy(CircuitBreaker(), shadow=True).for_key("a").shadow


@in_both_worlds
async def test_disabled_policies_only_call_the_function(world: World) -> None:
    policy = Policy(Fallback("hidden"), Retry(on=OSError), CircuitBreaker(consecutive=1), Bulkhead(1), Timeout(0))
    target = Script(ConnectionError)
    seawall.disable()
    try:
        for _ in range(3):
            assert isinstance(await world.error_of(policy, target), ConnectionError)
        outcome = await world.outcome(policy, target)
        assert isinstance(outcome.error, ConnectionError)
        assert await world.call(policy, str, 5) == "5"
    finally:
        seawall.enable()
    assert len(target.calls) == 4
    assert policy.snapshot()["calls"] == 0
    assert await world.call(policy, str) == "hidden"


def test_disabled_policies_still_decorate_and_guard() -> None:
    policy = Policy(CircuitBreaker(), Bulkhead(1))
    protected = policy(lambda: policy[Bulkhead].in_use)
    policy[CircuitBreaker].force_open()
    seawall.disable()
    try:
        assert protected() == 0
        with policy.guard():
            assert policy[Bulkhead].in_use == 0
        for attempt in policy.attempts():
            with attempt:
                assert attempt.number == 1
        with pytest.raises(KeyError), policy.guard():
            raise KeyError

        async def main() -> None:
            async with policy.guard():
                await asyncio.sleep(0)
            async for attempt in policy.attempts():
                with attempt:
                    await asyncio.sleep(0)

        run(main)
    finally:
        seawall.enable()
    assert policy.snapshot()["calls"] == 0


def test_a_call_under_way_ends_as_it_began() -> None:
    policy = Policy(Bulkhead(1))
    guard = policy.guard()
    guard.__enter__()
    seawall.disable()
    try:
        guard.__exit__(None, None, None)
    finally:
        seawall.enable()
    assert policy[Bulkhead].in_use == 0
    with policy.guard():
        seawall.disable()
        seawall.enable()
        assert policy[Bulkhead].in_use == 1


def test_switching_on_undoes_both_forms() -> None:
    from seawall.runtime import off

    seawall.disable()
    seawall.disable(waiting_only=True)
    assert (off.everything, off.waiting) == (True, True)
    seawall.enable()
    assert (off.everything, off.waiting) == (False, False)
