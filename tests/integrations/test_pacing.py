"""Transports that pace themselves: by endpoint and by host, within deadlines, with nothing lost to whoever gives up."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from random import Random
from typing import Any

import httpx
import pytest

from seawall import CircuitBreaker, Cluster, ConfigError, Failfast, Failover, RateLimited, RoundRobin, deadline
from seawall.http import Pace
from seawall.integrations.aiohttp import Middleware
from seawall.integrations.httpx import AsyncTransport, Transport
from seawall.testing import Victim, cancel_everywhere, run
from tests.integrations.shop import Shop, Stream, with_every_client

SPENT = '"default";r=0;t=4'
ONCE = Failfast()


def answers(shop: Shop, status: int = 200, **fields: str) -> Any:
    """A step of a script: a response with these fields."""
    headers = {name.replace("_", "-"): value for name, value in fields.items()}
    return lambda _request: shop.response(status, headers=headers)


async def get(shop: Shop, client: Any, url: str = "http://shop/items/7", **options: Any) -> Any:
    return await client.get(url, **options) if shop.world.is_async else client.get(url, **options)


# -- the fields as a wish for patience ---------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [429, 503])
@with_every_client
async def test_a_spent_limit_is_a_retry_after(shop: Shop, status: int) -> None:
    spent = answers(shop, status, RateLimit=SPENT)
    cluster = shop.cluster([spent, 200], strategy=Failover(base=0, cap=0))
    assert (await shop.get(cluster)).status_code == 200
    assert shop.times == [0, 4]


@with_every_client
async def test_a_spent_limit_has_the_bounds_of_a_retry_after(shop: Shop) -> None:
    spent = answers(shop, 429, X_RateLimit_Remaining="0", X_RateLimit_Reset="61")
    cluster = shop.cluster([spent, 200], strategy=Failover(base=0, cap=0))
    assert (await shop.get(cluster)).status_code == 429
    assert shop.times == [0]


@with_every_client
async def test_nonsense_is_no_wish_and_no_error(shop: Shop) -> None:
    mad = answers(shop, 503, RateLimit='"a";r=0;t=' + "9" * 9_000, X_RateLimit_Remaining="NaN", X_RateLimit_Reset="-1")
    cluster = shop.cluster([mad, 200], strategy=Failover(base=0, cap=0))
    assert (await shop.get(cluster, "http://shop/")).status_code == 200
    assert shop.times == [0, 0]


@with_every_client
async def test_a_breaker_stays_open_as_long_as_a_spent_limit_says(shop: Shop) -> None:
    spent = answers(shop, 503, RateLimit='"a";r=0;t=6')
    breaker = CircuitBreaker(consecutive=1, open_for="1s")
    cluster = shop.cluster([spent], strategy=ONCE, each=(breaker,))
    await shop.get(cluster)
    error = await shop.error_of(cluster)
    assert error.retry_after == pytest.approx(6)


# -- pacing ------------------------------------------------------------------------------------------------------------


@with_every_client
async def test_without_pace_nothing_waits(shop: Shop) -> None:
    shop.scripts["elsewhere"] = [answers(shop, RateLimit=SPENT)]
    client = shop.client(shop.cluster(200))
    for _ in range(3):
        await get(shop, client, "http://elsewhere/")
    assert shop.times == [0, 0, 0]


@with_every_client
async def test_requests_to_any_host_wait_until_there_is_room(shop: Shop) -> None:
    shop.scripts.update({name: [answers(shop, RateLimit=SPENT)] for name in ("a", "b")})
    client = shop.client(shop.cluster(200), options={"pace": True})
    for url in ("http://a/1", "http://b/1", "http://A:80/2", "http://a:81/1", "https://a/1"):
        await get(shop, client, url)
    assert shop.times == [0, 0, 4, 4, 4], "by scheme, host and port"


@with_every_client
async def test_requests_through_a_cluster_wait_for_their_endpoint(shop: Shop) -> None:
    spent = answers(shop, RateLimit=SPENT)
    cluster = shop.cluster(spent, spent, strategy=ONCE, balancer=RoundRobin())
    client = shop.client(cluster, options={"pace": True})
    for _ in range(4):
        assert (await get(shop, client)).extensions["seawall"].attempts == 1
    assert sorted(shop.asked) == ["1", "1", "2", "2"]
    assert shop.times == [0, 0, 4, 4]


@with_every_client
async def test_a_cluster_and_its_endpoint_under_its_own_name_share_a_pace(shop: Shop) -> None:
    client = shop.client(shop.cluster(answers(shop, RateLimit=SPENT), strategy=ONCE), options={"pace": True})
    await get(shop, client)
    await get(shop, client, "http://10.0.0.1/")
    assert shop.times == [0, 4]


@with_every_client
async def test_where_there_is_no_room_soon_enough_another_endpoint_is_asked_at_once(shop: Shop) -> None:
    spent = answers(shop, RateLimit='"a";r=0;t=40')
    cluster = shop.cluster(spent, 200, each=(CircuitBreaker(consecutive=1),), balancer=RoundRobin())
    client = shop.client(cluster, options={"pace": True})
    for _ in range(6):
        assert (await get(shop, client)).status_code == 200
    assert shop.asked.count("1") == 1
    assert shop.times == [0] * 6
    assert shop.world.now == 0


@with_every_client
async def test_if_nobody_has_room_soon_enough_the_sender_is_told_when(shop: Shop) -> None:
    spent = answers(shop, RateLimit='"a";r=0;t=40')
    for clusters in (shop.cluster(spent, strategy=ONCE), shop.cluster(200, name="other")):
        shop.scripts["shop"] = shop.scripts["10.0.0.1"] = [spent]
        before = len(shop.requests)
        client = shop.client(clusters, options={"pace": Pace(max_wait="5s", name="polite")})
        await get(shop, client)
        with pytest.raises(
            RateLimited, match="polite: .* no room for 40 s, which is over 5 s; retry in 40 s"
        ) as caught:
            await get(shop, client)
        assert isinstance(caught.value, shop.package.TransportError), "code written for the client knows it"
        assert (caught.value.retry_after, len(shop.requests) - before) == (40, 1)


@with_every_client
async def test_a_strategy_that_waits_as_it_was_asked_to_does_not_wait_twice(shop: Shop) -> None:
    spent = answers(shop, 429, Retry_After="3", RateLimit='"a";r=0;t=3')
    cluster = shop.cluster([spent, 200], strategy=Failover(base=0, cap=0))
    assert (await get(shop, shop.client(cluster, options={"pace": True}))).status_code == 200
    assert shop.times == [0, 3]


@with_every_client
async def test_a_response_that_is_passed_over_is_let_go_before_the_next_attempt_waits_for_its_turn(shop: Shop) -> None:
    stream = Stream(shop, b"x")
    spent = shop.streamed(stream, 429, headers={"RateLimit": SPENT})
    closed: list[int] = []
    pace = Pace(key=lambda _request: f"{closed.append(stream.closed)}")  # type: ignore[func-returns-value]
    cluster = shop.cluster([spent, 200], strategy=Failover(base=0, cap=0))
    assert (await get(shop, shop.client(cluster, options={"pace": pace}))).status_code == 200
    assert closed[0] == 0
    assert closed[1] > 0


@with_every_client
async def test_nobody_waits_beyond_his_deadline(shop: Shop) -> None:
    shop.scripts["a"] = [answers(shop, RateLimit=SPENT)]
    cluster = shop.cluster(answers(shop, RateLimit=SPENT), strategy=ONCE)
    client = shop.client(cluster, options={"pace": True})
    for url in ("http://a/", "http://shop/"):
        await get(shop, client, url)
        with deadline("3s"), pytest.raises(RateLimited):
            await get(shop, client, url)
    assert shop.world.now == 0


@with_every_client
async def test_the_deadline_that_travels_is_what_is_left_after_waiting(shop: Shop) -> None:
    cluster = shop.cluster(answers(shop, RateLimit=SPENT), strategy=ONCE)
    client = shop.client(cluster, options={"pace": True})
    with deadline("10s"):
        await get(shop, client)
        await get(shop, client)
    assert [request.headers["seawall-deadline"] for request in shop.requests] == ["10000", "6000"]


@with_every_client
async def test_whoever_gets_no_answer_stands_in_nobodys_way(shop: Shop) -> None:
    shop.scripts["a"] = [shop.package.ConnectError, shop.package.ReadError, OSError, 200]
    cluster = shop.cluster([shop.package.ConnectError, shop.package.ReadError, 200], strategy=ONCE)
    pace = Pace()
    client = shop.client(cluster, options={"pace": pace})
    for url, errors in (("http://a/", 3), ("http://shop/", 2)):
        for _ in range(errors):
            with pytest.raises((shop.package.TransportError, OSError)):
                await get(shop, client, url)
        assert (await get(shop, client, url)).status_code == 200
    assert shop.world.now == 0
    assert not any(origin.flying for origin in pace._origins.values())


@with_every_client
async def test_what_is_not_sent_because_it_would_leave_in_clear_text_takes_no_place(shop: Shop) -> None:
    pace = Pace()
    client = shop.client(shop.cluster(200), options={"pace": pace})
    for _ in range(2):
        with pytest.raises(shop.package.UnsupportedProtocol):
            await get(shop, client, "https://shop/")
    assert shop.world.now == 0
    assert [bool(origin.flying) for origin in pace._origins.values()] == [False]


@with_every_client
async def test_requests_are_told_apart_by_a_function_of_the_request(shop: Shop) -> None:
    cluster = shop.cluster(answers(shop, RateLimit=SPENT), strategy=ONCE)
    pace = Pace(key=lambda request: request.headers.get("x-key", ""))
    client = shop.client(cluster, options={"pace": pace})
    for key in ("ann", "bob", "ann"):
        await get(shop, client, headers={"x-key": key})
    assert shop.times == [0, 0, 4]


def test_a_pace_is_shared_by_transports_of_both_kinds() -> None:
    pace, asked = Pace(max_wait="30ms"), []

    def server(request: Any) -> httpx.Response:
        asked.append(request.url.path)
        return httpx.Response(200, headers={"RateLimit": '"a";r=0;t=30'})

    async def main() -> None:
        async with httpx.AsyncClient(transport=AsyncTransport(inner=httpx.MockTransport(server), pace=pace)) as client:
            with pytest.raises(RateLimited):
                await client.get("http://a.example/2")

    with httpx.Client(transport=Transport(inner=httpx.MockTransport(server), pace=pace)) as client:
        client.get("http://a.example/1")
    asyncio.run(main())
    assert asked == ["/1"]


@pytest.mark.parametrize("url", ["http://shop/", "http://elsewhere/"])
def test_a_sender_cancelled_anywhere_leaves_no_place_taken(url: str) -> None:
    async def scenario(victim: Victim) -> None:
        pace = Pace()

        async def server(_request: Any) -> httpx.Response:
            await asyncio.sleep(0.01)
            return httpx.Response(200, headers={"RateLimit": '"a";r=1;t=4'})

        cluster = Cluster("shop", ["http://10.0.0.1:80"], strategy=ONCE)
        transport = AsyncTransport(cluster, inner=httpx.MockTransport(server), pace=pace)
        async with httpx.AsyncClient(transport=transport) as client:
            await client.get(url)
            await victim(client.get(url))
            assert not any(origin.flying for origin in pace._origins.values())
            assert (await client.get(url)).status_code == 200
        assert asyncio.get_running_loop().time() < 5
        assert (pace._lines.waiting, len(pace._lines)) == ({}, 0)

    cancel_everywhere(scenario)


@pytest.mark.parametrize("make", [Transport, AsyncTransport, Middleware])
@pytest.mark.parametrize("pace", ["5s", 1, None])
def test_pace_is_true_or_false_or_a_pace(make: Any, pace: Any) -> None:
    with pytest.raises(ConfigError, match=rf"{make.__name__}\(pace="):
        make([], pace=pace)


@pytest.mark.parametrize("seed", range(8))
def test_twenty_at_once_are_never_refused_and_hardly_slower_than_the_server_allows(seed: int) -> None:
    """A fixed window of random size behind a network of random delays, that tells nothing but what is left."""
    dice = Random(seed)
    quota, window = dice.randint(1, 20), dice.randint(1, 10)
    given: Counter[int] = Counter()
    refused: list[float] = []

    async def server(_request: Any) -> httpx.Response:
        await asyncio.sleep(dice.random() * 0.4)
        now = asyncio.get_running_loop().time()
        number = int(now // window)
        given[number] += 1
        if given[number] > quota:
            refused.append(now)
        left, until = max(0, quota - given[number]), math.ceil(window * (number + 1) - now)
        await asyncio.sleep(dice.random() * 0.4)
        fields = {"X-RateLimit-Remaining": str(left), "X-RateLimit-Reset": str(until)}
        return httpx.Response(429 if given[number] > quota else 200, headers=fields)

    async def main() -> float:
        transport = AsyncTransport([], inner=httpx.MockTransport(server), pace=Pace(max_wait="1h"))
        async with httpx.AsyncClient(transport=transport) as client:

            async def scraper() -> None:
                for _ in range(6):
                    await client.get("http://a.example/")

            await asyncio.gather(*(scraper() for _ in range(20)))
        return asyncio.get_running_loop().time()

    took = run(main, seed=seed)
    assert refused == []
    assert took < 1.5 * (20 * 6 * window / quota) + 6
