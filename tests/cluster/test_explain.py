"""`cluster.explain()` and `snapshot()`: what the next call would do, and why, endpoint by endpoint."""

from __future__ import annotations

import json
from typing import Any

import pytest

from seawall import (
    Broadcast,
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
    RetryBudget,
    Timeout,
    disable,
    enable,
)
from seawall.policies.registry import Registry
from seawall.testing import VirtualClock
from tests.cluster.service import Dead, Service

STRATEGIES: dict[str, tuple[Any, str]] = {
    "failover": (
        Failover(2, budget=None),
        "Failover: after a failure it makes up to 2 more attempts elsewhere, without a budget.",
    ),
    "one retry": (
        Failover(1, budget=None),
        "Failover: after a failure it makes up to 1 more attempt elsewhere, without a budget.",
    ),
    "budget": (Failover(budget=RetryBudget(0, per_second=1)), "attempts elsewhere; its budget has 10 left."),
    "no budget left": (
        Failover(budget=RetryBudget(0, per_second=0)),
        "its budget is empty, so a failure would be final.",
    ),
    "failfast": (Failfast(), "Failfast: a call is one attempt, and its error is raised at once."),
    "failsafe": (Failsafe(), "Failsafe: an error is recorded (0 so far) and the default is the answer."),
    "failsilent": (
        Failsilent(Ejection(consecutive=1)),
        "Failsilent: silent endpoints get no traffic; when all are silent, a call fails at once.",
    ),
    "forking": (Forking(2), "Forking: 2 endpoints are asked at once, and the first good answer is taken."),
    "forking all": (Forking("all"), "Forking: all endpoints are asked at once, and the first good answer is taken."),
    "staggered": (
        Forking(2, stagger="50ms"),
        "up to 2 endpoints are asked, the next one after 50 ms of silence, or at once when one fails.",
    ),
    "by quantile": (
        Forking(2, stagger="p95"),
        "the next one as soon as enough is known to call one slow, or at once when one fails.",
    ),
    "one": (Forking(1), "Forking: 1 endpoint is asked at once"),
    "all, staggered": (
        Forking("all", stagger=1),
        "Forking: all endpoints are asked, the next one after 1 s of silence, or at once when one fails.",
    ),
    "broadcast": (Broadcast(), "Broadcast: every endpoint is called, and all of them must succeed."),
    "majority": (Broadcast("majority"), "most of them must succeed."),
    "quorum": (Broadcast(2), "2 of them must succeed."),
}


@pytest.mark.parametrize("name", STRATEGIES)
def test_each_strategy_has_its_sentence(name: str) -> None:
    strategy, sentence = STRATEGIES[name]
    said = Service(3).cluster(strategy).explain()
    assert said.startswith("stock: The next call would ")
    assert sentence in said
    assert "3 of 3 endpoints are usable" in said


def test_what_keeps_an_endpoint_from_being_chosen() -> None:
    with VirtualClock() as time:
        service = Service(6).does(0, Dead)
        cluster = service.cluster(
            Failfast(), each=(CircuitBreaker(consecutive=9, open_for=20),), ejection=Ejection(consecutive=1, out_for=10)
        )
        for _ in range(6):
            cluster.run(service)
        cluster["e1:80"][CircuitBreaker].force_open()
        said = cluster.explain()
        assert "The next call would be made; 4 of 6 endpoints are usable." in said
        left = cluster.snapshot()["endpoints"][0]["retry_after"]
        assert 8 <= left <= 12
        assert f"Not usable: e0:80 is ejected for another {left:.3g} s; e1:80 has an open breaker." in said
        time.advance(12)
        assert "Not usable: e0:80 awaits a probe; e1:80 has an open breaker." in cluster.explain()


def test_a_breaker_says_for_how_long() -> None:
    with VirtualClock():
        service = Service(3).does(0, Dead)
        cluster = service.cluster(Failfast(), each=(CircuitBreaker(consecutive=1, open_for=20),))
        for _ in range(3):
            cluster.run(service)
        wait = cluster["e0:80"][CircuitBreaker].snapshot()["retry_after"]
        assert f"Not usable: e0:80 has an open breaker for another {wait:.3g} s." in cluster.explain()


def test_a_probe_under_way() -> None:
    with VirtualClock() as time:
        service = Service(2).does(0, Dead)
        cluster = service.cluster(Failfast(), ejection=Ejection(consecutive=1, out_for=10))
        for _ in range(2):
            cluster.run(service)
        time.advance(12)
        said: list[str] = []
        service.does(0)
        cluster.call(lambda endpoint: said.append(cluster.explain()))
        assert "e0:80 is being probed" in said[0]
        assert "1 of 2 endpoints is usable" in said[0]
        assert "Not usable" not in cluster.explain()


def force_open(cluster: Cluster[Any], *numbers: int) -> None:
    for number in numbers:
        cluster[f"e{number}:80"][CircuitBreaker].force_open()


def test_panic_refusals_and_silence() -> None:
    cluster = Service(5).cluster(Failfast(), each=(CircuitBreaker(),))
    silent = cluster.using(Failsilent())
    force_open(cluster, 0, 1, 2)
    assert "2 of 5 endpoints are usable, too few to be choosy, so health is ignored." in cluster.explain()
    assert "too few" not in silent.explain(), "silence is never ignored"
    force_open(cluster, 3, 4)
    assert "of all 5 endpoints refuse." in cluster.explain()
    assert "The next call would fail at once, and nothing would be sent" in silent.explain()


def test_a_long_list_of_troubles_is_cut_short() -> None:
    cluster = Service(20).cluster(Failfast(), each=(CircuitBreaker(),))
    force_open(cluster, *range(8))
    said = cluster.explain()
    assert said.count("has an open breaker") == 5
    assert "; and 3 more." in said


def test_a_broadcast_goes_to_all_whatever_their_health() -> None:
    cluster = Service(3).cluster(Broadcast(), each=(CircuitBreaker(),))
    force_open(cluster, 1)
    said = cluster.explain()
    assert "The next call would go to all 3 endpoints (2 of 3 endpoints are usable)." in said


def test_layers_around_are_explained_too() -> None:
    cluster = Service(2).cluster(Failfast(), around=(Fallback("cached"), CircuitBreaker(), Timeout(2)))
    said = cluster.explain()
    assert "Around it: " in said
    assert "the fallback answers" in said and "gives what lies inside it 2 s" in said
    cluster._core.around[CircuitBreaker].force_open()
    said = cluster.explain()
    assert "The next call would be refused by CircuitBreaker, and answered by the fallback." in said
    assert "would be made" not in said, "nobody inside is asked"


def test_before_the_first_list_and_after_a_bad_one() -> None:
    answers: list[Any] = [OSError("the resolver is down"), ["a:80"], OSError("down again")]

    def read() -> list[str]:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer  # type: ignore[no-any-return]

    cluster: Cluster[Any] = Cluster("stock", read, strategy=Failfast(), names=Registry())
    assert "The next call would ask for the endpoints first: none are known yet." in cluster.explain()
    cluster.refresh()
    assert "failed (OSError: the resolver is down)" in cluster.explain()
    cluster.refresh()
    assert "look-up" not in cluster.explain()
    cluster.refresh()
    assert "failed (OSError: down again); the last list stays." in cluster.explain()
    assert "1 of 1 endpoints is usable" in cluster.explain()


@pytest.mark.parametrize("strategy", [Failover(), Broadcast()], ids=lambda each: each.name)
def test_disabled(strategy: Any) -> None:
    cluster = Service(3).cluster(strategy)
    disable()
    try:
        said = cluster.explain()
    finally:
        enable()
    assert "switched off by disable()" in said and "without any layer" in said
    assert ("all endpoints" in said) == isinstance(strategy, Broadcast)


@pytest.mark.parametrize("name", STRATEGIES)
def test_snapshots_are_json_with_all_that_matters(name: str) -> None:
    service = Service(3).does(0, Dead)
    each = (CircuitBreaker(consecutive=1), Bulkhead(5))
    cluster = service.cluster(STRATEGIES[name][0], each=each, ejection=Ejection(consecutive=1), around=(Timeout(9),))
    for _ in range(6):
        cluster.run(service)
    shot = json.loads(json.dumps(cluster.snapshot()))
    assert shot["cluster"] == "stock"
    assert (shot["strategy"]["kind"], shot["strategy"]["name"]) == (cluster._calls.strategy.kind, cluster.strategy.name)
    assert shot["around"]["calls"] == 6
    assert [each["address"] for each in shot["endpoints"]] == service.addresses
    first, second, _ = shot["endpoints"]
    assert (first["standing"], second["standing"]) == ("out", "in")
    assert first["retry_after"] > 0 and first["breaker_refuses"]
    assert first["policy"]["failed"] >= 1
    assert {"weight", "in_flight", "policy"} <= first.keys()
    assert shot["ejections"] == 1 and shot["panic"] is False


def test_what_is_in_flight_is_seen_from_inside() -> None:
    cluster = Service(2).cluster(Failfast())
    flying: list[int] = []

    def look(endpoint: object) -> None:
        flying.extend(each["in_flight"] for each in cluster.snapshot()["endpoints"])

    cluster.call(look)
    assert sorted(flying) == [0, 1]
