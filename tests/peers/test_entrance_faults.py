"""Faults of slowapi, none of which Seawall's limits at an entrance may have."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Mount, Route

from seawall import ConfigError, Limiter, Memory, TokenBucket
from seawall.integrations.asgi import RateLimitMiddleware
from seawall.integrations.fastapi import limited_endpoint
from seawall.limiter import workers
from seawall.testing import run
from tests.entrance.sites import Site, bucket


def in_time(scenario: Callable[[], Any]) -> Callable[[], None]:
    return lambda: run(scenario)


async def home(request: Request) -> Response:
    return PlainTextResponse("fine")


def client(app: Any, address: Any = ("203.0.113.9", 1)) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app, client=address), base_url="http://api")


def site(limiter: Limiter, *routes: Route | Mount) -> Starlette:
    app = Starlette(routes=[Route("/", home), *routes])
    app.add_middleware(RateLimitMiddleware, limiter=limiter)
    return app


def test_decorators_in_the_other_order_are_an_error() -> None:
    """slowapi's `@limiter.limit` above `@app.get` does nothing, and says nothing."""
    app = FastAPI()
    with pytest.raises(ConfigError, match="never be limited. Put @limited_endpoint below"):

        @limited_endpoint(bucket())
        @app.get("/")
        async def search() -> str:
            return "found"


@in_time
async def test_an_endpoint_need_not_take_the_request() -> None:
    """slowapi refuses an endpoint without a parameter `request`, and one without `response` if it is to tell."""
    app = FastAPI()

    @app.get("/")
    @limited_endpoint(bucket("1/min"))
    async def search(text: str = "") -> dict[str, str]:
        return {"found": text}

    async with client(app) as http:
        served, refused = await http.get("/"), await http.get("/")
    assert (served.status_code, served.headers["ratelimit"], refused.status_code) == (200, '"api";r=0;t=60', 429)


@in_time
async def test_a_refusal_says_when_to_come_back_without_being_asked_to() -> None:
    """slowapi sends no Retry-After unless its headers are switched on."""
    async with client(site(bucket("1/min"))) as http:
        await http.get("/")
        assert (await http.get("/")).headers["retry-after"] == "60"


def test_limits_of_several_workers_are_warned_about(monkeypatch: pytest.MonkeyPatch) -> None:
    """With slowapi every worker process has its own limit, by default and in silence."""
    monkeypatch.setattr(workers, "_warned", False)
    monkeypatch.setenv("WEB_CONCURRENCY", "4")
    with pytest.warns(RuntimeWarning, match="each worker admits the whole limit"):
        site(Limiter(TokenBucket("1/min"), name="api"))


@in_time
async def test_a_stream_has_one_head_and_begins_at_once() -> None:
    """slowapi's ASGI form keeps the head back until there is a body, and sends it again with every part of a stream."""

    async def stream(request: Request) -> Response:
        async def parts() -> Any:
            for part in (b"a", b"b", b"c"):
                yield part

        return StreamingResponse(parts())

    app = site(bucket(), Route("/stream", stream))
    it = Site(lambda inner: app)
    waiting = {"type": "http.request", "body": b"", "more_body": False}
    answer = await it.ask("/stream", incoming=[waiting], query_string=b"", asgi={"spec_version": "2.4"})
    kinds = [message["type"].rpartition(".")[2] for message in answer.messages]
    assert kinds == ["start", "body", "body", "body", "body"]
    assert (answer.body, len(answer.all("RateLimit"))) == (b"abc", 1)


@in_time
async def test_the_head_does_not_wait_for_the_body() -> None:
    """As above: whoever polls slowly would see nothing until the first event."""
    seen: list[float] = []

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await asyncio.sleep(10)
        await send({"type": "http.response.body", "body": b"late"})

    async def send(message: Any) -> None:
        seen.append(asyncio.get_running_loop().time())

    scope = {"type": "http", "method": "GET", "path": "/", "headers": [], "client": ("203.0.113.9", 1)}
    await RateLimitMiddleware(slow, bucket())(scope, None, send)  # type: ignore[arg-type]
    assert seen == [0, 10]


@in_time
async def test_what_is_not_found_and_what_is_mounted_is_limited_too() -> None:
    """slowapi's middlewares exempt whatever they find no route for: unknown paths, and all that is mounted."""
    for path, status in (("/nowhere", 404), ("/mounted/", 200)):
        async with client(site(bucket(), Mount("/mounted", routes=[Route("/", home)]))) as http:
            assert [(await http.get(path)).status_code for _ in range(3)] == [status, status, 429]


@in_time
async def test_websockets_are_limited_too() -> None:
    """slowapi lets them through."""
    it = Site(lambda app: RateLimitMiddleware(app, bucket("1/min")))
    assert (await it.ask(kind="websocket")).messages[0]["type"] == "http.response.start", "it came to the application"
    assert (await it.ask(kind="websocket")).messages == [{"type": "websocket.close", "code": 1013}]


@in_time
async def test_no_window_lets_twice_the_limit_pass() -> None:
    """slowapi counts in fixed windows by default: the limit just before the edge, and again just after."""
    served = 0
    async with client(site(Limiter(TokenBucket("10/min"), store=Memory()))) as http:
        await asyncio.sleep(59.9)
        for _ in range(2):
            for _ in range(20):
                served += (await http.get("/")).status_code == 200
            await asyncio.sleep(0.2)
    assert served == 10


@in_time
async def test_refused_requests_do_not_spend() -> None:
    """Its fixed window (limits) counts what it refuses: who keeps asking for much gets nothing at all."""
    limiter = bucket("4/min")
    app = Starlette(routes=[Route("/", home)])
    app.add_middleware(RateLimitMiddleware, limiter=limiter, cost=lambda request: int(request.header("x-cost") or 1))
    async with client(app) as http:
        assert (await http.get("/")).status_code == 200
        for _ in range(5):
            assert (await http.get("/", headers={"x-cost": "4"})).status_code == 429
        assert [(await http.get("/")).status_code for _ in range(4)] == [200, 200, 200, 429]


@in_time
async def test_clients_without_an_address_are_not_taken_for_this_machine() -> None:
    """slowapi's `get_remote_address` says 127.0.0.1 for whoever has none, in one bucket with its own health checks."""
    it = Site(lambda app: RateLimitMiddleware(app, bucket("1/min")))
    assert (await it.ask(client=None)).status == 200
    assert (await it.ask(client=("127.0.0.1", 1))).status == 200
    assert (await it.ask(client=None)).status == 429


@in_time
async def test_ipv6_clients_do_not_have_a_bucket_for_each_of_their_addresses() -> None:
    """slowapi counts each of the 2**64 addresses of a client for itself."""
    it = Site(lambda app: RateLimitMiddleware(app, bucket("1/min")))
    statuses = [(await it.ask(client=(f"2001:db8::{number:x}", 1))).status for number in range(1, 5)]
    assert statuses == [200, 429, 429, 429]
