"""ASGI as the middlewares and frameworks above it need it: who asks, and how a refusal is sent."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any

from seawall.http.problem import Problem
from seawall.http.request import Request

__all__ = [
    "DENIAL",
    "TRY_AGAIN_LATER",
    "App",
    "Message",
    "Receive",
    "Scope",
    "Send",
    "can_deny",
    "peer_of",
    "request_of",
    "send_problem",
]

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

DENIAL = "websocket.http.response"
"""The extension by which a handshake is answered like a request; without it a server says 403, whatever we tell it."""
TRY_AGAIN_LATER = 1013


def peer_of(scope: Scope) -> str | None:
    """The address at the other end; `None` for a Unix socket, and empty if the server does not tell it."""
    client = scope.get("client")
    if client and client[0]:
        return str(client[0])
    # A server that has a port and does not know its client is not behind a Unix socket.
    server = scope.get("server")
    return "" if server and server[1] is not None else None


def request_of(scope: Scope) -> Request:
    """The request, for key functions."""

    def values(name: str) -> Sequence[str]:
        wanted = name.encode("latin-1", "replace")
        return [value.decode("latin-1") for found, value in scope["headers"] if found.lower() == wanted]

    return Request(
        scope.get("method", "GET"), scope.get("path", "/"), peer_of(scope), values, scope, lambda: _operation(scope)
    )


def _operation(scope: Scope) -> str | None:
    """The name of the route, once Starlette or FastAPI has found it."""
    name = getattr(scope.get("route"), "name", None) or getattr(scope.get("endpoint"), "__name__", None)
    return name if isinstance(name, str) else None


def can_deny(scope: Scope) -> bool:
    """Whether the handshake of a WebSocket can be answered like a request."""
    return DENIAL in (scope.get("extensions") or {})


async def send_problem(problem: Problem, scope: Scope, send: Send) -> None:
    """Answer a request, or a handshake, that is refused."""
    start = "http.response"
    if scope["type"] == "websocket":
        if not can_deny(scope):
            await send({"type": "websocket.close", "code": TRY_AGAIN_LATER})
            return
        start = DENIAL
    headers = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in problem.headers]
    await send({"type": f"{start}.start", "status": problem.status, "headers": headers})
    body = b"" if scope.get("method") == "HEAD" else problem.body
    await send({"type": f"{start}.body", "body": body})
