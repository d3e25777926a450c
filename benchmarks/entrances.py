"""The applications of section `asgi`: one small answer, behind one middleware or another; and a server for each."""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable
from typing import Any

RATE = 1_000_000_000
"""So many in a second that nothing is ever refused: the healthy answer is what is measured."""
NOTHING = "a middleware that does nothing"
SEAWALL = "seawall"
SEAWALL_SILENT = "seawall, no fields"
SLOWAPI = "slowapi, ASGI form"
SLOWAPI_TELLING = "slowapi, ASGI form, with headers"

App = Callable[[Any, Any, Any], Any]


class Nothing:
    """What a middleware costs before it does anything."""

    def __init__(self, app: App) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self.app(scope, receive, send)


def _site() -> Any:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import PlainTextResponse
    from starlette.routing import Route

    async def home(_: Request) -> PlainTextResponse:
        return PlainTextResponse("fine")

    return Starlette(routes=[Route("/", home)])


def _nothing() -> App:
    site = _site()
    site.add_middleware(Nothing)
    return site  # type: ignore[no-any-return]


def _seawall(fields: str) -> App:
    import seawall
    from seawall.integrations.asgi import RateLimitMiddleware

    site = _site()
    limiter = seawall.Limiter(seawall.TokenBucket(f"{RATE}/s"), name="benchmark")
    site.add_middleware(RateLimitMiddleware, limiter=limiter, fields=fields)
    return site  # type: ignore[no-any-return]


def _slowapi(*, headers: bool) -> App:
    from slowapi import Limiter
    from slowapi.middleware import SlowAPIASGIMiddleware
    from slowapi.util import get_remote_address

    site = _site()
    site.state.limiter = Limiter(get_remote_address, default_limits=[f"{RATE}/second"], headers_enabled=headers)
    site.add_middleware(SlowAPIASGIMiddleware)
    return site  # type: ignore[no-any-return]


MAKES: dict[str, Callable[[], App]] = {
    NOTHING: _nothing,
    SEAWALL: lambda: _seawall("draft"),
    SEAWALL_SILENT: lambda: _seawall("none"),
    SLOWAPI: lambda: _slowapi(headers=False),
    SLOWAPI_TELLING: lambda: _slowapi(headers=True),
}


def serve(name: str, listening: int) -> None:
    """Serve one of them on a socket that is open already, until the process is ended."""
    import uvicorn

    settings = uvicorn.Config(MAKES[name](), log_level="critical", access_log=False, lifespan="off")
    # Not by its number: uvicorn would take it for a Unix socket, and leave Nagle's algorithm on.
    uvicorn.Server(settings).run(sockets=[socket.socket(fileno=listening)])


if __name__ == "__main__":
    serve(sys.argv[1], int(sys.argv[2]))
