"""`AsyncTransport`: for `httpx.AsyncClient` and `httpx2.AsyncClient`, on asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from functools import cache
from typing import TYPE_CHECKING, Any, Self, cast

from seawall.http.answers import BadAnswer
from seawall.http.names import Clusters
from seawall.http.pacing import Pace, Paced, Turn
from seawall.http.verdicts import MOST_PROBLEM_BYTES
from seawall.integrations.httpx import _requests as requests
from seawall.integrations.httpx._call import Bad, Bounds, Call
from seawall.integrations.httpx._calm import calm, reading_little
from seawall.integrations.httpx._inner import Settings
from seawall.integrations.httpx._kit import Kit, kit_of
from seawall.machines.verdict import Verdict
from seawall.runtime import clock
from seawall.runtime.aio import ASYNCIO

if TYPE_CHECKING:
    from types import TracebackType

    import httpx
    import httpx2

    from seawall.cluster.endpoint import Endpoint

    class Base(httpx.AsyncBaseTransport, httpx2.AsyncBaseTransport):  # type: ignore[misc]  # pyright: ignore[reportIncompatibleMethodOverride]  # what either client accepts
        """Nothing at run time: neither package is imported for it."""
else:
    Base = object

__all__ = ["AsyncTransport"]


class AsyncTransport(Base):
    """Send requests for a cluster's name through the cluster, and all others as they are.

    The same as `Transport`, for asynchronous clients on asyncio: see there. `inner` defaults to the client's own
    `AsyncHTTPTransport()`; whatever it is, a call and the reading of its response end with the deadline.

    Example:
        >>> import httpx
        >>> from seawall import Cluster, Forking
        >>> prices = Cluster("prices", ["http://10.0.0.1:80", "http://10.0.0.2:80"], strategy=Forking(2))
        >>> async def replicas(request):  # in place of the network
        ...     return httpx.Response(503 if request.url.host == "10.0.0.1" else 200)
        >>> transport = AsyncTransport(prices, inner=httpx.MockTransport(replicas))
        >>> async with httpx.AsyncClient(transport=transport) as client:
        ...     response = await client.get("http://prices/A-7")
        >>> response.status_code, str(response.extensions["seawall"].endpoint)
        (200, 'http://10.0.0.2:80')
    """

    def __init__(
        self,
        clusters: Clusters | None = None,
        *,
        inner: Any = None,
        max_body: int | None = requests.MOST_BODY,
        pace: Pace | bool = False,
    ) -> None:
        method = "handle_async_request"
        self._settings = Settings("AsyncTransport", clusters, inner, max_body, pace, method=method, make=_made)
        if inner is not None:
            calm(inner)

    async def handle_async_request(self, request: Any) -> Any:
        """Send a request; called by the client."""
        kit, cluster = kit_of(request), self._settings.cluster_of(request)
        inner = self._settings.inner(kit)
        if cluster is None:
            pace = self._settings.pace
            if pace is None:
                return await inner.handle_async_request(request)
            return await _paced(kit, pace, inner.handle_async_request, request)
        return await _Call(kit, inner.handle_async_request, self._settings, cluster, request, _streams(kit)).run()

    async def aclose(self) -> None:
        for inner in [*self._settings.made, *filter(None, [self._settings.given])]:
            await inner.aclose()

    async def __aenter__(self) -> Self:
        if self._settings.given is not None:
            await self._settings.given.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None = None,
        error: BaseException | None = None,
        trace: TracebackType | None = None,
    ) -> None:
        for inner in self._settings.made:
            await inner.aclose()
        if self._settings.given is not None:
            await self._settings.given.__aexit__(kind, error, trace)


def _made(kit: Kit) -> Any:
    inner = kit.AsyncHTTPTransport()
    calm(inner)
    return inner


async def _paced(kit: Kit, pace: Pace, send: Callable[[Any], Awaitable[Any]], request: Any) -> Any:
    """Send a request that goes through no cluster, when it is its turn."""
    try:
        turn = await pace.enter(ASYNCIO, pace.key_of(requests.origin_of(request), request))
    except Paced as error:
        raise requests.unsent(kit, error) from None
    try:
        turn.begin()
        response = await send(request)
        turn.answered(response.status_code, response.headers.get)
    except Exception as error:
        turn.failed(error, kit.client.never_left)
        raise
    finally:
        turn.close()
    return response


class _Call(Call):
    """One request on its way through a cluster."""

    async def run(self) -> Any:
        """The response; raises what the sender is to see."""
        exchange = self._exchange
        serving = exchange.calls.begin(self._attempt, (), {}, is_async=True, terms=exchange)
        try:
            value, error = await exchange.calls.serve(serving)
            try:
                response, served = exchange.response(serving, value, error)
            finally:
                del error  # it knows this frame
        finally:
            await self._close(exchange.forget())
        response.extensions["seawall"] = served
        return response

    @staticmethod
    async def _close(answers: list[BadAnswer]) -> None:
        for bad in answers:
            await cast("_Bad", bad).aclose()

    async def _attempt(self, endpoint: Endpoint) -> Any:
        """Send the request to one endpoint, when it is its turn."""
        if not self._exchange.forks:
            await self._close(self._exchange.bad)
        pace = self._pace
        if pace is None:
            return await self._sent(endpoint, None)
        turn = await pace.enter(ASYNCIO, self._line(endpoint))
        try:
            return await self._sent(endpoint, turn)
        finally:
            turn.close()

    async def _sent(self, endpoint: Endpoint, turn: Turn | None) -> Any:
        """Send the request to one endpoint."""
        request, target = self._outgoing(endpoint)
        if turn is not None:
            turn.begin()
        try:
            with reading_little():
                response = await self._send(request)
        except Exception as error:
            other = self._failed(error, turn)
            if other is None:
                raise
            try:
                raise other from error.__cause__
            finally:
                del other  # it knows this frame
        verdict = self._arrived(response, target, turn)
        if verdict is Verdict.OK:
            return response
        raise self._exchange.refuse(await self._bad(response, verdict, endpoint))

    async def _bad(self, response: Any, verdict: Verdict, endpoint: Endpoint) -> BadAnswer:
        final = False
        if Bad.may_be_final(response):
            final = Bad.is_final(response, await self._kept(response, requests.look_until(response.stream.due_ns)))
        return _Bad(response, verdict, endpoint, final=final, keep=self._keep)

    async def _keep(self, response: Any) -> None:
        """Read the rest of a response that may still be wanted, if it is short and here; else let it go."""
        if response.stream.in_memory:
            return
        # Losers of a race are not waited for, not even for a moment: who asked has his answer.
        if not self._exchange.forks and requests.is_small(response):
            await self._kept(response, clock.now_ns() + requests.DRAIN_NS)
        else:
            await response.stream.aclose()
            requests.small_body(self._kit, response, None)

    async def _kept(self, response: Any, due_ns: int) -> bytes | None:
        """Read a short body into memory; None if it cannot be had by `due_ns`, or is not so short after all."""
        stream = response.stream
        data: bytes | None = await stream.read(due_ns)
        self._keep_data(response, stream, data)
        return data


class _Bad(Bad):
    """A response that is a failure."""

    async def aclose(self) -> None:
        """Nobody is going to read it, or at least not soon."""
        if not self.settled:
            self.settled = True
            await self._keep(self.response)


@cache
def _streams(kit: Kit) -> tuple[type[Any], type[Any]]:
    """The two streams of a package: a body of a request that notes when it is begun; a body of a response within
    bounds."""

    class Tracked(kit.AsyncByteStream):  # type: ignore[misc, name-defined]
        def __init__(self, stream: Any, body: requests.Body) -> None:
            self._stream = stream
            self._body = body

        async def __aiter__(self) -> AsyncIterator[bytes]:
            self._body.begun = True
            async for chunk in self._stream:
                yield chunk

        async def aclose(self) -> None:
            await self._stream.aclose()

    class Bounded(Bounds, kit.AsyncByteStream):  # type: ignore[misc, name-defined]
        async def __aiter__(self) -> AsyncIterator[bytes]:
            chunks, size = aiter(self._stream), 0
            try:
                while (chunk := await self._next(chunks)) is not None:
                    size += len(chunk)
                    if self._most is not None and size > self._most:
                        await self.aclose()
                        raise kit.RemoteProtocolError(f"the response is larger than max_body={self._most}")
                    yield chunk
            finally:
                if isinstance(chunks, AsyncGenerator):
                    await chunks.aclose()

        async def _next(self, chunks: AsyncIterator[bytes]) -> bytes | None:
            due = self.due_ns
            if due is None:
                return await anext(chunks, None)
            left = due - clock.now_ns()
            if left > 0:
                scope = asyncio.timeout(left / 1e9)
                try:
                    async with scope:
                        return await anext(chunks, None)
                except TimeoutError:
                    if not scope.expired():
                        raise
            await self.aclose()
            raise requests.late(kit, self.late(due))

        async def read(self, due_ns: int) -> bytes | None:
            """All of it, if that is not much and comes by `due_ns`; None otherwise. Closes it in any case."""
            own = self.due_ns
            self.due_ns = due_ns if own is None else min(own, due_ns)
            parts: list[bytes] = []
            size = 0
            try:
                async for chunk in self:
                    parts.append(chunk)
                    size += len(chunk)
                    if size > MOST_PROBLEM_BYTES:
                        return None
            except Exception:  # noqa: BLE001  # it was worth a try
                return None
            finally:
                self.due_ns = own
                await self.aclose()
            return b"".join(parts)

        async def aclose(self) -> None:
            await self._stream.aclose()

    return Tracked, Bounded
