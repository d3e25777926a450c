"""Faults of Dubbo's clusters, none of which Seawall's may have."""

from __future__ import annotations

import asyncio

import pytest

from seawall import Broadcast, BroadcastError, Endpoint, Failfast, Failover, Failsafe, Forking
from seawall.events import FailedSafe
from seawall.testing import run, slow
from tests.cluster.service import Dead, Service, at_rest, distinct
from tests.policies.worlds import World, all_end, heard, in_both_worlds


@pytest.mark.parametrize("size", [2, 3, 10])
def test_forking_is_never_won_by_a_failure(size: int) -> None:
    """Dubbo puts results and errors into one queue and takes the first: the fast failure of a sick replica wins."""

    async def main() -> None:
        service = Service(size).all_do(Dead).does(size - 1, slow(5, "late but right"))
        cluster = service.cluster(Forking("all"))
        answers = await all_end([cluster.acall(service.aio) for _ in range(5)])
        assert answers == ["late but right"] * 5
        at_rest(cluster)

    for seed in range(5):
        run(main, seed=seed)


def test_broadcast_is_concurrent() -> None:
    """Dubbo calls one provider after the other: n slow ones take n times as long."""

    async def main() -> None:
        running = peak = 0

        async def work(endpoint: Endpoint) -> None:
            nonlocal running, peak
            running += 1
            peak = max(peak, running)
            await asyncio.sleep(1)
            running -= 1

        await Service(10).cluster(Broadcast()).acall(work)
        assert (peak, asyncio.get_running_loop().time()) == (10, 1)

    run(main)


@in_both_worlds
async def test_broadcast_gives_every_result_and_every_error(world: World) -> None:
    """Dubbo answers with the last result, and raises the last error."""
    service = Service(4)
    answers = await world.call(service.cluster(Broadcast()), service)
    assert {str(endpoint): answer for endpoint, answer in answers.items()} == {each: each for each in service.addresses}
    service.does(0, Dead("zero")).does(2, Dead("two"))
    error = await world.error_of(service.cluster(Broadcast()), service)
    assert isinstance(error, BroadcastError)
    assert {str(endpoint): str(each) for endpoint, each in error.failed.items()} == {"e0:80": "zero", "e2:80": "two"}
    assert {str(endpoint) for endpoint in error.succeeded} == {"e1:80", "e3:80"}


@in_both_worlds
async def test_tried_replicas_are_not_tried_again_while_others_are_left(world: World) -> None:
    """Dubbo picks anew from all providers, and may come back to the one that has just failed."""
    for size in (2, 3, 5, 8):
        service = Service(size).all_do(Dead)
        cluster = service.cluster(Failover(retries=size - 1, budget=None))
        for _ in range(20):
            service.forget()
            await world.error_of(cluster, service)
            assert len(service.asked) == size
            assert distinct(service.asked)


@pytest.mark.parametrize(
    "strategy", [Failover(budget=None), Failsafe("saved"), Forking(2), Failfast()], ids=lambda each: each.name
)
def test_failures_of_async_calls_are_seen(strategy: object) -> None:
    """Dubbo's strategies look at what the invocation returns; an async one returns a future, which fails later, unseen:
    it is not tried again, not saved, not counted."""

    async def main() -> None:
        service = Service(3).all_do(slow(1, Dead))
        cluster = service.cluster(strategy)  # type: ignore[arg-type]
        with heard(FailedSafe) as saved:
            outcome = await cluster.arun(service.aio)
        if isinstance(strategy, Failsafe):
            assert (outcome.value, len(saved)) == ("saved", 1)
        else:
            assert isinstance(outcome.error, (Dead, ExceptionGroup))
        assert len(service.asked) == {"Failover": 3, "Forking": 2}.get(strategy.name, 1)  # type: ignore[attr-defined]
        at_rest(cluster)

    run(main)
