"""The idempotency key of an operation goes out with its requests: the same in each attempt, another for each request."""

from __future__ import annotations

import asyncio
import io
from typing import Any

import pytest
from aiohttp import ClientRequest
from multidict import CIMultiDict
from yarl import URL

from seawall import Cluster, Failover, Registry
from seawall.http import sending
from seawall.integrations.aiohttp import Middleware
from seawall.outbox import MemoryOutbox, Run
from seawall.outbox.running import running
from tests.integrations.shop import Shop, with_every_client

AT_ONCE = Failover(retries=2, base=0, cap=0, budget=None)


def run(attempt: int = 0, key: str = "transfer-17", operation: str = "credit") -> running:
    return running(Run(id=f"{attempt}", operation=operation, idempotency_key=key, attempt=attempt))


def keys_of(shop: Shop) -> list[str | None]:
    keys = [request.headers.get("idempotency-key") for request in shop.requests]
    shop.requests.clear()
    return keys


@with_every_client
async def test_a_request_has_one_key_in_all_attempts_of_an_operation(shop: Shop) -> None:
    cluster = shop.cluster([503, 503, 201], 503, strategy=AT_ONCE)
    for attempt in range(3):
        with run(attempt):
            await shop.post(cluster, json={"amount": 10})
    keys = keys_of(shop)
    assert len(keys) > 3, "the request may be sent twice"
    assert len(set(keys)) == 1 and keys[0] is not None and len(keys[0]) == 32


@with_every_client
async def test_each_request_and_each_operation_has_a_key_of_its_own(shop: Shop) -> None:
    cluster = shop.cluster(201)
    with run():
        await shop.post(cluster, json={"amount": 10})
        await shop.post(cluster, json={"amount": 11})
        await shop.post(cluster, "http://shop/other", json={"amount": 10})
        await shop.request(cluster, "PATCH", "http://shop/orders", json={"amount": 10})
    for other in (run(key="transfer-18"), run(operation="debit")):
        with other:
            await shop.post(cluster, json={"amount": 10})
    keys = keys_of(shop)
    assert None not in keys and len(set(keys)) == 6


@with_every_client
async def test_no_key_is_made_where_none_is_due(shop: Shop) -> None:
    def pieces() -> Any:
        yield b"a"

    async def apieces() -> Any:
        yield b"a"

    cluster = shop.cluster(201)
    await shop.post(cluster, json={})
    with run():
        await shop.get(cluster)
        await shop.post(cluster, content=apieces() if shop.world.is_async else pieces())
        assert keys_of(shop) == [None, None, None]
        await shop.post(cluster, json={}, headers={"Idempotency-Key": "mine"})
        assert keys_of(shop) == ["mine"]
        shop.scripts["10.0.0.1"] = [503]
        with sending(idempotent=False):
            await shop.post(cluster, json={})
        assert len(keys_of(shop)) == 1, "the sender's word stands above the key"


def test_aiohttp_sends_it_too() -> None:
    cluster: Cluster[Any] = Cluster("shop", ["http://10.0.0.1"], strategy=AT_ONCE, names=Registry())
    sent: list[CIMultiDict[str]] = []

    async def handler(request: Any) -> Any:
        sent.append(request.headers)
        raise OSError

    async def post(**options: Any) -> list[str | None]:
        sent.clear()
        request = ClientRequest("POST", URL("http://shop/orders"), loop=asyncio.get_running_loop(), **options)
        with pytest.raises(OSError):  # noqa: PT011
            await Middleware(cluster)(request, handler)
        return [headers.get("Idempotency-Key") for headers in sent]

    async def main() -> None:
        with run():
            first, again, other = await post(data=b"x"), await post(data=b"x"), await post(data=b"y")
            assert await post(data=io.BytesIO(b"x")) == [None]
        assert len(first) == 3 and None not in first and len(set(first + again)) == 1
        assert not set(first) & set(other)
        assert await post(data=b"x") == [None]

    asyncio.run(main())


@with_every_client
async def test_the_handler_of_an_outbox_need_not_know(shop: Shop) -> None:
    cluster, outbox = shop.cluster(201), MemoryOutbox()
    if shop.world.is_async:

        @outbox.operation("orders.create")
        async def create(number: int) -> None:
            await shop.post(cluster, json={"number": number})

        await outbox.aput(create, 7)
        await outbox.worker().adrain()
    else:
        client = shop.client(cluster)

        @outbox.operation("orders.create")
        def create_here(number: int) -> None:
            client.post("http://shop/orders", json={"number": number})

        outbox.put(create_here, 7)
        outbox.worker().drain()
    assert [key is not None for key in keys_of(shop)] == [True]
