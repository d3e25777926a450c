"""WSGI middleware: a request runs in its caller's context, and a refusal nobody caught becomes a fitting answer."""

from __future__ import annotations

import contextvars
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from seawall.context import CURRENT
from seawall.http.edge import Edge
from seawall.http.environ import peer_of, status_line
from seawall.http.peers import Trusted
from seawall.http.propagation import HEADERS
from seawall.units import Duration

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

__all__ = ["SeawallMiddleware"]

P = ParamSpec("P")
T = TypeVar("T")

NAMES = {f"HTTP_{name.upper().replace('-', '_')}": name for name in HEADERS}


class SeawallMiddleware:
    """Take deadline, criticality and attempt in from trusted peers, and answer refusals with 429, 503 or 504.

    While the application serves a request, and while the body it returned is read and closed, in whatever thread,
    `seawall.remaining()` and `seawall.current()` tell what arrived, and every policy obeys the deadline. It interrupts
    nothing by itself.

    A `Rejected` (429 or 503) or `DeadlineExceeded` (504) that nobody caught, alone or in groups of nothing else, is
    answered with a problem+json body and Retry-After, unless part of the response is out. A request whose deadline has
    already passed is answered so without calling the application. Flask and Django turn errors into a 500 themselves:
    there an error handler with `seawall.http.problem_for` does it.

    WSGI cannot tell `Seawall_Deadline` from `Seawall-Deadline`, nor a header that a proxy passed on from one it set: a
    trusted proxy has to remove both spellings from what strangers send, or must not be trusted.

    Args:
        app: the application.
        trusted: whose headers are believed: addresses and networks such as `"10.0.0.0/8"`, and `"unix"` for whoever
            comes through a Unix socket; or a predicate of the address (`None` for a Unix socket). It is the address
            at the other end of the connection, `REMOTE_ADDR`, that counts. Default: nobody.
        deadline: what a request gets that brings no deadline; a duration above 0. Default None: no deadline.
        max_deadline: the most that any request gets, whatever it brings. Default None: no limit.

    Raises:
        ConfigError: a setting is outside its range.

    Example:
        >>> from seawall import Rejected
        >>> def app(environ, start_response):
        ...     raise Rejected("closed for today", retry_after=60)
        >>> middleware = SeawallMiddleware(app, trusted=["10.0.0.0/8", "unix"])
        >>> middleware({"REMOTE_ADDR": "10.1.2.3"}, lambda status, headers, error=None: print(status))
        503 Service Unavailable
        [b'{"type": "urn:seawall:rejected", "title": "Cannot be served now", "status": 503, "retry_after": 60}']
    """

    def __init__(
        self,
        app: WSGIApplication,
        *,
        trusted: Trusted = (),
        deadline: Duration | None = None,
        max_deadline: Duration | None = None,
    ) -> None:
        self.app = app
        self._edge = Edge("SeawallMiddleware", trusted, deadline, max_deadline)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        found = {name: [environ[key]] for key, name in NAMES.items() if key in environ}
        context = self._edge.context(found, lambda: peer_of(environ))
        exchange = _Exchange(self._edge, environ, start_response)
        exchange.run(CURRENT.set, context)
        try:
            self._edge.refuse_late(context)
            result = exchange.run(self.app, environ, start_response)
            # The application has no more to do for these; a server may know their length, or how to send a file.
            if type(result) in (list, tuple) or isinstance(result, environ.get("wsgi.file_wrapper", ())):
                return result
            return _Body(exchange, result)
        except Exception as error:
            body = exchange.answer(error)
            if body is None:
                raise
            return [body]

    def snapshot(self) -> dict[str, Any]:
        """Counters, JSON-ready.

        `believed`: requests with headers from trusted peers; `untrusted`: with headers from others, ignored;
        `malformed`: headers from trusted peers that could not be read, ignored; `refused`, `late`: requests answered
        with 429 or 503, and with 504.
        """
        return self._edge.snapshot()


class _Exchange:
    """One request, with a context of its own in which every step of the application runs, wherever it is taken."""

    def __init__(self, edge: Edge, environ: WSGIEnvironment, start_response: StartResponse) -> None:
        self._edge = edge
        self._environ = environ
        self._start_response = start_response
        self._context = contextvars.copy_context()
        self._busy = False
        self.begun = False
        """Whether part of the body has gone to the server, and the headers with it."""

    def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a function in the context of the request."""
        if self._busy:
            # A server that gives up may close the body while another thread is still in it.
            return self._context.copy().run(function, *args, **kwargs)
        self._busy = True
        try:
            return self._context.run(function, *args, **kwargs)
        finally:
            self._busy = False

    def answer(self, error: Exception) -> bytes | None:
        """Begin the answer to an error that is being handled, and return its body; None if it is not ours to give."""
        problem = None if self.begun else self._edge.answer(error)
        if problem is None:
            return None
        # With the error, as PEP 3333 has it: a server that has sent headers already raises it again.
        self._start_response(status_line(problem), list(problem.headers), sys.exc_info())
        return b"" if self._environ.get("REQUEST_METHOD") == "HEAD" else problem.body


class _Body:
    """What the application returned, read and closed in the context of its request."""

    def __init__(self, exchange: _Exchange, result: Iterable[bytes]) -> None:
        self._exchange = exchange
        self._result = result
        self._chunks: Iterator[bytes] | None = None
        self._over = False

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        if self._over:
            raise StopIteration
        try:
            if self._chunks is None:
                self._chunks = self._exchange.run(iter, self._result)
            chunk = self._exchange.run(next, self._chunks)
        except StopIteration:
            raise
        except Exception as error:
            self._over = True
            body = self._exchange.answer(error)
            if body is None:
                raise
            return body
        if chunk:
            self._exchange.begun = True
        return chunk

    def close(self) -> None:
        close = getattr(self._result, "close", None)
        if close is not None:
            self._exchange.run(close)
