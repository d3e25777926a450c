"""ASGI middleware: a request runs in its caller's context, and a refusal nobody caught becomes a fitting answer."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from seawall.context import CURRENT, Context, restore
from seawall.http.edge import Edge
from seawall.http.peers import Trusted
from seawall.http.propagation import HEADERS
from seawall.http.scope import DENIAL, App, Message, Receive, Scope, Send, peer_of, send_problem
from seawall.units import Duration

__all__ = ["SeawallMiddleware"]

PREFIX = b"seawall-"
NAMES = {name.lower().encode(): name for name in HEADERS}


class SeawallMiddleware:
    """Take deadline, criticality and attempt in from trusted peers, and answer refusals with 429, 503 or 504.

    For HTTP requests and WebSockets. While the application serves one, `seawall.remaining()` and `seawall.current()`
    tell what arrived, and every policy obeys the deadline. It interrupts nothing by itself. When the whole response is
    out, the deadline is lifted: what the application still does in the background is not for its caller.

    A `Rejected` (429 or 503) or `DeadlineExceeded` (504) that nobody caught, alone or in groups of nothing else, is
    answered with a problem+json body and Retry-After, unless the response has begun. A request whose deadline has
    already passed is answered so without calling the application. Frameworks answer errors as well: put this inside
    what turns them into a 500, as `app.add_middleware(SeawallMiddleware, ...)` does for Starlette and FastAPI.

    Args:
        app: the application.
        trusted: whose headers are believed: addresses and networks such as `"10.0.0.0/8"`, and `"unix"` for whoever
            comes through a Unix socket; or a predicate of the address (`None` for a Unix socket). It is the address
            at the other end of the connection, `scope["client"]`, that counts. uvicorn rewrites that from
            X-Forwarded-For for proxies it trusts, 127.0.0.1 by default (`forwarded_allow_ips`): start it with
            `--no-proxy-headers` if the proxy itself is to be judged. Default: nobody.
        deadline: what a request gets that brings no deadline; a duration above 0. Default None: no deadline.
        max_deadline: the most that any request gets, whatever it brings. Default None: no limit.
            Neither of the two holds for WebSockets, which are meant to last.

    Raises:
        ConfigError: a setting is outside its range.

    Example:
        >>> from seawall import Rejected, remaining
        >>> async def app(scope, receive, send):
        ...     raise Rejected("closed for today", retry_after=remaining())
        >>> middleware = SeawallMiddleware(app, trusted=["10.0.0.0/8", "unix"])
        >>> scope = {"type": "http", "method": "GET", "path": "/", "client": ("10.1.2.3", 4711),
        ...          "headers": [(b"seawall-deadline", b"2000")]}
        >>> async def show(message): print(message.get("status", message.get("body")))
        >>> await middleware(scope, None, show)
        503
        b'{"type": "urn:seawall:rejected", "title": "Cannot be served now", "status": 503, "retry_after": 2}'
    """

    def __init__(
        self,
        app: App,
        *,
        trusted: Trusted = (),
        deadline: Duration | None = None,
        max_deadline: Duration | None = None,
    ) -> None:
        self.app = app
        self._edge = Edge("SeawallMiddleware", trusted, deadline, max_deadline)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        kind = scope["type"]
        if kind not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        found = _ours(scope["headers"])
        context = self._edge.context(found, lambda: peer_of(scope), limited=kind == "http")
        response = _Response(send, context)
        reset = CURRENT.set(context)
        try:
            self._edge.refuse_late(context)
            await self.app(scope, receive, response.send)
        except Exception as error:
            problem = None if response.begun else self._edge.answer(error)
            if problem is None:
                raise
            await send_problem(problem, scope, send)
        finally:
            restore(reset)

    def snapshot(self) -> dict[str, Any]:
        """Counters, JSON-ready.

        `believed`: requests with headers from trusted peers; `untrusted`: with headers from others, ignored;
        `malformed`: headers from trusted peers that could not be read, ignored; `refused`, `late`: requests answered
        with 429 or 503, and with 504.
        """
        return self._edge.snapshot()


class _Response:
    """Notes when a response begins and when it is out."""

    __slots__ = ("_context", "_send", "begun")

    def __init__(self, send: Send, context: Context) -> None:
        self._send = send
        self._context = context
        self.begun = False

    async def send(self, message: Message) -> None:
        kind = message["type"]
        if kind == "http.response.body":
            await self._send(message)
            if not message.get("more_body", False):
                # In place, because tasks of the application may hold this context and see no later one.
                self._context.deadline_ns = None
            return
        if kind in ("http.response.start", "websocket.accept", "websocket.close", f"{DENIAL}.start"):
            self.begun = True
        await self._send(message)


def _ours(headers: Iterable[tuple[bytes, bytes]]) -> dict[str, list[str]]:
    """The values of Seawall's headers, by name as written in `propagation`."""
    found: dict[str, list[str]] = {}
    for name, value in headers:
        if name.startswith(PREFIX) and name in NAMES:
            found.setdefault(NAMES[name], []).append(value.decode("latin-1"))
    return found
