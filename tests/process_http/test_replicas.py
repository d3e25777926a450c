"""Real replicas under five clients: one dead, one flapping, all dead, one returning; connections and bodies go home."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from seawall import (
    CircuitBreaker,
    Cluster,
    Criticality,
    DeadlineExceeded,
    Failfast,
    Failover,
    Forking,
    NoEndpoints,
    Registry,
    RoundRobin,
    Timeout,
    criticality,
    deadline,
)
from seawall.http import sending
from tests.policies.worlds import until
from tests.process_http.clients import CLIENTS, Client, Server

every_client = pytest.mark.parametrize("client", CLIENTS, ids=repr)
AT_ONCE = Failover(retries=2, base=0, cap=0, budget=None)


def shop(*urls: str, **options: Any) -> Cluster[Any]:
    options.setdefault("strategy", AT_ONCE)
    options.setdefault("balancer", RoundRobin())
    return Cluster("shop", urls, names=Registry(), **options)


@pytest.fixture(autouse=True)
def all_up(server: Server) -> None:
    for which in range(len(server.urls)):
        server.mode(which, "up")


@every_client
def test_one_dead_replica_is_made_good(client: Client, server: Server) -> None:
    cluster = shop(server.refusing, *server.urls[:2])
    for _ in range(3):
        answer = client.fetch(cluster, "/replica", times=2)
        assert (answer.status, answer.body.decode()) == (200, str(answer.served and answer.served.endpoint)[-5:])


@every_client
@pytest.mark.parametrize("mode", ["flapping", "down", "reset"])
def test_one_failing_replica_is_made_good(client: Client, mode: str, server: Server) -> None:
    server.mode(0, mode)
    cluster = shop(*server.urls[:2])
    for _ in range(3):
        assert client.fetch(cluster, "/replica", times=2).status == 200
    assert server.asked(0)["asked"] >= 3


@every_client
def test_with_all_down_the_last_response_is_given_whole(client: Client, server: Server) -> None:
    for which in range(3):
        server.mode(which, "down")
    answer = client.fetch(shop(*server.urls[:3]), "/replica")
    assert (answer.status, answer.body) == (503, b"down")
    assert answer.served is not None and answer.served.attempts == 3
    assert [server.asked(which)["asked"] for which in range(3)] == [1, 1, 1]


@every_client
def test_with_all_dead_the_error_is_the_clients_own(client: Client, server: Server) -> None:
    with pytest.raises(client.errors) as caught:
        client.fetch(shop(server.refusing), "/replica")
    assert not isinstance(caught.value, DeadlineExceeded)


@every_client
def test_with_all_resetting_each_is_asked_once_and_no_more(client: Client, server: Server) -> None:
    for which in range(3):
        server.mode(which, "reset")
    with pytest.raises(client.errors):
        client.fetch(shop(*server.urls[:3]), "/replica")
    assert [server.asked(which)["asked"] for which in range(3)] == [1, 1, 1], "the client does not try again by itself"


@every_client
def test_a_returning_replica_gets_its_share_again(client: Client, server: Server) -> None:
    breaker = CircuitBreaker(consecutive=1, open_for="1s", probes=1)
    server.mode(0, "reset")
    cluster = shop(*server.urls[:2], each=(breaker,))
    assert client.fetch(cluster, "/replica", times=6).status == 200
    assert server.asked(0)["asked"] == 1
    server.mode(0, "up")
    time.sleep(1.2)
    assert client.fetch(cluster, "/replica", times=6).status == 200
    assert server.asked(0)["asked"] >= 1


@every_client
def test_a_refusal_is_raised_in_both_kinds(client: Client, server: Server) -> None:
    cluster = shop(server.url, each=(CircuitBreaker(),))
    cluster[server.url][CircuitBreaker].force_open()
    with pytest.raises(client.errors) as caught:
        client.fetch(cluster, "/replica")
    assert isinstance(caught.value, NoEndpoints)


@every_client
@pytest.mark.parametrize("path", ["close", "reset", "short", "status/503"])
def test_a_post_that_may_have_arrived_is_sent_once(client: Client, path: str, server: Server) -> None:
    cluster = shop(*server.urls[:3])
    try:
        client.fetch(cluster, f"/{path}", method="POST", content=b"order")
    except client.errors:
        pass
    assert sum(server.asked(which)["connections"] for which in range(3)) == 1


@every_client
def test_a_post_whose_connection_was_refused_goes_elsewhere(client: Client, server: Server) -> None:
    cluster = shop(server.refusing, server.url)
    for _ in range(2):
        answer = client.fetch(cluster, "/ok", method="POST", content=b"order")
        assert (answer.status, answer.json["body"], answer.json["method"]) == (200, "order", "POST")


@every_client
def test_a_post_with_a_key_is_sent_again_whole(client: Client, server: Server) -> None:
    cluster = shop(*server.urls[:2])
    server.mode(0, "reset")
    for _ in range(2):
        answer = client.fetch(cluster, "/ok", method="POST", content=b"order", headers={"Idempotency-Key": "7"})
        assert answer.json["body"] == "order"
        with sending(idempotent=True):
            assert client.fetch(cluster, "/ok", method="POST", content=b"order").json["body"] == "order"


@every_client
def test_the_context_goes_out_once_and_the_host_is_the_endpoints(client: Client, server: Server) -> None:
    inbound = {"Seawall-Deadline": "99999", "Seawall-Criticality": "CRITICAL_PLUS", "seawall_attempt": "9"}
    cluster = shop(server.refusing, server.url, each=(Timeout("2s"),))

    def around() -> Any:
        return deadline("30s")

    with criticality(Criticality.SHEDDABLE):
        told = client.fetch(cluster, "/ok", headers=inbound, around=around).json["headers"]
        told = client.fetch(cluster, "/ok", headers=inbound, around=around).json["headers"] + told
    ours = [(name.lower(), value) for name, value in told if "seawall" in name.lower()]
    assert sorted(name for name, _ in ours) == sorted(
        ["seawall-deadline", "seawall-criticality", "seawall-attempt"] * 2
    )
    assert {value for name, value in ours if name == "seawall-criticality"} == {"SHEDDABLE"}
    assert {value for name, value in ours if name == "seawall-attempt"} <= {"1", "2"}
    assert all(1_000 < int(value) <= 2_000 for name, value in ours if name == "seawall-deadline")
    assert {value for name, value in told if name.lower() == "host"} == {server.url.removeprefix("http://")}


@every_client
def test_a_redirect_stays_in_the_cluster(client: Client, server: Server) -> None:
    answer = client.fetch(shop(server.url), "/redirect")
    if client.name == "aiohttp":  # it follows by itself
        assert (answer.status, answer.served is not None) == (200, True)
    else:
        assert answer.status == 307


@every_client
def test_a_spent_quota_is_final_and_readable(client: Client, server: Server) -> None:
    answer = client.fetch(shop(*server.urls[:2]), "/quota")
    assert (answer.status, answer.json["title"]) == (429, "Quota exceeded")
    assert answer.served is not None and answer.served.attempts == 1


@every_client
def test_connections_are_used_again_also_after_failures(client: Client, server: Server) -> None:
    server.mode(0, "flapping")
    client.fetch(shop(server.url), "/replica", times=10)
    assert server.asked(0)["connections"] == 1


@every_client
def test_a_response_that_is_passed_over_is_read_to_its_end_if_that_is_near(client: Client, server: Server) -> None:
    for _ in range(10):  # near is a matter of milliseconds, which a busy machine may not have
        server.mode(0, "up")
        answer = client.fetch(shop(server.url), "/late-error")
        assert (answer.status, answer.body) == (503, b"down")
        assert answer.served is not None and answer.served.attempts == 3
        if server.asked(0)["connections"] == 1:
            return
    raise AssertionError("never was a connection used again")


@every_client
def test_whatever_is_left_behind_is_closed(client: Client, server: Server) -> None:
    cluster = shop(server.url, strategy=Failfast())
    for path in ("drip-body", "drip-error", "hang"):
        with pytest.raises(client.timeouts):
            client.fetch(cluster, f"/{path}", around=lambda: deadline("100ms"))
    until(lambda: server.asked(0)["open"] == 0)


@every_client
def test_the_first_of_forks_wins_and_the_others_are_closed(client: Client, server: Server) -> None:
    server.mode(0, "hang")
    cluster = shop(*server.urls[:2], strategy=Forking("all"))
    begun = time.monotonic()
    answer = client.fetch(cluster, "/replica", around=lambda: deadline("1s"))
    assert (answer.status, answer.body.decode()) == (200, server.urls[1][-5:])
    if client.is_async:
        assert time.monotonic() - begun < 0.9, "nobody waits for the loser"
    until(lambda: server.asked(0)["open"] == 0)


def test_a_stream_is_read_as_it_comes_with_every_client(server: Server) -> None:
    import aiohttp
    import httpx
    import httpx2

    from seawall.integrations.aiohttp import Middleware
    from seawall.integrations.httpx import AsyncTransport, Transport

    cluster = shop(server.url)
    for package in (httpx, httpx2):
        times: list[float] = []
        with package.Client(transport=Transport(cluster)) as client, client.stream("GET", "http://shop/stream") as got:
            for chunk in got.iter_raw():
                times.append(time.monotonic())
                assert chunk == b"chunk"
        assert len(times) == 5 and times[-1] - times[0] > 0.3

    async def with_httpx(package: Any) -> list[float]:
        times: list[float] = []
        async with (
            package.AsyncClient(transport=AsyncTransport(cluster)) as client,
            client.stream("GET", "http://shop/stream") as got,
        ):
            async for chunk in got.aiter_raw():
                times.append(time.monotonic())
                assert chunk == b"chunk"
        return times

    async def with_aiohttp() -> list[float]:
        times: list[float] = []
        async with (
            aiohttp.ClientSession(middlewares=[Middleware(cluster)]) as session,
            session.get("http://shop/stream") as got,
        ):
            async for chunk in got.content.iter_any():
                times.append(time.monotonic())
                assert chunk == b"chunk"
        return times

    for main in (with_httpx(httpx), with_httpx(httpx2), with_aiohttp()):
        times = asyncio.run(main)
        assert len(times) == 5 and times[-1] - times[0] > 0.3


@every_client
def test_a_stream_may_outlive_the_timeout_of_the_attempt_if_that_was_said(client: Client, server: Server) -> None:
    cluster = shop(server.url, each=(Timeout("200ms"),))
    with pytest.raises(client.timeouts):
        client.fetch(cluster, "/stream")
    with sending(stream=True):
        assert client.fetch(cluster, "/stream").body == b"chunk" * 5
        with pytest.raises(client.timeouts):
            client.fetch(cluster, "/stream", around=lambda: deadline("200ms"))


def test_aiohttp_and_the_registry(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    import aiohttp

    from seawall import registry
    from seawall.integrations.aiohttp import Middleware, served

    monkeypatch.setattr(registry, "clusters", {})

    async def main() -> None:
        async with aiohttp.ClientSession(middlewares=[Middleware()]) as session:
            async with session.get(f"{server.url}/ok", headers={"Seawall-Attempt": "7"}) as response:
                headers = (await response.json())["headers"]
                assert ["Seawall-Attempt", "7"] in headers, "other hosts go through unchanged"
                assert served(response) is None
            Cluster("Stock", [server.url])
            async with session.get("http://stock/ok?a=b%20c#x") as response:
                assert response.status == 200
                assert str(response.url) == "http://stock/ok?a=b%20c"
                facts = served(response)
                assert facts is not None and facts.cluster == "Stock"
            async with session.post("http://stock/ok", data=b"x", expect100=False) as response:
                assert (await response.json())["body"] == "x"

    asyncio.run(main())
