"""ASGI middleware that limits requests, WebSocket connections and messages: for Starlette, FastAPI, Litestar, ..."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any

from seawall.http.callers import KeyOf
from seawall.http.client_address import ClientAddress
from seawall.http.entrance import CostOf, Entrance, Exempt, Fields, PartsOf, messages_of
from seawall.http.messages import Metered
from seawall.http.scope import App, Message, Receive, Scope, Send, request_of, send_problem
from seawall.limiter import Limiter, Rules
from seawall.limiter.asking import Cost
from seawall.stores.decision import Decision

__all__ = ["RateLimitMiddleware"]


class RateLimitMiddleware:
    """Refuse requests beyond a limit with 429, and tell all others how much is left.

    The answer has `RateLimit-Policy` and `RateLimit` (or the older `X-RateLimit-*`); a refusal also Retry-After and a
    problem+json body, and nothing of the request is read for it. A WebSocket is counted when it connects; `messages`
    limits what it sends then, and closes it when that is too much. Limits that need to know the user stand further
    inside, after authentication: see `seawall.integrations.fastapi`.

    Args:
        app: the application.
        limiter: a `Limiter`, or `Rules`.
        key: a function of the request (`seawall.http.Request`), sync or async, that gives the key; for `Rules`, the
            parts. Default: the client's address, without trusted proxies; behind a proxy give
            `ClientAddress(trusted=[...])`, or all clients share one bucket.
        cost: a whole number, or a function of the request. Default 1, or that of the rule.
        exempt: paths that are not counted, `"/health"` or `"/static/*"`; or a predicate of the request.
        fields: "draft" (default), "legacy", "both" or "none".
        messages: a limiter for what each WebSocket receives, by the same key. Default: no limit.

    Raises:
        ConfigError: a setting is wrong; at a request: the key function gave None, or nothing that can be a key.

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
        key: KeyOf | PartsOf | None = None,
        cost: Cost | CostOf | None = None,
        exempt: Exempt = (),
        fields: Fields = "draft",
        messages: Limiter | Rules | None = None,
    ) -> None:
        self.app = app
        if key is None and isinstance(limiter, Limiter):
            key = ClientAddress()
        self._entrance = Entrance("RateLimitMiddleware", limiter, key, cost, exempt, fields, is_async=True)
        self._messages = messages_of("RateLimitMiddleware", limiter, messages)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        kind = scope["type"]
        if kind not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        entrance, request = self._entrance, request_of(scope)
        if entrance.has_exempt and entrance.exempts(request):
            await self.app(scope, receive, send)
            return
        if self._messages is not None and kind == "websocket":
            found = await entrance.afind(request)
            decision = await entrance.adecide_by(request, found)
            admit = self._messages.admitting(request, found)
            metered = Metered(receive, send, admit, lambda: ConnectionResetError("the connection was closed"))
            receive, send = metered.receive, metered.send
        elif entrance.answers_at_once:
            decision = entrance.decide(request)
        else:
            decision = await entrance.adecide(request)
        if not decision.allowed:
            await send_problem(entrance.refusal(decision), scope, send)
        elif entrance.tells:
            await self.app(scope, receive, _telling(entrance, decision, send))
        else:
            await self.app(scope, receive, send)

    def snapshot(self) -> dict[str, Any]:
        """Counters, JSON-ready. `refused`: requests and connections; `closed`: connections with too many messages."""
        closed = 0 if self._messages is None else self._messages.refused
        return {"refused": self._entrance.refused, "closed": closed}


def _telling(entrance: Entrance, decision: Decision, send: Send) -> Send:
    """`send`, with the fields in the head of the response."""

    # Not a coroutine of its own: that would be one more for each message of a long response.
    def tell(message: Message) -> Awaitable[None]:
        if message["type"] in ("http.response.start", "websocket.accept", "websocket.http.response.start"):
            message = {**message, "headers": [*message.get("headers", ()), *entrance.wire_fields(decision)]}
        return send(message)

    return tell
