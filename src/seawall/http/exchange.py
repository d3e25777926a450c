"""One request through a cluster: what its errors mean, whether it may be sent again, and what its sender gets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any, cast

from seawall.cluster import Cluster, Failover
from seawall.cluster.calls import Calls
from seawall.cluster.reading import AT_ONCE, ELSEWHERE, FAILED, FINAL, NOTHING, Reading, is_final
from seawall.cluster.serving import Serving
from seawall.context import CURRENT
from seawall.errors import DeadlineExceeded, Rejected, SeawallError
from seawall.http.answers import BadAnswer, Served
from seawall.http.disguise import Blameless, disguised
from seawall.http.pacing import Paced
from seawall.http.propagation import outward_headers
from seawall.http.repeatable import may_be_sent_twice
from seawall.http.sending import SENDING
from seawall.http.target import target_of
from seawall.http.travelling_key import IDEMPOTENCY_KEY, travelling_key
from seawall.machines.verdict import Verdict
from seawall.policies.classify import add_note
from seawall.record import Record
from seawall.runtime import clock

if TYPE_CHECKING:
    from seawall.cluster.endpoint import Endpoint

__all__ = ["Client", "Exchange"]

ONCE = Failover()
"""What takes the place of a strategy that forks, for a request that may be sent only once: with the terms of such a
request it goes elsewhere only where nothing was sent."""

UNSENT = Reading(Verdict.IGNORE, again=True, at_once=True)
"""Says nothing about the endpoint, and cost it nothing: try elsewhere at once."""


class Client(Record):
    """What an exchange has to know of an HTTP client: its errors, and what it calls a response."""

    never_left: tuple[type[Exception], ...]
    """Raised before anything of the request was sent."""
    blameless: tuple[type[Exception], ...]
    """Errors of this side."""
    late: type[Exception]
    """What it calls a timeout."""
    refused: type[Exception]
    """What it calls a request that could not be sent; the base of such errors."""
    response: type[Any]
    unsupported: Callable[[Any, str], Exception]
    """Makes its error for a URL that cannot be asked for, from that and a text."""


def late_body(cluster: str, caller_due_ns: int | None, due_ns: int) -> DeadlineExceeded:
    """What to raise if the reading of a response has to end, at `due_ns`.

    The impatience is the caller's only if his own deadline is over; else the replica took longer than it may.
    """
    if caller_due_ns is not None and caller_due_ns <= max(due_ns, clock.now_ns()):
        return DeadlineExceeded("the deadline passed while the response was being read", inherited=True)
    return DeadlineExceeded("the time for the attempt was over while the response was being read", policy=cluster)


class OnItsWay(Blameless):
    """A layer wanted to send a request twice that may be sent only once, and the first is still on its way."""

    def __init__(self) -> None:
        super().__init__("this request may be sent only once, and is on its way already")


class Exchange:
    """One request. It is the `Terms` of its call.

    `body` are its bytes, None if they are not in memory. `replayable()` tells whether the body can be sent (again) now;
    `forkable`, whether it can be sent twice at the same time. `idempotent` is what the sender says, if he does.
    """

    def __init__(
        self,
        cluster: Cluster[Any],
        client: Client,
        method: str,
        url: Any,
        keys: Sequence[str],
        *,
        body: bytes | None,
        replayable: Callable[[], bool],
        forkable: bool,
        idempotent: bool | None = None,
    ) -> None:
        wish = SENDING.get()
        said = wish.idempotent if idempotent is None else idempotent
        self._client = client
        self._key = None if keys else travelling_key(method, url, body)
        self._url = url
        self._may = may_be_sent_twice(method, keys if self._key is None else (self._key,), idempotent=said)
        self._replayable = replayable
        self._cluster = cluster.name
        forks = cluster.calls.strategy.forks
        careful = forks and not (self._may and forkable)
        self.calls: Calls = cluster.using(ONCE).calls if careful else cluster.calls
        self.forks = forks and not careful
        self.streams = wish.stream
        """Whether only the caller's own deadline holds while the response is read, and no limit of its size."""
        self.caller_due_ns = CURRENT.get().deadline_ns
        self.bad: list[BadAnswer] = []
        """Responses that were failures, to be closed unless the sender gets them."""
        self._number = count(max(1, CURRENT.get().attempt))
        """Of the next sending: from the caller's own attempt on, so that a retry around the call shows as well."""
        self._out = False
        self._last: BaseException | None = None

    # -- attempts --------------------------------------------------------------------------------------------------

    def admit(self, endpoint: Endpoint) -> dict[str, str]:
        """Called before each sending; returns the headers that it adds. Raises for a second one of a request that may
        be sent only once, and for one that would leave in clear text though its sender wrote `https`.

        The strategy knows by `read`; this is for layers of the user, such as a `Retry` or `Hedge` around the attempt.
        """
        if self._url.scheme in ("https", "wss") and target_of(endpoint).scheme == "http":
            text = f"{self._cluster}: {self._url.scheme} was asked for, and {endpoint} would be sent it in clear text"
            error = self._client.unsupported(self._url, text)
            raise disguised(error, Blameless, type(error))
        if self._out and not (self._may and self._replayable()):
            raise self._last or OnItsWay()
        self._out = True
        headers = outward_headers(attempt=next(self._number))
        if self._key is not None:
            headers[IDEMPOTENCY_KEY] = self._key
        return headers

    def failed(self, error: BaseException) -> BaseException | None:
        """Called when sending has failed; returns the error to raise in its place, if there is one."""
        if isinstance(error, self._client.never_left) and self._replayable():
            self._out = False
            return None
        if isinstance(error, self._client.blameless):
            self._last = disguised(error, Blameless, type(error))
            return self._last
        self._last = error
        return None

    def refuse(self, answer: BadAnswer) -> BadAnswer:
        """Note a response that is a failure; returns the error to raise."""
        self._last = answer
        self.bad.append(answer)
        return answer

    @property
    def body_due_ns(self) -> int | None:
        """Until when the response of the attempt that runs now may be read."""
        return self.caller_due_ns if self.streams else CURRENT.get().deadline_ns

    @property
    def body_late(self) -> Callable[[int], DeadlineExceeded]:
        """Makes the error for a response that was not read by then. It knows nothing of this, which is over by then."""
        return partial(late_body, self._cluster, self.caller_due_ns)

    # -- terms -----------------------------------------------------------------------------------------------------

    def read(self, error: BaseException) -> Reading:
        """What an error means to the call."""
        if isinstance(error, BadAnswer):
            again = self._may and self._replayable() and not error.final
            if error.verdict is Verdict.FAIL:
                return FAILED if again else FINAL
            return ELSEWHERE if again else NOTHING
        if isinstance(error, Paced):
            # Nothing was sent, and another endpoint has limits of its own.
            return UNSENT if self._replayable() else NOTHING
        if is_final(error) or isinstance(error, (Rejected, Blameless)):
            return NOTHING
        if isinstance(error, self._client.never_left):
            return AT_ONCE if self._replayable() else FINAL
        return FAILED if self._may and self._replayable() else FINAL

    # -- the end ---------------------------------------------------------------------------------------------------

    def response(self, serving: Serving, value: Any, error: BaseException | None) -> tuple[Any, Served]:
        """The response that the sender gets, and how it was served; or the error he gets is raised."""
        try:
            if error is not None:
                error = self._told(error)
                if not isinstance(error, BadAnswer):
                    raise error
                value = error.take()
            elif not isinstance(value, self._client.response):
                wanted = self._client.response.__name__
                raise TypeError(f"{self._cluster}: the fallback gave {value!r}; a request needs a {wanted}")
            return value, Served(self._cluster, serving.endpoint, serving.attempts, serving.degraded)
        finally:
            del error  # it knows this frame

    def forget(self) -> list[BadAnswer]:
        """The call is over: no error is kept, for errors know the frames that know this. Returns the responses to
        close."""
        bad, self.bad, self._last = self.bad, [], None
        return bad

    def _told(self, error: BaseException) -> BaseException:
        """The error in a form that code written for the client knows: one error, of a kind of its own."""
        if isinstance(error, BaseExceptionGroup):
            group = cast("BaseExceptionGroup[BaseException]", error)
            error = _foremost(group.exceptions)
            add_note(error, f"seawall: {group.message}: ", "; ".join(map(repr, group.exceptions)))
        if isinstance(error, SeawallError) and isinstance(error, (DeadlineExceeded, Rejected)):
            foreign = self._client.late if isinstance(error, DeadlineExceeded) else self._client.refused
            return error if isinstance(error, foreign) else disguised(error, type(error), foreign, _request=None)
        return error


def _foremost(errors: Sequence[BaseException]) -> BaseException:
    """Of the errors of all forks the first response, else the first that is no refusal, else the first."""
    for kind in (BadAnswer, Exception):
        for error in errors:
            if isinstance(error, kind) and not isinstance(error, Rejected):
                return error
    return errors[0]
