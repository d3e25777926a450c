"""`Retry`: how often, when, and until what; the same for threads and tasks."""

from __future__ import annotations

import pytest

from seawall import ConfigError, Policy, Retry, Timeout, current, deadline, disable, enable
from seawall.events import RetryGaveUp, RetryScheduled
from seawall.testing import Script, slow
from tests.policies.worlds import World, fail, heard, in_both_worlds

FREE = {"budget": None}
AT_ONCE = {"budget": None, "delay": 0}


def given_up(seen: list[RetryGaveUp]) -> list[tuple[int, str]]:
    return [(event.attempts, event.reason) for event in seen]


@in_both_worlds
async def test_three_attempts_by_default(world: World) -> None:
    target = Script(ConnectionError)
    await world.error_of(Policy(Retry(on=ConnectionError)), target)
    assert len(target.calls) == 3


@in_both_worlds
async def test_it_ends_with_the_first_success(world: World) -> None:
    target = Script(ConnectionError, "pong", "never")
    outcome = await world.outcome(Policy(Retry(on=ConnectionError)), target)
    assert (outcome.value, outcome.attempts) == ("pong", 2)


@in_both_worlds
async def test_arguments_are_the_same_in_each_attempt(world: World) -> None:
    target = Script(ConnectionError, "pong")
    await world.call(Policy(Retry(on=ConnectionError)), target, 1, key="b")
    assert target.calls == [((1,), {"key": "b"})] * 2


@in_both_worlds
async def test_other_errors_are_not_retried(world: World) -> None:
    target = Script(KeyError)
    assert isinstance(await world.error_of(Policy(Retry(on=ConnectionError)), target), KeyError)
    assert len(target.calls) == 1


@in_both_worlds
async def test_a_predicate_decides_alone(world: World) -> None:
    target = Script(TypeError("again"), TypeError("final"))
    error = await world.error_of(Policy(Retry(on=lambda error: "again" in str(error), **AT_ONCE)), target)
    assert str(error) == "final"
    assert len(target.calls) == 2


@in_both_worlds
async def test_a_predicate_that_raises_ends_the_call_with_its_error(world: World) -> None:
    assert isinstance(await world.error_of(Policy(Retry(on=lambda error: 1 / 0)), fail()), ZeroDivisionError)


@in_both_worlds
async def test_results_may_be_failures_too(world: World) -> None:
    target = Script("pending", "pending", "done")
    assert await world.call(Policy(Retry(on=OSError, until=lambda end: end == "done", **AT_ONCE)), target) == "done"
    assert len(target.calls) == 3


@in_both_worlds
async def test_the_last_result_is_returned_when_attempts_run_out(world: World) -> None:
    target = Script("first", "second", "third")
    outcome = await world.outcome(Policy(Retry(on=OSError, until=lambda _: False, **AT_ONCE)), target)
    assert (outcome.value, outcome.attempts) == ("third", 3)


@in_both_worlds
async def test_errors_and_unwanted_results_mix(world: World) -> None:
    target = Script("pending", OSError, "pending", OSError("last"))
    policy = Policy(Retry(on=OSError, attempts=4, until=lambda _: False, **AT_ONCE))
    assert str(await world.error_of(policy, target)) == "last"
    assert len(target.calls) == 4


@in_both_worlds
async def test_the_schedule_is_100_ms_doubled_up_to_2_s(world: World) -> None:
    with heard(RetryScheduled) as waits:
        await world.error_of(Policy(Retry(on=OSError, attempts=8, jitter=False, **FREE)), fail(OSError))
    assert [event.delay for event in waits] == [0.1, 0.2, 0.4, 0.8, 1.6, 2, 2]
    assert [event.attempt for event in waits] == [2, 3, 4, 5, 6, 7, 8]


@in_both_worlds
async def test_full_jitter_draws_from_zero_to_the_ceiling(world: World) -> None:
    policy = Policy(Retry(on=OSError, attempts=2, base=1, cap=1, **FREE))
    with heard(RetryScheduled) as waits:
        for _ in range(500):
            await world.error_of(policy, fail(OSError))
    delays = sorted(event.delay for event in waits)
    assert 0 <= delays[0] < 0.05
    assert 0.95 < delays[-1] <= 1
    assert 0.4 < sum(delays) / 500 < 0.6


@pytest.mark.parametrize(
    ("delay", "pauses"),
    [(2, [2, 2]), ("150ms", [0.15, 0.15]), (0, [0, 0]), (lambda n: n * 3, [3, 6]), (lambda n: f"{n}min", [60, 120])],
)
@in_both_worlds
async def test_delay_is_a_number_a_text_or_a_function(world: World, delay: object, pauses: list[float]) -> None:
    target = Script(OSError)
    await world.error_of(Policy(Retry(on=OSError, delay=delay, **FREE)), target)
    assert target.times == [0, pauses[0], sum(pauses)]


@pytest.mark.parametrize("bad", [-1, None, "soon", float("nan"), True])
@in_both_worlds
async def test_a_delay_function_that_answers_nonsense_is_named(world: World, bad: object) -> None:
    error = await world.error_of(Policy(Retry(on=OSError, delay=lambda _: bad, **FREE)), fail(OSError))
    assert isinstance(error, ConfigError)
    assert "Retry(delay)" in str(error)


@in_both_worlds
async def test_total_bounds_the_time_over_all_attempts(world: World) -> None:
    target = Script(slow(1, OSError))
    with heard(RetryGaveUp) as seen:
        error = await world.error_of(Policy(Retry(on=OSError, attempts=100, delay=1, total=5, **FREE)), target)
    assert target.times == [0, 2, 4]
    assert given_up(seen) == [(3, "total")]
    assert "total=5 s" in error.__notes__[0]


@in_both_worlds
async def test_a_deadline_shorter_than_the_next_sleep_gives_up_at_once(world: World) -> None:
    target = Script(OSError)
    with heard(RetryGaveUp) as seen, deadline(5):
        error = await world.error_of(Policy(Retry(on=OSError, delay=6, **FREE)), target)
    assert world.now == 0
    assert given_up(seen) == [(1, "deadline")]
    assert "would miss the deadline" in error.__notes__[0]


@in_both_worlds
async def test_a_total_timeout_outside_is_a_deadline_for_the_retry(world: World) -> None:
    target = Script(OSError)
    await world.error_of(Policy(Timeout(5), Retry(on=OSError, attempts=100, delay=2, **FREE)), target)
    assert target.times == [0, 2, 4]


@in_both_worlds
async def test_an_attempt_knows_its_number(world: World) -> None:
    numbers: list[int] = []

    def target() -> None:
        numbers.append(current().attempt)
        raise OSError

    await world.error_of(Policy(Retry(on=OSError, **AT_ONCE)), target)
    assert numbers == [1, 2, 3]
    assert current().attempt == 1


@in_both_worlds
async def test_nested_retries_multiply_and_each_keeps_to_its_own_count(world: World) -> None:
    """3 x 3 x 3 = 27 attempts: `lint` warns of it, and it must still end."""
    target = Script(OSError)
    policy = Policy(*(Retry(on=OSError, name=name, **AT_ONCE) for name in "abc"))
    outcome = await world.outcome(policy, target)
    assert len(target.calls) == outcome.attempts == 27
    assert [policy[name].retries for name in "abc"] == [2, 6, 18]


@in_both_worlds
async def test_one_attempt_means_no_retry(world: World) -> None:
    target = Script(OSError)
    await world.error_of(Policy(Retry(on=OSError, attempts=1)), target)
    assert len(target.calls) == 1


@in_both_worlds
async def test_waiting_can_be_switched_off(world: World) -> None:
    disable(waiting_only=True)
    try:
        target = Script(OSError)
        await world.error_of(Policy(Retry(on=OSError, delay=60, **FREE)), target)
    finally:
        enable()
    assert target.times == [0, 0, 0]


@in_both_worlds
async def test_every_attempt_and_the_end_are_counted_and_told(world: World) -> None:
    policy = Policy(Retry(on=OSError, **AT_ONCE), name="stock")
    with heard(RetryScheduled, RetryGaveUp) as seen:
        await world.error_of(policy, fail(OSError))
        await world.call(policy, Script(OSError, "well"))
    assert [type(event).__name__ for event in seen] == ["RetryScheduled"] * 2 + ["RetryGaveUp"] + ["RetryScheduled"]
    assert {(event.policy, event.layer) for event in seen} == {("stock", "Retry")}
    assert (policy["Retry"].retries, policy["Retry"].gave_up) == (3, 1)
