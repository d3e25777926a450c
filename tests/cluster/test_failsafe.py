"""`Failsafe`: a failed side call is recorded, and the default is the answer."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from seawall import (
    Bulkhead,
    CircuitBreaker,
    Cluster,
    ConfigError,
    DeadlineExceeded,
    Ejection,
    Failfast,
    Failover,
    Failsafe,
    Policy,
    Rejected,
    Retry,
    Timeout,
    deadline,
    disable,
    enable,
    events,
)
from seawall.events import AttemptFailed, FailedSafe
from seawall.policies.registry import Registry
from seawall.testing import run, slow
from tests.cluster.service import SIZES, Dead, Service, at_rest, chosen_first, filled
from tests.policies.worlds import World, heard, in_both_worlds


@pytest.mark.parametrize("size", SIZES)
@in_both_worlds
async def test_one_dead_endpoint(world: World, size: int) -> None:
    service = Service(size).does(0, Dead)
    cluster = service.cluster(Failsafe("lost"))
    outcomes = [await world.outcome(cluster, service) for _ in range(2 * size)]
    assert len(service.asked) == 2 * size, "one attempt a call"
    assert [outcome.value for outcome in outcomes] == [
        "lost" if address == "e0:80" else address for address in service.asked
    ]
    assert [outcome.degraded for outcome in outcomes] == [address == "e0:80" for address in service.asked]
    assert all(outcome.ok and outcome.attempts == 1 for outcome in outcomes)
    assert cluster.snapshot()["strategy"]["saved"] == 2
    at_rest(cluster)


@pytest.mark.parametrize("size", SIZES)
@in_both_worlds
async def test_all_dead(world: World, size: int) -> None:
    service = Service(size).all_do(Dead)
    cluster = service.cluster(Failsafe())
    assert [await world.call(cluster, service) for _ in range(4)] == [None] * 4
    assert len(service.asked) == 4
    at_rest(cluster)


@in_both_worlds
async def test_flapping_and_returning(world: World) -> None:
    service = Service(1).does(0, Dead, "well", then="cycle")
    cluster = service.cluster(Failsafe("lost"), ejection=Ejection(consecutive=1))
    assert [await world.call(cluster, service) for _ in range(4)] == ["lost", "well"] * 2
    service.does(0)
    assert await world.call(cluster, service) == "e0:80"


@in_both_worlds
async def test_the_error_is_told(world: World) -> None:
    error = Dead("down")
    service = Service(2).all_do(error)
    cluster = service.cluster(Failsafe(name="safe"))
    with heard(FailedSafe, AttemptFailed) as seen:
        await world.call(cluster, service)
    failed, saved = seen
    assert isinstance(failed, AttemptFailed) and failed.error is error
    assert isinstance(saved, FailedSafe)
    assert (saved.policy, saved.layer, saved.error) == ("stock", "safe", error)


@in_both_worlds
async def test_the_default_may_be_a_function_of_the_error(world: World) -> None:
    service = Service(2).all_do(Dead("down"))
    assert await world.call(service.cluster(Failsafe(lambda error: f"lost: {error}")), service) == "lost: down"


def test_async_functions_answer_async_calls() -> None:
    async def answer(error: Exception) -> str:
        await asyncio.sleep(1)
        return f"lost: {error}"

    service = Service(2).all_do(Dead("down"))
    cluster = service.cluster(Failsafe(answer))
    assert run(lambda: cluster.acall(service.aio)) == "lost: down"
    with pytest.raises(ConfigError, match="async default"):
        cluster.call(service)


@pytest.mark.parametrize("default", [[], {}, 0, False, "", lambda error: None], ids=repr)
@in_both_worlds
async def test_any_value_will_do_and_is_not_mixed_up_with_an_equal_one(world: World, default: Any) -> None:
    service = Service(2).all_do(Dead)
    cluster = service.cluster(Failfast())
    answers = [await world.call(cluster.using(Failsafe(each)), service) for each in (default, 1, True, 1.0, 0.0)]
    assert answers[0] == (None if callable(default) else default)
    assert type(answers[0]) is type(None if callable(default) else default)
    assert [type(each) for each in answers[1:]] == [int, bool, float, float]


@in_both_worlds
async def test_a_default_that_fails_raises_and_is_not_called_degraded(world: World) -> None:
    service = Service(2).all_do(Dead)
    outcome = await world.outcome(service.cluster(Failsafe(lambda error: {}["nothing"])), service)
    assert isinstance(outcome.error, KeyError)
    assert not outcome.degraded


@in_both_worlds
async def test_nobody_to_ask_is_answered_too(world: World) -> None:
    service = Service(3)
    cluster = service.cluster(Failsafe("lost"), each=(CircuitBreaker(),))
    for endpoint in cluster.endpoints:
        cluster[endpoint][CircuitBreaker].force_open()
    outcome = await world.outcome(cluster, service)
    assert (outcome.value, outcome.degraded, outcome.attempts, outcome.endpoint) == ("lost", True, 0, None)
    assert service.asked == []


@in_both_worlds
async def test_a_source_of_endpoints_that_fails_is_answered_too(world: World) -> None:
    def unknown() -> list[str]:
        raise OSError("the resolver is down")

    service = Service(2)
    cluster: Cluster[Any] = Cluster("stock", unknown, strategy=Failsafe("lost"), names=Registry())
    assert await world.call(cluster, service) == "lost"
    assert (await world.outcome(cluster, service)).degraded
    assert "OSError" in cluster.snapshot()["last_problem"]


@pytest.mark.parametrize("size", [2, 5])
@in_both_worlds
async def test_refusals_move_on_before_it_is_saved(world: World, size: int) -> None:
    service = Service(size)
    cluster = service.cluster(Failsafe("lost"), each=(Bulkhead(1),), balancer=chosen_first("e0:80"))
    room = filled(cluster, *service.addresses[:-1])
    outcome = await world.outcome(cluster, service)
    assert (outcome.value, outcome.degraded) == (service.addresses[-1], False)
    room()


BUGS = [
    TypeError,
    NameError,
    AttributeError,
    AssertionError,
    SyntaxError,
    ExceptionGroup("two", [OSError(), TypeError()]),
]


@pytest.mark.parametrize("bug", BUGS, ids=str)
@in_both_worlds
async def test_errors_of_the_program_are_not_hidden(world: World, bug: Any) -> None:
    service = Service(2).all_do(bug)
    cluster = service.cluster(Failsafe("lost"))
    outcome = await world.outcome(cluster, service)
    assert isinstance(outcome.error, bug if isinstance(bug, type) else ExceptionGroup)
    assert not outcome.degraded
    named = service.cluster(Failsafe("lost"), on=lambda error: True)
    assert await world.call(named, service) == "lost"


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, GeneratorExit])
@in_both_worlds
async def test_exits_pass_through(world: World, error: type[BaseException]) -> None:
    service = Service(2).all_do(error)
    with heard(FailedSafe) as seen, pytest.raises(error):
        await world.call(service.cluster(Failsafe("lost"), on=lambda error: True), service)
    assert seen == []


def test_a_cancellation_is_not_answered() -> None:
    service = Service(2).all_do(slow(60))

    async def main() -> None:
        call = asyncio.create_task(service.cluster(Failsafe("lost")).acall(service.aio))
        await asyncio.sleep(1)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call

    run(main)


@in_both_worlds
async def test_an_error_that_is_an_answer_is_raised(world: World) -> None:
    service = Service(2).all_do(KeyError("no such item"))
    cluster = service.cluster(Failsafe("lost"), on=OSError)
    assert isinstance(await world.error_of(cluster, service), KeyError)
    service.all_do(Dead)
    assert await world.call(cluster, service) == "lost"


@in_both_worlds
async def test_what_the_function_is_refused_further_inside_is_saved(world: World) -> None:
    service = Service(2).all_do(Rejected("busy"))
    assert await world.call(service.cluster(Failsafe("lost")), service) == "lost"


@pytest.mark.parametrize("each", [(), (Timeout(None),), (Timeout(9),)], ids=str)
@in_both_worlds
async def test_the_deadline_of_the_caller_is_answered_when_it_passes(world: World, each: Any) -> None:
    """Whichever layer notices it; in sync a function that waits by the library does."""
    service = Service(2).all_do(slow(60) if world.is_async else DeadlineExceeded("late", inherited=True))
    cluster = service.cluster(Failsafe("lost"), each=each)
    with deadline(2):
        outcome = await world.outcome(cluster, service)
        assert (outcome.value, outcome.degraded, outcome.attempts) == ("lost", True, 1)
        await world.passes(2)
        assert await world.call(cluster, service) == "lost", "also when it has passed before"
    assert len(service.asked) == 1
    with deadline(2):
        assert await world.call(cluster, service) == "lost"
    assert service.running == 0
    at_rest(cluster)


@in_both_worlds
async def test_a_timeout_of_the_attempt_is_saved(world: World) -> None:
    service = Service(2).all_do(slow(60) if world.is_async else TimeoutError)
    cluster = service.cluster(Failsafe("lost"), each=(Timeout(2),))
    assert await world.call(cluster, service) == "lost"
    assert world.now == (2 if world.is_async else 0)
    at_rest(cluster)


@in_both_worlds
async def test_what_failed_is_closed(world: World) -> None:
    class Response(Exception):
        closed = 0

        def close(self) -> None:
            self.closed += 1

    response = Response()
    service = Service(2).all_do(response)
    await world.call(service.cluster(Failsafe()), service)
    assert response.closed == 1


@in_both_worlds
async def test_with_a_retry_around_the_last_answer_counts(world: World) -> None:
    service = Service(2).all_do(Dead)
    retry = Retry(on=OSError, until=lambda value: value is not None, delay=1, budget=None)
    cluster = service.cluster(Failsafe(), around=(retry,))
    stop = events.subscribe(lambda event: service.all_do("well"), events.RetryScheduled)
    try:
        outcome = await world.outcome(cluster, service)
    finally:
        stop()
    assert (outcome.value, outcome.degraded) == ("well", False)


@in_both_worlds
async def test_disabled_it_raises(world: World) -> None:
    service = Service(2).all_do(Dead)
    cluster = service.cluster(Failsafe("lost"))
    disable()
    try:
        assert isinstance(await world.error_of(cluster, service), Dead)
        with deadline(9):
            assert isinstance((await world.outcome(cluster, service)).error, Dead)
    finally:
        enable()


def test_a_class_is_refused() -> None:
    with pytest.raises(ConfigError, match="a class"):
        Failsafe(dict)


@in_both_worlds
async def test_one_cluster_under_two_strategies(world: World) -> None:
    service = Service(2).all_do(Dead)
    cluster = service.cluster(Failover(budget=None), each=(Policy(Bulkhead(5)),))
    assert await world.call(cluster.using(Failsafe("lost")), service) == "lost"
    assert isinstance(await world.error_of(cluster, service), Dead)
