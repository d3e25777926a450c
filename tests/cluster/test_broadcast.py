"""`Broadcast`: every endpoint is called, beside each other and whatever their health, and the answers come by endpoint."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from seawall import (
    Broadcast,
    BroadcastError,
    Bulkhead,
    CircuitBreaker,
    CircuitOpen,
    Cluster,
    ConfigError,
    DeadlineExceeded,
    Ejection,
    Endpoint,
    Failfast,
    Failsilent,
    Fallback,
    NoEndpoints,
    Timeout,
    deadline,
    disable,
    enable,
)
from seawall.events import AttemptFailed, BroadcastFailed
from seawall.policies.registry import Registry
from seawall.testing import hang, run, slow
from tests.cluster.service import SIZES, Dead, Service, at_rest, distinct
from tests.policies.worlds import World, all_end, heard, in_both_worlds


def told(answers: Any) -> dict[str, Any]:
    return {str(endpoint): value for endpoint, value in answers.items()}


@pytest.mark.parametrize("size", SIZES)
@in_both_worlds
async def test_every_endpoint_is_called_once_and_answers_under_its_name(world: World, size: int) -> None:
    service = Service(size)
    cluster = service.cluster(Broadcast())
    outcome = await world.outcome(cluster, service)
    assert told(outcome.value) == {address: address for address in service.addresses}
    assert list(told(outcome.value)) == service.addresses, "in the order of the list"
    assert all(isinstance(endpoint, Endpoint) for endpoint in outcome.value)
    assert (len(service.asked), outcome.attempts, outcome.endpoint) == (size, size, None)
    assert distinct(service.asked)
    assert sorted(service.numbers) == list(range(1, size + 1))
    at_rest(cluster)


@pytest.mark.parametrize("size", SIZES)
@in_both_worlds
async def test_all_are_called_though_the_first_fails(world: World, size: int) -> None:
    service = Service(size).does(0, Dead("zero"))
    cluster = service.cluster(Broadcast())
    with heard(BroadcastFailed) as failed:
        error = await world.error_of(cluster, service)
    assert isinstance(error, BroadcastError)
    assert sorted(service.asked) == sorted(service.addresses)
    assert told(error.succeeded) == {address: address for address in service.addresses[1:]}
    assert {address: str(each) for address, each in told(error.failed).items()} == {"e0:80": "zero"}
    assert error.needed == size
    assert f"{size - 1} of {size} endpoints succeeded" in str(error)
    ((event,),) = (failed,)
    assert (event.policy, event.layer, event.succeeded, event.failed, event.needed) == (
        "stock",
        "Broadcast",
        size - 1,
        1,
        size,
    )
    assert cluster.snapshot()["strategy"]["failed_broadcasts"] == 1
    at_rest(cluster)


@pytest.mark.parametrize("size", SIZES)
def test_they_are_called_beside_each_other(size: int) -> None:
    async def main() -> None:
        service = Service(size)
        peak = running = 0

        async def work(endpoint: Endpoint) -> None:
            nonlocal peak, running
            running += 1
            peak = max(peak, running)
            await asyncio.sleep(1)
            running -= 1

        cluster = service.cluster(Broadcast())
        await cluster.acall(work)
        assert peak == size
        assert asyncio.get_running_loop().time() == 1
        at_rest(cluster)

    run(main)


def test_one_that_fails_first_does_not_end_it_for_the_others() -> None:
    async def main() -> None:
        service = Service(3).all_do(slow(5, "well")).does(1, Dead)
        error = (await service.cluster(Broadcast()).arun(service.aio)).error
        assert isinstance(error, BroadcastError)
        assert told(error.succeeded) == {"e0:80": "well", "e2:80": "well"}
        assert asyncio.get_running_loop().time() == 5

    run(main)


@in_both_worlds
async def test_all_dead_flapping_returning(world: World) -> None:
    service = Service(3).all_do(Dead)
    cluster = service.cluster(Broadcast(), ejection=Ejection(consecutive=1, out_for=10))
    error = await world.error_of(cluster, service)
    assert isinstance(error, BroadcastError) and len(error.failed) == 3
    service.all_do().does(0, Dead, "well", then="cycle")
    assert [(await world.outcome(cluster, service)).ok for _ in range(4)] == [False, True] * 2
    assert len(service.asked) == 15, "health keeps nobody from being told"
    await world.passes(12)
    assert (await world.outcome(cluster, service)).ok is False
    at_rest(cluster)


@pytest.mark.parametrize(
    ("quorum", "dead", "enough"),
    [
        ("all", 0, True),
        ("all", 1, False),
        ("majority", 2, True),
        ("majority", 3, False),
        (1, 4, True),
        (1, 5, False),
        (5, 0, True),
        (6, 0, False),
    ],
)
@in_both_worlds
async def test_quorum(world: World, quorum: Any, dead: int, enough: bool) -> None:
    service = Service(5)
    for number in range(dead):
        service.does(number, Dead)
    outcome = await world.outcome(service.cluster(Broadcast(quorum)), service)
    assert outcome.ok is enough
    if enough:
        assert told(outcome.value) == {address: address for address in service.addresses[dead:]}
    else:
        assert isinstance(outcome.error, BroadcastError)
        assert outcome.error.needed == {"all": 5, "majority": 3}.get(quorum, quorum)
    assert len(service.asked) == 5


@pytest.mark.parametrize(("size", "needed"), [(1, 1), (2, 2), (3, 2), (4, 3), (5, 3)])
def test_a_majority_is_more_than_half(size: int, needed: int) -> None:
    assert Service(size).cluster(Broadcast("majority"))._calls.strategy.needed(size) == needed


@in_both_worlds
async def test_guards_of_an_endpoint_refuse_for_it_alone(world: World) -> None:
    service = Service(3)
    cluster = service.cluster(Broadcast(), each=(CircuitBreaker(),))
    cluster["e1:80"][CircuitBreaker].force_open()
    error = await world.error_of(cluster, service)
    assert isinstance(error, BroadcastError)
    assert isinstance(error.failed[Endpoint("e1:80")], CircuitOpen)
    assert sorted(service.asked) == ["e0:80", "e2:80"]
    assert (await world.outcome(cluster, service)).attempts == 2
    at_rest(cluster)


@in_both_worlds
async def test_the_short_form_works_under_any_strategy(world: World) -> None:
    service = Service(3)
    cluster = service.cluster(Failfast())
    answers = await cluster.abroadcast(service.aio) if world.is_async else cluster.broadcast(service)
    assert told(answers) == {address: address for address in service.addresses}


@in_both_worlds
async def test_without_endpoints_nobody_was_told(world: World) -> None:
    def unknown() -> list[str]:
        raise OSError("the resolver is down")

    cluster: Cluster[Any] = Cluster("stock", unknown, strategy=Broadcast(1), names=Registry())
    assert isinstance(await world.error_of(cluster, Service(1)), NoEndpoints)


# -- errors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "bug",
    [TypeError, NameError, AttributeError, AssertionError, ExceptionGroup("two", [KeyError(), NameError()])],
    ids=str,
)
@in_both_worlds
async def test_an_error_of_the_program_is_raised_as_it_is_when_all_have_been_told(world: World, bug: Any) -> None:
    class Response:
        closed = 0

        def close(self) -> None:
            self.closed += 1

    response = Response()
    service = Service(3).does(0, bug).does(1, response).does(2, Dead)
    cluster = service.cluster(Broadcast(1), ejection=Ejection(consecutive=1))
    assert isinstance(await world.error_of(cluster, service), bug if isinstance(bug, type) else ExceptionGroup)
    assert len(service.asked) == 3
    assert response.closed == 1, "nobody will ever see it"
    assert [each["standing"] for each in cluster.snapshot()["endpoints"]] == ["in", "in", "out"]
    named = service.cluster(Broadcast(1), on=lambda error: True)
    assert told(await world.call(named, service)) == {"e1:80": response}


@in_both_worlds
async def test_answers_and_failures_alike_are_no_successes(world: World) -> None:
    service = Service(2).does(0, KeyError("no such item"))
    cluster = service.cluster(Broadcast(), on=OSError, ejection=Ejection(consecutive=1))
    error = await world.error_of(cluster, service)
    assert isinstance(error, BroadcastError) and set(told(error.failed)) == {"e0:80"}
    assert {each["standing"] for each in cluster.snapshot()["endpoints"]} == {"in"}


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_exits_pass_through(error: type[BaseException]) -> None:
    """In asyncio the first two leave the loop itself, out of any task."""
    service = Service(3).does(0, error)
    cluster = service.cluster(Broadcast(1), on=lambda error: True)
    with pytest.raises(error):
        cluster.call(service)
    if error is GeneratorExit:
        with pytest.raises(error):
            run(lambda: cluster.acall(service.aio))
    at_rest(cluster)


@in_both_worlds
async def test_events(world: World) -> None:
    service = Service(3).does(1, Dead)
    with heard(AttemptFailed) as failures:
        await world.error_of(service.cluster(Broadcast()), service)
    ((event,),) = (failures,)
    assert (event.endpoint, event.refused) == ("e1:80", False)
    assert event.attempt == dict(zip(service.asked, service.numbers, strict=True))["e1:80"]


# -- deadlines -------------------------------------------------------------------------------------------------------


def test_the_deadline_ends_it_and_tells_who_had_answered() -> None:
    async def main() -> None:
        service = Service(3).does(1, hang).does(2, slow(1, "well"))
        cluster = service.cluster(Broadcast())
        with deadline(2):
            outcome = await cluster.arun(service.aio)
        assert asyncio.get_running_loop().time() == 1.99, "a moment is kept for telling"
        assert isinstance(outcome.error, BroadcastError)
        assert {str(endpoint): value for endpoint, value in outcome.error.succeeded.items()}.keys() == {
            "e0:80",
            "e2:80",
        }
        ((late, reason),) = outcome.error.failed.items()
        assert str(late) == "e1:80"
        assert isinstance(reason, DeadlineExceeded)
        with deadline(2):
            few = await cluster.using(Broadcast(1)).arun(service.aio)
        assert few.value is not None
        assert len(few.value) == 2, "the quorum was reached"
        await asyncio.sleep(0.001)
        assert service.running == 0
        at_rest(cluster)

    for seed in range(5):
        run(main, seed=seed)


def test_an_endpoint_that_hangs_ends_with_its_own_timeout() -> None:
    async def main() -> None:
        service = Service(3).does(1, hang)
        error = (await service.cluster(Broadcast(), each=(Timeout(2),)).arun(service.aio)).error
        assert isinstance(error, BroadcastError)
        assert isinstance(error.failed[Endpoint("e1:80")], DeadlineExceeded)
        assert len(error.succeeded) == 2

    run(main)


@in_both_worlds
async def test_nobody_is_told_after_the_deadline(world: World) -> None:
    service = Service(3)
    with deadline(0):
        assert isinstance(await world.error_of(service.cluster(Broadcast()), service), DeadlineExceeded)
    assert service.asked == []


# -- with other parts ------------------------------------------------------------------------------------------------


def test_a_cancelled_broadcast_leaves_nothing_running_and_closes_what_it_has() -> None:
    async def main() -> None:
        class Response:
            closed = 0

            async def aclose(self) -> None:
                await asyncio.sleep(0)
                self.closed += 1

        response = Response()
        service = Service(3).does(0, response).does(1, hang).does(2, hang)
        cluster = service.cluster(Broadcast(), each=(Bulkhead(2),))
        call = asyncio.create_task(cluster.acall(service.aio))
        await asyncio.sleep(1)
        call.cancel()
        assert [type(end) for end in await all_end([call])] == [asyncio.CancelledError]
        await asyncio.sleep(0.001)
        assert (service.running, response.closed) == (0, 1)
        at_rest(cluster)

    run(main)


@in_both_worlds
async def test_a_broadcast_is_nobodys_probe(world: World) -> None:
    """It reaches silent endpoints too; but only their probe ends their silence."""
    service = Service(2).all_do(Dead)
    silent = Failsilent(Ejection(consecutive=1, out_for=10))
    cluster = service.cluster(silent)
    for _ in range(2):
        await world.error_of(cluster, service)
    service.all_do("well")
    assert len(told(await world.call(cluster.using(Broadcast()), service))) == 2
    assert isinstance(await world.error_of(cluster, service), NoEndpoints)
    await world.passes(12)
    assert await world.call(cluster, service) == "well"
    at_rest(cluster, cluster.using(Broadcast()))


@in_both_worlds
async def test_a_fallback_around(world: World) -> None:
    service = Service(2).all_do(Dead)
    outcome = await world.outcome(service.cluster(Broadcast(), around=(Fallback("nobody knows"),)), service)
    assert (outcome.value, outcome.degraded, outcome.attempts) == ("nobody knows", True, 2)


@in_both_worlds
async def test_disabled_it_still_tells_everybody(world: World) -> None:
    """What it answers is a mapping; one attempt without any layer would answer something else."""
    service = Service(3)
    cluster = service.cluster(Broadcast(), each=(CircuitBreaker(),), around=(Fallback({}),))
    cluster["e1:80"][CircuitBreaker].force_open()
    disable()
    try:
        assert told(await world.call(cluster, service)) == {address: address for address in service.addresses}
        service.all_do(Dead)
        assert isinstance(await world.error_of(cluster, service), BroadcastError)
    finally:
        enable()


@pytest.mark.parametrize("quorum", [0, -1, 1.0, True, "most", None])
def test_wrong_settings_are_named(quorum: Any) -> None:
    with pytest.raises(ConfigError, match=r"Broadcast\(quorum"):
        Broadcast(quorum)
