"""Each strategy under plain client code: with one dead, one flapping, all dead, and one returning replica."""

from __future__ import annotations

from typing import Any

import pytest

from seawall import (
    CircuitBreaker,
    DeadlineExceeded,
    Ejection,
    Failfast,
    Failover,
    Failsafe,
    Failsilent,
    Forking,
    Hedge,
    NoEndpoints,
    RoundRobin,
    Timeout,
    deadline,
)
from seawall.http import sending
from seawall.testing import hang, run, slow
from tests.integrations.shop import Shop, Stream, with_every_client
from tests.policies.worlds import World

AT_ONCE = Failover(retries=2, base=0, cap=0, budget=None)
QUICK = Ejection(consecutive=2, out_for="10s")


async def statuses(shop: Shop, cluster: Any, count: int, **options: Any) -> list[int]:
    return [(await shop.get(cluster, **options)).status_code for _ in range(count)]


@pytest.mark.parametrize("dead", ["ConnectError", "ReadTimeout", 503])
@with_every_client
async def test_failover_makes_good_one_dead_replica(shop: Shop, dead: Any) -> None:
    step = dead if isinstance(dead, int) else getattr(shop.package, dead)
    cluster = shop.cluster(step, 200, 200, strategy=AT_ONCE, balancer=RoundRobin())
    assert await statuses(shop, cluster, 9) == [200] * 9
    assert shop.asked.count("1") == 3


@with_every_client
async def test_failover_makes_good_a_flapping_replica(shop: Shop) -> None:
    cluster = shop.cluster([503, 200] * 10, 200, strategy=AT_ONCE, balancer=RoundRobin())
    assert await statuses(shop, cluster, 20) == [200] * 20


@with_every_client
async def test_failover_with_all_dead_asks_each_once_and_gives_what_the_last_said(shop: Shop) -> None:
    cluster = shop.cluster(500, 502, 503, strategy=AT_ONCE)
    answer = await shop.get(cluster)
    assert sorted(shop.asked) == ["1", "2", "3"]
    assert answer.text == f"{answer.status_code} from {shop.asked[-1]}"


@with_every_client
async def test_a_replica_that_its_breaker_shuts_out_comes_back_by_probes(shop: Shop) -> None:
    breaker = CircuitBreaker(consecutive=2, open_for="10s", probes=1)
    cluster = shop.cluster([503, 503, 200], 200, strategy=AT_ONCE, balancer=RoundRobin(), each=(breaker,))
    assert await statuses(shop, cluster, 20) == [200] * 20
    assert shop.asked.count("1") == 2, "two failures, and then it is left alone"
    await shop.world.passes(15)
    assert await statuses(shop, cluster, 20) == [200] * 20
    assert shop.asked.count("1") > 5


@with_every_client
async def test_an_ejected_replica_comes_back_after_its_time(shop: Shop) -> None:
    cluster = shop.cluster([503, 503, 200], 200, 200, strategy=AT_ONCE, balancer=RoundRobin(), ejection=QUICK)
    assert await statuses(shop, cluster, 20) == [200] * 20
    assert shop.asked.count("1") == 2
    await shop.world.passes(30)
    assert await statuses(shop, cluster, 60) == [200] * 60
    assert shop.asked.count("1") > 2


@with_every_client
async def test_failfast_gives_the_first_end_as_it_is(shop: Shop) -> None:
    cluster = shop.cluster([503, shop.package.ReadError, shop.package.ConnectError, 200], strategy=Failfast())
    assert (await shop.get(cluster)).status_code == 503
    for kind in (shop.package.ReadError, shop.package.ConnectError):
        error = await shop.error_of(cluster)
        assert type(error) is kind and "attempt 1 at http://10.0.0.1:80" in error.__notes__[0]
    assert (await shop.get(cluster)).status_code == 200
    assert len(shop.requests) == 4


@with_every_client
async def test_failsafe_answers_whatever_happens(shop: Shop) -> None:
    steps = [503, shop.package.ReadError, 200]
    cluster = shop.cluster(steps, strategy=Failsafe(lambda error: shop.response(204)))
    assert await statuses(shop, cluster, 3) == [204, 204, 200]


@with_every_client
async def test_failsilent_sends_nothing_when_all_are_silent_and_probes_when_the_time_is_over(shop: Shop) -> None:
    late = shop.package.ReadTimeout
    cluster = shop.cluster([late, late, 200], [late, late, 200], strategy=Failsilent(QUICK), balancer=RoundRobin())
    for _ in range(4):
        assert type(await shop.error_of(cluster)) is late
    for _ in range(5):
        error = await shop.error_of(cluster)
        assert isinstance(error, NoEndpoints) and isinstance(error, shop.package.TransportError)
        assert 0 < error.retry_after < 20
    assert len(shop.requests) == 4, "nothing was sent"
    await shop.world.passes(30)
    assert await statuses(shop, cluster, 10) == [200] * 10


@pytest.mark.parametrize("dead", ["ConnectError", "ReadError", 503])
@with_every_client
async def test_forking_is_not_won_by_a_failure(shop: Shop, dead: Any) -> None:
    step = dead if isinstance(dead, int) else getattr(shop.package, dead)
    cluster = shop.cluster(step, slow("50ms", 200), strategy=Forking("all"))
    if not shop.world.is_async:
        cluster = shop.cluster(step, 200, strategy=Forking("all"))
    assert await statuses(shop, cluster, 5) == [200] * 5


@with_every_client
async def test_forking_with_all_dead_gives_one_end_the_client_knows(shop: Shop) -> None:
    cluster = shop.cluster(shop.package.ReadError, shop.package.ConnectError, strategy=Forking("all"))
    error = await shop.error_of(cluster)
    assert type(error) in (shop.package.ReadError, shop.package.ConnectError)
    assert "all 2 forks failed" in error.__notes__[-1]
    assert "ReadError" in error.__notes__[-1] and "ConnectError" in error.__notes__[-1]
    cluster = shop.cluster(shop.package.ReadError, 503, strategy=Forking("all"), balancer=RoundRobin())
    for _ in range(4):
        answer = await shop.get(cluster)
        assert (answer.status_code, answer.text) == (503, "503 from 2"), "a response says more than an error"


@pytest.mark.parametrize("method", ["POST", "PATCH"])
@with_every_client
async def test_forking_never_sends_an_unsafe_request_twice(shop: Shop, method: str) -> None:
    cluster = shop.cluster(503, 503, strategy=Forking("all"))
    for _ in range(10):
        assert (await shop.request(cluster, method, json={})).status_code == 503
    assert len(shop.requests) == 10
    refused = slow("50ms", shop.package.ConnectError)
    cluster = shop.cluster(refused, 201, strategy=Forking("all"), balancer=RoundRobin())
    for _ in range(5):
        assert (await shop.request(cluster, method, json={})).status_code == 201
    shop.requests.clear()
    cluster = shop.cluster(503, 503, strategy=Forking("all"))
    with sending(idempotent=True):
        assert (await shop.request(cluster, method, json={})).status_code == 503
    assert len(shop.requests) == 2


def test_staggered_forks_start_one_after_the_other() -> None:
    import httpx

    shop = Shop(httpx, World(is_async=True))
    cluster = shop.cluster(hang, 200, strategy=Forking("all", stagger="50ms"), balancer=RoundRobin())

    async def main() -> None:
        for _ in range(4):
            assert (await shop.get(cluster)).status_code == 200
        assert shop.asked.count("1") >= 1

    run(main)


def test_a_hedge_around_the_attempt_never_sends_an_unsafe_request_twice() -> None:
    import httpx

    shop = Shop(httpx, World(is_async=True))
    cluster = shop.cluster(slow("1s", 200), each=(Hedge("100ms", budget=None),))

    async def main() -> None:
        assert (await shop.post(cluster, json={})).status_code == 200
        assert len(shop.requests) == 1
        assert (await shop.get(cluster)).status_code == 200
        assert len(shop.requests) == 3

    run(main)


@with_every_client
async def test_with_all_dead_the_deadline_of_the_call_holds(shop: Shop) -> None:
    late = slow("400ms", shop.package.ReadTimeout("late"))
    cluster = shop.cluster(
        late, late, strategy=Failover(retries=9, base=0, cap=0, budget=None), each=(Timeout("300ms"),)
    )
    with deadline("1s"):
        error = await shop.error_of(cluster)
    assert isinstance(error, (DeadlineExceeded, shop.package.ReadTimeout))
    assert shop.world.now <= (1 if shop.world.is_async else 1.4)


@with_every_client
async def test_losers_are_closed_without_waiting_for_what_is_left_of_them(shop: Shop) -> None:
    rests = [Stream(shop, b"x", slow("1s", b"y")) for _ in range(2)]
    steps = [lambda _, rest=rest: shop.streamed(rest, 503) for rest in rests]
    cluster = shop.cluster(*steps, slow("20ms", 200), strategy=Forking("all"))
    transport = shop.transport(cluster)
    transport._capped = True  # as if it were of sockets that can be waited for by the clock
    request = shop.package.Request("GET", "http://shop/items/7")
    if shop.world.is_async:
        answer = await transport.handle_async_request(request)
    else:
        answer = transport.handle_request(request)
    assert (answer.status_code, [rest.sent for rest in rests]) == (200, [0, 0])
    assert shop.world.now == pytest.approx(0.02) and all(rest.closed for rest in rests)
