"""Makes a loop refuse the real world: whatever needs a thread, a socket, a process or a signal raises at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import NoReturn

__all__ = ["refuse_real_world"]

_REAL = (
    *("run_in_executor", "getaddrinfo", "getnameinfo", "add_signal_handler", "remove_signal_handler"),
    *("add_reader", "remove_reader", "add_writer", "remove_writer", "create_connection", "create_server"),
    *("create_datagram_endpoint", "create_unix_connection", "create_unix_server", "connect_read_pipe"),
    *("connect_write_pipe", "subprocess_exec", "subprocess_shell", "sendfile", "start_tls"),
    *("sock_recv", "sock_recv_into", "sock_recvfrom", "sock_recvfrom_into", "sock_sendall", "sock_sendto"),
    *("sock_connect", "sock_accept", "sock_sendfile", "connect_accepted_socket"),
)


def _refusal(name: str) -> Callable[..., NoReturn]:
    def refuse(*_args: object, **_options: object) -> NoReturn:
        raise RuntimeError(f"loop.{name}(): a virtual loop has no threads, sockets, processes or signals; use a fake")

    return refuse


def refuse_real_world(loop_class: type[asyncio.BaseEventLoop]) -> None:
    """Replace the methods of `loop_class` that reach outside. Without this most raise a bare `NotImplementedError`."""
    for name in _REAL:
        setattr(loop_class, name, _refusal(name))
