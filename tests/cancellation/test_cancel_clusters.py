"""A call through a cluster that is cancelled anywhere leaves nothing in flight, no permit and no probe out, and no mark
on the health of anybody."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from seawall import (
    Broadcast,
    BroadcastError,
    Bulkhead,
    CircuitBreaker,
    Cluster,
    Ejection,
    Failfast,
    Failover,
    Failsafe,
    Failsilent,
    Fallback,
    Forking,
    Hedge,
    NoEndpoints,
    Retry,
    Timeout,
    deadline,
    events,
)
from seawall.context import CURRENT
from seawall.policies.circuit_breaker import BreakerGuard
from seawall.testing import Victim, cancel_everywhere, hang, slow
from tests.cluster.service import Dead, Service, at_rest

LAX = Ejection(None, failure_rate=1.0, min_calls=10_000, window="10h")
"""Counts and never ejects."""
STRICT = Ejection(consecutive=1, out_for=10)
TROUBLE = (OSError, ExceptionGroup, BroadcastError, NoEndpoints)


class Counted(Service):
    """Also counts how the attempts at each replica ended, as far as they ended by themselves."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.ended: dict[str, list[bool]] = {address: [] for address in self.addresses}

    async def aio(self, endpoint: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            value = await super().aio(endpoint, *args, **kwargs)
        except Exception:
            self.ended[endpoint.address].append(False)
            raise
        self.ended[endpoint.address].append(True)
        return value


Form = Callable[[Cluster[Any], Counted], Awaitable[Any]]


async def by_acall(cluster: Cluster[Any], service: Counted) -> Any:
    return await cluster.acall(service.aio)


async def by_arun(cluster: Cluster[Any], service: Counted) -> Any:
    return (await cluster.arun(service.aio)).unwrap()


async def by_decorator(cluster: Cluster[Any], service: Counted) -> Any:
    @cluster
    async def decorated(endpoint: Any) -> Any:
        return await service.aio(endpoint)

    return await decorated()


async def by_abroadcast(cluster: Cluster[Any], service: Counted) -> Any:
    return await cluster.abroadcast(service.aio)


async def under_a_deadline(cluster: Cluster[Any], service: Counted) -> Any:
    with deadline(0.45):
        return await cluster.acall(service.aio)


async def in_a_timeout(cluster: Cluster[Any], service: Counted) -> Any:
    async with asyncio.timeout(0.25):
        return await cluster.acall(service.aio)


FORMS: dict[str, Form] = {
    "acall": by_acall,
    "arun": by_arun,
    "decorated": by_decorator,
    "deadline": under_a_deadline,
    "asyncio.timeout": in_a_timeout,
}
STRATEGIES: dict[str, Any] = {
    "failover": Failover(base=0.2, cap=0.2, budget=None),
    "failfast": Failfast(),
    "failsafe": Failsafe("saved"),
    "failsilent": Failsilent(LAX),
    "forking": Forking(2),
    "forking all": Forking("all"),
    "forking staggered": Forking(3, stagger=0.1, budget=None),
    "forking by quantile": Forking(2, stagger="p95"),
    "broadcast": Broadcast(2),
}
STEPS: dict[str, tuple[tuple[object, ...], ...]] = {
    "well": ((slow(0.1, "well"),), (slow(0.1, "well"),), (slow(0.2, "well"),)),
    "failing": ((slow(0.1, Dead),), (Dead,), (slow(0.3, "well"),)),
    "hanging": ((hang,), (slow(0.1, Dead), hang), (slow(0.4, "well"),)),
}


def service_of(steps: str) -> Counted:
    service = Counted(3)
    for number, played in enumerate(STEPS[steps]):
        service.does(number, *played, then="cycle")
    return service


CASES = [
    *(("acall", steps) for steps in STEPS),
    ("arun", "failing"),
    ("decorated", "failing"),
    ("deadline", "hanging"),
    ("asyncio.timeout", "hanging"),
]


@pytest.mark.parametrize(("form", "steps"), CASES)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_nothing_stays_behind_and_nobody_is_blamed(strategy: str, steps: str, form: str) -> None:
    each = (CircuitBreaker(None, consecutive=50), Bulkhead(1, queue=2, max_wait=None), Timeout(0.35, name="attempt"))
    run_everywhere(strategy, steps, FORMS[form], each=each, twice=form == "acall" and steps == "failing")


@pytest.mark.parametrize("steps", STEPS)
def test_broadcast_in_short(steps: str) -> None:
    run_everywhere(
        "failover", steps, by_abroadcast, each=(Bulkhead(1, queue=2, max_wait=None), Timeout(0.35, name="attempt"))
    )


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_without_guards(strategy: str) -> None:
    run_everywhere(strategy, "failing", by_acall, each=())


@pytest.mark.parametrize("strategy", ["failover", "failsafe", "forking staggered", "broadcast"])
def test_with_layers_around(strategy: str) -> None:
    around = (Fallback("cached"), Timeout(0.5, name="total"), Retry(on=TROUBLE, delay=0.05, budget=None))
    run_everywhere(strategy, "failing", by_acall, each=(Bulkhead(1, queue=1, max_wait=None),), around=around)


def test_with_a_hedge_in_each() -> None:
    each = (Hedge(0.1, budget=None), Timeout(0.35, name="attempt"))
    run_everywhere("failover", "hanging", by_acall, each=each, counted=False)


def run_everywhere(
    strategy: str, steps: str, form: Form, *, twice: bool = False, counted: bool = True, **settings: Any
) -> None:
    """`counted`: whether each call of the function is an attempt of the cluster."""

    async def scenario(victim: Victim) -> None:
        service = service_of(steps)
        cluster = service.cluster(STRATEGIES[strategy], ejection=LAX, **settings)
        timeouts: list[events.TimedOut] = []
        failures: list[events.AttemptFailed] = []
        stops = [
            events.subscribe(timeouts.append, events.TimedOut),
            events.subscribe(failures.append, events.AttemptFailed),
        ]
        try:
            holder = asyncio.create_task(_hold(cluster.using(Failfast()), service))
            await asyncio.sleep(0.001)
            with contextlib.suppress(*TROUBLE, TimeoutError):
                await victim(_watched(form, cluster, service, victim))
            await holder
            await asyncio.sleep(60)
        finally:
            for stop in stops:
                stop()
        assert service.running == 0, "something still runs"
        at_rest(cluster)
        if counted:
            _nobody_is_blamed(cluster, service, timeouts)
        assert not any(isinstance(event.error, asyncio.CancelledError) for event in failures), "told as a failure"

    assert cancel_everywhere(scenario, twice=twice) >= 3


def _nobody_is_blamed(cluster: Cluster[Any], service: Counted, timeouts: list[events.TimedOut]) -> None:
    """What ended by itself or by the timeout of the attempt is counted, and nothing else."""
    for member in cluster._core.directory.members:
        policy = f"stock[{member.endpoint}]"
        late = sum(event.policy == policy and event.layer == "attempt" and not event.inherited for event in timeouts)
        ends = service.ended[str(member.endpoint)]
        expected = len(ends) + late, ends.count(False) + late
        for _, health in member.healths:
            health.roll(60_000_000_000)
            counts = health.window.calls, health.window.failed
            assert counts == expected, f"{member}: {counts} are counted, {expected} were"
        for layer in member.policy.layers:
            if isinstance(layer, BreakerGuard):
                assert layer.snapshot()["failed"] <= expected[1], "a breaker counted a cancellation"


async def _hold(cluster: Cluster[Any], service: Counted) -> None:
    """Somebody else's call, so that there is a permit to wait for."""
    with contextlib.suppress(*TROUBLE):
        await cluster.acall(service.aio)


async def _watched(form: Form, cluster: Cluster[Any], service: Counted, victim: Victim) -> Any:
    """The victim's call; on its way out the task and its context are as they were."""
    task, context = asyncio.current_task(), CURRENT.get()
    assert task is not None
    try:
        return await form(cluster, service)
    finally:
        assert CURRENT.get() is context, "the context of the call is still in force"
        assert task.cancelling() == len(victim.stood), "requests to cancel are lost or left over"


PROBING = {
    "failfast": Failfast(),
    "failover": Failover(base=0.2, cap=0.2, budget=None),
    "failsafe": Failsafe(),
    "failsilent": Failsilent(STRICT),
    "forking": Forking(2),
    "forking staggered": Forking(2, stagger=0.1, budget=None),
    "broadcast": Broadcast(1),
}


@pytest.mark.parametrize("strategy", PROBING)
def test_a_cancelled_probe_is_given_to_the_next_call(strategy: str) -> None:
    """The endpoint is back in the traffic as soon as somebody calls again."""

    async def scenario(victim: Victim) -> None:
        service = Counted(2)
        service.does(0, Dead, slow(0.2, "well"))
        service.does(1, slow(0.2, "well"))
        cluster = service.cluster(PROBING[strategy], ejection=STRICT)
        await asyncio.sleep(1)
        for _ in range(2):
            await cluster.arun(service.aio)
            await asyncio.sleep(1)
        assert cluster.snapshot()["endpoints"][0]["standing"] == "out"
        await asyncio.sleep(12)
        await victim(cluster.acall(service.aio))
        await asyncio.sleep(0.3)
        at_rest(cluster)
        if strategy != "broadcast":
            await cluster.acall(service.aio)
            await asyncio.sleep(0.3)
            assert [each["standing"] for each in cluster.snapshot()["endpoints"]] == ["in", "in"]
        at_rest(cluster)

    assert cancel_everywhere(scenario, twice=True) > 2


@pytest.mark.parametrize("strategy", PROBING)
def test_a_cancelled_probe_of_a_breaker_comes_home(strategy: str) -> None:
    async def scenario(victim: Victim) -> None:
        service = Counted(2).all_do(slow(0.2, "well"))
        cluster = service.cluster(PROBING[strategy], each=(CircuitBreaker(consecutive=1, open_for=1, probes=1),))
        service.all_do(Dead)
        await cluster.using(Broadcast()).arun(service.aio)
        service.all_do(slow(0.2, "well"))
        await asyncio.sleep(2)
        with contextlib.suppress(*TROUBLE):
            await victim(cluster.acall(service.aio))
        await asyncio.sleep(1)
        at_rest(cluster)
        for _ in range(4):
            await cluster.acall(service.aio)
            await asyncio.sleep(0.3)
        assert not any(each["breaker_refuses"] for each in cluster.snapshot()["endpoints"])
        at_rest(cluster)

    assert cancel_everywhere(scenario, twice=True) > 2


def test_a_lookup_that_is_waited_for_may_be_cancelled() -> None:
    """In virtual time it does not wait; the call around it does all the same."""

    async def scenario(victim: Victim) -> None:
        service = Counted(2)
        cluster = Cluster("stock", lambda: service.addresses, each=(Bulkhead(1),))
        await victim(cluster.acall(service.aio))
        assert await cluster.acall(service.aio) in service.addresses
        at_rest(cluster)

    assert cancel_everywhere(scenario) > 2


def test_the_bench_sees_what_is_left_in_flight() -> None:
    service = Counted(2)
    cluster = service.cluster(Failover())
    member = cluster._core.directory.members[0]
    member.flying.append(None)
    with pytest.raises(AssertionError):

        async def look() -> None:
            at_rest(cluster)

        asyncio.run(look())
