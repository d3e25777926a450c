"""WSGI middleware that limits requests: for Flask, Pyramid, Bottle and whatever else speaks WSGI."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from seawall.http.callers import KeyOf
from seawall.http.client_address import ClientAddress
from seawall.http.entrance import CostOf, Entrance, Exempt, Fields, PartsOf
from seawall.http.environ import request_of, status_line
from seawall.limiter import Limiter, Rules
from seawall.limiter.asking import Cost
from seawall.stores.decision import Decision

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

__all__ = ["RateLimitMiddleware"]


class RateLimitMiddleware:
    """Refuse requests beyond a limit with 429, and tell all others how much is left.

    The answer has `RateLimit-Policy` and `RateLimit` (or the older `X-RateLimit-*`); a refusal also Retry-After and a
    problem+json body, and nothing of the request is read for it. Limits that need to know the user stand further
    inside: see `seawall.integrations.flask` and `seawall.integrations.django`.

    Args:
        app: the application.
        limiter: a `Limiter`, or `Rules`.
        key: a function of the request (`seawall.http.Request`) that gives the key; for `Rules`, the parts. Default: the
            client's address, without trusted proxies; behind a proxy give `ClientAddress(trusted=[...])`, or all
            clients share one bucket.
        cost: a whole number, or a function of the request. Default 1, or that of the rule.
        exempt: paths that are not counted, `"/health"` or `"/static/*"`; or a predicate of the request.
        fields: "draft" (default), "legacy", "both" or "none".

    Raises:
        ConfigError: a setting is wrong; at a request: the key function gave None, or nothing that can be a key.

    Example:
        >>> from seawall import Limiter, TokenBucket
        >>> def app(environ, start_response):
        ...     start_response("200 OK", [])
        ...     return [b"fine"]
        >>> limited = RateLimitMiddleware(app, Limiter(TokenBucket("1/min"), name="api"))
        >>> show = lambda status, headers, error=None: print(status, dict(headers)["RateLimit"])
        >>> limited({"REMOTE_ADDR": "10.1.2.3"}, show)
        200 OK "TokenBucket";r=0;t=60
        [b'fine']
    """

    def __init__(
        self,
        app: WSGIApplication,
        limiter: Limiter | Rules,
        *,
        key: KeyOf | PartsOf | None = None,
        cost: Cost | CostOf | None = None,
        exempt: Exempt = (),
        fields: Fields = "draft",
    ) -> None:
        self.app = app
        if key is None and isinstance(limiter, Limiter):
            key = ClientAddress()
        self._entrance = Entrance("RateLimitMiddleware", limiter, key, cost, exempt, fields)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        entrance, request = self._entrance, request_of(environ)
        if entrance.has_exempt and entrance.exempts(request):
            return self.app(environ, start_response)
        decision = entrance.decide(request)
        if not decision.allowed:
            problem = entrance.refusal(decision)
            start_response(status_line(problem), list(problem.headers))
            return [b"" if environ.get("REQUEST_METHOD") == "HEAD" else problem.body]
        if entrance.tells:
            start_response = _telling(entrance, decision, start_response)
        return self.app(environ, start_response)

    def snapshot(self) -> dict[str, Any]:
        """Counters, JSON-ready. `refused`: requests."""
        return {"refused": self._entrance.refused}


def _telling(entrance: Entrance, decision: Decision, start_response: StartResponse) -> StartResponse:
    """`start_response`, with the fields among the headers."""

    def tell(status: str, headers: list[tuple[str, str]], *error: Any) -> Callable[[bytes], object]:
        return start_response(status, [*headers, *entrance.fields(decision).items()], *error)

    return tell
