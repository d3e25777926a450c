"""One connection to a server for tasks of a loop, on redis-py's own, with an end to every wait."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Any

from redis.asyncio.connection import Connection, SSLConnection, UnixDomainSocketConnection
from redis.exceptions import ResponseError

from seawall.runtime import clock
from seawall.stores.valkey.settings import settings_for
from seawall.stores.valkey.site import Address

__all__ = ["TaskLine", "Within"]


class Within:
    """Ends what runs in it when the time is over, by `TimeoutError`.

    As `asyncio.timeout`, but a loop that was held up by somebody else's work gets one more turn to read what has come
    meanwhile: the server is not to blame for it.
    """

    __slots__ = ("_cancelling", "_cut", "_handle", "_task", "_until_ns")

    def __init__(self, until_ns: int) -> None:
        self._until_ns = until_ns
        self._cut = False

    async def __aenter__(self) -> None:
        task = asyncio.current_task()
        assert task is not None, "an exchange runs in a task"
        self._task = task
        self._cancelling = task.cancelling()
        left = (self._until_ns - clock.now_ns()) / 1e9
        self._handle: asyncio.Handle = asyncio.get_running_loop().call_later(max(0.0, left), self._ring)

    def _ring(self) -> None:
        self._handle = self._task.get_loop().call_soon(self._end)

    def _end(self) -> None:
        self._cut = True
        self._task.cancel()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._handle.cancel()
        if self._cut and self._task.uncancel() <= self._cancelling and isinstance(error, asyncio.CancelledError):
            raise TimeoutError("no answer in time") from None


class TaskLine:
    """A connection for one task at a time. Cut short, it is closed and never used again."""

    def __init__(self, address: Address, settings: dict[str, Any], *, tls: bool) -> None:
        host, port = address
        kind: Any = UnixDomainSocketConnection if port < 0 else SSLConnection if tls else Connection
        where = {"path": host} if port < 0 else {"host": host, "port": port}
        self._connection: Any = kind(**where, **settings_for(kind, settings))

    async def open(self, until_ns: int) -> None:
        """Connect and sign in."""
        try:
            async with Within(until_ns):
                await self._connection.connect()
        except BaseException:
            await self.drop()
            raise

    async def is_fresh(self) -> bool:
        """Whether nothing has come since the last answer: not even the end."""
        connection = self._connection
        try:
            reader = getattr(connection, "_reader", None)
            if reader is not None and reader.at_eof():  # redis-py 5 and 6 do not see this
                return False
            can_read = getattr(connection, "can_read", None) or connection.can_read_destructive
            return not await can_read()
        except Exception:  # noqa: BLE001  # whatever it is, this connection is not to be used
            return False

    async def talk(self, data: bytes, answers: int, until_ns: int) -> list[Any]:
        """Send commands and read as many answers; an error that the server answers is one of them."""
        try:
            async with Within(until_ns):
                await self._connection.send_packed_command([data], check_health=False)
                return [await self._read() for _ in range(answers)]
        except BaseException:
            await self.drop()
            raise

    async def _read(self) -> Any:
        try:
            return await self._connection.read_response()
        except ResponseError as error:
            return error

    async def drop(self) -> None:
        """Close it."""
        await self._connection.disconnect(nowait=True)
