"""Faults of other libraries' retries, none of which Seawall's may have."""

from __future__ import annotations

import asyncio

import pytest

from seawall import Policy, Retry
from seawall.events import RetryScheduled
from seawall.testing import Script, run
from tests.policies.worlds import World, all_end, fail, heard, in_both_worlds

STEADY = {"base": 1, "factor": 2, "cap": 60, "jitter": False, "budget": None}


@pytest.mark.parametrize("on", [Exception, lambda error: not isinstance(error, ValueError)], ids=["types", "predicate"])
def test_cancelled_calls_are_not_retried(on: object) -> None:
    """tenacity with `retry_if_not_exception_type` calls again after it was cancelled."""
    target = Script(ConnectionError)

    async def main() -> None:
        policy = Policy(Retry(on=on, attempts=10, budget=None))
        started = 0

        async def hang() -> None:
            nonlocal started
            started += 1
            await asyncio.sleep(60)

        for function in (hang, target.aio):  # cancelled in the attempt, and in the pause
            call = asyncio.create_task(policy.acall(function))
            await asyncio.sleep(0.001)
            call.cancel()
            assert [type(end) for end in await all_end([call])] == [asyncio.CancelledError]
        await asyncio.sleep(100)
        assert started == 1
        assert len(target.calls) == 1

    run(main)


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, GeneratorExit])
@in_both_worlds
async def test_exit_is_not_retried(world: World, error: type[BaseException]) -> None:
    """tenacity's negated conditions match every BaseException."""
    target = Script(error)
    policy = Policy(Retry(on=lambda _: True, budget=None))
    with pytest.raises(error):
        await world.call(policy, target)
    assert len(target.calls) == 1


def test_backoff_is_not_shared_by_concurrent_callers() -> None:
    """hyx keeps one backoff for all callers: with ten of them the second caller's first pause is the eleventh."""

    async def main() -> None:
        policy = Policy(Retry(on=ConnectionError, attempts=4, **STEADY))
        targets = [Script(ConnectionError) for _ in range(10)]
        await all_end([policy.acall(target.aio) for target in targets])
        assert [target.times for target in targets] == [[0, 1, 3, 7]] * 10

    run(main)


@in_both_worlds
async def test_backoff_begins_anew_with_each_call(world: World) -> None:
    """hyx goes on where the last call stopped."""
    policy = Policy(Retry(on=ConnectionError, attempts=3, **STEADY))
    for _ in range(3):
        began, target = world.now, Script(ConnectionError)
        await world.error_of(policy, target)
        assert [when - began for when in target.times] == [0, 1, 3]


@in_both_worlds
async def test_waits_do_not_synchronise_at_the_cap(world: World) -> None:
    """tenacity and stamina cap after the jitter, so late waits are all the cap and callers come back together."""
    policy = Policy(Retry(on=ConnectionError, attempts=200, base=1, factor=2, cap=2, budget=None))
    with heard(RetryScheduled) as waits:
        await world.error_of(policy, fail())
    late = [event.delay for event in waits[10:]]
    assert len(late) == 189
    assert max(late) <= 2
    assert sum(delay > 1.99 for delay in late) < 10, "they pile up at the cap"
    assert len({round(delay, 1) for delay in late}) > 15, "they are not spread"
    assert 0.8 < sum(late) / len(late) < 1.2


@in_both_worlds
async def test_jitter_differs_between_callers(world: World) -> None:
    """stamina, tenacity: callers that failed together come back together once they reach the cap."""
    policy = Policy(Retry(on=ConnectionError, attempts=2, budget=None))
    with heard(RetryScheduled) as waits:
        for _ in range(50):
            await world.error_of(policy, fail())
    assert len({event.delay for event in waits}) == 50


@in_both_worlds
async def test_the_last_error_is_raised_itself(world: World) -> None:
    """tenacity wraps it in a RetryError, so that handlers around the call stop working."""
    policy = Policy(Retry(on=ConnectionError, budget=None))
    last = ConnectionError("third")
    error = await world.error_of(policy, Script(ConnectionError("first"), ConnectionError("second"), last))
    assert error is last


@in_both_worlds
async def test_retries_do_not_multiply_the_load_of_an_outage(world: World) -> None:
    """None of them has a retry budget: ten attempts mean ten times the load when everything fails."""
    policy = Policy(Retry(on=ConnectionError, attempts=10, delay=0))
    target = Script(ConnectionError)
    for _ in range(1_000):
        await world.error_of(policy, target)
    assert len(target.calls) <= 1_000 + 200 + 30
