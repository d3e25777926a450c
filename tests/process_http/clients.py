"""Five clients behind one interface: httpx and httpx2, sync and async, and aiohttp, each sending through clusters."""

from __future__ import annotations

import asyncio
import io
import json
import urllib.request
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import aiohttp
import httpx
import httpx2

from seawall import Cluster
from seawall.http.answers import Served
from seawall.integrations.aiohttp import Middleware, served
from seawall.integrations.httpx import AsyncTransport, Transport

__all__ = ["CLIENTS", "AioHttp", "Answer", "Async", "Client", "Server", "Sync"]


class Server:
    """Where the misbehaving server listens."""

    def __init__(self, ports: list[int], refusing: int, full: int) -> None:
        self.ports = ports
        self.urls = [f"http://127.0.0.1:{port}" for port in ports]
        self.url = self.urls[0]
        self.refusing = f"http://127.0.0.1:{refusing}"
        self.full = f"http://127.0.0.1:{full}"

    def mode(self, which: int, mode: str) -> None:
        """Change what a replica is, and forget what it was asked."""
        request = urllib.request.Request(f"{self.urls[which]}/mode/{mode}", method="PUT")
        urllib.request.urlopen(request, timeout=10).close()

    def asked(self, which: int) -> dict[str, int]:
        """What a replica was asked since; and connections: `connections`, and those `open` but for this one."""
        with urllib.request.urlopen(f"{self.urls[which]}/asked", timeout=10) as answer:
            told = json.load(answer)
        return {"asked": told["asked"], "connections": told["connections"] - 1, "open": told["open"] - 1}


class Answer:
    """What a client got."""

    def __init__(self, status: int, body: bytes, facts: Served | None) -> None:
        self.status = status
        self.body = body
        self.served = facts

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Client:
    """Makes one request through a cluster named "shop"."""

    name: str
    is_async = False
    errors: tuple[type[Exception], ...]
    timeouts: tuple[type[Exception], ...]

    def fetch(
        self,
        cluster: Cluster[Any],
        path: str,
        *,
        method: str = "GET",
        around: Callable[[], AbstractContextManager[Any]] = nullcontext,
        max_body: int | None = 4 * 1024 * 1024,
        times: int = 1,
        pace: bool = False,
        base: str = "http://shop",
        **options: Any,
    ) -> Answer:
        """Request `path` and read the response, all within `around()`; with `times`, that often one after the other."""
        raise NotImplementedError

    def __repr__(self) -> str:
        return self.name


def _clusters(cluster: Cluster[Any]) -> dict[str, Cluster[Any]]:
    return {"shop": cluster}


class Sync(Client):
    def __init__(self, package: Any) -> None:
        self.package = package
        self.name = package.__name__
        self.errors = (package.TransportError,)
        self.timeouts = (package.TimeoutException,)

    def fetch(
        self,
        cluster: Cluster[Any],
        path: str,
        *,
        method: str = "GET",
        around: Callable[[], AbstractContextManager[Any]] = nullcontext,
        max_body: int | None = 4 * 1024 * 1024,
        times: int = 1,
        pace: bool = False,
        base: str = "http://shop",
        **options: Any,
    ) -> Answer:
        transport = Transport(
            _clusters(cluster), inner=self.package.HTTPTransport(verify=False), max_body=max_body, pace=pace
        )
        with self.package.Client(transport=transport) as client:
            for _ in range(times):
                with around():
                    response = client.request(method, f"{base}{path}", **options)
        return Answer(response.status_code, response.content, response.extensions.get("seawall"))


class Async(Client):
    is_async = True

    def __init__(self, package: Any) -> None:
        self.package = package
        self.name = f"{package.__name__}-async"
        self.errors = (package.TransportError,)
        self.timeouts = (package.TimeoutException,)

    def fetch(
        self,
        cluster: Cluster[Any],
        path: str,
        *,
        method: str = "GET",
        around: Callable[[], AbstractContextManager[Any]] = nullcontext,
        max_body: int | None = 4 * 1024 * 1024,
        times: int = 1,
        pace: bool = False,
        base: str = "http://shop",
        **options: Any,
    ) -> Answer:
        async def main() -> Answer:
            inner = self.package.AsyncHTTPTransport(verify=False)
            transport = AsyncTransport(_clusters(cluster), inner=inner, max_body=max_body, pace=pace)
            async with self.package.AsyncClient(transport=transport) as client:
                for _ in range(times):
                    with around():
                        response = await client.request(method, f"{base}{path}", **options)
            return Answer(response.status_code, response.content, response.extensions.get("seawall"))

        return asyncio.run(main())


class AioHttp(Client):
    name = "aiohttp"
    is_async = True
    errors = (aiohttp.ClientError,)
    timeouts = (TimeoutError,)

    def fetch(
        self,
        cluster: Cluster[Any],
        path: str,
        *,
        method: str = "GET",
        around: Callable[[], AbstractContextManager[Any]] = nullcontext,
        max_body: int | None = 4 * 1024 * 1024,
        times: int = 1,
        pace: bool = False,
        base: str = "http://shop",
        content: Any = None,
        **options: Any,
    ) -> Answer:
        if isinstance(content, bytes) and len(content) > 1_000_000:
            content = io.BytesIO(content)  # aiohttp warns of large bytes

        async def main() -> Answer:
            middleware = Middleware(_clusters(cluster), max_body=max_body, pace=pace)
            async with aiohttp.ClientSession(middlewares=[middleware]) as session:
                for _ in range(times):
                    with around():
                        async with session.request(method, f"{base}{path}", data=content, **options) as response:
                            body = await response.read()
                return Answer(response.status, body, served(response))

        return asyncio.run(main())


CLIENTS: list[Client] = [Sync(httpx), Sync(httpx2), Async(httpx), Async(httpx2), AioHttp()]
