"""What the views of one cluster share: its members, their rosters, its threads, and the settings it was made with."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

from seawall.cluster.balancers import Balancer
from seawall.cluster.calls import Calls
from seawall.cluster.directory import Directory
from seawall.cluster.ejection import Ejection
from seawall.cluster.endpoint import Endpoint
from seawall.cluster.reading import PlainTerms
from seawall.cluster.roster import Roster
from seawall.cluster.sources import Endpoints, source_of
from seawall.cluster.strategy import Strategy
from seawall.errors import ConfigError
from seawall.machines.ejection import Rules
from seawall.policies.classify import Errors, matcher
from seawall.policies.spec import Spec
from seawall.policy import Policy
from seawall.runtime import forks
from seawall.runtime.thread_legs import Pool
from seawall.units import count_of

__all__ = ["Core"]

MOST_STRATEGIES = 64
"""How many strategies keep a live half; beyond that the one unused for longest starts anew."""
MOST_RULES = 64
"""How many different rules of ejection there may be: each has a record of the health of every endpoint."""


class Core:
    """One cluster, without a strategy."""

    def __init__(
        self,
        name: str,
        endpoints: Endpoints,
        *,
        each: Sequence[Spec | Policy],
        around: Sequence[Spec | Policy],
        balancer: Balancer,
        ejection: Ejection | None,
        on: Errors | None,
        max_threads: int,
    ) -> None:
        if not isinstance(name, str) or not name:  # pyright: ignore[reportUnnecessaryIsInstance]  # callers without a type checker
            raise ConfigError(f"Cluster(name={name!r}): expected a text")
        if not isinstance(balancer, Balancer):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ConfigError(f"Cluster(balancer={balancer!r}): expected PowerOfTwo(), RoundRobin() or Random()")
        if ejection is not None and not isinstance(ejection, Ejection):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ConfigError(f"Cluster(ejection={ejection!r}): expected Ejection(...)")
        self.name = name
        self.each = _layers(each, "each")
        self.around_specs = _layers(around, "around")
        self.balancer = balancer
        self.ejection = ejection
        self.on = on
        self.terms = PlainTerms(None if on is None else matcher(on, "Cluster(on)", refusals=False))
        source = source_of(endpoints)
        if source == ():
            raise ConfigError(f"Cluster({name!r}, endpoints=[]): expected at least one endpoint")
        self.given_endpoints: Endpoints = source
        self.template = Policy(*self.each, name=name)  # finds wrong layers before the first endpoint needs them
        self.directory = Directory(name, source, self._policy_of)
        self.pool = Pool(name, count_of(max_threads, "Cluster(max_threads)", most=10_000))
        self.around = Policy(*self.around_specs, name=name) if self.around_specs else None
        self._rosters: dict[Rules | None, Roster] = {}
        self._calls: dict[Strategy[Any], Calls] = {}
        self._lock = threading.RLock()
        forks.renew_after_fork(self)

    def renew_after_fork(self) -> None:
        self._lock = threading.RLock()

    def _policy_of(self, endpoint: Endpoint) -> Policy:
        return Policy(*self.each, name=f"{self.name}[{endpoint.address}]")

    def calls_for(self, strategy: Strategy[Any]) -> Calls:
        """The calls under a strategy: the same for equal ones."""
        with self._lock:
            calls = self._calls.pop(strategy, None)
            if calls is None:
                live = strategy.live(self.name)
                roster = self._roster_for(live.ejection or self.ejection, strict=live.strict)
                calls = Calls(self.directory, roster, live, self.pool, self.terms, self.around)
            self._calls[strategy] = calls
            while len(self._calls) > MOST_STRATEGIES:
                self._calls.pop(next(iter(self._calls)), None)
            return calls

    def _roster_for(self, ejection: Ejection | None, *, strict: bool) -> Roster:
        rules = None if ejection is None else ejection.rules(strict=strict)
        roster = self._rosters.get(rules)
        if roster is None:
            if len(self._rosters) == MOST_RULES:
                raise ConfigError(f"{self.name}: more than {MOST_RULES} different rules of ejection")
            roster = self._rosters[rules] = Roster(self.directory, self.balancer, rules)
            self.directory.rosters.append(roster)
        return roster

    def snapshot(self, calls: Calls) -> dict[str, Any]:
        """What is going on, endpoint by endpoint, as JSON-ready values."""
        roster = calls.roster
        return {
            "cluster": self.name,
            "strategy": {"kind": calls.strategy.kind, "name": calls.strategy.name, **calls.strategy.snapshot()},
            "panic": roster.panic,
            "ejections": roster.ejections,
            "threads_in_use": self.pool.in_use,
            "failed_lookups": self.directory.failed_lookups,
            "last_problem": self.directory.last_problem,
            "around": None if self.around is None else self.around.snapshot(),
            "endpoints": [
                {
                    "address": member.endpoint.address,
                    "weight": member.endpoint.weight,
                    "in_flight": len(member.flying),
                    "breaker_refuses": member.refuses,
                    **roster.standing(member),
                    "policy": member.policy.snapshot(),
                }
                for member in self.directory.members
            ],
        }


def _layers(layers: Sequence[Spec | Policy], field: str) -> tuple[Spec | Policy, ...]:
    if isinstance(layers, (Spec, Policy)) or not isinstance(layers, Sequence):  # pyright: ignore[reportUnnecessaryIsInstance]  # callers without a type checker
        raise ConfigError(f"Cluster({field}={layers!r}): expected a tuple of layers, such as ({layers!r},)")
    if any(isinstance(layer, Strategy) for layer in layers):
        raise ConfigError(f"Cluster({field}={layers!r}): a strategy is no layer; give it as strategy=")
    return tuple(layers)
