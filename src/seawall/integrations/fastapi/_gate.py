"""One limit inside FastAPI or Starlette: who is let in, and by what key; whatever it stands before."""

from __future__ import annotations

import inspect
from collections.abc import MutableMapping
from typing import Any, NamedTuple, cast

from seawall.errors import ConfigError
from seawall.http.callers import awaits
from seawall.http.client_address import ClientAddress
from seawall.http.entrance import CostOf, Entrance, Exempt, Fields, messages_of, tell
from seawall.http.messages import POLICY_VIOLATION, REASON, Metered
from seawall.http.problem import Problem
from seawall.http.request import Request
from seawall.http.scope import TRY_AGAIN_LATER, can_deny, request_of
from seawall.limiter import Limiter, Rules
from seawall.limiter.asking import Cost
from seawall.stores.decision import Decision

try:
    from starlette.exceptions import HTTPException, WebSocketException
    from starlette.requests import HTTPConnection
    from starlette.responses import Response
    from starlette.websockets import WebSocket, WebSocketDisconnect
except ImportError as error:
    raise ImportError('seawall.integrations.fastapi needs FastAPI: pip install "seawall[fastapi]"') from error
try:
    from fastapi import params

    depends: Any = params.Depends
except ImportError:  # Starlette alone: the decorator works there
    depends = None

__all__ = ["TOLD", "UNASKED", "Entry", "Gate", "TooManyRequests"]

TOLD = "seawall.fields"
"""Where in a scope the fields are put for a response that is not made yet, if somebody is there to send them."""
UNASKED: Any = object()


class TooManyRequests(HTTPException):
    """A request was refused: status 429, with Retry-After and the fields. `decision` says by which limit."""

    def __init__(self, decision: Decision, problem: Problem) -> None:
        ours = ("content-type", "content-length")  # of the body that only our handler sends
        headers = {name: value for name, value in problem.headers if name.lower() not in ours}
        super().__init__(problem.status, "Too many requests", headers)
        self.decision = decision
        self.problem = problem


class Entry(NamedTuple):
    """Somebody was let in: by this decision, None if he is exempt; and the fields that are still to be told."""

    decision: Decision | None
    fields: dict[str, str]


class Gate:
    """One limit, wherever it stands."""

    def __init__(
        self,
        owner: str,
        limiter: Limiter | Rules,
        key: Any,
        cost: Cost | CostOf | None,
        exempt: Exempt,
        fields: Fields,
        messages: Limiter | Rules | None,
    ) -> None:
        if key is None and isinstance(limiter, Limiter):
            key = ClientAddress()
        is_dependency = depends is not None and _is_dependency(key)
        self._dependency = getattr(key, "dependency", key) if is_dependency else None
        by_request: Any = _unknown if is_dependency else key
        self._entrance = Entrance(owner, limiter, by_request, cost, exempt, fields, is_async=True)
        self._messages = messages_of(owner, limiter, messages)
        self._must_await = awaits(by_request)

    def signature(self) -> inspect.Signature:
        """What FastAPI is to give the dependency."""
        kind = inspect.Parameter.KEYWORD_ONLY
        wanted = [
            inspect.Parameter("connection", kind, annotation=HTTPConnection),
            inspect.Parameter("response", kind, annotation=Response),
        ]
        if self._dependency is not None:
            wanted.append(inspect.Parameter("found", kind, default=depends(self._dependency)))
        return inspect.Signature(wanted)

    def added_to(self, signature: inspect.Signature, parameter: str) -> inspect.Signature:
        """The signature of an endpoint that FastAPI gives an entry besides, by a parameter of that name."""
        if depends is None:
            return signature

        async def enter(connection: HTTPConnection, response: Response, found: Any = UNASKED) -> Entry:
            entry = await self.enter(connection, found)
            tell(cast("MutableMapping[str, str]", response.headers), entry.fields)
            return entry

        vars(enter)["__signature__"] = self.signature()
        added = inspect.Parameter(parameter, inspect.Parameter.KEYWORD_ONLY, default=depends(enter))
        named = list(signature.parameters.values())
        last = named[-1:] if named and named[-1].kind is inspect.Parameter.VAR_KEYWORD else []
        return signature.replace(parameters=[*named[: len(named) - len(last)], added, *last])

    async def enter(self, connection: HTTPConnection, found: Any = UNASKED) -> Entry:
        """Count the request, or raise `TooManyRequests`. `found` is what FastAPI found by a dependency."""
        self._must_be_ours(found)
        request = request_of(connection.scope)
        if self._entrance.exempts(request):
            return Entry(None, {})
        if self._dependency is None:
            found = await self._entrance.afind(request)
        decision = await self._entrance.adecide_by(request, found)
        entry = self._let_in(connection, decision)
        if self._messages is not None and isinstance(connection, WebSocket):
            admit = self._messages.admitting(request, found)
            metered = Metered(connection.receive, connection.send, admit, _closed)
            vars(connection).update(receive=metered.receive, send=metered.send)
        return entry

    def enter_now(self, connection: HTTPConnection) -> Entry:
        """As `enter`, in a thread of Starlette's."""
        self._must_be_ours(UNASKED)
        if self._must_await:
            raise ConfigError("@limited_endpoint(key): an async key function needs an async endpoint, or FastAPI")
        request = request_of(connection.scope)
        if self._entrance.exempts(request):
            return Entry(None, {})
        return self._let_in(connection, self._entrance.decide(request))

    def _must_be_ours(self, found: Any) -> None:
        if self._dependency is not None and found is UNASKED:
            raise ConfigError(
                f"@limited_endpoint(key={self._dependency!r}): taken for a dependency, which only FastAPI can call. A "
                "function of the request has one parameter: `request`, or one annotated with seawall.http.Request"
            )

    def _let_in(self, connection: HTTPConnection, decision: Decision) -> Entry:
        if not decision.allowed:
            if connection.scope["type"] == "websocket" and not can_deny(connection.scope):
                raise WebSocketException(TRY_AGAIN_LATER, "too many requests")
            raise TooManyRequests(decision, self._entrance.refusal(decision))
        fields = self._entrance.fields(decision)
        if TOLD in connection.scope:
            tell(connection.scope[TOLD], fields)
            fields = {}
        return Entry(decision, fields)


def _unknown(_request: Request) -> None:
    """Stands in for a key that FastAPI finds."""


def _is_dependency(key: Any) -> bool:
    """Whether FastAPI has to call it, and not we."""
    if isinstance(key, depends):
        return True
    if not callable(key):
        return False
    try:
        found = inspect.signature(key, eval_str=True)
    except NameError:  # names that only type checkers see
        found = inspect.signature(key)
    except (TypeError, ValueError):
        return False
    wanted = list(found.parameters.values())
    if len(wanted) != 1:
        return True
    annotation, is_bare = wanted[0].annotation, wanted[0].annotation is inspect.Parameter.empty
    is_ours = annotation is Request or (is_bare and (wanted[0].name == "request" or "<lambda>" in repr(key)))
    return not is_ours


def _closed() -> Exception:
    return WebSocketDisconnect(POLICY_VIOLATION, REASON)
