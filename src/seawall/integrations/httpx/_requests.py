"""One request of a client, made anew for each endpoint it is sent to; and what is read from its responses."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from seawall.cluster import Cluster
from seawall.errors import DeadlineExceeded
from seawall.http.disguise import disguised
from seawall.http.exchange import Exchange
from seawall.http.pacing import Paced
from seawall.http.propagation import HEADERS
from seawall.http.rate_fields import wish
from seawall.http.target import Target, target_of
from seawall.http.verdicts import MOST_PROBLEM_BYTES
from seawall.runtime import clock

if TYPE_CHECKING:
    from seawall.cluster.endpoint import Endpoint
    from seawall.integrations.httpx._kit import Kit

__all__ = [
    "MOST_BODY",
    "Body",
    "exchange_for",
    "is_small",
    "late",
    "origin_of",
    "outgoing",
    "rewritten",
    "small_body",
    "unsent",
    "wish_of",
]

MOST_BODY = 64 * 1024 * 1024
"""Bytes of a response, unless the user says otherwise."""
DRAIN_NS = 50_000_000
"""How long the rest of a response is read that is passed over, so that its connection can be used again."""
LOOK_NS = 1_000_000_000
"""How long the body of a 429 is read at most to see if it is final."""
OWN_HEADERS = frozenset(name.lower().encode() for name in HEADERS)
WEBSOCKET = {"http": "ws", "https": "wss"}


class Body:
    """The body of a request, and whether it can be sent (again): bytes can, an iterator only until it is begun."""

    def __init__(self, kit: Kit, stream: Any, wrapper: Callable[[Any, Body], Any]) -> None:
        self.begun = False
        self._in_memory = isinstance(stream, kit.ByteStream)
        self.stream = stream if self._in_memory else wrapper(stream, self)
        self._rewinds = _rewinds(stream)

    def replayable(self) -> bool:
        """Whether it can be sent now."""
        return self._in_memory or self._rewinds or not self.begun

    @property
    def data(self) -> bytes | None:
        """Its bytes, if they are in memory."""
        return b"".join(self.stream) if self._in_memory else None

    @property
    def forkable(self) -> bool:
        """Whether it can be sent twice at the same time."""
        return self._in_memory


def _rewinds(stream: Any) -> bool:
    """Whether it is a multipart form whose files, if any, go back to their beginning each time."""
    fields: list[Any] = getattr(stream, "fields", None) or []
    files = [getattr(field, "file", b"") for field in fields]
    return bool(fields) and all(isinstance(file, (str, bytes)) or _seekable(file) for file in files)


def _seekable(file: Any) -> bool:
    try:
        return bool(file.seekable())
    except Exception:  # noqa: BLE001  # something like a file; who knows
        return False


def exchange_for(kit: Kit, cluster: Cluster[Any], request: Any, body: Body) -> Exchange:
    """The exchange of a client's request."""
    said = request.extensions.get("idempotent")
    return Exchange(
        cluster,
        kit.client,
        request.method,
        request.url,
        request.headers.get_list("idempotency-key"),
        body=body.data,
        replayable=body.replayable,
        forkable=body.forkable,
        idempotent=said if isinstance(said, bool) else None,
    )


def outgoing(kit: Kit, request: Any, endpoint: Endpoint, stream: Any, added: Mapping[str, str]) -> tuple[Any, Target]:
    """The request as it goes to an endpoint, with the headers that are added to it."""
    target = target_of(endpoint)
    named_itself = request.url.netloc
    headers: list[tuple[bytes, bytes]] = []
    for name, value in request.headers.raw:
        plain = name.lower()
        # A server behind WSGI cannot tell the two spellings apart.
        if plain.replace(b"_", b"-") in OWN_HEADERS:
            continue
        # What the client wrote there by itself is the name of the cluster; what the user wrote stays.
        is_own_host = plain == b"host" and value == named_itself
        headers.append((name, target.authority.encode() if is_own_host else value))
    headers += [(name.encode(), value.encode()) for name, value in added.items()]
    extensions = dict(request.extensions)
    if target.server_name is not None:
        extensions.setdefault("sni_hostname", target.server_name)
    scheme = WEBSOCKET[target.scheme] if request.url.scheme in ("ws", "wss") else target.scheme
    path = target.prefix.encode() + request.url.raw_path
    url = request.url.copy_with(scheme=scheme, host=target.host, port=target.port, raw_path=path)
    return kit.Request(request.method, url, headers=headers, stream=stream, extensions=extensions), target


def origin_of(request: Any) -> str:
    """Where a request goes that goes through no cluster."""
    return f"{request.url.scheme}://{request.url.netloc.decode('ascii', 'replace')}"


def unsent(kit: Kit, error: Paced) -> BaseException:
    """The refusal of such a request, as the client knows it."""
    return disguised(error, Paced, kit.client.refused, _request=None)


def rewritten(response: Any, request: Any, target: Target) -> None:
    """Keep a redirect within the cluster."""
    location = response.headers.get("location")
    if location is not None:
        origin = f"{request.url.scheme}://{request.url.netloc.decode('ascii')}"
        response.headers["location"] = target.named(location, origin)


def wish_of(response: Any) -> float | None:
    """How long a response asks for patience, in seconds; None if it does not."""
    return wish(response.status_code, response.headers.get)


def small_body(kit: Kit, response: Any, data: bytes | None) -> None:
    """Give a response a body that is in memory; `None` if it could not be had, and is lost."""
    if data is None:
        for name in ("content-length", "content-encoding", "transfer-encoding"):
            response.headers.pop(name, None)
    response.stream = kit.ByteStream(data or b"")


def look_until(due_ns: int | None) -> int:
    """Until when a body is read that has to be looked at, under a deadline."""
    most = clock.now_ns() + LOOK_NS
    return most if due_ns is None else min(due_ns, most)


def is_small(response: Any) -> bool:
    """Whether a body is not known to be longer than what is read of it."""
    length = response.headers.get("content-length", "")
    return not (length.isascii() and length.isdigit()) or (len(length) < 9 and int(length) <= MOST_PROBLEM_BYTES)


def late(kit: Kit, error: DeadlineExceeded, cause: BaseException | None = None) -> BaseException:
    """A passed deadline, as the client knows it."""
    error.__cause__ = cause
    return disguised(error, DeadlineExceeded, kit.ReadTimeout, _request=None)
