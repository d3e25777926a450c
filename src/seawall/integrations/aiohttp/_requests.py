"""One request of a session, made anew for each endpoint it is sent to."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any

from multidict import CIMultiDict
from yarl import URL

from seawall.http.propagation import HEADERS
from seawall.http.target import Target, target_of

if TYPE_CHECKING:
    from aiohttp import ClientRequest

    from seawall.cluster.endpoint import Endpoint

__all__ = ["abandon", "outgoing", "read_freely"]

OWN_HEADERS = frozenset(name.lower() for name in HEADERS)
LITTLE = 8_192
"""Bytes in one read before the response has begun."""


def outgoing(
    request: ClientRequest, endpoint: Endpoint, added: Mapping[str, str], *, forks: bool
) -> tuple[ClientRequest, Target]:
    """The request as it goes to an endpoint, with the headers that are added to it."""
    target = target_of(endpoint)
    made: Any = copy.copy(request)
    headers: CIMultiDict[str] = CIMultiDict(
        # A server behind WSGI cannot tell the two spellings apart.
        (name, value)
        for name, value in request.headers.items()
        if name.lower().replace("_", "-") not in OWN_HEADERS
    )
    headers.extend(added)
    # What the client wrote there by itself is the name of the cluster; what the user wrote stays.
    if headers.get("Host") == request.url.host_port_subcomponent:
        headers["Host"] = target.authority
    made.headers = headers
    made.url = URL.build(
        scheme=target.scheme,
        host=f"[{target.host}]" if ":" in target.host else target.host,
        port=target.port,
        path=(target.prefix + request.url.raw_path) or "/",
        query_string=request.url.raw_query_string,
        encoded=True,
    )
    if target.server_name is not None and request.server_hostname is None:
        made.server_hostname = target.server_name
    made.update_expect_continue()  # what waits for the server's word is waited for by one request only
    if forks:
        # aiohttp's timer knows one task; the task that waits for the forks is in its care already.
        made._timer = nullcontext()
    made.send = partial(_send_calmly, type(request).send, made)
    return made, target


async def _send_calmly(send: Callable[..., Any], request: Any, connection: Any) -> Any:
    """Send, and read little at once until the response has begun.

    Whoever sends nothing but interim responses must not keep the loop busy, beyond any deadline, with what one read
    has brought.
    """
    transport = request.seawall_transport = connection.transport
    if hasattr(transport, "max_size"):  # asyncio's own
        transport.max_size = LITTLE
    return await send(request, connection)


def abandon(request: Any) -> None:
    """The request has failed: its connection is not kept for what the other side never read."""
    transport = getattr(request, "seawall_transport", None)
    if transport is not None:
        transport.abort()


def read_freely(response: Any) -> None:
    """The response has begun: from now on it is read as usual."""
    transport = None if response.connection is None else response.connection.transport
    if transport is not None and "max_size" in getattr(transport, "__dict__", {}):
        del transport.max_size
