"""What a review found and is not to come back: shared winners, refused connections, probes, guards that are full."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from seawall import (
    Bulkhead,
    CircuitBreaker,
    Cluster,
    Ejection,
    Failover,
    Failsafe,
    Failsilent,
    Forking,
    Registry,
    Timeout,
)
from seawall.testing import VirtualClock, run


def cluster_of(count: int, **settings: Any) -> Cluster[Any]:
    return Cluster("stock", [f"e{number}:80" for number in range(count)], names=Registry(), **settings)


class Handle:
    """What several attempts may share: a client, a pool."""

    def __init__(self) -> None:
        self.closed = 0

    async def aclose(self) -> None:
        self.closed += 1

    def close(self) -> None:
        self.closed += 1


def test_the_object_of_the_winner_is_not_closed_because_a_loser_brought_it_too() -> None:
    shared = Handle()

    async def main() -> None:
        async def fetch(endpoint: object) -> Handle:
            await asyncio.sleep(1)
            return shared

        assert await cluster_of(3, strategy=Forking(3)).acall(fetch) is shared
        await asyncio.sleep(5)

    run(main)
    assert shared.closed == 0


def test_nor_is_a_class_closed_for_an_instance_of_it() -> None:
    async def main() -> None:
        async def fetch(endpoint: object) -> type[Handle]:
            await asyncio.sleep(1)
            return Handle

        assert await cluster_of(2, strategy=Forking(2)).acall(fetch) is Handle
        await asyncio.sleep(5)

    run(main)


class ClientsError(Exception):
    """As HTTP clients wrap what the system told them."""


def by_cause() -> Exception:
    error = ClientsError("connect failed")
    error.__cause__ = ConnectionRefusedError(111, "refused")
    return error


def by_attribute(name: str) -> Exception:
    error = ClientsError("connect failed")
    setattr(error, name, ConnectionRefusedError(111, "refused"))
    return error


@pytest.mark.parametrize("error", [by_cause(), by_attribute("os_error"), by_attribute("reason")])
def test_a_connection_that_was_refused_is_known_in_the_words_of_clients(error: Exception) -> None:
    def fetch(endpoint: Any) -> str:
        if endpoint.address != "e2:80":
            raise error
        return "well"

    with VirtualClock() as clock:
        for _ in range(10):
            assert cluster_of(3, strategy=Failover(budget=None)).call(fetch) == "well"
        assert clock.sleeps == []


def test_a_circle_of_causes_has_an_end() -> None:
    error = ClientsError("odd")
    error.__cause__ = error

    def fetch(endpoint: object) -> None:
        raise error

    with VirtualClock(), pytest.raises(ClientsError):
        cluster_of(2).call(fetch)


def test_the_default_of_a_failsafe_reads_the_error_before_it_is_closed() -> None:
    class Answered(Exception):
        def __init__(self) -> None:
            super().__init__()
            self.open = True

        def close(self) -> None:
            self.open = False

    raised = Answered()

    def fetch(endpoint: object) -> bool:
        raise raised

    def still_open(error: Exception) -> bool:
        return isinstance(error, Answered) and error.open

    assert cluster_of(1, strategy=Failsafe(still_open)).call(fetch) is True
    assert not raised.open


def test_explain_tells_of_a_probe_that_is_due() -> None:
    def fail(endpoint: object) -> None:
        raise TimeoutError

    with VirtualClock() as clock:
        cluster = cluster_of(1, strategy=Failsilent(Ejection(consecutive=1)))
        with pytest.raises(TimeoutError):
            cluster.call(fail)
        assert "nothing would be sent" in cluster.explain()
        clock.advance("40s")
        assert "The next call would be a probe of an endpoint that was ejected" in cluster.explain()


def test_explain_tells_of_guards_that_are_full() -> None:
    cluster = cluster_of(1, each=(Bulkhead(1), Timeout(1)))
    with cluster["e0:80"].guard():
        assert (
            "The next call would be refused, and nothing sent: the guards of all 1 endpoints refuse."
            in cluster.explain()
        )
        assert "e0:80 is full" in cluster.explain()


def test_lint_finds_a_stagger_that_never_comes() -> None:
    each = (CircuitBreaker(), Timeout("1s"))
    assert "stagger-timeout" in {f.rule for f in cluster_of(2, strategy=Forking(stagger="2s"), each=each).lint()}
    assert "stagger-timeout" not in {f.rule for f in cluster_of(2, strategy=Forking(stagger="50ms"), each=each).lint()}
