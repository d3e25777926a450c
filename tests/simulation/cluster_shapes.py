"""Clusters of many shapes, and views of them under every strategy, all of them sensible, drawn from a seed."""

from __future__ import annotations

from random import Random
from typing import Any, NamedTuple

from seawall import (
    Broadcast,
    Bulkhead,
    CircuitBreaker,
    Cluster,
    Ejection,
    Endpoint,
    Failfast,
    Failover,
    Failsafe,
    Failsilent,
    Fallback,
    Forking,
    PowerOfTwo,
    RetryBudget,
    RoundRobin,
    Timeout,
)
from seawall import Random as RandomBalancer
from seawall.policies.registry import Registry
from seawall.policies.spec import Spec

__all__ = ["DEGRADED", "Shape", "draw"]

DEGRADED = -1


class Shape(NamedTuple):
    """One cluster with its views, and what a test has to know about it."""

    cluster: Cluster[Any]
    views: list[Cluster[Any]]
    total: float | None
    """Seconds within which every call ends; None if nothing around limits it."""


def draw(random: Random, name: str, addresses: list[str]) -> Shape:
    total = random.choice((None, None, None, 1.5))
    around: list[Spec] = [Fallback(DEGRADED)] if random.random() < 0.2 else []
    if total is not None:
        around.append(Timeout(total, name="total"))
    endpoints: list[str | Endpoint] = list(addresses)
    if random.random() < 0.3:
        endpoints = [Endpoint(address, weight=random.randrange(1, 4)) for address in addresses]
    cluster: Cluster[Any] = Cluster(
        name,
        endpoints,
        strategy=_failover(random),
        each=_each(random),
        around=around,
        balancer=random.choice((PowerOfTwo, RoundRobin, RandomBalancer))(slow_start=random.choice((0, 10))),
        ejection=random.choice((None, _ejection(random))),
        names=Registry(),
    )
    return Shape(cluster, [cluster, *(cluster.using(each) for each in _strategies(random))], total)


def _each(random: Random) -> list[Spec]:
    layers: list[Spec] = []
    if random.random() < 0.5:
        layers.append(
            CircuitBreaker(
                0.5,
                min_calls=random.choice((1, 3)),
                consecutive=random.choice((None, 2)),
                open_for=random.choice((0.2, 1)),
                probes=random.choice((1, 2)),
                probe_lease=random.choice((0.5, 60)),
            )
        )
    if random.random() < 0.4:
        queue = random.choice((0, 0, 2))
        layers.append(Bulkhead(random.choice((1, 2)), queue=queue, max_wait=0.1 if queue else 0))
    if random.random() < 0.7:
        layers.append(Timeout(random.choice((0.2, 0.5)), name="attempt"))
    return layers


def _ejection(random: Random) -> Ejection:
    return Ejection(
        random.choice((1, 2, None)),
        failure_rate=0.5,
        min_calls=random.choice((1, 3)),
        window=random.choice((1, 30)),
        out_for=random.choice((0.2, 1, 5)),
        longest=random.choice((5, 20)),
        probe_lease=random.choice((0.3, 60)),
    )


def _failover(random: Random) -> Failover:
    budget = random.choice((None, RetryBudget(), RetryBudget(0.3, per_second=0)))
    return Failover(random.choice((1, 2, 4)), base=0.05, cap=0.2, budget=budget)


def _strategies(random: Random) -> list[Any]:
    budget = random.choice((None, RetryBudget(0.1, per_second=1), RetryBudget(0.5, per_second=0, window=2)))
    return [
        Failfast(),
        Failsafe(DEGRADED),
        Failsilent(_ejection(random)),
        Forking(random.choice((2, 3))),
        Forking(random.choice((2, 4)), stagger=random.choice((0.02, 0.1, "p90")), budget=budget, name="staggered"),
        Broadcast(random.choice(("all", "majority", 1))),
    ]
