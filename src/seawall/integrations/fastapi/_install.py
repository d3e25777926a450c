"""What an application does with refusals and fields, wherever in it a limit stands."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any

from starlette.applications import Starlette
from starlette.responses import Response
from starlette.websockets import WebSocket, WebSocketClose, WebSocketState

from seawall.errors import DeadlineExceeded, Rejected
from seawall.http.problem import problem_for
from seawall.http.scope import TRY_AGAIN_LATER, App, Message, Receive, Scope, Send, can_deny
from seawall.integrations.fastapi._gate import TOLD, TooManyRequests

__all__ = ["install"]


def install(app: Starlette) -> None:
    """Answer refusals in an application with problem+json, and put the fields of its limits on every response.

    Answered are `TooManyRequests`, and what policies raise: `Rejected` with 429 or 503, `DeadlineExceeded` with 504.
    Call it while the application is set up.
    """
    for kind in (TooManyRequests, Rejected, DeadlineExceeded):
        app.add_exception_handler(kind, _answer)
    app.add_middleware(_Telling)


async def _answer(connection: Any, error: Exception) -> Any:
    """The handler of refusals; for a connection that is open already nothing is left but to close it."""
    problem = error.problem if isinstance(error, TooManyRequests) else problem_for(error)
    if problem is None:
        raise error
    if isinstance(connection, WebSocket):
        if connection.application_state is WebSocketState.CONNECTED or not can_deny(connection.scope):
            return WebSocketClose(TRY_AGAIN_LATER)
        if connection.application_state is not WebSocketState.CONNECTING:
            raise error
    body = b"" if connection.scope.get("method") == "HEAD" else problem.body
    return Response(body, problem.status, dict(problem.headers))


class _Telling:
    """Sends the fields that limits further inside have put down."""

    def __init__(self, app: App) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        fields: dict[str, str] = scope.setdefault(TOLD, {})

        def telling(message: Message) -> Awaitable[None]:
            if fields and message["type"] in ("http.response.start", "websocket.accept"):
                head = list(message.get("headers", ()))
                before = {name.lower() for name, _ in head}
                told = [(name.lower().encode(), value.encode()) for name, value in fields.items()]
                # Lists may come in several lines; of the older fields one refusal has told its own.
                head += [(name, value) for name, value in told if name not in before or not name.startswith(b"x-")]
                message = {**message, "headers": head}
            return send(message)

        await self.app(scope, receive, telling)
