"""A service of several replicas for tests: a script for each, and a record of who was asked, when and in which context."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, NamedTuple

from seawall import Bulkhead, Cluster, Endpoint, Policy, RoundRobin, current, remaining
from seawall.cluster.balancers import Balancer
from seawall.cluster.strategy import Strategy
from seawall.machines.gate import GatePermit
from seawall.policies.registry import Registry
from seawall.runtime import clock
from seawall.testing import Script, returns
from tests.cancellation.bench import everything_is_home
from tests.policies.worlds import until

__all__ = ["SIZES", "Asked", "Dead", "Service", "at_rest", "chosen_first", "distinct", "filled"]

SIZES = (1, 2, 5, 500)
"""So many endpoints must be served alike."""


class Dead(ConnectionError):
    """A replica is dead."""


class Asked(NamedTuple):
    """One attempt, as the replica sees it."""

    address: str
    when: float
    attempt: int
    left: float | None
    """Seconds until the deadline."""


class Service:
    """Called as the function of a cluster. A replica answers with its address until it is told otherwise."""

    def __init__(self, size: int = 3) -> None:
        self.addresses = [f"e{number}:80" for number in range(size)]
        self.scripts = {address: Script(returns(address)) for address in self.addresses}
        self.attempts: list[Asked] = []

    def does(self, number: int, *steps: object, then: Literal["repeat", "cycle", "fail"] = "repeat") -> Service:
        """From now on the replica of that number plays these steps; none for its address."""
        address = self.addresses[number]
        self.scripts[address] = Script(*(steps or (returns(address),)), then=then)
        return self

    def all_do(self, *steps: object, then: Literal["repeat", "cycle", "fail"] = "repeat") -> Service:
        for number in range(len(self.addresses)):
            self.does(number, *steps, then=then)
        return self

    def cluster(self, strategy: Strategy[Any], **settings: Any) -> Cluster[Any]:
        """A fresh cluster of these replicas, asked in turn and known to this test only."""
        settings = {"balancer": RoundRobin(slow_start=0), "names": Registry(), **settings}
        return Cluster("stock", self.addresses, strategy=strategy, **settings)

    def __call__(self, endpoint: Endpoint, *args: Any, **kwargs: Any) -> Any:
        self._note(endpoint)
        return self.scripts[endpoint.address](*args, **kwargs)

    async def aio(self, endpoint: Endpoint, *args: Any, **kwargs: Any) -> Any:
        self._note(endpoint)
        return await self.scripts[endpoint.address].aio(*args, **kwargs)

    def _note(self, endpoint: Endpoint) -> None:
        self.attempts.append(Asked(endpoint.address, clock.now_ns() / 1e9, current().attempt, remaining()))

    @property
    def asked(self) -> list[str]:
        """The addresses that were asked, in order."""
        return [attempt.address for attempt in self.attempts]

    @property
    def times(self) -> list[float]:
        return [attempt.when for attempt in self.attempts]

    @property
    def numbers(self) -> list[int]:
        """The numbers of the attempts, as their context had them."""
        return [attempt.attempt for attempt in self.attempts]

    @property
    def running(self) -> int:
        return sum(script.running for script in self.scripts.values())

    def forget(self) -> None:
        """Begin a new record."""
        self.attempts.clear()


def at_rest(cluster: Cluster[Any], *views: Cluster[Any]) -> None:
    """Nothing is in flight, no permit is out, no thread of the cluster works and no probe is under way.

    Threads that lost a race are given time to end.
    """
    if not _in_a_loop():
        until(lambda: not any(_restless(view) for view in (cluster, *views)))
    assert [_restless(view) for view in (cluster, *views)] == [[]] * (1 + len(views))
    for endpoint in cluster.endpoints:
        everything_is_home(cluster[endpoint])


def _restless(cluster: Cluster[Any]) -> list[str]:
    shot = cluster.snapshot()
    busy = [f"{shot['threads_in_use']} threads work"] if shot["threads_in_use"] else []
    for each in shot["endpoints"]:
        if each["in_flight"] or each["standing"] == "probing":
            busy.append(f"{each['address']}: {each['in_flight']} in flight, {each['standing']}")
    return busy


def _in_a_loop() -> bool:
    return asyncio._get_running_loop() is not None


def distinct(addresses: Sequence[str]) -> bool:
    return len(set(addresses)) == len(addresses)


def filled(cluster: Cluster[Any], *addresses: str) -> Callable[[], None]:
    """Take the permits of the bulkheads of these endpoints; returns what gives them back, which may be called again."""
    taken = [
        (cluster[address][Bulkhead]._gate, permit) for address in addresses for permit in _permits(cluster[address])
    ]

    def give_back() -> None:
        while taken:
            gate, permit = taken.pop()
            gate.release(permit)

    return give_back


def _permits(policy: Policy) -> Iterator[GatePermit]:
    gate = policy[Bulkhead]._gate
    while (permit := gate.take()) is not None:
        yield permit


class _Liking(Balancer):
    __slots__ = ("address",)

    address: str

    def __init__(self, address: str) -> None:
        super().__init__(slow_start=0)
        object.__setattr__(self, "address", address)

    def picker(self) -> Any:
        return self

    def pick(self, crowd: Any, random: Callable[[], float]) -> Any:
        liked = [seat for seat in crowd.members if str(seat.endpoint) == self.address]
        return (liked or crowd.members)[0]


def chosen_first(address: str) -> Balancer:
    """A balancer that likes one endpoint, and then the first."""
    return _Liking(address)
