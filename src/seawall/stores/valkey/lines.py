"""One connection to a server for threads, on redis-py's own, with an end to every wait: whole commands, not reads."""

from __future__ import annotations

import socket
from typing import Any

from redis.connection import Connection, SSLConnection, UnixDomainSocketConnection
from redis.exceptions import ResponseError

from seawall.runtime import clock
from seawall.stores.valkey.settings import settings_for
from seawall.stores.valkey.site import Address

__all__ = ["BlockingLine", "TimedSocket"]


class TimedSocket:
    """A socket whose every operation ends at `until_ns`.

    The timeout of a plain socket begins anew with each byte: a server that drips would hold a thread for ever.
    """

    def __init__(self, inner: socket.socket, until_ns: int) -> None:
        self._inner = inner
        self._own: float | None = None
        self.until_ns = until_ns

    def _arm(self) -> None:
        left = (self.until_ns - clock.now_ns()) / 1e9
        if self._own == 0:
            self._inner.settimeout(0)
        elif left <= 0:
            raise TimeoutError("the time for the command is over")
        else:
            self._inner.settimeout(left if self._own is None else min(left, self._own))

    def settimeout(self, value: float | None) -> None:
        self._own = value

    def recv(self, size: int) -> bytes:
        self._arm()
        return self._inner.recv(size)

    def recv_into(self, *args: Any) -> int:
        self._arm()
        return self._inner.recv_into(*args)

    def sendall(self, data: bytes) -> None:
        self._arm()
        self._inner.sendall(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


class _Timed(Connection):
    """Connects to the addresses of a name in turn, in one span of time for all of them."""

    until_ns = 0

    def _connect(self) -> Any:
        error: OSError | None = None
        for family, kind, protocol, _, address in socket.getaddrinfo(self.host, self.port, 0, socket.SOCK_STREAM):
            left = (self.until_ns - clock.now_ns()) / 1e9
            if left <= 0:
                break
            sock = socket.socket(family, kind, protocol)
            try:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
                sock.settimeout(left)
                sock.connect(address)
                sock.settimeout(max(0.001, (self.until_ns - clock.now_ns()) / 1e9))
                return sock
            except OSError as failed:
                error = failed
                sock.close()
        raise error or TimeoutError("no address answered in time")


class _Tcp(_Timed):
    def _connect(self) -> Any:
        self.timed = TimedSocket(super()._connect(), self.until_ns)
        return self.timed


class _Tls(SSLConnection, _Timed):
    def _connect(self) -> Any:
        self.timed = TimedSocket(super()._connect(), self.until_ns)  # type: ignore[no-untyped-call]  # redis-py's
        return self.timed


class _Unix(UnixDomainSocketConnection):
    until_ns = 0

    def _connect(self) -> Any:
        self.socket_connect_timeout = max(0.001, (self.until_ns - clock.now_ns()) / 1e9)
        self.timed = TimedSocket(super()._connect(), self.until_ns)  # type: ignore[no-untyped-call]  # as above
        return self.timed


class BlockingLine:
    """A connection for one thread at a time."""

    def __init__(self, address: Address, settings: dict[str, Any], *, tls: bool) -> None:
        host, port = address
        kind: Any = _Unix if port < 0 else _Tls if tls else _Tcp
        where = {"path": host} if port < 0 else {"host": host, "port": port}
        self._connection: Any = kind(**where, **settings_for(kind, settings))

    async def open(self, until_ns: int) -> None:
        """Connect and sign in."""
        connection = self._connection
        connection.until_ns = until_ns
        try:
            connection.connect()
        except BaseException:
            connection.disconnect()
            raise

    async def is_fresh(self) -> bool:
        """Whether nothing has come since the last answer: not even the end."""
        try:
            return not self._connection.can_read(timeout=0)
        except Exception:  # noqa: BLE001  # whatever it is, this connection is not to be used
            return False

    async def talk(self, data: bytes, answers: int, until_ns: int) -> list[Any]:
        """Send commands and read as many answers; an error that the server answers is one of them."""
        connection = self._connection
        try:
            connection.timed.until_ns = until_ns
            connection.send_packed_command([data], check_health=False)
            return [self._read() for _ in range(answers)]
        except BaseException:
            connection.disconnect()
            raise

    def _read(self) -> Any:
        try:
            return self._connection.read_response()
        except ResponseError as error:
            return error

    async def drop(self) -> None:
        """Close it; in a forked child only this end of it."""
        self._connection.disconnect()
