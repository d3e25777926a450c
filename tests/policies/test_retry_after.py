"""A target's Retry-After is obeyed within the deadline and our patience; else the retry gives up. Garbage is ignored."""

from __future__ import annotations

import math

import pytest

from seawall import CircuitBreaker, Policy, Retry, deadline
from seawall.events import RetryGaveUp
from seawall.testing import Script
from tests.policies.worlds import World, fail, heard, in_both_worlds


class Busy(Exception):
    def __init__(self, retry_after: object) -> None:
        super().__init__("busy")
        self.retry_after = retry_after


def retrying(**settings: object) -> Policy:
    return Policy(Retry(on=Busy, attempts=2, delay="100ms", budget=None, **settings))


@in_both_worlds
async def test_it_is_obeyed(world: World) -> None:
    target = Script(Busy(7))
    await world.error_of(retrying(), target)
    assert target.times == [0, 7]


@in_both_worlds
async def test_our_own_longer_pause_stands(world: World) -> None:
    target = Script(Busy(0.01))
    await world.error_of(retrying(), target)
    assert target.times == [0, 0.1]


@in_both_worlds
async def test_it_is_obeyed_within_the_deadline_else_the_retry_gives_up(world: World) -> None:
    target = Script(Busy(7))
    with heard(RetryGaveUp) as seen, deadline(5):
        error = await world.error_of(retrying(), target)
    assert isinstance(error, Busy)
    assert [event.reason for event in seen] == ["deadline"]
    assert target.times == [0]


@pytest.mark.parametrize("huge", [61, 3_600, 1e9, 1e12, 10**30, math.inf])
@in_both_worlds
async def test_one_beyond_our_patience_ends_the_retry_at_once(world: World, huge: float) -> None:
    target = Script(Busy(huge))
    with heard(RetryGaveUp) as seen:
        error = await world.error_of(retrying(), target)
    assert target.times == [0]
    assert [event.reason for event in seen] == ["retry_after"]
    assert "the target asked to wait" in error.__notes__[0]


@in_both_worlds
async def test_our_patience_is_a_setting(world: World) -> None:
    target = Script(Busy(3_600))
    await world.error_of(retrying(max_retry_after="1h"), target)
    assert target.times == [0, 3_600]


@pytest.mark.parametrize("garbage", [-1, -math.inf, math.nan, "5", "soon", True, None, [5], 3 + 0j])
@in_both_worlds
async def test_garbage_is_read_as_no_wish(world: World, garbage: object) -> None:
    target = Script(Busy(garbage))
    await world.error_of(retrying(), target)
    assert target.times == [0, 0.1]


@in_both_worlds
async def test_a_result_may_carry_it_too(world: World) -> None:
    target = Script(Busy(3), then="repeat")
    policy = Policy(Retry(on=OSError, attempts=2, delay=0, until=lambda _: False, budget=None))

    def answer() -> Busy:
        try:
            return target()
        except Busy as busy:
            return busy

    assert isinstance(await world.call(policy, answer), Busy)
    assert target.times == [0, 3]


@in_both_worlds
async def test_a_breaker_stays_open_at_least_as_long(world: World) -> None:
    policy = Policy(CircuitBreaker(consecutive=1, open_for=10))
    await world.error_of(policy, fail(Busy(70)))
    await world.passes(69)
    refusal = await world.error_of(policy, str)
    assert refusal.retry_after == pytest.approx(1)
    await world.passes(1.1)
    assert await world.call(policy, str) == ""


@in_both_worlds
async def test_a_breaker_does_not_stay_open_for_ever_on_a_targets_word(world: World) -> None:
    policy = Policy(CircuitBreaker(consecutive=1, open_for=10))
    await world.error_of(policy, fail(Busy(999_999_999)))
    refusal = await world.error_of(policy, str)
    assert refusal.retry_after == pytest.approx(80)
