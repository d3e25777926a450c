"""A `CircuitBreaker` under faults: late results, broken predicates and listeners, storms of failures, hands on it."""

from __future__ import annotations

import asyncio
import logging
import threading

import pytest

from seawall import CircuitBreaker, CircuitOpen, Policy, events
from seawall.events import BreakerChanged, CallRefused
from seawall.testing import Script, Victim, VirtualClock, cancel_everywhere, run, slow
from tests.policies.worlds import World, all_end, fail, heard, in_both_worlds, in_threads


def breaker_of(policy: Policy) -> dict[str, object]:
    return policy[CircuitBreaker].snapshot()


@in_both_worlds
async def test_force_open_refuses_until_auto(world: World) -> None:
    policy = Policy(CircuitBreaker(), name="stock")
    policy[CircuitBreaker].force_open()
    refusal = await world.error_of(policy, str)
    assert isinstance(refusal, CircuitOpen)
    assert "stock: breaker forced open" in str(refusal)
    await world.passes(1e6)
    assert isinstance(await world.error_of(policy, str), CircuitOpen)
    policy[CircuitBreaker].auto()
    assert await world.call(policy, str) == ""


@in_both_worlds
async def test_disabled_it_admits_all_and_records_nothing(world: World) -> None:
    policy = Policy(CircuitBreaker(consecutive=1))
    policy[CircuitBreaker].disable()
    for _ in range(20):
        assert isinstance(await world.error_of(policy, fail()), ConnectionError)
    assert (breaker_of(policy)["state"], breaker_of(policy)["calls"]) == ("disabled", 0)


@in_both_worlds
async def test_in_shadow_it_changes_state_and_refuses_nobody(world: World) -> None:
    policy = Policy(CircuitBreaker(consecutive=1))
    policy[CircuitBreaker].watch()
    with heard(CallRefused) as refused:
        for _ in range(5):
            assert isinstance(await world.error_of(policy, fail()), ConnectionError)
    assert (breaker_of(policy)["state"], breaker_of(policy)["would_refuse"], breaker_of(policy)["refused"]) == (
        "open",
        4,
        0,
    )
    assert [event.shadow for event in refused] == [True] * 4
    policy[CircuitBreaker].auto()
    assert isinstance(await world.error_of(policy, str), CircuitOpen), "it kept its past"


@in_both_worlds
async def test_reset_forgets(world: World) -> None:
    policy = Policy(CircuitBreaker(consecutive=1))
    await world.error_of(policy, fail())
    policy[CircuitBreaker].reset()
    assert (breaker_of(policy)["state"], breaker_of(policy)["failed"]) == ("closed", 0)
    assert await world.call(policy, str) == ""


def test_every_change_by_hand_is_one_event() -> None:
    policy = Policy(CircuitBreaker())
    guard = policy[CircuitBreaker]
    with heard(BreakerChanged) as seen:
        for turn in (guard.force_open, guard.force_open, guard.disable, guard.auto, guard.auto, guard.reset):
            turn()
    assert [(event.before, event.after) for event in seen] == [
        ("closed", "forced_open"),
        ("forced_open", "disabled"),
        ("disabled", "closed"),
    ]
    assert {event.why for event in seen} == {"by hand"}


def test_a_call_under_way_when_it_is_forced_open_ends_as_it_began() -> None:
    async def main() -> None:
        policy = Policy(CircuitBreaker(consecutive=1))
        target = Script(slow(5, "late"), slow(5, ConnectionError))
        calls = [asyncio.create_task(policy.acall(target.aio)) for _ in range(2)]
        await asyncio.sleep(1)
        policy[CircuitBreaker].force_open()
        ends = await all_end(calls)
        assert sorted(type(end).__name__ for end in ends) == ["ConnectionError", "str"]
        assert breaker_of(policy)["state"] == "forced_open"
        policy[CircuitBreaker].auto()
        assert (breaker_of(policy)["state"], breaker_of(policy)["failed"]) == ("closed", 0)

    run(main)


def test_a_late_failure_of_an_earlier_state_changes_nothing() -> None:
    async def main() -> None:
        policy = Policy(CircuitBreaker(consecutive=1, open_for=10, probes=1))
        late = Script(slow(15, ConnectionError))
        call = asyncio.create_task(policy.acall(late.aio))
        await asyncio.sleep(0)
        with pytest.raises(ConnectionError):
            policy.call(fail())
        await asyncio.sleep(12)
        assert policy.call(str) == ""
        await all_end([call])
        assert (breaker_of(policy)["state"], breaker_of(policy)["failed"]) == ("closed", 0)

    run(main)


def test_ten_thousand_concurrent_failures_make_one_transition_and_one_event() -> None:
    async def main() -> None:
        policy = Policy(CircuitBreaker())
        target = Script(slow(1, ConnectionError))
        with heard(BreakerChanged) as seen:
            ends = await all_end([policy.acall(target.aio) for _ in range(10_000)])
        assert all(isinstance(end, ConnectionError) for end in ends)
        assert [(event.before, event.after) for event in seen] == [("closed", "open")]

    run(main)


def test_failures_of_many_threads_make_one_transition_and_one_event() -> None:
    policy = Policy(CircuitBreaker())
    all_in = threading.Barrier(20)

    def target() -> None:
        all_in.wait(10)
        raise ConnectionError

    with heard(BreakerChanged) as seen:
        ends = in_threads([lambda: policy.call(target)] * 20)
    assert all(isinstance(end, ConnectionError) for end in ends)
    assert [(event.before, event.after) for event in seen] == [("closed", "open")]


@pytest.mark.parametrize("setting", ["on", "ignore", "ok"])
@in_both_worlds
async def test_a_predicate_that_raises_leaks_no_permit(world: World, setting: str) -> None:
    """Half-open with one probe: were its permit lost, nobody would be admitted again."""
    broken = False

    def predicate(_: object) -> bool:
        return 1 / 0 if broken else setting != "ignore"  # type: ignore[return-value]

    policy = Policy(CircuitBreaker(consecutive=1, open_for=1, probes=1, **{setting: predicate}))
    await world.error_of(policy, fail())
    await world.passes(2)
    broken = True
    for _ in range(3):
        end = await world.error_of(policy, str if setting == "ok" else fail())
        assert isinstance(end, (ZeroDivisionError, CircuitOpen))
    broken = False
    await world.passes(20)
    assert await world.call(policy, str) == ""
    assert breaker_of(policy)["state"] == "closed"


@in_both_worlds
async def test_a_listener_that_raises_changes_nothing(world: World, caplog: pytest.LogCaptureFixture) -> None:
    stop = events.subscribe(lambda event: 1 / 0)
    try:
        policy = Policy(CircuitBreaker(consecutive=1, open_for=1, probes=1))
        with caplog.at_level(logging.CRITICAL, "seawall.events"):
            assert isinstance(await world.error_of(policy, fail()), ConnectionError)
            assert isinstance(await world.error_of(policy, str), CircuitOpen)
            await world.passes(2)
            assert await world.call(policy, str) == ""
    finally:
        stop()
    assert breaker_of(policy)["state"] == "closed"


def test_a_listener_may_use_the_breaker_it_hears_of() -> None:
    """No lock is held while events go out."""
    policy = Policy(CircuitBreaker(consecutive=1))
    heard_states: list[object] = []
    stop = events.subscribe(lambda event: heard_states.append(breaker_of(policy)["state"]), BreakerChanged)
    try:
        with pytest.raises(ConnectionError):
            policy.call(fail())
    finally:
        stop()
    assert heard_states == ["open"]


def test_a_closed_coroutine_counts_neither_way() -> None:
    """GeneratorExit: the call was abandoned in mid-flight."""

    async def suspends() -> None:
        await asyncio.sleep(1)

    async def main() -> None:
        policy = Policy(CircuitBreaker(consecutive=1))
        call = policy.acall(suspends)
        call.send(None)
        call.close()
        assert (breaker_of(policy)["calls"], policy.snapshot()["cancelled"]) == (0, 1)

    run(main)


def test_a_probe_cancelled_at_any_point_is_given_back() -> None:
    async def scenario(victim: Victim) -> None:
        policy = Policy(CircuitBreaker(consecutive=1, open_for=1, probes=1))
        with pytest.raises(ConnectionError):
            policy.call(fail())
        await asyncio.sleep(2)
        await victim(policy.acall(Script(slow(1, "well")).aio))
        assert policy.call(str) == ""
        assert breaker_of(policy)["state"] == "closed"

    assert cancel_everywhere(scenario) > 5


def test_a_clock_that_goes_back_does_no_harm() -> None:
    with VirtualClock(start="2h") as clock:
        policy = Policy(CircuitBreaker(consecutive=1, open_for=10))
        with pytest.raises(ConnectionError):
            policy.call(fail())
        clock._now_ns -= 3_600 * 10**9
        with pytest.raises(CircuitOpen) as caught:
            policy.call(str)
        assert caught.value.retry_after <= 11, "not an hour more"
        clock.advance(3_600 + 12)
        assert policy.call(str) == ""
