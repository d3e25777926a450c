"""`Failsilent`: endpoints that keep failing get no traffic for a while; when all are silent nothing is sent."""

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
    Failsilent,
    NoEndpoints,
    Timeout,
    deadline,
    disable,
    enable,
)
from seawall.events import AttemptFailed, EndpointEjected, EndpointReturned
from seawall.testing import run, slow
from tests.cluster.service import SIZES, Dead, Service, at_rest
from tests.policies.worlds import World, all_end, heard, in_both_worlds

QUICK = Failsilent(Ejection(consecutive=1, out_for=10))
LATEST = 12.0
"""When an ejection of 10 s is over, whatever its jitter."""


async def silence_all(world: World, cluster: Cluster[Any], service: Service, error: object = Dead) -> None:
    service.all_do(error)
    for _ in service.addresses:
        await world.error_of(cluster, service)
    assert sorted(service.asked) == sorted(service.addresses), "each was asked once"
    service.forget()


@pytest.mark.parametrize("size", SIZES)
@in_both_worlds
async def test_one_dead_endpoint_falls_silent(world: World, size: int) -> None:
    service = Service(size).does(0, Dead)
    cluster = service.cluster(QUICK)
    with heard(EndpointEjected) as ejected:
        outcomes = [await world.outcome(cluster, service) for _ in range(3 * size)]
    failed = [outcome.error for outcome in outcomes if not outcome.ok]
    assert [type(error) for error in failed] == [Dead] + ([NoEndpoints] * 2 if size == 1 else [])
    assert service.asked.count("e0:80") == 1
    assert [event.endpoint for event in ejected] == ["e0:80"]
    at_rest(cluster)


@pytest.mark.parametrize("size", SIZES)
@in_both_worlds
async def test_when_all_are_silent_nothing_is_sent(world: World, size: int) -> None:
    service = Service(size)
    cluster = service.cluster(QUICK)
    await silence_all(world, cluster, service)
    for _ in range(5):
        outcome = await world.outcome(cluster, service)
        assert isinstance(outcome.error, NoEndpoints)
        assert (outcome.attempts, outcome.endpoint) == (0, None)
        await world.passes(0.5)
    assert service.asked == []
    assert "are silent" in str(outcome.error)
    at_rest(cluster)


@in_both_worlds
async def test_retry_after_is_when_the_first_may_be_asked_again(world: World) -> None:
    service = Service(5)
    cluster = service.cluster(QUICK)
    await silence_all(world, cluster, service)
    error = await world.error_of(cluster, service)
    assert isinstance(error, NoEndpoints) and error.retry_after is not None
    waits = [each["retry_after"] for each in cluster.snapshot()["endpoints"]]
    assert 8 <= min(waits) < max(waits) <= 12, "jitter spreads them"
    assert error.retry_after == min(waits)
    await world.passes(error.retry_after - 0.001)
    assert isinstance(await world.error_of(cluster, service), NoEndpoints)
    assert service.asked == []
    await world.passes(0.001)
    assert isinstance(await world.error_of(cluster, service), Dead)
    assert len(service.asked) == 1, "that was its probe"


@pytest.mark.parametrize("size", [1, 2, 5])
@in_both_worlds
async def test_a_returning_endpoint(world: World, size: int) -> None:
    service = Service(size)
    cluster = service.cluster(QUICK)
    await silence_all(world, cluster, service)
    await world.passes(LATEST)
    service.does(0)
    with heard(EndpointReturned) as returned:
        outcomes = [await world.outcome(cluster, service) for _ in range(4 * size)]
    assert [event.endpoint for event in returned] == ["e0:80"]
    assert {address: service.asked.count(address) for address in service.addresses[1:]} == dict.fromkeys(
        service.addresses[1:], 1
    ), "the others were probed once each, and are silent again"
    assert sum(outcome.ok for outcome in outcomes) == 3 * size + 1
    at_rest(cluster)


@in_both_worlds
async def test_a_flapping_endpoint_is_silent_longer_each_time(world: World) -> None:
    service = Service(1).does(0, Dead)
    cluster = service.cluster(QUICK)
    with heard(EndpointEjected) as ejected:
        for _ in range(60):
            await world.outcome(cluster, service)
            await world.passes(5)
    lengths = [event.out_for for event in ejected]
    assert len(lengths) >= 5
    for times, length in enumerate(lengths, 1):
        assert 0.8 * 10 * times <= length <= 1.2 * 10 * times


@in_both_worlds
async def test_timeouts_silence_and_impatient_callers_do_not(world: World) -> None:
    service = Service(1).all_do(slow(60) if world.is_async else DeadlineExceeded("late", inherited=True))
    cluster = service.cluster(QUICK, each=(Timeout(5),))
    with deadline(1):
        error = await world.error_of(cluster, service)
    assert isinstance(error, DeadlineExceeded) and error.inherited
    assert cluster.snapshot()["endpoints"][0]["standing"] == "in"
    if not world.is_async:
        service.all_do(TimeoutError)
    assert isinstance(await world.error_of(cluster, service), TimeoutError)
    assert cluster.snapshot()["endpoints"][0]["standing"] == "out"
    at_rest(cluster)


@in_both_worlds
async def test_open_breakers_are_silence_too(world: World) -> None:
    """No panic here: health is never ignored."""
    service = Service(3)
    cluster = service.cluster(QUICK, each=(CircuitBreaker(consecutive=1, open_for=20), Bulkhead(5)))
    for endpoint in cluster.endpoints:
        cluster[endpoint][CircuitBreaker].force_open()
    assert isinstance(await world.error_of(cluster, service), NoEndpoints)
    cluster["e1:80"][CircuitBreaker].auto()
    cluster["e1:80"][CircuitBreaker].reset()
    await world.passes(1)
    assert await world.call(cluster, service) == "e1:80"
    assert service.asked == ["e1:80"]


@in_both_worlds
async def test_one_attempt_only_with_a_note(world: World) -> None:
    service = Service(5).all_do(Dead)
    error = await world.error_of(service.cluster(QUICK), service)
    assert error.__notes__ == [f"seawall: stock: attempt 1 at {service.asked[0]}"]
    assert len(service.asked) == 1


@pytest.mark.parametrize("error", [TypeError, KeyboardInterrupt])
@in_both_worlds
async def test_errors_of_the_program_and_exits_silence_nobody(world: World, error: type[BaseException]) -> None:
    service = Service(1).all_do(error)
    cluster = service.cluster(QUICK)
    for _ in range(3):
        assert isinstance(await world.error_of(cluster, service), error)
    assert len(service.asked) == 3


@in_both_worlds
async def test_a_probe_that_says_nothing_is_given_to_the_next_call(world: World) -> None:
    service = Service(1)
    cluster = service.cluster(QUICK)
    await silence_all(world, cluster, service)
    await world.passes(LATEST)
    service.all_do(TypeError)
    assert isinstance(await world.error_of(cluster, service), TypeError)
    service.all_do("well")
    assert await world.call(cluster, service) == "well"
    assert len(service.asked) == 2
    at_rest(cluster)


@pytest.mark.parametrize("strategy", [QUICK, Failfast(), Failover(), Failsafe()], ids=lambda spec: spec.name)
def test_twenty_callers_make_exactly_one_probe(strategy: Any) -> None:
    """Whatever the strategy: with one endpoint to be probed, and with another that is well."""
    rules = Ejection(consecutive=1, out_for=10)

    async def main() -> None:
        size = 1 if strategy is QUICK else 2
        service = Service(size).does(0, Dead)
        cluster = service.cluster(strategy, ejection=None if strategy is QUICK else rules)
        while not service.asked.count("e0:80"):
            await cluster.arun(service.aio)
        await asyncio.sleep(LATEST)
        service.forget()
        service.all_do(slow(1, "well"))
        ends = await all_end([cluster.acall(service.aio) for _ in range(20)])
        assert service.asked.count("e0:80") == 1, "a stampede of probes"
        assert len(service.asked) == (1 if size == 1 else 20)
        assert sum(end == "well" for end in ends) == (1 if size == 1 else 20)
        assert await cluster.acall(service.aio) == "well"
        at_rest(cluster)

    run(main)


def test_a_probe_that_never_returns_is_given_to_another_after_its_lease() -> None:
    async def main() -> None:
        service = Service(1).does(0, Dead)
        cluster = service.cluster(Failsilent(Ejection(consecutive=1, out_for=10, probe_lease=30)))
        await cluster.arun(service.aio)
        await asyncio.sleep(LATEST)
        service.all_do(slow(1000, "late"))
        probe = asyncio.create_task(cluster.acall(service.aio))
        await asyncio.sleep(29)
        assert isinstance((await cluster.arun(service.aio)).error, NoEndpoints)
        await asyncio.sleep(2)
        service.all_do("well")
        assert await cluster.acall(service.aio) == "well"
        assert await probe == "late"
        at_rest(cluster)

    run(main)


@in_both_worlds
async def test_disabled_somebody_is_asked_all_the_same(world: World) -> None:
    service = Service(2)
    cluster = service.cluster(QUICK)
    await silence_all(world, cluster, service)
    service.all_do("well")
    disable()
    try:
        assert await world.call(cluster, service) == "well"
        assert (await world.outcome(cluster, service)).value == "well"
    finally:
        enable()
    assert isinstance(await world.error_of(cluster, service), NoEndpoints), "and counts for nothing"


@in_both_worlds
async def test_a_view_knows_the_silence_of_its_kind_only(world: World) -> None:
    service = Service(2)
    cluster = service.cluster(Failfast())
    silent = cluster.using(QUICK)
    await silence_all(world, silent, service)
    assert isinstance(await world.error_of(cluster.using(QUICK), service), NoEndpoints)
    service.all_do("well")
    assert await world.call(cluster, service) == "well"
    at_rest(cluster, silent)


@in_both_worlds
async def test_a_breaker_that_opened_under_another_view_is_met_once(world: World) -> None:
    """Each set of rules has a balancer of its own; it learns of the breaker by the first refusal."""
    service = Service(3)
    cluster = service.cluster(Failfast(), each=(CircuitBreaker(consecutive=1, open_for=60),))
    silent = cluster.using(Failsilent(Ejection(consecutive=5)))
    for view in (cluster, silent):
        for _ in range(3):
            await world.call(view, service)
    service.does(0, Dead)
    for _ in range(6):
        await world.outcome(cluster, service)
    assert cluster.snapshot()["endpoints"][0]["breaker_refuses"]
    with heard(AttemptFailed) as refusals:
        for _ in range(9):
            await world.call(silent, service)
    assert [event.refused for event in refusals] == [True]


def test_wrong_settings() -> None:
    with pytest.raises(ConfigError, match=r"Failsilent\(ejection"):
        Failsilent(5)  # type: ignore[arg-type]
