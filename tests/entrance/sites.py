"""Applications behind a limit, asked as servers ask them: what reached them, and what was answered."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from wsgiref.util import setup_testing_defaults
from wsgiref.validate import validator

from seawall import Limiter, Memory, TokenBucket
from seawall.http import Request

CLIENT = ("203.0.113.9", 5000)


def bucket(rate: str = "2/min", **options: Any) -> Limiter:
    """A limiter for one test."""
    return Limiter(TokenBucket(rate, name="api"), name="api", store=Memory(), **options)


def request(
    headers: Mapping[str, Sequence[str]] | None = None, peer: str | None = CLIENT[0], native: Any = None
) -> Request:
    """A request with headers, by names in small letters."""
    sent = headers or {}
    return Request("GET", "/", peer, lambda name: sent.get(name, []), native)


@dataclass
class Answer:
    """What came out of an application."""

    status: int | None = None
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: bytes = b""
    messages: list[dict[str, Any]] = field(default_factory=list)

    def all(self, name: str) -> list[str]:
        return [value for found, value in self.headers if found.lower() == name.lower()]

    def get(self, name: str) -> str | None:
        values = self.all(name)
        assert len(values) <= 1, f"{name} was sent {len(values)} times"
        return values[0] if values else None

    @property
    def problem(self) -> dict[str, Any]:
        return json.loads(self.body)

    @property
    def told(self) -> set[str]:
        """The fields of limits, whatever they say."""
        names = {name.lower() for name, _ in self.headers}
        return {name for name in names if name.startswith(("ratelimit", "x-ratelimit"))}


async def fine(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": b"fine"})


class Site:
    """An ASGI application that counts its calls, and the middleware around it."""

    def __init__(self, wrap: Callable[[Any], Any], answers: Callable[..., Any] | None = None) -> None:
        self.calls = 0
        self.reads = 0
        self._answers = answers or fine
        self.app = wrap(self._app)

    async def _app(self, scope: Any, receive: Any, send: Any) -> None:
        self.calls += 1
        await self._answers(scope, receive, send)

    async def ask(
        self,
        path: str = "/",
        *,
        method: str = "GET",
        headers: Iterable[tuple[str, str]] = (),
        client: Any = CLIENT,
        kind: str = "http",
        incoming: Iterable[dict[str, Any]] = (),
        **more: Any,
    ) -> Answer:
        answer = Answer()
        messages = iter(incoming)

        async def receive() -> dict[str, Any]:
            self.reads += 1
            return next(messages, {"type": "http.request", "body": b"", "more_body": False})

        async def send(message: Any) -> None:
            answer.messages.append(dict(message))
            if message["type"].endswith(".start"):
                answer.status = message["status"]
            if "headers" in message:
                answer.headers += [(name.decode(), value.decode()) for name, value in message["headers"]]
            answer.body += message.get("body", b"")

        sent = [(name.lower().encode(), value.encode("latin-1")) for name, value in headers]
        scope = {"type": kind, "method": method, "path": path, "headers": sent, "client": client, **more}
        await self.app(scope, receive, send)
        return answer


class Unread(io.BytesIO):
    """A body that notes whether somebody read it."""

    was_read = False

    def read(self, *args: Any) -> bytes:
        self.was_read = True
        return super().read(*args)


def ask_wsgi(app: Any, path: str = "/", *, method: str = "GET", body: Any = None, **environ: Any) -> Answer:
    """One request, through wsgiref's validator on both sides."""
    made: dict[str, Any] = {"REQUEST_METHOD": method, "PATH_INFO": path, "REMOTE_ADDR": CLIENT[0], **environ}
    if body is not None:
        made["wsgi.input"] = body
    setup_testing_defaults(made)
    made.setdefault("QUERY_STRING", "")
    made.setdefault("SCRIPT_NAME", "")
    answer = Answer()

    def start(status: str, headers: list[tuple[str, str]], error: Any = None) -> Callable[[bytes], object]:
        answer.status = int(status.partition(" ")[0])
        answer.headers = headers
        return lambda data: None

    chunks = validator(app)(made, start)
    try:
        answer.body = b"".join(chunks)
    finally:
        chunks.close()
    return answer


class SlowStore:
    """A store that is asked over a network, as it were: each step takes a tenth of a second."""

    def __init__(self) -> None:
        self.asked = 0

    def open(self, limiter: str, limits: Any) -> SlowTable:
        return SlowTable(self, Memory().open(limiter, limits))


class SlowTable:
    """A table in memory, far away."""

    def __init__(self, store: SlowStore, inner: Any) -> None:
        self._store = store
        self._inner = inner

    async def take(self, runtime: Any, asks: Any) -> Any:
        self._store.asked += 1
        await runtime.sleep(100_000_000)
        return await self._inner.take(runtime, asks)

    async def hold(self, runtime: Any, ask: Any, lasts_ns: int) -> Any:
        return await self._inner.hold(runtime, ask, lasts_ns)

    async def settle(self, runtime: Any, held: Any, actual: Any) -> Any:
        return await self._inner.settle(runtime, held, actual)

    async def reset(self, runtime: Any, key: str) -> None:
        await self._inner.reset(runtime, key)

    def reconfigure(self, limits: Any) -> None:
        self._inner.reconfigure(limits)

    def snapshot(self) -> dict[str, Any]:
        return {}
