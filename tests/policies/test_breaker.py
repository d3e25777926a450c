"""A `CircuitBreaker` in a policy: when it opens, how long it refuses, and how probes decide."""

from __future__ import annotations

import pytest

from seawall import CircuitBreaker, CircuitOpen, Policy, deadline
from seawall.events import BreakerChanged, CallRefused
from seawall.testing import Script, slow
from tests.policies.worlds import World, fail, heard, in_both_worlds


def state(policy: Policy) -> str:
    return policy[CircuitBreaker].state


async def feed(world: World, policy: Policy, pattern: str) -> None:
    """One call for each letter: `x` fails, `.` succeeds; refusals are let pass."""
    for letter in pattern:
        try:
            await world.call(policy, fail() if letter == "x" else str)
        except (ConnectionError, CircuitOpen):
            pass


@in_both_worlds
async def test_it_opens_at_half_of_at_least_ten_calls(world: World) -> None:
    policy = Policy(CircuitBreaker())
    await feed(world, policy, "xxxxxxxxx")
    assert state(policy) == "closed"
    await feed(world, policy, "x")
    assert state(policy) == "open"


@pytest.mark.parametrize(("pattern", "after"), [(".....xxxx.", "closed"), (".....xxxxx", "open")])
@in_both_worlds
async def test_the_rate_counts_all_calls_of_the_window(world: World, pattern: str, after: str) -> None:
    policy = Policy(CircuitBreaker())
    await feed(world, policy, pattern)
    assert state(policy) == after


@in_both_worlds
async def test_many_successes_on_the_fast_lane_are_counted(world: World) -> None:
    """Successes take no lock; 200 of them must still weigh against 100 failures."""
    policy = Policy(CircuitBreaker())
    await feed(world, policy, "." * 200 + "x" * 100)
    assert policy[CircuitBreaker].snapshot()["calls"] == 300
    assert state(policy) == "closed"
    await feed(world, policy, "x" * 100)
    assert state(policy) == "open"


@in_both_worlds
async def test_what_is_older_than_the_window_does_not_count(world: World) -> None:
    policy = Policy(CircuitBreaker(window=30))
    await feed(world, policy, "x" * 9)
    await world.passes(31)
    await feed(world, policy, "x" * 9)
    assert state(policy) == "closed"
    assert policy[CircuitBreaker].snapshot()["calls"] == 9


@in_both_worlds
async def test_a_count_window_holds_the_last_calls(world: World) -> None:
    policy = Policy(CircuitBreaker(window_calls=10))
    await feed(world, policy, "xxxx" + "." * 6 + "x" * 3)
    assert state(policy) == "closed"
    await feed(world, policy, "xx")
    assert state(policy) == "open"


@in_both_worlds
async def test_consecutive_failures_open_it_at_once(world: World) -> None:
    policy = Policy(CircuitBreaker(consecutive=3))
    await feed(world, policy, "xx.xx.xx")
    assert state(policy) == "closed"
    await feed(world, policy, "x")
    assert state(policy) == "open"


@in_both_worlds
async def test_slow_calls_open_it(world: World) -> None:
    policy = Policy(CircuitBreaker(slow_after=1, slow_rate=0.5, min_calls=4))
    sluggish = Script(slow(2, "late"))
    for _ in range(4):
        assert await world.call(policy, sluggish) == "late"
    assert state(policy) == "open"
    refusal = await world.error_of(policy, str)
    assert "4 of 4 calls took over 1 s" in str(refusal)


@in_both_worlds
async def test_open_it_refuses_and_says_how_long(world: World) -> None:
    policy = Policy(CircuitBreaker(), name="payments")
    await feed(world, policy, "x" * 10)
    target = Script("well")
    refusal = await world.error_of(policy, target)
    assert isinstance(refusal, CircuitOpen)
    assert refusal.retry_after is not None
    assert 27 <= refusal.retry_after <= 33, "30 s, and 10 % jitter"
    assert (refusal.policy, refusal.reason, refusal.measured, refusal.threshold) == ("payments", "circuit_open", 1, 0.5)
    assert str(refusal).startswith("payments: breaker open (10 of 10 calls failed in 30 s); retry in ")
    assert not target.calls
    await world.passes(10)
    assert (await world.error_of(policy, target)).retry_after == pytest.approx(refusal.retry_after - 10)


@in_both_worlds
async def test_the_message_reads_as_documented(world: World) -> None:
    """`payments: breaker open (14 of 20 calls failed in 30 s); retry in 12.4 s`."""
    policy = Policy(CircuitBreaker(failure_rate=0.7, min_calls=20), name="payments")
    await feed(world, policy, "." * 6 + "x" * 14)
    left = (await world.error_of(policy, str)).retry_after
    await world.passes(left - 12.4)
    message = str(await world.error_of(policy, str))
    assert message == "payments: breaker open (14 of 20 calls failed in 30 s); retry in 12.4 s"


@in_both_worlds
async def test_good_probes_close_it(world: World) -> None:
    policy = Policy(CircuitBreaker())
    await feed(world, policy, "x" * 10)
    await world.passes(33)
    await feed(world, policy, "..")
    assert state(policy) == "half_open"
    await feed(world, policy, ".")
    assert state(policy) == "closed", "3 of 5 are well: the failures can no longer reach half of the probes"
    assert policy[CircuitBreaker].snapshot()["calls"] == 0, "the past is forgotten"


@in_both_worlds
async def test_bad_probes_open_it_again_as_soon_as_they_reach_the_rate(world: World) -> None:
    policy = Policy(CircuitBreaker())
    await feed(world, policy, "x" * 10)
    await world.passes(33)
    await feed(world, policy, "x.x")
    assert state(policy) == "half_open"
    await feed(world, policy, "x")
    assert state(policy) == "open"
    assert "3 of 4 probes failed" in str(await world.error_of(policy, str))


@in_both_worlds
async def test_each_failed_trial_doubles_the_pause_up_to_eight_times(world: World) -> None:
    policy = Policy(CircuitBreaker(consecutive=1, open_for=10, probes=1))
    await feed(world, policy, "x")
    for factor in (1, 2, 4, 8, 8, 8):
        left = (await world.error_of(policy, str)).retry_after
        assert 0.9 * 10 * factor <= left <= 1.1 * 10 * factor
        await world.passes(left + 0.001)
        await feed(world, policy, "x")
    await world.passes(100)
    await feed(world, policy, ".x")
    assert (await world.error_of(policy, str)).retry_after <= 11, "a success in between begins anew"


@in_both_worlds
async def test_a_probe_whose_deadline_passed_is_given_back(world: World) -> None:
    policy = Policy(CircuitBreaker(consecutive=1, open_for=1, probes=1))
    await feed(world, policy, "x")
    await world.passes(2)
    with deadline(5):
        lost = policy.guard()
        lost.__enter__()
    assert isinstance(await world.error_of(policy, str), CircuitOpen)
    await world.passes(5)
    assert await world.call(policy, str) == ""
    assert state(policy) == "closed"
    lost.__exit__(None, None, None)  # late, and of no consequence
    assert state(policy) == "closed"


@in_both_worlds
async def test_one_event_for_each_transition_and_each_refusal(world: World) -> None:
    policy = Policy(CircuitBreaker(consecutive=2, open_for=10, probes=1), name="stock")
    with heard(BreakerChanged, CallRefused) as seen:
        await feed(world, policy, "xx..")
        await world.passes(12)
        await feed(world, policy, "..")
    told = [(e.before, e.after) if isinstance(e, BreakerChanged) else e.reason for e in seen]
    assert told == [
        ("closed", "open"),
        "circuit_open",
        "circuit_open",
        ("open", "half_open"),
        ("half_open", "closed"),
    ]
    assert seen[0].why == "2 calls failed in a row"
    assert 9 <= seen[0].retry_after <= 11
    assert {(event.policy, event.layer) for event in seen} == {("stock", "CircuitBreaker")}
    assert policy[CircuitBreaker].snapshot()["refused"] == 2
