"""Responses of aiohttp within bounds of time and size, and those that are failures."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import aiohttp
from multidict import CIMultiDictProxy

from seawall.errors import DeadlineExceeded
from seawall.http.answers import BadAnswer
from seawall.http.disguise import disguised
from seawall.http.rate_fields import Get, wish
from seawall.http.verdicts import MOST_PROBLEM_BYTES, is_quota_exceeded, may_be_quota
from seawall.runtime import clock

if TYPE_CHECKING:
    from aiohttp import ClientRequest, ClientResponse

    from seawall.cluster.endpoint import Endpoint
    from seawall.http.target import Target
    from seawall.machines.verdict import Verdict

__all__ = ["Bad", "bad", "bound", "headers_of", "rewrite"]

DRAIN_SECONDS = 0.05
"""How long the rest of a response is read that is passed over, so that its connection can be used again."""
LOOK_SECONDS = 1.0
"""How long the body of a 429 is read at most to see if it is final."""


class Bad(BadAnswer):
    """A response that is a failure, whose connection goes back when it is passed over."""

    hurried = False
    """Whether it lost a race: it is not waited for, not even for a moment."""

    async def aclose(self) -> None:
        """Nobody is going to read it, or at least not soon: read the rest if it is here, else let it go."""
        if not self.settled:
            self.settled = True
            if self.hurried:
                self.response.close()
            else:
                await _read(self.response, DRAIN_SECONDS)


async def bad(response: ClientResponse, verdict: Verdict, endpoint: Endpoint) -> Bad:
    """What to raise for a response whose status is a failure."""
    headers, status = response.headers, response.status
    spent = False
    if may_be_quota(status, headers.get("Content-Type")) and (response.content_length or 0) <= MOST_PROBLEM_BYTES:
        spent = is_quota_exceeded(await _read(response, LOOK_SECONDS))
    patience = wish(status, headers_of(response))
    return Bad(status, response, verdict=verdict, endpoint=endpoint, retry_after=patience, final=spent)


def headers_of(response: ClientResponse) -> Get:
    """Gives the value of a header; several are joined by commas."""
    headers = response.headers
    return lambda name: ", ".join(headers.getall(name)) if name in headers else None


async def _read(response: ClientResponse, seconds: float) -> bytes:
    """The body, if it comes in time; else the connection is closed. A body that was read stays for the sender."""
    try:
        async with asyncio.timeout(seconds):
            return await response.read()
    except Exception:  # noqa: BLE001  # it was worth a try
        response.close()
        return b""


def rewrite(response: Any, request: ClientRequest, target: Target) -> None:
    """Keep a redirect within the cluster."""
    location = response._headers.get("Location")
    if location is None:
        return
    origin = f"{request.url.scheme}://{request.url.host_port_subcomponent}"
    named = target.named(location, origin)
    if named != location:
        headers = response._headers.copy()
        headers["Location"] = named
        response._headers = CIMultiDictProxy(headers)
        response._cache.pop("headers", None)  # where its property keeps them


def bound(
    response: ClientResponse, due_ns: int | None, most: int | None, late: Callable[[int], DeadlineExceeded]
) -> None:
    """End the reading of a response at its deadline, and at its largest size."""
    content: Any = response.content
    if response.status == 101 or content.is_eof():
        return
    if most is not None:
        gauge = content._timer = _Gauge(content, content._timer, most)
        content.on_eof(gauge.leave)
    if due_ns is not None:
        left = max(0, due_ns - clock.now_ns()) / 1e9
        timer = asyncio.get_running_loop().call_later(left, _expire, weakref.ref(response), partial(late, due_ns))
        content.on_eof(timer.cancel)


def _expire(known: Callable[[], ClientResponse | None], late: Callable[[], DeadlineExceeded]) -> None:
    response = known()
    if response is None or response.closed:
        return
    response.content.set_exception(disguised(late(), DeadlineExceeded, aiohttp.ServerTimeoutError))
    response.close()


class _Gauge:
    """Stands between a stream and its timer, which the stream asks at every read: there is no other door."""

    __slots__ = ("_content", "_most", "_timer")

    def __init__(self, content: Any, timer: Any, most: int) -> None:
        self._content = content
        self._timer = timer
        self._most = most

    def leave(self) -> None:
        """All is here: the stream goes on without."""
        self._content._timer = self._timer

    def assert_timeout(self) -> None:
        self._timer.assert_timeout()
        if self._content.total_bytes > self._most:
            raise aiohttp.ClientPayloadError(f"the response is larger than max_body={self._most}")

    def __enter__(self) -> Any:
        return self._timer.__enter__()

    def __exit__(self, *error: object) -> Any:
        return self._timer.__exit__(*error)
