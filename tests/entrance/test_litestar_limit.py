"""The ASGI middleware in front of Litestar: whole applications, single routes, WebSockets, and what Litestar does itself."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest

from seawall import Limiter, Memory, TokenBucket
from seawall.http import api_key
from seawall.integrations.asgi import RateLimitMiddleware
from seawall.testing import run
from tests.entrance.sites import Site, bucket

litestar = pytest.importorskip("litestar", reason="Litestar is not installed (pip install litestar)")
WebSocket = litestar.WebSocket


def shop(**options: Any) -> Any:
    @litestar.get("/")
    async def home() -> dict[str, str]:
        return {"it": "works"}

    @litestar.get("/health")
    async def health() -> str:
        return "well"

    @litestar.get("/teapot")
    async def teapot() -> None:
        raise litestar.exceptions.HTTPException(status_code=418, detail="I am a teapot")

    @litestar.get("/sync", sync_to_thread=False)
    def sync() -> str:
        return "sync"

    @litestar.websocket("/echo")
    async def echo(socket: WebSocket) -> None:
        await socket.accept()
        with contextlib.suppress(litestar.exceptions.WebSocketDisconnect):
            while True:
                await socket.send_text(await socket.receive_text())

    @litestar.websocket("/careless")
    async def careless(socket: WebSocket) -> None:
        await socket.accept()
        while True:
            await socket.send_text(await socket.receive_text())

    return litestar.Litestar([home, health, teapot, sync, echo, careless], logging_config=None, **options)


def middleware(limiter: Limiter, **options: Any) -> Any:
    """As Litestar takes any ASGI middleware: a function from one application to another."""
    return lambda app: RateLimitMiddleware(app, limiter, **options)


WAYS = {
    "around it": lambda limiter, **options: RateLimitMiddleware(shop(), limiter, **options),
    "in its own list": lambda limiter, **options: shop(middleware=[middleware(limiter, **options)]),
}
each_way = pytest.mark.parametrize("way", WAYS)


def at(app: Any) -> Site:
    async def served(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "websocket":
            del scope["method"]  # servers give none, and Litestar looks
        await app(scope, receive, send)

    return Site(lambda _: served)


async def ask(app: Any, path: str = "/", **more: Any) -> Any:
    scope: dict[str, Any] = {
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "scheme": "http",
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "server": ("localhost", 80),
        "extensions": {},
        "state": {},
    }
    return await at(app).ask(path, **{**scope, **more})


@each_way
def test_requests_beyond_the_limit_are_refused_and_all_are_told(way: str) -> None:
    async def main() -> None:
        app = WAYS[way](bucket())
        answers = [await ask(app) for _ in range(3)]
        assert [answer.status for answer in answers] == [200, 200, 429]
        assert [answer.get("RateLimit") for answer in answers] == ['"api";r=1;t=30', '"api";r=0;t=60', '"api";r=0;t=30']
        assert answers[0].body == b'{"it":"works"}'
        assert answers[2].get("Retry-After") == "30"
        assert answers[2].get("Content-Type") == "application/problem+json"
        other = await ask(app, client=("198.51.100.1", 1))
        assert other.status == 200, "another caller"

    run(main)


def test_errors_and_unknown_paths_are_told_and_counted_too() -> None:
    async def main() -> None:
        app = WAYS["around it"](bucket("3/min"))
        answers = [await ask(app, path) for path in ("/teapot", "/nowhere", "/sync", "/")]
        assert [answer.status for answer in answers] == [418, 404, 200, 429]
        assert all(answer.told == {"ratelimit", "ratelimit-policy"} for answer in answers)

    run(main)


def test_in_its_own_list_unknown_paths_pass_it_by() -> None:
    async def main() -> None:
        app = WAYS["in its own list"](bucket("1/min"))
        for _ in range(2):
            answer = await ask(app, "/nowhere")
            assert answer.status == 404 and not answer.told

    run(main)


@each_way
def test_exempt_paths_are_neither_counted_nor_told(way: str) -> None:
    async def main() -> None:
        app = WAYS[way](bucket("1/min"), exempt=("/health",))
        for _ in range(3):
            answer = await ask(app, "/health")
            assert answer.status == 200 and not answer.told
        assert [(await ask(app)).status for _ in range(2)] == [200, 429]

    run(main)


@each_way
def test_a_key_may_be_a_header(way: str) -> None:
    async def main() -> None:
        app = WAYS[way](bucket("1/min"), key=api_key("X-API-Key"))
        found = [(await ask(app, headers=[("x-api-key", who)])).status for who in ("ann", "ann", "ben")]
        assert found == [200, 429, 200]

    run(main)


def texts(*said: str) -> list[dict[str, Any]]:
    sent = [{"type": "websocket.receive", "text": text} for text in said]
    return [{"type": "websocket.connect"}, *sent, {"type": "websocket.disconnect", "code": 1000}]


@each_way
def test_connections_beyond_the_limit_are_refused(way: str) -> None:
    async def main() -> None:
        app = WAYS[way](bucket())
        kinds = []
        for _ in range(3):
            answer = await ask(app, "/echo", kind="websocket", incoming=texts(), scheme="ws", subprotocols=[])
            kinds.append(answer.messages[0]["type"])
        assert kinds == ["websocket.accept", "websocket.accept", "websocket.close"]

    run(main)


@pytest.mark.parametrize("path", ["/echo", "/careless"])
def test_one_message_too_many_closes_the_connection(path: str) -> None:
    async def main() -> None:
        messages = Limiter(TokenBucket("2/min"), name="messages", store=Memory())
        app = WAYS["around it"](bucket("9/min"), messages=messages)
        incoming = texts("a", "b", "c", "d")
        answer = await ask(app, path, kind="websocket", incoming=incoming, scheme="ws", subprotocols=[])
        kinds = [message["type"].partition(".")[2] for message in answer.messages]
        assert kinds == ["accept", "send", "send", "close"]
        assert answer.messages[-1]["code"] == 1008

    run(main)
