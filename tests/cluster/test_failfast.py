"""`Failfast`: one attempt, and its error at once and unchanged."""

from __future__ import annotations

from typing import Any

import pytest

from seawall import (
    Bulkhead,
    CircuitBreaker,
    DeadlineExceeded,
    Ejection,
    Failfast,
    NoEndpoints,
    Timeout,
    deadline,
    disable,
    enable,
)
from seawall.events import AttemptFailed, FailedOver
from seawall.testing import slow
from tests.cluster.service import SIZES, Dead, Service, at_rest, chosen_first, filled
from tests.policies.worlds import World, heard, in_both_worlds


@pytest.mark.parametrize("size", SIZES)
@in_both_worlds
async def test_one_dead_endpoint_fails_its_share_of_the_calls_at_once(world: World, size: int) -> None:
    service = Service(size).does(0, Dead)
    cluster = service.cluster(Failfast())
    outcomes = [await world.outcome(cluster, service) for _ in range(2 * size)]
    assert len(service.asked) == 2 * size, "one attempt a call"
    failed = [outcome for outcome in outcomes if not outcome.ok]
    assert len(failed) == service.asked.count("e0:80") == 2
    assert all(str(outcome.endpoint) == "e0:80" and outcome.attempts == 1 for outcome in failed)
    assert world.now == 0
    at_rest(cluster)


@pytest.mark.parametrize("size", SIZES)
@in_both_worlds
async def test_all_dead(world: World, size: int) -> None:
    service = Service(size).all_do(Dead)
    cluster = service.cluster(Failfast())
    for calls in range(1, 5):
        assert isinstance(await world.error_of(cluster, service), Dead)
        assert len(service.asked) == calls
    at_rest(cluster)


@in_both_worlds
async def test_healthy_calls_leave_nothing_in_flight(world: World) -> None:
    service = Service(3)
    cluster = service.cluster(Failfast())
    assert [await world.call(cluster, service) for _ in range(3)] == service.asked
    at_rest(cluster)


@in_both_worlds
async def test_flapping_and_returning(world: World) -> None:
    service = Service(1).does(0, Dead, "well", then="cycle")
    cluster = service.cluster(Failfast())
    assert [(await world.outcome(cluster, service)).value for _ in range(4)] == [None, "well", None, "well"]
    service.does(0)
    assert await world.call(cluster, service) == "e0:80"


@in_both_worlds
async def test_the_error_is_the_functions_own_with_a_note(world: World) -> None:
    error = Dead("no answer")
    service = Service(2).all_do(error)
    cluster = service.cluster(Failfast())
    assert await world.error_of(cluster, service) is error
    assert error.__notes__ == [f"seawall: stock: attempt 1 at {service.asked[0]}"]
    assert (error.__cause__, error.__context__) == (None, None)
    for _ in range(50):
        await world.error_of(cluster, service)
    assert len(error.__notes__) == 1, "notes do not pile up"


@in_both_worlds
async def test_an_error_that_takes_no_notes_stays_as_it_is(world: World) -> None:
    class Frozen(Exception):
        def add_note(self, note: str) -> None:
            raise TypeError("frozen")

    service = Service(2).all_do(Frozen)
    assert isinstance(await world.error_of(service.cluster(Failfast()), service), Frozen)


@pytest.mark.parametrize("size", [2, 5])
@in_both_worlds
async def test_refusals_move_on_at_once_for_nothing_was_sent(world: World, size: int) -> None:
    service = Service(size)
    cluster = service.cluster(Failfast(), each=(Bulkhead(1),), balancer=chosen_first("e0:80"))
    room = filled(cluster, *service.addresses[:-1])
    with heard(AttemptFailed) as refusals:
        outcome = await world.outcome(cluster, service)
    assert (outcome.value, outcome.attempts) == (service.addresses[-1], 1)
    assert service.asked == service.addresses[-1:]
    assert [(event.refused, event.attempt) for event in refusals] == [(True, 1)] * (size - 1)
    room()
    at_rest(cluster)


@in_both_worlds
async def test_after_a_refusal_a_failure_is_final_all_the_same(world: World) -> None:
    service = Service(3).all_do(Dead)
    cluster = service.cluster(Failfast(), each=(Bulkhead(1),), balancer=chosen_first("e0:80"))
    room = filled(cluster, "e0:80")
    error = await world.error_of(cluster, service)
    assert isinstance(error, Dead)
    assert error.__notes__ == [f"seawall: stock: attempt 1 at {service.asked[0]}"]
    assert len(service.asked) == 1
    room()


@in_both_worlds
async def test_all_refuse(world: World) -> None:
    service = Service(3)
    cluster = service.cluster(Failfast(), each=(CircuitBreaker(),))
    for endpoint in cluster.endpoints:
        cluster[endpoint][CircuitBreaker].force_open()
    error = await world.error_of(cluster, service)
    assert isinstance(error, NoEndpoints)
    assert "3 endpoints refuse" in str(error)
    assert not hasattr(error, "__notes__"), "no attempt was made that a note could name"
    outcome = await world.outcome(cluster, service)
    assert (outcome.attempts, outcome.endpoint, service.asked) == (0, None, [])


@in_both_worlds
async def test_deadline(world: World) -> None:
    service = Service(2).all_do(slow(3, Dead))
    cluster = service.cluster(Failfast())
    with deadline(2):
        error = await world.error_of(cluster, service)
    assert (type(error), world.now) == ((DeadlineExceeded, 2) if world.is_async else (Dead, 3))
    assert len(service.asked) == 1
    with deadline(0):
        assert isinstance(await world.error_of(cluster, service), DeadlineExceeded)
    assert len(service.asked) == 1
    at_rest(cluster)


@pytest.mark.parametrize("error", [TypeError, KeyboardInterrupt, GeneratorExit])
@in_both_worlds
async def test_errors_of_the_program_and_exits_pass_and_count_for_nothing(world: World, error: Any) -> None:
    service = Service(2).all_do(error)
    cluster = service.cluster(Failfast(), ejection=Ejection(consecutive=1), each=(CircuitBreaker(consecutive=1),))
    with heard(AttemptFailed) as failures:
        assert isinstance(await world.error_of(cluster, service), error)
    assert len(service.asked) == 1
    assert {each["standing"] for each in cluster.snapshot()["endpoints"]} == {"in"}
    assert len(failures) == issubclass(error, Exception)
    at_rest(cluster)


@in_both_worlds
async def test_events_and_context(world: World) -> None:
    service = Service(2).all_do(Dead)
    with heard(AttemptFailed, FailedOver) as seen:
        error = await world.error_of(service.cluster(Failfast(), each=(Timeout(9),)), service)
    ((event,), (asked,)) = seen, service.attempts
    assert (event.policy, event.layer, event.endpoint, event.error) == ("stock", "cluster", asked.address, error)
    assert (asked.attempt, asked.left) == (1, 9)


@in_both_worlds
async def test_an_ejected_endpoint_gets_one_probe_when_its_time_is_over(world: World) -> None:
    service = Service(2).does(0, Dead)
    cluster = service.cluster(Failfast(), ejection=Ejection(consecutive=1, out_for=10))
    for _ in range(10):
        await world.outcome(cluster, service)
    assert service.asked.count("e0:80") == 1
    await world.passes(12.1)
    service.forget()
    for _ in range(10):
        await world.outcome(cluster, service)
    assert service.asked.count("e0:80") == 1, "the probe failed, and it is out again"
    at_rest(cluster)


@in_both_worlds
async def test_disabled(world: World) -> None:
    service = Service(2).all_do(Dead)
    cluster = service.cluster(Failfast(), each=(CircuitBreaker(consecutive=1),))
    disable()
    try:
        for _ in range(5):
            assert isinstance(await world.error_of(cluster, service), Dead)
    finally:
        enable()
    assert len(service.asked) == 5
