"""ASGI middleware that limits requests, WebSocket connections and messages: for Starlette, FastAPI, Litestar, ..."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from typing import Any

from seawall.errors import ConfigError
from seawall.http.callers import ClientAddress, KeyOf
from seawall.http.entrance import Entrance, Exempt, Fields
from seawall.http.problem import Problem
from seawall.http.request import Request
from seawall.limiter import Limiter, Rules
from seawall.limiter.asking import Cost
from seawall.stores.decision import Decision

__all__ = ["RateLimitMiddleware", "request_of"]

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

DENIAL = "websocket.http.response"
TRY_AGAIN_LATER, POLICY_VIOLATION = 1013, 1008


class RateLimitMiddleware:
    """Refuse requests beyond a limit with 429, and tell all others how much is left.

    The answer has `RateLimit-Policy` and `RateLimit` (or the older `X-RateLimit-*`); a refusal also Retry-After and a
    problem+json body. A WebSocket is counted when it connects; `messages` limits what it sends then, and closes it when
    that is too much. Limits that need to know the user stand further inside, after authentication: see
    `seawall.integrations.fastapi`.

    Args:
        app: the application.
        limiter: a `Limiter`, or `Rules`.
        key: a function of the request (`seawall.http.Request`) that gives the key; for `Rules`, the parts. Default: the
            client's address, without trusted proxies; behind a proxy give `ClientAddress(trusted=[...])`, or all
            clients share one bucket.
        cost: a whole number, or a function of the request. Default 1, or that of the rule.
        exempt: paths that are not counted, `"/health"` or `"/static/*"`; or a predicate of the request.
        fields: "draft" (default), "legacy", "both" or "none".
        messages: a `Limiter` for what each WebSocket receives, by the same key. Default: no limit.

    Raises:
        ConfigError: a setting is wrong.

    Example:
        >>> from seawall import Limiter, TokenBucket
        >>> async def app(scope, receive, send):
        ...     await send({"type": "http.response.start", "status": 200, "headers": []})
        >>> limited = RateLimitMiddleware(app, Limiter(TokenBucket("1/min"), name="api"), exempt=["/health"])
        >>> async def show(message): print(message.get("status"), dict(message.get("headers", ())).get(b"ratelimit"))
        >>> scope = {"type": "http", "method": "GET", "path": "/", "client": ("10.1.2.3", 4711), "headers": []}
        >>> await limited(scope, None, show)
        200 b'"TokenBucket";r=0;t=60'
    """

    def __init__(
        self,
        app: App,
        limiter: Limiter | Rules,
        *,
        key: KeyOf | Callable[[Request], Mapping[str, str]] | None = None,
        cost: Cost | Callable[[Request], Cost] | None = None,
        exempt: Exempt = (),
        fields: Fields = "draft",
        messages: Limiter | None = None,
    ) -> None:
        self.app = app
        if key is None and isinstance(limiter, Limiter):
            key = ClientAddress()
        self._entrance = Entrance("RateLimitMiddleware", limiter, key, cost, exempt, fields)
        if messages is not None and not isinstance(messages, Limiter):  # pyright: ignore[reportUnnecessaryIsInstance]  # callers without a type checker
            raise ConfigError(f"RateLimitMiddleware(messages={messages!r}): expected a Limiter")
        self._messages = None if messages is None else Entrance("messages", messages, key, None, (), "none")
        self.refused = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        kind = scope["type"]
        if kind not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        request = request_of(scope)
        if self._entrance.exempts(request):
            await self.app(scope, receive, send)
            return
        decision = await self._entrance.adecide(request)
        if not decision.allowed:
            self.refused += 1
            await _refuse(self._entrance.refusal(decision), scope, send)
        elif kind == "http":
            await self.app(scope, receive, self._telling(send, decision))
        elif self._messages is None:
            await self.app(scope, receive, send)
        else:
            await self.app(scope, _counted(self._messages, request, receive, send), send)

    def _telling(self, send: Send, decision: Decision) -> Send:
        """`send`, with the fields in the head of the response."""
        fields = self._entrance.fields(decision)
        if not fields:
            return send
        extra = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in fields.items()]

        async def tell(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", ()), *extra]}
            await send(message)

        return tell


def request_of(scope: Scope) -> Request:
    """The request of an ASGI scope, for key functions."""
    client, server = scope.get("client"), scope.get("server")
    peer = str(client[0]) if client and client[0] else ("" if server and server[1] is not None else None)

    def values(name: str) -> Sequence[str]:
        wanted = name.encode("latin-1", "replace")
        return [value.decode("latin-1") for found, value in scope["headers"] if found.lower() == wanted]

    return Request(scope.get("method", "GET"), scope.get("path", "/"), peer, values, scope)


def _counted(messages: Entrance, request: Request, receive: Receive, send: Send) -> Receive:
    """`receive` of a WebSocket whose messages are limited: one too many, and it is closed."""

    async def counted() -> Message:
        message = await receive()
        if message["type"] != "websocket.receive" or (await messages.adecide(request)).allowed:
            return message
        await send({"type": "websocket.close", "code": POLICY_VIOLATION, "reason": "too many messages"})
        return {"type": "websocket.disconnect", "code": POLICY_VIOLATION, "reason": "too many messages"}

    return counted


async def _refuse(problem: Problem, scope: Scope, send: Send) -> None:
    start = "http.response" if scope["type"] == "http" else DENIAL
    if start == DENIAL and DENIAL not in (scope.get("extensions") or {}):
        await send({"type": "websocket.close", "code": TRY_AGAIN_LATER})
        return
    headers = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in problem.headers]
    await send({"type": f"{start}.start", "status": problem.status, "headers": headers})
    await send({"type": f"{start}.body", "body": b"" if scope.get("method") == "HEAD" else problem.body})
