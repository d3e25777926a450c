"""`HealthServer`: tells probes and Prometheus how a worker is, over HTTP, from a thread of its own.

It answers also while the worker's event loop is stuck, for that is what a probe wants to know. It asks the worker only
for what it knows by itself, never the store: a scrape costs the store nothing, and a store that hangs does not make it
hang. It is bounded: so many connections, so many bytes of a request, and so many seconds for all of it, after which the
connection is closed, whatever the client does.
"""

from __future__ import annotations

import json
import selectors
import socket
import threading
from types import TracebackType
from typing import TYPE_CHECKING, Any

from seawall.errors import ConfigError
from seawall.outbox.worker.metrics import METRICS_TYPE, metrics_text
from seawall.runtime import clock
from seawall.units import given

if TYPE_CHECKING:
    from seawall.outbox.worker.worker import Worker

__all__ = ["HealthServer"]

SECOND = 1_000_000_000
MOST_CONNECTIONS = 32
MOST_HEAD = 8 * 1024
LIFE_NS = 5 * SECOND
"""All the time a connection has, from its first byte to its last."""
PAUSE_NS = SECOND
"""How long nothing is accepted when the process has no file descriptors left."""
ALIVE_WITHIN = 60
"""Seconds in which the worker's loop must have come round. It does so every ten seconds when nothing happens."""
_REASONS = {200: "OK", 400: "Bad Request", 404: "Not Found", 405: "Method Not Allowed", 431: "Headers Too Large"}
TEXT = "text/plain; charset=utf-8"


class HealthServer:
    """Serves `/healthz`, `/readyz`, `/metrics` and `/stats` for a worker: `with HealthServer(worker): ...`.

    - `/healthz`: 200 while the worker's loop comes round, 503 if it has not for a minute. For liveness probes.
    - `/readyz`: 200 if it works and its store answers, else 503 and why. For readiness probes and deployments.
    - `/metrics`: the text format of Prometheus, see `metrics_text`.
    - `/stats`: `worker.snapshot()` as JSON, without the texts of errors, which may speak of users.

    Args:
        worker: whose state is told.
        address: `"host:port"`, `"[::1]:8081"` for IPv6; port 0 takes a free one. Anybody who reaches it may ask, so it
            should be reached by the host and its probes only. Default "127.0.0.1:8081".

    Raises:
        ConfigError: the address is none. OSError, from `start`: it cannot be listened on.
    """

    def __init__(self, worker: Worker, address: str = "127.0.0.1:8081") -> None:
        self._worker = worker
        self._wanted = _parsed(address)
        self._thread: threading.Thread | None = None
        self.address = ""
        """Where it listens, once it does."""

    def start(self) -> HealthServer:
        """Listen, and answer from a thread of its own."""
        if self._thread is not None:
            raise RuntimeError("this server listens already")
        host, port = self._wanted
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._listener = socket.create_server((host, port), family=family, backlog=MOST_CONNECTIONS)
        self._listener.setblocking(False)
        self._bell, self._ear = socket.socketpair()
        self._ear.setblocking(False)
        port = self._listener.getsockname()[1]
        self.address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self._thread = threading.Thread(target=self._serve, name="seawall health", daemon=True)
        self._thread.start()
        return self

    def stop(self) -> None:
        """Listen no more. Connections are closed as they are."""
        thread, self._thread = self._thread, None
        if thread is not None:
            self._bell.send(b"x")
            thread.join()
            self._bell.close()

    def __enter__(self) -> HealthServer:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    # -- the loop --------------------------------------------------------------------------------------------------

    def _serve(self) -> None:
        with selectors.DefaultSelector() as selector, self._listener, self._ear:
            selector.register(self._ear, selectors.EVENT_READ)
            guests: dict[socket.socket, _Guest] = {}
            deaf_until = 0
            listening = False
            try:
                while True:
                    now = clock.now_ns()
                    for guest in [each for each in guests.values() if each.end_ns <= now]:
                        self._close(selector, guests, guest)
                    wants = len(guests) < MOST_CONNECTIONS and now >= deaf_until
                    if wants and not listening:
                        selector.register(self._listener, selectors.EVENT_READ)
                    elif listening and not wants:
                        selector.unregister(self._listener)
                    listening = wants
                    ends = [guest.end_ns for guest in guests.values()] + ([deaf_until] if deaf_until > now else [])
                    wait = (min(ends) - now) / SECOND if ends else None
                    for key, _ in selector.select(wait):
                        if key.fileobj is self._ear:
                            return
                        if key.fileobj is self._listener:
                            deaf_until = self._accept(selector, guests)
                        elif not self._attend(selector, key.data):
                            self._close(selector, guests, key.data)
            finally:
                for guest in list(guests.values()):
                    guest.socket.close()

    def _accept(self, selector: selectors.BaseSelector, guests: dict[socket.socket, _Guest]) -> int:
        try:
            connection, _ = self._listener.accept()
        except (BlockingIOError, ConnectionError, InterruptedError):
            return 0
        except OSError:
            return clock.now_ns() + PAUSE_NS  # out of file descriptors: it would be ready again at once, for ever
        connection.setblocking(False)
        guest = guests[connection] = _Guest(connection, clock.now_ns() + LIFE_NS)
        selector.register(connection, selectors.EVENT_READ, guest)
        return 0

    def _attend(self, selector: selectors.BaseSelector, guest: _Guest) -> bool:
        """Read or write what can be; false when the connection is at its end."""
        try:
            if guest.answer is None:
                data = guest.socket.recv(MOST_HEAD)
                guest.head += data
                if not data:
                    return False
                if b"\r\n\r\n" not in guest.head and len(guest.head) <= MOST_HEAD:
                    return True
                guest.answer = memoryview(self._answer(bytes(guest.head)))
                selector.modify(guest.socket, selectors.EVENT_WRITE, guest)
            guest.answer = guest.answer[guest.socket.send(guest.answer) :]
        except (BlockingIOError, InterruptedError):
            return True
        except OSError:
            return False
        return len(guest.answer) > 0

    @staticmethod
    def _close(selector: selectors.BaseSelector, guests: dict[socket.socket, _Guest], guest: _Guest) -> None:
        selector.unregister(guest.socket)
        del guests[guest.socket]
        guest.socket.close()

    # -- answers ---------------------------------------------------------------------------------------------------

    def _answer(self, head: bytes) -> bytes:
        kind, extra = TEXT, ""
        try:
            code, body, kind = self._look_up(head)
        except Exception as error:  # noqa: BLE001  # a fault of ours must not end the thread that tells of faults
            code, body = 500, type(error).__name__
        if code == 405:
            extra = "Allow: GET\r\n"
        data = (body if body.endswith("\n") else f"{body}\n").encode()
        lines = f"HTTP/1.1 {code} {_REASONS.get(code, 'Unavailable')}\r\nContent-Type: {kind}\r\n{extra}"
        fixed = "Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\nConnection: close\r\n"
        return f"{lines}{fixed}Content-Length: {len(data)}\r\n\r\n".encode() + data

    def _look_up(self, head: bytes) -> tuple[int, str, str]:
        if b"\r\n\r\n" not in head[: MOST_HEAD + 4]:
            return 431, "the request is too long", TEXT
        parts = head.split(b"\r\n", 1)[0].split(b" ")
        if len(parts) != 3 or not parts[2].startswith(b"HTTP/1."):
            return 400, "not a request of HTTP/1", TEXT
        method, path = parts[0], parts[1].partition(b"?")[0]
        if path not in {b"/healthz", b"/readyz", b"/metrics", b"/stats"}:
            return 404, "there are /healthz, /readyz, /metrics and /stats", TEXT
        if method != b"GET":
            return 405, "only GET", TEXT
        return _page(path, self._worker.snapshot())


def _page(path: bytes, snapshot: dict[str, Any]) -> tuple[int, str, str]:
    if path == b"/metrics":
        return 200, metrics_text(snapshot), METRICS_TYPE
    if path == b"/stats":
        told = {key: value for key, value in snapshot.items() if key not in {"last_error", "last_store_error"}}
        return 200, json.dumps(told), "application/json"
    trouble = _stuck(snapshot) if path == b"/healthz" else _unready(snapshot)
    return (503, trouble, TEXT) if trouble else (200, "ok", TEXT)


class _Guest:
    """A connection."""

    __slots__ = ("answer", "end_ns", "head", "socket")

    def __init__(self, connection: socket.socket, end_ns: int) -> None:
        self.socket = connection
        self.end_ns = end_ns
        self.head = bytearray()
        self.answer: memoryview | None = None


def _stuck(snapshot: dict[str, Any]) -> str:
    before = snapshot["turned_before"]
    if before is None:
        return "the worker does not work"
    return f"the worker's loop has been stuck for {before:.0f} s" if before > ALIVE_WITHIN else ""


def _unready(snapshot: dict[str, Any]) -> str:
    if snapshot["state"] != "working":
        return f"the worker is {snapshot['state']}"
    return _stuck(snapshot) or ("" if snapshot["store_answers"] else "the store does not answer")


def _parsed(address: str) -> tuple[str, int]:
    host, colon, port = address.rpartition(":") if isinstance(address, str) else ("", "", "")  # pyright: ignore[reportUnnecessaryIsInstance]  # callers without a type checker
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    digits = port.isascii() and port.isdigit() and len(port) <= 5
    if not colon or not bare or (":" in bare and bare == host) or not digits or int(port) > 65_535:
        raise ConfigError(f"{given('health', address)}: expected host:port, such as 127.0.0.1:8081 or [::1]:8081")
    return bare, int(port)
