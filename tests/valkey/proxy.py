"""A TCP proxy that misbehaves to order: it delays, drips, swallows answers, hangs up, or leads to another server."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable

__all__ = ["Proxy"]


class Proxy:
    """Between a client and a server; a thread for each direction of each connection."""

    wrap: Callable[[socket.socket], socket.socket] = staticmethod(lambda sock: sock)

    def __init__(self, port: int) -> None:
        self.target = port
        self.mode = "pass"
        """`pass`; `swallow`: requests get through, answers do not; `hang up`: so, and the connection is closed;
        `drip`: answers come a byte at a time; `garbage`: other answers come."""
        self.garbage = b"HTTP/1.1 400 Bad Request\r\n\r\n"
        self.drip_seconds = 0.01
        self.requests = 0
        self.connections = 0
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._begin(self._accept)

    @property
    def url(self) -> str:
        return f"valkey://127.0.0.1:{self.port}"

    def _begin(self, function: Callable[..., None], *args: socket.socket) -> None:
        thread = threading.Thread(target=function, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                self.connections += 1
                try:
                    near = self.wrap(near)
                except OSError:  # a handshake that failed
                    near.close()
                    continue
                try:
                    far = socket.create_connection(("127.0.0.1", self.target))
                except OSError:
                    near.close()
                    continue
                self._pairs.append((near, far))
                self._begin(self._forth, near, far)
                self._begin(self._back, far, near)

    def _forth(self, near: socket.socket, far: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := near.recv(65_536):
                self.requests += 1
                far.sendall(data)
        with contextlib.suppress(OSError):
            far.shutdown(socket.SHUT_RDWR)

    def _back(self, far: socket.socket, near: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := far.recv(65_536):
                if self.mode == "hang up":
                    break
                if self.mode == "garbage":
                    data = self.garbage
                if self.mode == "drip":
                    for byte in data:
                        time.sleep(self.drip_seconds)
                        near.sendall(bytes([byte]))
                elif self.mode != "swallow":
                    near.sendall(data)
        with contextlib.suppress(OSError):
            near.shutdown(socket.SHUT_RDWR)

    def cut(self) -> None:
        """End all connections."""
        for pair in self._pairs:
            for sock in pair:
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()
        for thread in self._threads:
            thread.join(5)
        for pair in self._pairs:
            for sock in pair:
                sock.close()
