"""WebSockets in FastAPI and Starlette: refused by the handshake, and message by message, through the test client."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI, Header, WebSocket, WebSocketDisconnect
from fastapi.testclient import TestClient
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.testclient import WebSocketDenialResponse

from seawall import CircuitOpen, Limiter, Memory, TokenBucket
from seawall.integrations.fastapi import install, limited, limited_endpoint
from seawall.testing import VirtualClock
from tests.entrance.sites import bucket


@pytest.fixture
def time() -> Iterator[VirtualClock]:
    with VirtualClock() as clock:
        yield clock


async def user(x_user: Annotated[str, Header()]) -> str:
    return x_user


async def echo(websocket: WebSocket) -> None:
    await websocket.accept()
    with contextlib.suppress(WebSocketDisconnect):
        while True:
            await websocket.send_text(await websocket.receive_text())


def site(way: str, limiter: Limiter, messages: Limiter | None = None) -> Any:
    if way == "starlette":
        endpoint = limited_endpoint(limiter, key=lambda request: request.header("x-user"), messages=messages)(echo)
        app: Any = Starlette(routes=[WebSocketRoute("/", endpoint)])
    else:
        app = FastAPI()
        if way == "dependency":
            app.websocket("/", dependencies=[Depends(limited(limiter, key=user, messages=messages))])(echo)
        else:
            app.websocket("/")(limited_endpoint(limiter, key=user, messages=messages)(echo))
    install(app)
    return app


WAYS = pytest.mark.parametrize("way", ["dependency", "decorator", "starlette"])
ANN, BOB = {"X-User": "ann"}, {"X-User": "bob"}


@WAYS
def test_connections_beyond_the_limit_are_answered_with_429(way: str, time: VirtualClock) -> None:
    http = TestClient(site(way, bucket("1/min")))
    with http.websocket_connect("/", headers=ANN) as socket:
        socket.send_text("hello")
        assert socket.receive_text() == "hello"
    with pytest.raises(WebSocketDenialResponse) as refused, http.websocket_connect("/", headers=ANN):
        pass
    answer = refused.value
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "60")
    assert answer.headers["content-type"] == "application/problem+json"
    with http.websocket_connect("/", headers=BOB):
        pass
    time.advance(60)
    with http.websocket_connect("/", headers=ANN) as socket:
        assert socket.accepted_subprotocol is None


@WAYS
def test_one_message_too_many_closes_the_connection(way: str, time: VirtualClock) -> None:
    http = TestClient(site(way, bucket("100/min"), bucket("2/min")))
    with http.websocket_connect("/", headers=ANN) as socket:
        for text in ("one", "two"):
            socket.send_text(text)
            assert socket.receive_text() == text
        time.advance(30)
        socket.send_text("three")
        assert socket.receive_text() == "three"
        socket.send_text("four")
        with pytest.raises(WebSocketDisconnect) as closed:
            socket.receive_text()
    assert (closed.value.code, closed.value.reason) == (1008, "too many messages")


def test_who_sends_after_the_close_is_told_that_the_client_is_gone(time: VirtualClock) -> None:
    seen: list[Any] = []
    app = FastAPI()

    @app.websocket("/", dependencies=[Depends(limited(bucket(), messages=bucket("1/min")))])
    async def stubborn(websocket: WebSocket) -> None:
        await websocket.accept()
        for _ in range(2):
            try:
                seen.append(await websocket.receive_json())
                await websocket.send_json(1)
            except WebSocketDisconnect as gone:
                seen.append(gone.code)
        with contextlib.suppress(WebSocketDisconnect):
            await websocket.send_text("still there?")
            seen.append("sent")

    with TestClient(app).websocket_connect("/") as socket:
        socket.send_json({"a": 1})
        assert socket.receive_json() == 1
        socket.send_json({"a": 2})
        with pytest.raises(WebSocketDisconnect):
            socket.receive_text()
    assert seen == [{"a": 1}, 1008]


def test_a_server_that_cannot_answer_a_handshake_closes_it(time: VirtualClock) -> None:
    app = site("dependency", bucket("1/min"))

    async def older(scope: Any, receive: Any, send: Any) -> None:
        await app({**scope, "extensions": {}}, receive, send)

    http = TestClient(older)
    with http.websocket_connect("/", headers=ANN):
        pass
    with pytest.raises(WebSocketDisconnect) as refused, http.websocket_connect("/", headers=ANN):
        pass
    assert (refused.value.code, type(refused.value)) == (1013, WebSocketDisconnect)


@pytest.mark.parametrize(("accepts", "extensions"), [(False, True), (False, False), (True, True)])
def test_a_refusal_by_a_policy_ends_a_connection_at_any_stage(
    accepts: bool, extensions: bool, time: VirtualClock
) -> None:
    app = FastAPI()
    install(app)

    @app.websocket("/")
    async def fail(websocket: WebSocket) -> None:
        if accepts:
            await websocket.accept()
        raise CircuitOpen(retry_after=3)

    async def served(scope: Any, receive: Any, send: Any) -> None:
        await app(scope if extensions else {**scope, "extensions": {}}, receive, send)

    with pytest.raises(WebSocketDisconnect) as ended, TestClient(served).websocket_connect("/") as socket:
        socket.receive_text()
    if not accepts and extensions:
        assert isinstance(ended.value, WebSocketDenialResponse)
        assert (ended.value.status_code, ended.value.headers["retry-after"]) == (503, "3")
    else:
        assert ended.value.code == 1013


def test_the_fields_are_in_the_handshake(time: VirtualClock) -> None:
    limiter = Limiter(TokenBucket("2/min", name="api"), store=Memory())
    with TestClient(site("dependency", limiter)).websocket_connect("/", headers=ANN) as socket:
        told = dict(socket.extra_headers or [])
        assert told[b"ratelimit"] == b'"api";r=1;t=30'
