"""The decorator with Starlette alone: functions, methods of endpoint classes, sync and async."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.endpoints import HTTPEndpoint
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route

from seawall import ConfigError, Memory, Rule, Rules, TokenBucket
from seawall.http import Request as OurRequest
from seawall.integrations.fastapi import install, limited_endpoint
from seawall.testing import run
from tests.entrance.sites import bucket


def client(app: Any) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app, client=("203.0.113.9", 1)), base_url="http://api")


def in_time(scenario: Callable[[], Any]) -> Callable[[], None]:
    return lambda: run(scenario)


@limited_endpoint(bucket("1/min"), fields="both")
async def asynchronous(request: Request) -> Response:
    return PlainTextResponse(request.url.path)


@limited_endpoint(bucket("1/min"))
def synchronous(request: Request) -> Response:
    return PlainTextResponse(request.url.path)


class Shop(HTTPEndpoint):
    @limited_endpoint(bucket("1/min"))
    async def get(self, request: Request) -> Response:
        return PlainTextResponse("all")

    async def post(self, request: Request) -> Response:
        return PlainTextResponse("made")


def site(*routes: Route, installed: bool = True) -> Starlette:
    app = Starlette(routes=[*routes, Route("/shop", Shop)])
    if installed:
        install(app)
    return app


@pytest.mark.parametrize("installed", [True, False])
def test_functions_are_limited_and_told(installed: bool) -> None:
    @limited_endpoint(bucket("1/min"))
    async def home(request: Request) -> Response:
        return PlainTextResponse("fine")

    async def main() -> None:
        async with client(site(Route("/", home), installed=installed)) as http:
            served, refused = await http.get("/"), await http.get("/")
            assert (served.status_code, served.headers.get_list("ratelimit")) == (200, ['"api";r=0;t=60'])
            assert (refused.status_code, refused.headers["retry-after"]) == (429, "60")
            kind = "application/problem+json" if installed else "text/plain; charset=utf-8"
            assert refused.headers["content-type"] == kind

    run(main)


@in_time
async def test_methods_of_endpoint_classes_are_limited_one_by_one() -> None:
    async with client(site()) as http:
        assert [(await http.get("/shop")).status_code for _ in range(2)] == [200, 429]
        assert (await http.post("/shop")).status_code == 200


def test_sync_endpoints_are_limited_too() -> None:
    async def main() -> None:
        async with client(site(Route("/", synchronous))) as http:
            served, refused = await http.get("/"), await http.get("/")
            assert (served.status_code, len(served.headers.get_list("ratelimit"))) == (200, 1)
            assert refused.status_code == 429

    asyncio.run(main())  # virtual time does not wait for the framework's threads


def test_a_sync_endpoint_cannot_await_its_key() -> None:
    async def key(request: OurRequest) -> str:
        return "ann"

    @limited_endpoint(bucket("1/min"), key=key)
    def home(request: Request) -> Response:
        return PlainTextResponse("fine")

    async def main() -> None:
        async with client(site(Route("/", home))) as http:
            with pytest.raises(ConfigError, match="needs an async endpoint"):
                await http.get("/")

    asyncio.run(main())


@in_time
async def test_a_key_that_only_fastapi_can_find_is_an_error() -> None:
    def user(token: str) -> str:
        return token

    @limited_endpoint(bucket(), key=user)
    async def home(request: Request) -> Response:
        return PlainTextResponse("fine")

    async with client(site(Route("/", home))) as http:
        with pytest.raises(ConfigError, match="dependency"):
            await http.get("/")


@in_time
async def test_rules_know_the_name_of_the_route() -> None:
    rules = Rules(Rule(TokenBucket("1/min"), {"operation": "find"}), Rule(TokenBucket("2/min")), store=Memory())

    @limited_endpoint(rules, key=lambda request: {})
    async def home(request: Request) -> Response:
        return PlainTextResponse("fine")

    app = Starlette(routes=[Mount("/v1", routes=[Route("/a", home, name="find"), Route("/b", home)])])
    async with client(app) as http:
        assert [(await http.get("/v1/a")).status_code for _ in range(2)] == [200, 429]
        assert [(await http.get("/v1/b")).status_code for _ in range(3)] == [200, 200, 429]


@in_time
async def test_a_response_that_is_used_again_carries_the_fields_of_its_request() -> None:
    shared = PlainTextResponse("fine")

    @limited_endpoint(bucket("5/min"))
    async def home(request: Request) -> Response:
        return shared

    async with client(site(Route("/", home))) as http:
        assert [(await http.get("/")).headers.get_list("ratelimit") for _ in range(2)] == [
            ['"api";r=4;t=12'],
            ['"api";r=3;t=24'],
        ]
