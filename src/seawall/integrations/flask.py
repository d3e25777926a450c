"""Limits in Flask: a decorator for views, and one for all requests of an application or a blueprint.

from seawall.integrations.flask import limit_app, limited

app = Flask(__name__)
limit_app(app, per_client, exempt=["static", "/health"])

@app.get("/search")
@limited(searches, key=lambda request: session["user"])
def search(): ...
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, MutableMapping
from typing import Any, TypeVar, cast

from seawall.errors import ConfigError
from seawall.http.callers import KeyOf
from seawall.http.client_address import ClientAddress
from seawall.http.entrance import CostOf, Entrance, Exempt, Fields, PartsOf, tell
from seawall.http.environ import request_of
from seawall.http.misplaced import refuse_if_registered
from seawall.http.problem import Problem
from seawall.limiter import Limiter, Rules
from seawall.limiter.asking import Cost
from seawall.policies.functions import is_coroutine_function
from seawall.stores.decision import Decision

try:
    import flask
    from werkzeug import exceptions
except ImportError as error:
    raise ImportError('seawall.integrations.flask needs Flask: pip install "seawall[flask]"') from error

__all__ = ["TooManyRequests", "limit_app", "limited"]

V = TypeVar("V", bound=Callable[..., Any])


class TooManyRequests(exceptions.TooManyRequests):
    """A request was refused: answered with Retry-After, the fields and problem+json, unless the application has a
    handler of its own for 429. `decision` says by which limit.
    """

    def __init__(self, decision: Decision, problem: Problem) -> None:
        super().__init__()
        self.decision = decision
        self.problem = problem

    def get_headers(self, environ: Any = None, scope: Any = None) -> list[tuple[str, str]]:
        return [(name, value) for name, value in self.problem.headers if name != "Content-Length"]

    def get_body(self, environ: Any = None, scope: Any = None) -> str:
        return self.problem.body.decode()


def limited(
    limiter: Limiter | Rules,
    *,
    key: KeyOf | PartsOf | None = None,
    cost: Cost | CostOf | None = None,
    exempt: Exempt = (),
    fields: Fields = "draft",
) -> Callable[[V], V]:
    """A decorator for views, sync and async, and for methods of class-based views: next to the function.

    A request beyond the limit raises `TooManyRequests`, which Flask answers with 429; the answers to all others tell
    how much is left. Above `@app.route` it would do nothing: that is an error when it is applied.

    Args:
        limiter: a `Limiter`, or `Rules`.
        key: a function of the request (`seawall.http.Request`) that gives the key; for `Rules`, the parts (`operation`
            is the name of the endpoint, unless you give it). It may use `flask.session`, `flask.g` and the like.
            Default: the client's address, without trusted proxies.
        cost: a whole number, or a function of the request. Default 1, or that of the rule.
        exempt: paths, names of endpoints, or a predicate of the request.
        fields: "draft" (default), "legacy", "both" or "none".

    Raises:
        ConfigError: a setting is wrong; at a request: there is no key, or it is none that a limiter takes.
    """
    entrance = _entrance("limited", limiter, key, cost, exempt, fields)

    def decorate(view: V) -> V:
        if inspect.isclass(view) or not callable(view):
            raise ConfigError(f"@limited: got {view!r}: expected a view; a class of them lists it in `decorators`")
        refuse_if_registered(view, "limited", lambda thing: _has_view(thing, view))
        if is_coroutine_function(view):

            @functools.wraps(view)
            async def asynchronous(*args: Any, **kwargs: Any) -> Any:
                _enter(entrance)
                return await view(*args, **kwargs)

            return cast("V", asynchronous)

        @functools.wraps(view)
        def synchronous(*args: Any, **kwargs: Any) -> Any:
            _enter(entrance)
            return view(*args, **kwargs)

        return cast("V", synchronous)

    return decorate


def limit_app(
    app: flask.Flask | flask.Blueprint,
    limiter: Limiter | Rules,
    *,
    key: KeyOf | PartsOf | None = None,
    cost: Cost | CostOf | None = None,
    exempt: Exempt = (),
    fields: Fields = "draft",
) -> None:
    """Limit all requests of an application or a blueprint, before its views; settings as for `limited`.

    It runs among the other functions of `before_request`, in the order in which they were registered: after the one
    that finds the user, if the key needs him. What an application does not know (404) is counted as well.
    """
    if not isinstance(app, (flask.Flask, flask.Blueprint)):  # pyright: ignore[reportUnnecessaryIsInstance]  # callers without a type checker
        raise ConfigError(f"limit_app(app={app!r}): expected a Flask application or a Blueprint")
    entrance = _entrance("limit_app", limiter, key, cost, exempt, fields)
    app.before_request(lambda: _enter(entrance))


def _entrance(
    owner: str,
    limiter: Limiter | Rules,
    key: KeyOf | PartsOf | None,
    cost: Cost | CostOf | None,
    exempt: Exempt,
    fields: Fields,
) -> Entrance:
    if key is None and isinstance(limiter, Limiter):
        key = ClientAddress()
    return Entrance(owner, limiter, key, cost, exempt, fields, named=True)


def _enter(entrance: Entrance) -> None:
    """Count the current request, or raise `TooManyRequests`."""
    native = flask.request
    request = request_of(native.environ, native, native.endpoint)
    if entrance.has_exempt and entrance.exempts(request):
        return
    decision = entrance.decide(request)
    if not decision.allowed:
        raise TooManyRequests(decision, entrance.refusal(decision))
    fields = entrance.fields(decision)
    if fields:

        @flask.after_this_request
        def told(response: flask.Response) -> flask.Response:
            tell(cast("MutableMapping[str, str]", response.headers), fields)
            return response


def _has_view(thing: Any, view: object) -> bool:
    # By the class itself: a proxy would be asked for what it stands for.
    if issubclass(type(thing), flask.Flask):
        return any(each is view for each in thing.view_functions.values())
    if issubclass(type(thing), flask.Blueprint):
        return any(_encloses(deferred, view) for deferred in thing.deferred_functions)
    return False


def _encloses(deferred: Any, view: object) -> bool:
    """Whether it is what a blueprint does with the view when it is registered itself."""
    for cell in getattr(deferred, "__closure__", None) or ():
        try:
            if cell.cell_contents is view:
                return True
        except ValueError:
            continue  # an empty cell
    return False
