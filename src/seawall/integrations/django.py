"""Limits in Django: a middleware and a decorator in one, for sync and async views; and the user as key.

# shop/limits.py
per_client = limited(Limiter(TokenBucket("100/s"), name="clients"), exempt=["/health"])
searches = limited(Limiter(TokenBucket("10/min"), name="searches"), key=first_of(user, ClientAddress()))

# settings.py
MIDDLEWARE = ["shop.limits.per_client", ...]

# views.py
@searches
def search(request): ...
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, MutableMapping
from typing import Any, cast

from seawall.errors import ConfigError
from seawall.http.callers import KeyOf
from seawall.http.client_address import ClientAddress
from seawall.http.entrance import CostOf, Entrance, Exempt, Fields, PartsOf, tell
from seawall.http.environ import peer_of, values_in
from seawall.http.request import Request
from seawall.limiter import Limiter, Rules
from seawall.limiter.asking import Cost
from seawall.policies.functions import is_coroutine_function
from seawall.stores.decision import Decision

try:
    from asgiref.sync import iscoroutinefunction  # it knows Django's own marks
    from django import urls  # type: ignore[import-untyped]  # pyright: ignore[reportMissingTypeStubs]
    from django.http import HttpResponse  # type: ignore[import-untyped]  # pyright: ignore[reportMissingTypeStubs]
except ImportError as error:
    raise ImportError('seawall.integrations.django needs Django: pip install "seawall[django]"') from error

__all__ = ["limited", "user"]

View = Callable[..., Any]
URLS: Any = urls


class limited:  # noqa: N801  # a decorator to its user
    """A limit, as a decorator of views and as a middleware: of one object, where its dotted path stands in MIDDLEWARE.

    A request beyond the limit is answered with 429, Retry-After and problem+json; the answers to all others tell how
    much is left. In MIDDLEWARE it must stand below AuthenticationMiddleware if the key is the user. For class-based
    views: `@method_decorator(limited(...), name="dispatch")`.

    Args:
        limiter: a `Limiter`, or `Rules`.
        key: a function of the request (`seawall.http.Request`; its `native` is Django's) that gives the key; for
            `Rules`, the parts (`operation` is the name of the view, unless you give it). `user` is one. It may be
            async where the view is. Default: the client's address, without trusted proxies.
        cost: a whole number, or a function of the request. Default 1, or that of the rule.
        exempt: paths, names of views, or a predicate of the request.
        fields: "draft" (default), "legacy", "both" or "none".

    Raises:
        ConfigError: a setting is wrong; at a request: there is no key, or it is none that a limiter takes.
    """

    sync_capable = True
    async_capable = True

    def __init__(
        self,
        limiter: Limiter | Rules,
        *,
        key: KeyOf | PartsOf | None = None,
        cost: Cost | CostOf | None = None,
        exempt: Exempt = (),
        fields: Fields = "draft",
    ) -> None:
        if key is None and isinstance(limiter, Limiter):
            key = ClientAddress()
        self._must_await = key is not None and is_coroutine_function(key)
        self._entrance = Entrance("limited", limiter, key, cost, exempt, fields, is_async=True, named=True)

    def __call__(self, view: View) -> View:
        if inspect.isclass(view) or not callable(view):
            raise ConfigError(
                f"@limited: got {view!r}: expected a view; for a class of them: "
                '@method_decorator(limited(...), name="dispatch")'
            )
        if _dispatches_async(view) or iscoroutinefunction(view):  # pyright: ignore[reportDeprecated]  # as above

            @functools.wraps(view)
            async def asynchronous(*args: Any, **kwargs: Any) -> Any:
                request = _request_of(args)
                if self._entrance.has_exempt and self._entrance.exempts(request):
                    return await view(*args, **kwargs)
                decision = await self._entrance.adecide(request)
                return self._told(await view(*args, **kwargs), decision) if decision else self._refusal(decision)

            return asynchronous

        if self._must_await:
            raise ConfigError(f"limited(key): an async key function needs an async view, and {view!r} is none")

        @functools.wraps(view)
        def synchronous(*args: Any, **kwargs: Any) -> Any:
            request = _request_of(args)
            if self._entrance.has_exempt and self._entrance.exempts(request):
                return view(*args, **kwargs)
            decision = self._entrance.decide(request)
            if not decision:
                return self._refusal(decision)
            return self._told(view(*args, **kwargs), decision)

        return synchronous

    def _refusal(self, decision: Decision) -> HttpResponse:
        problem = self._entrance.refusal(decision)
        return HttpResponse(problem.body, status=problem.status, headers=dict(problem.headers))

    def _told(self, response: Any, decision: Decision) -> Any:
        headers = getattr(response, "headers", None)
        if headers is not None and self._entrance.tells:
            tell(cast("MutableMapping[str, str]", headers), self._entrance.fields(decision))
        return response


def _dispatches_async(view: Any) -> bool:
    """Whether it is what `method_decorator` makes of `dispatch` of a class whose views are async."""
    owner = getattr(getattr(view, "func", None), "__self__", None)
    return getattr(view, "__name__", "") == "dispatch" and bool(getattr(owner, "view_is_async", False))


class _User:
    """The user that AuthenticationMiddleware found, by primary key; None for one who is anonymous.

    >>> from seawall.http import Request
    >>> class Ann: is_authenticated, pk = True, 42
    >>> class Native: user = Ann()
    >>> user(Request("GET", "/", None, lambda name: [], Native()))
    'user:42'
    """

    awaits = True

    def __call__(self, request: Request) -> str | None:
        return self._key(_authenticated(request, "user"))

    async def acall(self, request: Request) -> str | None:
        """As a call, where views are async: the user may have to be fetched."""
        return self._key(await _authenticated(request, "auser")())

    @staticmethod
    def _key(found: Any) -> str | None:
        return f"user:{found.pk}" if found.is_authenticated else None


user: KeyOf = _User()


def _authenticated(request: Request, name: str) -> Any:
    try:
        return getattr(request.native, name)
    except AttributeError:
        raise ConfigError(
            f"limited(key=user): the request has no {name}: this stands above AuthenticationMiddleware, or without it"
        ) from None


def _request_of(args: tuple[Any, ...]) -> Request:
    """The request among the arguments of a view, or of a method that is one."""
    # By what it has: frameworks on top of Django wrap its requests.
    native: Any = next((value for value in args[:2] if hasattr(value, "META") and hasattr(value, "path_info")), None)
    if native is None:
        raise ConfigError(f"@limited: called without a request: expected a view, not what is given {args!r:.80}")
    return Request(
        native.method or "GET",
        native.path_info,
        peer_of(native.META),
        values_in(native.META),
        native,
        lambda: _operation(native),
    )


def _operation(native: Any) -> str | None:
    """The name of the view; a middleware runs before Django looks for it."""
    match: Any = native.resolver_match
    if match is None:
        try:
            match = URLS.resolve(native.path_info, getattr(native, "urlconf", None))
        except URLS.Resolver404:
            return None
    name: str = match.view_name
    return name
