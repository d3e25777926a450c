"""`Transport`: for `httpx.Client` and `httpx2.Client`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from typing import TYPE_CHECKING, Any, Self, cast

from seawall.context import CURRENT
from seawall.errors import DeadlineExceeded
from seawall.http.answers import BadAnswer
from seawall.http.names import Clusters
from seawall.http.pacing import Pace, Paced, Turn
from seawall.http.verdicts import MOST_PROBLEM_BYTES
from seawall.integrations.httpx import _requests as requests
from seawall.integrations.httpx._call import Bad, Bounds, Call
from seawall.integrations.httpx._capped import cap, until
from seawall.integrations.httpx._inner import Settings
from seawall.integrations.httpx._kit import Kit, kit_of
from seawall.machines.verdict import Verdict
from seawall.runtime import clock
from seawall.runtime.blocking import BLOCKING, drive

if TYPE_CHECKING:
    from types import TracebackType

    import httpx
    import httpx2

    from seawall.cluster.endpoint import Endpoint

    class Base(httpx.BaseTransport, httpx2.BaseTransport):  # type: ignore[misc]  # pyright: ignore[reportIncompatibleMethodOverride]  # what either client accepts
        """Nothing at run time: neither package is imported for it."""
else:
    Base = object

__all__ = ["Transport"]


class Transport(Base):
    """Send requests for a cluster's name through the cluster, and all others as they are.

    `http://inventory/items/7` goes to an endpoint of the cluster named "inventory": its balancer chooses, its policies
    guard, its strategy decides what a failure means. A failure is a transport error, 5xx or 408; 429 is obeyed and held
    against nobody. Only what may be sent twice is: idempotent methods, requests with an `Idempotency-Key`, with
    `extensions={"idempotent": True}` or in `with sending(idempotent=True):`, if the body can be sent again; anything,
    if it certainly never left. The sender gets a response, be it the last of those that were failures, or an error of
    the client's own kinds; refusals and passed deadlines are Seawall's own errors as well.

    Sockets keep to the deadline of the call: everything, the reading of the body included, ends with it. That holds for
    the transports made here and for a `HTTPTransport` given as `inner`; any other bounds each read, not their sum.

    `response.extensions["seawall"]` tells cluster, endpoint and attempts (`Served`).

    Args:
        clusters: a `Cluster` or several, each for the host of its name; a mapping of hosts to clusters; or a
            `Registry`. Default: all clusters of the default registry, whenever they are made.
        inner: the transport that sends. Default: the client's own `HTTPTransport()`.
        max_body: how many bytes a response of a cluster may have, as sent (what it is unpacked to has no
            limit); None for no limit. Default 64 MiB.
        pace: whether requests, to all hosts, wait until their server has room for them by what its answers say of its
            limits: True, or a `Pace` with settings of its own.

    Raises:
        ConfigError: a strategy that cannot give a response (`Broadcast`, `Failback`, a `Failsafe` whose default is no
            function), an endpoint whose address is no base URL, or another setting that is wrong.

    Example:
        >>> import httpx
        >>> from seawall import Cluster, Failover
        >>> stock = Cluster("inventory", ["http://10.0.0.1:80", "http://10.0.0.2:80"], strategy=Failover(base=0, cap=0))
        >>> def replicas(request):  # in place of the network
        ...     if request.url.host == "10.0.0.1": return httpx.Response(503)
        ...     return httpx.Response(200, text=f"{request.url.path} from {request.url.host}")
        >>> client = httpx.Client(transport=Transport(stock, inner=httpx.MockTransport(replicas)))
        >>> client.get("http://inventory/items/7").text
        '/items/7 from 10.0.0.2'
    """

    def __init__(
        self,
        clusters: Clusters | None = None,
        *,
        inner: Any = None,
        max_body: int | None = requests.MOST_BODY,
        pace: Pace | bool = False,
    ) -> None:
        self._settings = Settings("Transport", clusters, inner, max_body, pace, method="handle_request", make=_made)
        self._capped = inner is None or cap(inner)

    def handle_request(self, request: Any) -> Any:
        """Send a request; called by the client."""
        kit, cluster = kit_of(request), self._settings.cluster_of(request)
        inner = self._settings.inner(kit)
        if cluster is None:
            pace = self._settings.pace
            return inner.handle_request(request) if pace is None else _paced(kit, pace, inner.handle_request, request)
        facts = (kit, inner.handle_request, self._settings, cluster, request, _streams(kit))
        return _Call(*facts, capped=self._capped).run()

    def close(self) -> None:
        for inner in [*self._settings.made, *filter(None, [self._settings.given])]:
            inner.close()

    def __enter__(self) -> Self:
        if self._settings.given is not None:
            self._settings.given.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None = None,
        error: BaseException | None = None,
        trace: TracebackType | None = None,
    ) -> None:
        for inner in self._settings.made:
            inner.close()
        if self._settings.given is not None:
            self._settings.given.__exit__(kind, error, trace)


def _made(kit: Kit) -> Any:
    inner = kit.HTTPTransport()
    cap(inner)
    return inner


def _paced(kit: Kit, pace: Pace, send: Callable[[Any], Any], request: Any) -> Any:
    """Send a request that goes through no cluster, when it is its turn."""
    try:
        turn = drive(pace.enter(BLOCKING, pace.key_of(requests.origin_of(request), request)))
    except Paced as error:
        raise requests.unsent(kit, error) from None
    try:
        turn.begin()
        response = send(request)
        turn.answered(response.status_code, response.headers.get)
    except Exception as error:
        turn.failed(error, kit.client.never_left)
        raise
    finally:
        turn.close()
    return response


class _Call(Call):
    """One request on its way through a cluster."""

    def __init__(self, *facts: Any, capped: bool) -> None:
        super().__init__(*facts)
        self._capped = capped

    def run(self) -> Any:
        """The response; raises what the sender is to see."""
        exchange = self._exchange
        serving = exchange.calls.begin(self._attempt, (), {}, is_async=False, terms=exchange)
        value, error = drive(exchange.calls.serve(serving))
        try:
            response, served = exchange.response(serving, value, error)
        finally:
            del error  # it knows this frame
            self._close(exchange.forget())
        response.extensions["seawall"] = served
        return response

    @staticmethod
    def _close(answers: list[BadAnswer]) -> None:
        for bad in answers:
            cast("_Bad", bad).close()

    def _attempt(self, endpoint: Endpoint) -> Any:
        """Send the request to one endpoint, when it is its turn."""
        if not self._exchange.forks:
            self._close(self._exchange.bad)
        pace = self._pace
        if pace is None:
            return self._sent(endpoint, None)
        turn = drive(pace.enter(BLOCKING, self._line(endpoint)))
        try:
            return self._sent(endpoint, turn)
        finally:
            turn.close()

    def _sent(self, endpoint: Endpoint, turn: Turn | None) -> Any:
        """Send the request to one endpoint."""
        due = CURRENT.get().deadline_ns
        request, target = self._outgoing(endpoint)
        if due is not None:
            _cut_timeouts(request, due)
        if turn is not None:
            turn.begin()
        try:
            response = until(due, self._send, request, begun=False)
        except Exception as error:  # noqa: BLE001  # it is raised, in one form or another
            other = self._failed(error, turn)
            try:
                if isinstance(error, self._kit.TimeoutException) and due is not None and due <= clock.now_ns():
                    raise DeadlineExceeded("the deadline passed before there was a response", inherited=True) from error
                if other is None:
                    raise
                raise other from error.__cause__
            finally:
                del other  # it knows this frame
        verdict = self._arrived(response, target, turn)
        if verdict is Verdict.OK:
            return response
        raise self._exchange.refuse(self._bad(response, verdict, endpoint))

    def _bad(self, response: Any, verdict: Verdict, endpoint: Endpoint) -> BadAnswer:
        final = False
        if Bad.may_be_final(response):
            final = Bad.is_final(response, self._kept(response, requests.look_until(response.stream.due_ns)))
        return _Bad(response, verdict, endpoint, final=final, keep=self._keep)

    def _keep(self, response: Any) -> None:
        """Read the rest of a response that may still be wanted, if it is short and here; else let it go."""
        if response.stream.in_memory:
            return
        # Losers of a race are not waited for, not even for a moment: who asked has his answer.
        if self._capped and not self._exchange.forks and requests.is_small(response):
            self._kept(response, clock.now_ns() + requests.DRAIN_NS)
        else:
            response.stream.close()
            requests.small_body(self._kit, response, None)

    def _kept(self, response: Any, due_ns: int) -> bytes | None:
        """Read a short body into memory; None if it cannot be had by `due_ns`, or is not so short after all."""
        stream = response.stream
        data: bytes | None = stream.read(due_ns)
        self._keep_data(response, stream, data)
        return data


class _Bad(Bad):
    """A response that is a failure."""

    def close(self) -> None:
        """Nobody is going to read it, or at least not soon."""
        if not self.settled:
            self.settled = True
            self._keep(self.response)


def _cut_timeouts(request: Any, due_ns: int) -> None:
    """Whatever the client would wait for, a free connection too, it waits for no longer than is left."""
    left = (due_ns - clock.now_ns()) / 1e9
    given = dict(request.extensions.get("timeout", {}))
    for kind in ("connect", "read", "write", "pool"):
        timeout = given.get(kind)
        given[kind] = left if timeout is None else min(timeout, left)
    request.extensions["timeout"] = given


@cache
def _streams(kit: Kit) -> tuple[type[Any], type[Any]]:
    """The two streams of a package: a body of a request that notes when it is begun; a body of a response within
    bounds."""

    class Tracked(kit.SyncByteStream):  # type: ignore[misc, name-defined]
        def __init__(self, stream: Any, body: requests.Body) -> None:
            self._stream = stream
            self._body = body

        def __iter__(self) -> Iterator[bytes]:
            self._body.begun = True
            yield from self._stream

        def close(self) -> None:
            self._stream.close()

    class Bounded(Bounds, kit.SyncByteStream):  # type: ignore[misc, name-defined]
        def __iter__(self) -> Iterator[bytes]:
            chunks, size = iter(self._stream), 0
            while True:
                due = self.due_ns
                if due is not None and due <= clock.now_ns():
                    self.close()
                    raise requests.late(kit, self.late(due))
                try:
                    chunk: bytes | None = until(due, next, chunks, None, begun=True)
                except kit.TimeoutException as error:
                    if due is not None and due <= clock.now_ns():
                        raise requests.late(kit, self.late(due), error) from error
                    raise
                if chunk is None:
                    return
                size += len(chunk)
                if self._most is not None and size > self._most:
                    self.close()
                    raise kit.RemoteProtocolError(f"the response is larger than max_body={self._most}")
                yield chunk

        def read(self, due_ns: int) -> bytes | None:
            """All of it, if that is not much and comes by `due_ns`; None otherwise. Closes it in any case."""
            own = self.due_ns
            self.due_ns = due_ns if own is None else min(own, due_ns)
            parts: list[bytes] = []
            size = 0
            try:
                for chunk in self:
                    parts.append(chunk)
                    size += len(chunk)
                    if size > MOST_PROBLEM_BYTES:
                        return None
            except Exception:  # noqa: BLE001  # it was worth a try
                return None
            finally:
                self.due_ns = own
                self.close()
            return b"".join(parts)

        def close(self) -> None:
            self._stream.close()

    return Tracked, Bounded
