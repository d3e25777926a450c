"""Which cluster serves a host: those that a client was given, or all that are registered."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, cast

from seawall.cluster import Cluster, Failsafe
from seawall.errors import ConfigError
from seawall.http.target import target_of
from seawall.policies.registry import Registry, registry
from seawall.units import given

__all__ = ["Clusters", "Names"]

Clusters = Cluster[Any] | Iterable[Cluster[Any]] | Mapping[str, Cluster[Any]] | Registry
"""A cluster or several, each serving the host of its name; hosts and their clusters; or a registry."""

EXPECTED = "clusters, a mapping of hosts to clusters, or a registry"
NO_RESPONSE = {"broadcast": "answers with one value for each endpoint", "failback": "answers later"}
"""Kinds of strategies that a request cannot have, and why."""


class Names:
    """Finds the cluster of a host. Hosts are compared without regard to case, as in URLs.

    Raises `ConfigError` for what are no clusters, for those whose strategy cannot give a response, and for endpoints
    whose address is no base URL. Clusters of a registry are looked at when they are asked for.
    """

    def __init__(self, clusters: Clusters | None, field: str) -> None:
        self._registry = registry if clusters is None else clusters if isinstance(clusters, Registry) else None
        self._fit: dict[str, Cluster[Any]] = {}
        self._given: dict[str, Cluster[Any]] = {}
        if self._registry is not None:
            return
        for host, cluster in _pairs(clusters, field):
            if not isinstance(cluster, Cluster):  # pyright: ignore[reportUnnecessaryIsInstance]  # callers without a type checker
                raise ConfigError(f"{given(field, clusters)}: expected {EXPECTED}")
            if host.lower() in self._given:
                raise ConfigError(f"{field}: two clusters for the host {host!r}")
            check_fit(cluster)
            self._given[host.lower()] = cluster

    def find(self, host: str) -> Cluster[Any] | None:
        """The cluster of a host; None if it has none."""
        if self._registry is None:
            return self._given.get(host.lower())
        known = self._registry.clusters
        cluster = known.get(host) or next((known[name] for name in list(known) if name.lower() == host.lower()), None)
        if cluster is not None and self._fit.get(host) is not cluster:
            check_fit(cluster)
            self._fit[host] = cluster
        return cluster


def _pairs(clusters: Any, field: str) -> list[tuple[str, Cluster[Any]]]:
    if isinstance(clusters, Cluster):
        return [(clusters.name, clusters)]
    if isinstance(clusters, Mapping):
        return [(str(host), cluster) for host, cluster in cast("Mapping[object, Cluster[Any]]", clusters).items()]
    if isinstance(clusters, (str, bytes)) or not isinstance(clusters, Iterable):
        raise ConfigError(f"{given(field, clusters)}: expected {EXPECTED}")
    several = cast("Iterable[Cluster[Any]]", clusters)
    return [(str(getattr(cluster, "name", "")), cluster) for cluster in several]


def check_fit(cluster: Cluster[Any]) -> None:
    """Raise `ConfigError` if requests cannot go through this cluster."""
    kind = cluster.calls.strategy.kind
    if kind in NO_RESPONSE:
        hint = "choose another for requests, with cluster.using(...)"
        raise ConfigError(
            f"{cluster.name}: {cluster.strategy!r} {NO_RESPONSE[kind]}, a request needs a response; {hint}"
        )
    strategy: object = cluster.strategy
    if isinstance(strategy, Failsafe) and not callable(getattr(cluster.strategy, "default", None)):
        hint = "give it a function of the error that makes one, such as lambda error: httpx.Response(204)"
        raise ConfigError(f"{cluster.name}: the default of {strategy!r} is no response; {hint}")
    for endpoint in cluster.endpoints:
        target_of(endpoint)
