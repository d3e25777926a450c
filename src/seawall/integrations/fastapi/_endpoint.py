"""A limit as a decorator of endpoints, for Starlette and FastAPI."""

from __future__ import annotations

import contextlib
import functools
import inspect
import itertools
from collections.abc import AsyncIterator, Callable, Iterator, MutableMapping
from typing import Any, TypeVar, cast

from starlette.applications import Starlette
from starlette.requests import HTTPConnection
from starlette.responses import Response
from starlette.routing import Router

from seawall.errors import ConfigError
from seawall.http.callers import KeyOf
from seawall.http.entrance import CostOf, Exempt, Fields, PartsOf, tell
from seawall.http.misplaced import refuse_if_registered
from seawall.integrations.fastapi._gate import Entry, Gate
from seawall.limiter import Limiter, Rules
from seawall.limiter.asking import Cost
from seawall.policies.functions import is_coroutine_function

__all__ = ["limited_endpoint"]

E_ = TypeVar("E_", bound=Callable[..., Any])

INJECTED = "seawall_entry"
"""How the parameters begin by which FastAPI hands an endpoint its entries."""


def limited_endpoint(
    limiter: Limiter | Rules,
    *,
    key: KeyOf | PartsOf | Callable[..., Any] | None = None,
    cost: Cost | CostOf | None = None,
    exempt: Exempt = (),
    fields: Fields = "draft",
    messages: Limiter | Rules | None = None,
) -> Callable[[E_], E_]:
    """A decorator for endpoints of Starlette and FastAPI, sync and async, methods too: next to the function.

        @app.get("/search")
        @limited_endpoint(limiter, key=current_user_id)
        async def search(text: str) -> list[str]: ...

    Settings as for `limited`; with Starlette alone there are no dependencies, so `key` is a function of the request.
    The fields are on all responses that the endpoint returns. Above the decorator that registers the endpoint it would
    do nothing: that is an error when it is applied.
    """
    gate = Gate("limited_endpoint", limiter, key, cost, exempt, fields, messages)

    def decorate(endpoint: E_) -> E_:
        if inspect.isclass(endpoint) or not callable(endpoint):
            raise ConfigError(
                f"@limited_endpoint: got {endpoint!r}: expected an endpoint, or a method of a class of them"
            )
        refuse_if_registered(endpoint, "limited_endpoint", lambda thing: _has_route_to(thing, endpoint))
        signature = inspect.signature(endpoint)
        # One for each limit of the endpoint.
        names = (f"{INJECTED}_{number}" for number in itertools.count(1))
        parameter = next(name for name in names if name not in signature.parameters)
        wrapped = _wrapped(gate, endpoint, parameter)
        vars(wrapped)["__signature__"] = gate.added_to(signature, parameter)
        return cast("E_", wrapped)

    return decorate


def _wrapped(gate: Gate, endpoint: Callable[..., Any], parameter: str) -> Callable[..., Any]:
    if is_coroutine_function(endpoint):

        @functools.wraps(endpoint)
        async def asynchronous(*args: Any, **kwargs: Any) -> Any:
            entry = kwargs.pop(parameter, None) or await gate.enter(_connection_in(args, kwargs))
            return _told(await endpoint(*args, **kwargs), entry)

        return asynchronous
    if inspect.isasyncgenfunction(endpoint):

        @functools.wraps(endpoint)
        async def streaming(*args: Any, **kwargs: Any) -> AsyncIterator[Any]:
            _must_be_let_in(kwargs, parameter)
            async with contextlib.aclosing(endpoint(*args, **kwargs)) as items:
                async for item in items:
                    yield item

        return streaming
    if inspect.isgeneratorfunction(endpoint):

        @functools.wraps(endpoint)
        def generating(*args: Any, **kwargs: Any) -> Iterator[Any]:
            _must_be_let_in(kwargs, parameter)
            yield from endpoint(*args, **kwargs)

        return generating

    @functools.wraps(endpoint)
    def synchronous(*args: Any, **kwargs: Any) -> Any:
        entry = kwargs.pop(parameter, None) or gate.enter_now(_connection_in(args, kwargs))
        return _told(endpoint(*args, **kwargs), entry)

    return synchronous


def _must_be_let_in(kwargs: dict[str, Any], parameter: str) -> None:
    if kwargs.pop(parameter, None) is None:
        raise ConfigError("@limited_endpoint: generators are endpoints in FastAPI only")


def _connection_in(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    for value in (*args, *kwargs.values()):
        if issubclass(type(value), HTTPConnection):
            return value
    raise ConfigError("@limited_endpoint: called without a request: it is for endpoints of Starlette and FastAPI")


def _told(result: Any, entry: Entry) -> Any:
    if entry.fields and isinstance(result, Response):
        tell(cast("MutableMapping[str, str]", result.headers), entry.fields)
    return result


def _has_route_to(thing: Any, endpoint: object) -> bool:
    # By the class itself: a proxy would be asked for what it stands for.
    if not issubclass(type(thing), (Starlette, Router)):
        return False
    return any(getattr(route, "endpoint", None) is endpoint for route in thing.routes)
