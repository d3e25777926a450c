"""Transports and middleware fit the clients' own types. Never run: only what the type checkers say counts."""

from __future__ import annotations

from typing import assert_type

import aiohttp
import httpx
import httpx2

from seawall import Cluster, Failfast, registry
from seawall.http import sending
from seawall.integrations.aiohttp import Middleware, Served, served
from seawall.integrations.httpx import AsyncTransport, Transport

stock = Cluster("inventory", ["http://10.0.0.1:80"])
views = {"inventory": stock, "inventory-once": stock.using(Failfast())}

httpx.Client(transport=Transport())
httpx2.Client(transport=Transport(stock, inner=httpx2.HTTPTransport(http2=True), max_body=None))
httpx.AsyncClient(transport=AsyncTransport([stock], inner=httpx.AsyncHTTPTransport(retries=1)))
httpx2.AsyncClient(transport=AsyncTransport(registry))
httpx.Client(mounts={"http://inventory": Transport(views)})


async def with_aiohttp() -> None:
    async with aiohttp.ClientSession(middlewares=[Middleware(stock), Middleware()]) as session:
        with sending(idempotent=True, stream=True):
            async with session.get("http://inventory/items/7") as response:
                assert_type(served(response), Served | None)


httpx.Client(transport=AsyncTransport())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
Transport(7)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
Transport(max_body="1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
sending(idempotent="yes")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
