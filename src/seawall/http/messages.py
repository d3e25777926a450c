"""What a WebSocket receives, counted: one message too many, and the connection is closed."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable

from seawall.http.scope import Message, Receive, Send

__all__ = ["POLICY_VIOLATION", "REASON", "Metered"]

POLICY_VIOLATION = 1008
REASON = "too many messages"


class Metered:
    """`receive` and `send` of a connection whose messages must be admitted.

    One that is not admitted is not handed on: the connection is closed with 1008, and whoever receives is told that
    the client is gone. Who sends afterwards gets the error that `gone` makes; who closes has what he wants.
    """

    __slots__ = ("_admit", "_gone", "_is_closed", "_is_over", "_receive", "_send")

    def __init__(
        self, receive: Receive, send: Send, admit: Callable[[], Awaitable[object]], gone: Callable[[], Exception]
    ) -> None:
        self._receive = receive
        self._send = send
        self._admit = admit
        self._gone = gone
        self._is_over = False
        self._is_closed = False
        """Whether the application has closed it."""

    async def receive(self) -> Message:
        """The next message that is admitted."""
        if not self._is_over:
            message = await self._receive()
            if message["type"] != "websocket.receive" or await self._admit():
                return message
            if not self._is_over:
                self._is_over = True
                if not self._is_closed:
                    with contextlib.suppress(OSError):  # a server's word for a client that has gone meanwhile
                        await self._send({"type": "websocket.close", "code": POLICY_VIOLATION, "reason": REASON})
        return {"type": "websocket.disconnect", "code": POLICY_VIOLATION, "reason": REASON}

    async def send(self, message: Message) -> None:
        """Send, as long as the connection is open."""
        if self._is_over:
            if message["type"] == "websocket.close":
                return  # frameworks do so for a handler that lets go of the disconnect as an error
            raise self._gone()
        self._is_closed = self._is_closed or message["type"] == "websocket.close"
        await self._send(message)
