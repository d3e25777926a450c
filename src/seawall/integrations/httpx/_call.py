"""One request on its way through a cluster: what is the same whether its transport waits in a thread or in a task."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from seawall.errors import DeadlineExceeded
from seawall.http.answers import BadAnswer
from seawall.http.target import Target, target_of
from seawall.http.verdicts import is_quota_exceeded, may_be_quota, verdict_of_status
from seawall.integrations.httpx import _requests as requests
from seawall.integrations.httpx._inner import Settings
from seawall.integrations.httpx._kit import Kit
from seawall.machines.verdict import Verdict

if TYPE_CHECKING:
    from seawall.cluster import Cluster
    from seawall.cluster.endpoint import Endpoint
    from seawall.http.pacing import Turn

__all__ = ["Bad", "Bounds", "Call"]


class Call:
    """The base of the calls of both transports. It sends nothing, and waits for nothing."""

    def __init__(
        self,
        kit: Kit,
        send: Callable[[Any], Any],
        settings: Settings,
        cluster: Cluster[Any],
        request: Any,
        streams: tuple[type[Any], type[Any]],
    ) -> None:
        tracked, self._bounded = streams
        self._kit = kit
        self._send = send
        self._request = request
        self._body = requests.Body(kit, request.stream, tracked)
        self._exchange = requests.exchange_for(kit, cluster, request, self._body)
        self._most = None if self._exchange.streams else settings.most
        self._pace = settings.pace

    def _line(self, endpoint: Endpoint) -> str:
        """In which line the request waits for its turn, if it is paced."""
        origin = target_of(endpoint).origin
        return origin if self._pace is None else self._pace.key_of(origin, self._request)

    def _outgoing(self, endpoint: Endpoint) -> tuple[Any, Target]:
        headers = self._exchange.admit(endpoint)
        return requests.outgoing(self._kit, self._request, endpoint, self._body.stream, headers)

    def _failed(self, error: Exception, turn: Turn | None) -> BaseException | None:
        """Note that sending has failed; returns the error to raise in its place, if there is one."""
        if turn is not None:
            turn.failed(error, self._kit.client.never_left)
        return self._exchange.failed(error)

    def _arrived(self, response: Any, target: Target, turn: Turn | None) -> Verdict:
        """Note a response, and put bounds around its body; returns what its status says."""
        if turn is not None:
            turn.answered(response.status_code, response.headers.get)
        exchange = self._exchange
        response.stream = self._bounded(
            self._kit, response.stream, exchange.body_due_ns, self._most, exchange.body_late
        )
        requests.rewritten(response, self._request, target)
        return verdict_of_status(response.status_code)

    def _keep_data(self, response: Any, stream: Any, data: bytes | None) -> None:
        """Its body was read into memory: None if it could not be had."""
        if not stream.in_memory:
            requests.small_body(self._kit, response, data)
            response.stream = self._bounded(self._kit, response.stream, stream.due_ns, self._most, stream.late)


class Bounds:
    """The base of the bodies of responses of both kinds, which end at a deadline, and at their largest size."""

    def __init__(
        self, kit: Kit, stream: Any, due_ns: int | None, most: int | None, late: Callable[[int], DeadlineExceeded]
    ) -> None:
        self._stream = stream
        self.due_ns = due_ns
        self.late = late
        self._most = most
        self.in_memory = isinstance(stream, kit.ByteStream)


class Bad(BadAnswer):
    """A response that is a failure, whose connection goes back when it is passed over: by `keep`, which the transport
    waits for as it waits for everything."""

    def __init__(
        self,
        response: Any,
        verdict: Verdict,
        endpoint: Endpoint,
        *,
        final: bool,
        keep: Callable[[Any], Any],
    ) -> None:
        wish = requests.wish_of(response)
        super().__init__(
            response.status_code, response, verdict=verdict, endpoint=endpoint, retry_after=wish, final=final
        )
        self._keep = keep

    @staticmethod
    def may_be_final(response: Any) -> bool:
        """Whether its body has to be read to tell if it is final."""
        status, kind = response.status_code, response.headers.get("content-type")
        return may_be_quota(status, kind) and requests.is_small(response)

    @staticmethod
    def is_final(response: Any, data: bytes | None) -> bool:
        """Whether this body says that it is."""
        return data is not None and is_quota_exceeded(data, response.headers.get("content-encoding"))
