"""Sockets that keep to a deadline: no connect, handshake, read or write takes longer than the time that is left.

A timeout of httpx is for each single read: a server that sends a byte now and then is read from for ever. Here every
wait on a socket is cut to what is left of the deadline, so that all of them together end with it. It goes between
httpcore and its own sockets, as a *network backend*.

And little is read at once until a response has begun: whoever sends nothing but interim responses or header lines must
not keep the parser busy beyond the deadline with what one read has brought.

What it cannot bound: the system's resolver (give endpoints as addresses, or let a cluster ask by `Dns`), and HTTP/2,
where one thread reads for others.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, TypeVar

from seawall.runtime import clock

__all__ = ["LITTLE", "cap", "until"]

T = TypeVar("T")

DUE: ContextVar[tuple[int, bool] | None] = ContextVar("seawall_socket_due", default=None)
"""Until when sockets may be waited for in this call, and whether its response has begun."""
LITTLE = 4_096
"""Bytes in one read before the response has begun: a parser in Python is done with them in some milliseconds."""
PIECE = 8_192
"""Bytes in one write. A socket that can be written to takes at least this much at once, so that each piece is one
wait, cut to what is left."""


def until(due_ns: int | None, function: Callable[..., T], *args: Any, begun: bool) -> T:
    """Call a function whose waits on sockets end by `due_ns`; `begun`: it reads the body of a response."""
    reset = DUE.set(None if due_ns is None else (due_ns, begun))
    try:
        return function(*args)
    finally:
        DUE.reset(reset)


def cap(transport: Any) -> bool:
    """Put the backend into an `HTTPTransport`; False for other transports, whose sockets nobody knows."""
    pool: Any = getattr(transport, "_pool", None)
    backend = getattr(pool, "_network_backend", None)
    if isinstance(backend, CappedBackend):
        return True
    if not (
        hasattr(backend, "connect_tcp") and type(backend).__module__.partition(".")[0] in ("httpcore", "httpcore2")
    ):
        return False
    pool._network_backend = CappedBackend(backend)  # there is no door for it
    return True


class _Core:
    """The errors of httpcore or httpcore2."""

    def __init__(self, thing: object) -> None:
        package: Any = sys.modules[type(thing).__module__.partition(".")[0]]
        self.ConnectError: Any = package.ConnectError
        self.ConnectTimeout: Any = package.ConnectTimeout
        self.ReadTimeout: Any = package.ReadTimeout
        self.WriteTimeout: Any = package.WriteTimeout


def _left(timeout: float | None, late: type[Exception]) -> float | None:
    """The time for one wait. Raises `late` if none is left."""
    limit = DUE.get()
    if limit is None:
        return timeout
    left = (limit[0] - clock.now_ns()) / 1e9
    if left <= 0:
        raise late("the deadline passed")
    return left if timeout is None else min(timeout, left)


class CappedBackend:
    """Makes connections whose waits are cut."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self._core = _Core(inner)

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Any = None,
    ) -> CappedStream:
        def connect(to: str) -> CappedStream:
            left = _left(timeout, self._core.ConnectTimeout)
            made = self._inner.connect_tcp(
                to, port, timeout=left, local_address=local_address, socket_options=socket_options
            )
            return CappedStream(made, self._core)

        if DUE.get() is None:
            return connect(host)
        # One address after the other: the inner backend would give each of them the whole time.
        problem: Exception | None = None
        for address in self._resolved(host, port):
            try:
                return connect(address)
            except (self._core.ConnectError, self._core.ConnectTimeout) as error:
                problem = error
        try:
            raise problem or self._core.ConnectError(f"{host} has no address")
        finally:
            del problem  # it knows this frame

    def _resolved(self, host: str, port: int) -> list[str]:
        import socket  # noqa: PLC0415  # here already, but for this only

        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except OSError as error:
            raise self._core.ConnectError(str(error)) from error
        return list(dict.fromkeys(str(entry[4][0]) for entry in found))

    def connect_unix_socket(self, path: str, timeout: float | None = None, socket_options: Any = None) -> CappedStream:
        left = _left(timeout, self._core.ConnectTimeout)
        return CappedStream(
            self._inner.connect_unix_socket(path, timeout=left, socket_options=socket_options), self._core
        )

    def sleep(self, seconds: float) -> None:
        self._inner.sleep(_left(seconds, self._core.ConnectTimeout))


class CappedStream:
    """A connection whose waits are cut."""

    def __init__(self, inner: Any, core: _Core) -> None:
        self._inner = inner
        self._core = core

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        limit = DUE.get()
        most = max_bytes if limit is None or limit[1] else min(max_bytes, LITTLE)
        data: bytes = self._inner.read(most, _left(timeout, self._core.ReadTimeout))
        return data

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        if DUE.get() is None:
            self._inner.write(buffer, timeout)
            return
        view = memoryview(buffer)
        for start in range(0, len(view), PIECE):
            self._inner.write(view[start : start + PIECE], _left(timeout, self._core.WriteTimeout))

    def close(self) -> None:
        self._inner.close()

    def start_tls(
        self, ssl_context: Any, server_hostname: str | None = None, timeout: float | None = None
    ) -> CappedStream:
        left = _left(timeout, self._core.ConnectTimeout)
        return CappedStream(self._inner.start_tls(ssl_context, server_hostname, left), self._core)

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)
