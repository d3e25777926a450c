"""`lint` of a cluster under `Failback`: what it tries first is looked at, and what hides that nothing was stored."""

from __future__ import annotations

from seawall import Cluster, Failback, Failfast, Failover, Fallback, MemoryOutbox, Registry, Retry, Timeout


def rules(cluster: Cluster[Failback]) -> set[str]:
    return {finding.rule for finding in cluster.lint()}


def test_what_stands_around_a_failback_is_found() -> None:
    cluster = Cluster(
        "audit",
        ["a:80", "b:80"],
        strategy=Failback(MemoryOutbox(), after=Failfast()),
        each=(Timeout("100ms"),),
        around=(Fallback("lost"), Retry(on=OSError)),
        names=Registry(),
    )
    found = [finding for finding in cluster.lint() if finding.rule == "layer-around-failback"]
    assert {finding.layer for finding in found} == {"Fallback", "Retry"}


def test_the_strategy_inside_is_looked_at() -> None:
    inner = Failback(MemoryOutbox(), after=Failover(budget=None))
    cluster = Cluster("audit", ["a:80"], strategy=inner, names=Registry())
    assert {"no-timeout", "no-budget", "one-endpoint"} <= rules(cluster)
    sound = Failback(MemoryOutbox())
    assert not rules(Cluster("audit", ["a:80", "b:80"], strategy=sound, each=(Timeout(1),), names=Registry()))
