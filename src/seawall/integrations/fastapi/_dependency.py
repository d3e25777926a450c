"""A limit as a dependency of FastAPI, which may run after authentication."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, cast

from starlette.requests import HTTPConnection
from starlette.responses import Response

from seawall.http.callers import KeyOf
from seawall.http.entrance import CostOf, Exempt, Fields, PartsOf, tell
from seawall.integrations.fastapi._gate import UNASKED, Gate
from seawall.limiter import Limiter, Rules
from seawall.limiter.asking import Cost
from seawall.stores.decision import Decision

__all__ = ["limited"]


def limited(
    limiter: Limiter | Rules,
    *,
    key: KeyOf | PartsOf | Callable[..., Any] | None = None,
    cost: Cost | CostOf | None = None,
    exempt: Exempt = (),
    fields: Fields = "draft",
    messages: Limiter | Rules | None = None,
) -> Callable[..., Awaitable[Decision | None]]:
    """A dependency that counts a request, for `Depends(limited(...))`; its value is the decision.

    It raises `TooManyRequests` (429 with Retry-After) for a request beyond the limit, and tells all others how much is
    left. `install(app)` makes the answer problem+json, and puts the fields on responses that an endpoint returns ready
    made, and on errors. FastAPI has read the body of a request by the time that dependencies run.

    Args:
        limiter: a `Limiter`, or `Rules`.
        key: what gives the key; for `Rules`, the parts (`operation` is the name of the route, unless you give it).
            Either a dependency of FastAPI, which may have dependencies itself, such as the function that finds the
            current user; or a function of the request, told by its one parameter: `request` without annotation, or
            annotated with `seawall.http.Request`. Default: the client's address, as for the middleware.
        cost: a whole number, or a function of the request (`seawall.http.Request`). Default 1, or that of the rule.
        exempt: paths, or a predicate of the request.
        fields: "draft" (default), "legacy", "both" or "none".
        messages: a limiter for what a WebSocket receives, by the same key. Default: no limit.

    Raises:
        ConfigError: a setting is wrong; at a request: there is no key, or it is none that a limiter takes.
    """
    gate = Gate("limited", limiter, key, cost, exempt, fields, messages)

    async def limit(connection: HTTPConnection, response: Response, found: Any = UNASKED) -> Decision | None:
        entry = await gate.enter(connection, found)
        tell(cast("MutableMapping[str, str]", response.headers), entry.fields)
        return entry.decision

    vars(limit)["__signature__"] = gate.signature()
    return limit
