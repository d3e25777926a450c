"""`Middleware`: for `aiohttp.ClientSession`."""

from __future__ import annotations

import weakref
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, cast

import aiohttp

from seawall.http.answers import BadAnswer, Served
from seawall.http.disguise import disguised
from seawall.http.exchange import Client, Exchange
from seawall.http.names import Clusters, Names
from seawall.http.pacing import Pace, Paced, Turn, pace_of
from seawall.http.target import target_of
from seawall.http.verdicts import verdict_of_status
from seawall.integrations.aiohttp import _responses as responses
from seawall.integrations.aiohttp._requests import abandon, outgoing, read_freely
from seawall.machines.verdict import Verdict
from seawall.runtime.aio import ASYNCIO
from seawall.units import count_of

if TYPE_CHECKING:
    from aiohttp import ClientHandlerType, ClientRequest, ClientResponse

    from seawall.cluster import Cluster
    from seawall.cluster.endpoint import Endpoint

__all__ = ["Middleware", "served"]

MOST_BODY = 64 * 1024 * 1024
LARGEST = 1 << 50
RETRIED_BY_AIOHTTP = frozenset(("GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"))

AIOHTTP = Client(
    never_left=(aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError, aiohttp.ServerFingerprintMismatch),
    blameless=(aiohttp.InvalidURL,),
    late=aiohttp.ServerTimeoutError,
    refused=aiohttp.ClientConnectionError,
    response=aiohttp.ClientResponse,
    unsupported=aiohttp.InvalidURL,
)
_served: weakref.WeakKeyDictionary[ClientResponse, Served] = weakref.WeakKeyDictionary()
_given_up: ContextVar[tuple[object, BaseException] | None] = ContextVar("seawall_given_up", default=None)
"""An error that this task has just raised to aiohttp, which may send such a request once more on its own account."""


def served(response: ClientResponse) -> Served | None:
    """How a response was served: cluster, endpoint, attempts. None if it did not come through a cluster."""
    return _served.get(response)


class Middleware:
    """Send requests for a cluster's name through the cluster, and all others as they are.

    `http://inventory/items/7` goes to an endpoint of the cluster named "inventory": its balancer chooses, its policies
    guard, its strategy decides what a failure means. A failure is a transport error, 5xx or 408; 429 is obeyed and held
    against nobody. Only what may be sent twice is: idempotent methods, requests with an `Idempotency-Key` or in `with
    sending(idempotent=True):`, if the body can be sent again; anything, if it certainly never left. The sender gets a
    response, be it the last of those that were failures, or an error of aiohttp's own kinds; refusals and passed
    deadlines are Seawall's own errors as well. A call, and the reading of its response, end with the deadline.

    `served(response)` tells cluster, endpoint and attempts. Needs aiohttp 3.13 or later.

    Args:
        clusters: a `Cluster` or several, each for the host of its name; a mapping of hosts to clusters; or a
            `Registry`. Default: all clusters of the default registry, whenever they are made.
        max_body: how many bytes a response of a cluster may have; None for no limit. Default 64 MiB.
        pace: whether requests, to all hosts, wait until their server has room for them by what its answers say of its
            limits: True, or a `Pace` with settings of its own.

    Raises:
        ConfigError: a strategy that cannot give a response (`Broadcast`, `Failback`, a `Failsafe` whose default is no
            function), an endpoint whose address is no base URL, or another setting that is wrong.

    Example:
        >>> from seawall import Cluster, Failover
        >>> stock = Cluster("inventory", ["http://10.0.0.1:80", "http://10.0.0.2:80"], strategy=Failover(retries=1))
        >>> middlewares = [Middleware(stock)]  # aiohttp.ClientSession(middlewares=middlewares)
    """

    def __init__(
        self, clusters: Clusters | None = None, *, max_body: int | None = MOST_BODY, pace: Pace | bool = False
    ) -> None:
        self._names = Names(clusters, "Middleware(clusters)")
        self._most = None if max_body is None else count_of(max_body, "Middleware(max_body)", most=LARGEST)
        self._pace = pace_of(pace, "Middleware(pace)")

    async def __call__(self, request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
        """Send a request; called by the session."""
        cluster = self._names.find(request.url.host or "")
        if cluster is None:
            return await (handler(request) if self._pace is None else _paced(self._pace, request, handler))
        _raise_again(request)
        try:
            return await _Call(cluster, request, handler, self._most, self._pace).run()
        except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
            if request.method in RETRIED_BY_AIOHTTP:
                _given_up.set((_timer_of(request), error))
            raise


async def _paced(pace: Pace, request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
    """Send a request that goes through no cluster, when it is its turn."""
    try:
        turn = await pace.enter(ASYNCIO, pace.key_of(str(request.url.origin()), request))
    except Paced as error:
        raise disguised(error, Paced, AIOHTTP.refused) from None
    try:
        turn.begin()
        response = await handler(request)
        turn.answered(response.status, responses.headers_of(response))
    except Exception as error:
        turn.failed(error, AIOHTTP.never_left)
        raise
    finally:
        turn.close()
    return response


class _Call:
    """One request on its way through a cluster."""

    def __init__(
        self,
        cluster: Cluster[Any],
        request: ClientRequest,
        handler: ClientHandlerType,
        most: int | None,
        pace: Pace | None,
    ) -> None:
        self._request = request
        self._handler = handler
        body: Any = request.body
        self._exchange = Exchange(
            cluster,
            AIOHTTP,
            request.method,
            request.url,
            request.headers.getall("Idempotency-Key", ()),
            body=_bytes_of(body),
            replayable=lambda: not body or not body.consumed,
            forkable=not body or isinstance(body, aiohttp.BytesPayload),
        )
        self._most = None if self._exchange.streams else most
        self._pace = pace

    async def run(self) -> ClientResponse:
        """The response; raises what the sender is to see."""
        exchange = self._exchange
        serving = exchange.calls.begin(self._attempt, (), {}, is_async=True, terms=exchange)
        try:
            value, error = await exchange.calls.serve(serving)
            try:
                response, facts = exchange.response(serving, value, error)
            finally:
                del error  # it knows this frame
        finally:
            await self._close(exchange.forget())
        _served[response] = facts
        return cast("ClientResponse", response)

    @staticmethod
    async def _close(answers: list[BadAnswer]) -> None:
        for bad in answers:
            await cast("responses.Bad", bad).aclose()

    async def _attempt(self, endpoint: Endpoint) -> ClientResponse:
        """Send the request to one endpoint, when it is its turn."""
        if not self._exchange.forks:
            await self._close(self._exchange.bad)
        pace = self._pace
        if pace is None:
            return await self._sent(endpoint, None)
        turn = await pace.enter(ASYNCIO, pace.key_of(target_of(endpoint).origin, self._request))
        try:
            return await self._sent(endpoint, turn)
        finally:
            turn.close()

    async def _sent(self, endpoint: Endpoint, turn: Turn | None) -> ClientResponse:
        """Send the request to one endpoint."""
        exchange = self._exchange
        headers = exchange.admit(endpoint)
        request, target = outgoing(self._request, endpoint, headers, forks=exchange.forks)
        if turn is not None:
            turn.begin()
        try:
            response = await self._handler(request)
        except BaseException as error:
            if turn is not None:
                turn.failed(error, AIOHTTP.never_left)
            abandon(request)
            if not isinstance(error, Exception):
                raise
            await request.close()  # whatever still writes the body, before it is written again
            other = exchange.failed(error)
            if other is None:
                raise
            try:
                raise other from error.__cause__
            finally:
                del other  # it knows this frame
        if turn is not None:
            turn.answered(response.status, responses.headers_of(response))
        read_freely(response)
        responses.bound(response, exchange.body_due_ns, self._most, exchange.body_late)
        responses.rewrite(response, self._request, target)
        verdict = verdict_of_status(response.status)
        if verdict is Verdict.OK:
            return response
        bad = await responses.bad(response, verdict, endpoint)
        bad.hurried = exchange.forks
        raise exchange.refuse(bad)


def _bytes_of(body: Any) -> bytes | None:
    """The bytes of a body, if they are in memory."""
    if not body:
        return b""
    value = getattr(body, "_value", None) if isinstance(body, aiohttp.BytesPayload) else None
    return None if value is None else bytes(value)


# -- aiohttp's own second try ----------------------------------------------------------------------------------------


def _timer_of(request: Any) -> object:
    """Something that all requests have in common which aiohttp makes of one request of its user."""
    return getattr(request, "_timer", None)


def _raise_again(request: ClientRequest) -> None:
    """If aiohttp sends a request once more because its connection was lost, tell it again what became of it.

    It would be a call of its own, with all its attempts, behind the back of strategy and budget.
    """
    given_up = _given_up.get()
    if given_up is None:
        return
    _given_up.set(None)
    timer, error = given_up
    if timer is _timer_of(request):
        try:
            raise error
        finally:
            del error, given_up  # it knows this frame
