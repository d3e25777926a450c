"""Replicas without a network for httpx and httpx2, in both worlds of virtual time.

A test marked `@with_every_client` takes a `Shop`: `shop.cluster(...)` makes a cluster of fake replicas, `await
shop.get(...)` sends a request through it by the transport of that world. What a replica does is a script: a status, an
error, a response, `hang`, `slow(...)`; the last step is repeated.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import Any

import httpx
import httpx2
import pytest

from seawall import Cluster, Registry
from seawall.integrations.httpx import AsyncTransport, Transport
from seawall.runtime import clock
from seawall.testing import hang, slow
from tests.policies.worlds import World

__all__ = ["Shop", "Stream", "with_every_client"]

HOSTS = ("10.0.0.1", "10.0.0.2", "10.0.0.3")


class Stream:
    """A body of a response that is made as it is read, and knows what became of it."""

    def __init__(self, shop: Shop, *chunks: object) -> None:
        self.shop = shop
        self.chunks = list(chunks)
        self.sent = 0
        self.closed = 0
        stream = self

        class Sync(shop.package.SyncByteStream):  # type: ignore[misc, name-defined]
            def __iter__(self) -> Iterator[bytes]:
                for step in stream.chunks:
                    chunk: Any = step
                    if isinstance(step, slow):
                        clock.sleep_ns(step.delay_ns)
                        chunk = step.then
                    if isinstance(chunk, Exception):
                        raise chunk
                    stream.sent += 1
                    yield chunk

            def close(self) -> None:
                stream.closed += 1

        class Async(shop.package.AsyncByteStream):  # type: ignore[misc, name-defined]
            async def __aiter__(self) -> AsyncIterator[bytes]:
                for step in stream.chunks:
                    chunk: Any = step
                    if isinstance(step, slow):
                        await asyncio.sleep(step.delay_ns / 1e9)
                        chunk = step.then
                    if isinstance(chunk, Exception):
                        raise chunk
                    stream.sent += 1
                    yield chunk

            async def aclose(self) -> None:
                stream.closed += 1

        self.stream: Any = Async() if shop.world.is_async else Sync()


class Shop:
    """A client of one package in one world, and the replicas it talks to."""

    def __init__(self, package: Any, world: World) -> None:
        self.package = package
        self.world = world
        self.scripts: dict[str, list[object]] = {}
        self.requests: list[Any] = []
        self.times: list[float] = []

    # -- replicas ------------------------------------------------------------------------------------------------------

    def cluster(self, *scripts: Any, name: str = "shop", **options: Any) -> Cluster[Any]:
        """A cluster with a replica for each script: a step, or a list of them."""
        hosts = HOSTS[: len(scripts)]
        for host, script in zip(hosts, scripts, strict=True):
            self.scripts[host] = list(script) if isinstance(script, list) else [script]
        options.setdefault("names", Registry())
        return Cluster(name, [f"http://{host}:80" for host in hosts], **options)

    @property
    def asked(self) -> list[str]:
        """The last digit of the replicas that were asked, in order."""
        return [request.url.host[-1] for request in self.requests]

    def _step(self, request: Any) -> Any:
        self.requests.append(request)
        self.times.append(self.world.now)
        script = self.scripts[request.url.host]
        return script.pop(0) if len(script) > 1 else script[0]

    def _end(self, request: Any, step: Any) -> Any:
        if callable(step) and not isinstance(step, type):
            step = step(request)
        if isinstance(step, BaseException):
            raise step
        if isinstance(step, type) and issubclass(step, BaseException):
            raise step("as told")
        if isinstance(step, int):
            return self.response(step, text=f"{step} from {request.url.host[-1]}")
        return step

    def response(self, status: int, **more: Any) -> Any:
        return self.package.Response(status, **more)

    def streamed(self, stream: Stream, status: int = 200, **more: Any) -> Any:
        return self.package.Response(status, stream=stream.stream, **more)

    def answer(self, request: Any) -> Any:
        step = self._step(request)
        while isinstance(step, slow):
            clock.sleep_ns(step.delay_ns)
            step = step.then
        return self._end(request, step)

    async def aanswer(self, request: Any) -> Any:
        step = self._step(request)
        while isinstance(step, slow):
            await asyncio.sleep(step.delay_ns / 1e9)
            step = step.then
        if step is hang:
            await asyncio.get_running_loop().create_future()
        return self._end(request, step)

    # -- the client ----------------------------------------------------------------------------------------------------

    def transport(self, clusters: Any = None, **options: Any) -> Any:
        options.setdefault("inner", self.inner())
        return (AsyncTransport if self.world.is_async else Transport)(clusters, **options)

    def inner(self) -> Any:
        return self.package.MockTransport(self.aanswer if self.world.is_async else self.answer)

    def client(self, clusters: Any = None, *, options: Any = None, **more: Any) -> Any:
        make = self.package.AsyncClient if self.world.is_async else self.package.Client
        return make(transport=self.transport(clusters, **(options or {})), **more)

    async def request(self, clusters: Any, method: str, url: str = "http://shop/items/7", **options: Any) -> Any:
        """One request by a client made for it; `max_body` goes to the transport."""
        transport = {key: options.pop(key) for key in ("max_body",) if key in options}
        client = self.client(clusters, options=transport, follow_redirects=options.pop("follow_redirects", False))
        if self.world.is_async:
            async with client:
                return await client.request(method, url, **options)
        with client:
            return client.request(method, url, **options)

    async def get(self, clusters: Any, url: str = "http://shop/items/7", **options: Any) -> Any:
        return await self.request(clusters, "GET", url, **options)

    async def post(self, clusters: Any, url: str = "http://shop/orders", **options: Any) -> Any:
        return await self.request(clusters, "POST", url, **options)

    async def error_of(self, clusters: Any, method: str = "GET", **options: Any) -> Any:
        """What a request raises."""
        with pytest.raises(Exception) as caught:  # noqa: PT011  # whatever it is, the test looks at it
            await self.request(clusters, method, **options)
        return caught.value

    def streaming(self, clusters: Any, url: str = "http://shop/items/7") -> Streaming:
        """`async with shop.streaming(cluster) as chunks: async for chunk in chunks:`"""
        return Streaming(self, clusters, url)


class Streaming:
    """A response that is read as it comes, in either world."""

    def __init__(self, shop: Shop, clusters: Any, url: str) -> None:
        self._shop = shop
        self._client = shop.client(clusters)
        self._context = self._client.stream("GET", url)

    async def __aenter__(self) -> AsyncIterator[bytes]:
        if self._shop.world.is_async:
            self.response = await self._context.__aenter__()
        else:
            self.response = self._context.__enter__()
        return self._chunks()

    async def _chunks(self) -> AsyncIterator[bytes]:
        if self._shop.world.is_async:
            async for chunk in self.response.aiter_raw():
                yield chunk
        else:
            for chunk in self.response.iter_raw():
                yield chunk

    async def __aexit__(self, *error: object) -> None:
        if self._shop.world.is_async:
            await self._context.__aexit__(*error)
            await self._client.aclose()
        else:
            self._context.__exit__(*error)
            self._client.close()


def with_every_client(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run an async test of a `shop` with httpx and httpx2, in threads' calls and in asyncio's."""
    worlds = [World(is_async=False), World(is_async=True)]
    pairs = [pytest.param(package, world) for package in (httpx, httpx2) for world in worlds]
    ids = [
        f"{package.__name__}-{'async' if world.is_async else 'sync'}" for package in (httpx, httpx2) for world in worlds
    ]

    @pytest.mark.parametrize(("package", "world"), pairs, ids=ids)
    @functools.wraps(test)
    def every(package: Any, world: World, **fixtures: Any) -> None:
        world.run(lambda: test(Shop(package, world), **fixtures))

    # pytest asks for the arguments of this function, not of the one it wraps
    del every.__wrapped__  # type: ignore[attr-defined]
    every.__signature__ = _signature(test)  # type: ignore[attr-defined]
    return every


def _signature(test: Callable[..., Any]) -> Any:
    import inspect

    given = list(inspect.signature(test).parameters.values())[1:]
    own = [inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD) for name in ("package", "world")]
    return inspect.Signature([*own, *given])
