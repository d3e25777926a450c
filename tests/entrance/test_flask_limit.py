"""Limits in Flask: views, class-based views, whole applications and blueprints, through Flask's test client."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from flask import Blueprint, Flask, Response, abort, g, session, stream_with_context
from flask.views import MethodView

from seawall import ConfigError, Limiter, Memory, Rule, Rules, TokenBucket
from seawall.http import ClientAddress, api_key, first_of, user_key
from seawall.integrations.flask import TooManyRequests, limit_app, limited
from seawall.testing import VirtualClock
from tests.entrance.sites import SlowStore, Unread, bucket


@pytest.fixture
def time() -> Iterator[VirtualClock]:
    with VirtualClock() as clock:
        yield clock


def site() -> Flask:
    app = Flask("shop")
    app.testing = True  # errors are raised, not made into a 500
    app.secret_key = "secret"
    return app


def statuses(app: Flask, path: str = "/", count: int = 3, **options: Any) -> list[int]:
    client = app.test_client()
    return [client.get(path, **options).status_code for _ in range(count)]


def test_views_are_limited_until_there_is_room_again(time: VirtualClock) -> None:
    app = site()

    @app.get("/")
    @limited(bucket())
    def home() -> str:
        return "fine"

    assert statuses(app, count=3) == [200, 200, 429]
    time.advance(30)
    assert statuses(app, count=2) == [200, 429]
    assert app.url_map.bind("x").match("/") == ("home", {}), "it keeps its name"


@pytest.mark.parametrize(("fields", "count"), [("draft", 2), ("legacy", 3), ("both", 5), ("none", 0)])
def test_a_refusal_is_a_problem_and_all_are_told(fields: Any, count: int, time: VirtualClock) -> None:
    app = site()

    @app.get("/")
    @limited(bucket("1/min"), fields=fields)
    def home() -> str:
        return "fine"

    served = app.test_client().get("/")
    time.advance(0.5)
    refused = app.test_client().get("/")
    for answer in (served, refused):
        names = [name.lower() for name, _ in answer.headers]
        assert len([name for name in names if "ratelimit" in name]) == count
    assert (refused.status_code, refused.headers["Retry-After"], refused.content_type) == (
        429,
        "60",
        "application/problem+json",
    )
    assert (refused.json["retry_after"], refused.content_length) == (60, len(refused.data))
    head = app.test_client().head("/")
    assert (head.status_code, head.data, head.content_length) == (429, b"", len(refused.data))


def test_the_fields_are_on_every_kind_of_answer(time: VirtualClock) -> None:
    app = site()
    app.testing = False
    limit = limited(bucket("100/min"))

    @app.get("/<kind>")
    @limit
    def answer(kind: str) -> Any:
        if kind == "abort":
            abort(404)
        if kind == "error":
            raise LookupError
        if kind == "stream":
            return Response(stream_with_context(iter(["a", "b"])))
        return {"response": Response("fine"), "json": {"fine": True}, "tuple": ("fine", 201, {"X-App": "1"})}[kind]

    for kind, status in (
        ("response", 200),
        ("json", 200),
        ("tuple", 201),
        ("stream", 200),
        ("abort", 404),
        ("error", 500),
    ):
        got = app.test_client().get(f"/{kind}")
        assert (got.status_code, len(got.headers.getlist("RateLimit"))) == (status, 1)


def test_a_whole_application_and_what_is_exempt(time: VirtualClock) -> None:
    app = site()
    limit_app(app, bucket("2/min"), exempt=["static", "health", "/metrics"])
    for path in ("/", "/health", "/metrics"):
        app.add_url_rule(path, path.strip("/") or "home", lambda: "fine")
    for path in ("/health", "/metrics", "/static/none.css"):
        assert statuses(app, path) == [404 if "static" in path else 200] * 3
    assert [*statuses(app, "/", 1), *statuses(app, "/nowhere", 2)] == [200, 404, 429]
    assert "RateLimit" not in app.test_client().get("/health").headers


def test_a_blueprint_is_limited_alone(time: VirtualClock) -> None:
    app, blueprint = site(), Blueprint("v1", "v1", url_prefix="/v1")
    limit_app(blueprint, bucket("1/min"), exempt=["v1.health"])
    blueprint.add_url_rule("/", "home", lambda: "fine")
    blueprint.add_url_rule("/health", "health", lambda: "fine")
    app.add_url_rule("/", "outside", lambda: "fine")
    app.register_blueprint(blueprint)
    assert (statuses(app, "/v1/"), statuses(app, "/v1/health"), statuses(app)) == (
        [200, 429, 429],
        [200] * 3,
        [200] * 3,
    )


def test_the_user_is_known_after_whatever_authenticates(time: VirtualClock) -> None:
    app = site()

    @app.before_request
    def authenticate() -> None:
        g.user = session.get("user")

    limit_app(app, bucket("1/min"), key=first_of(user_key(lambda request: g.user), ClientAddress()))

    @app.get("/login/<user>")
    def login(user: str) -> str:
        session["user"] = user
        return "welcome"

    @app.get("/")
    def home() -> str:
        return "fine"

    for user in ("ann", "bob"):
        client = app.test_client()
        with client.session_transaction() as kept:
            kept["user"] = user
        assert [client.get("/").status_code for _ in range(2)] == [200, 429]
    assert statuses(app, count=2) == [200, 429]


def test_several_limits_are_told_together(time: VirtualClock) -> None:
    app = site()
    limit_app(app, Limiter(TokenBucket("9/min", name="all"), store=Memory()), fields="both")

    @app.get("/")
    @limited(bucket(), fields="both")
    @limited(Limiter(TokenBucket("5/min", name="mid"), store=Memory()), fields="both")
    def home() -> str:
        return "fine"

    answer = app.test_client().get("/")
    assert answer.headers.getlist("RateLimit") == ['"all";r=8;t=7, "api";r=1;t=30, "mid";r=4;t=12']
    assert answer.headers.getlist("X-RateLimit-Limit") == ["2"]


def test_class_based_and_async_views(time: VirtualClock) -> None:
    app = site()

    class Stock(MethodView):
        decorators = [limited(bucket("2/min"))]  # noqa: RUF012  # as Flask has it

        def get(self, item: int) -> str:
            return str(item)

        @limited(bucket("1/min"))
        def post(self, item: int) -> str:
            return str(item)

    app.add_url_rule("/<int:item>", view_func=Stock.as_view("stock"))

    @app.get("/async")
    @limited(bucket("1/min"))
    async def asynchronous() -> str:
        return "fine"

    client = app.test_client()
    assert [client.get("/1").status_code, client.post("/1").status_code, client.get("/1").status_code] == [
        200,
        200,
        429,
    ]
    assert statuses(app, "/async", 2) == [200, 429]


def test_rules_know_the_endpoint(time: VirtualClock) -> None:
    rules = Rules(
        Rule(TokenBucket("1/min"), {"operation": "search", "role": "free"}),
        Rule(TokenBucket("2/min")),
        per=("user",),
        store=Memory(),
    )
    app = site()
    limit_app(app, rules, key=lambda request: {"user": request.header("x-user"), "role": request.header("x-role")})
    app.add_url_rule("/search", "search", lambda: "found")
    app.add_url_rule("/", "home", lambda: "fine")
    free, paid = {"X-User": "ann", "X-Role": "free"}, {"X-User": "ann", "X-Role": "paid"}
    assert statuses(app, "/search", headers=free) == [200, 429, 429]
    assert statuses(app, "/search", headers=paid) == [200, 200, 429]
    with pytest.raises(ConfigError, match="has no user"):
        statuses(app)


def test_an_application_may_have_a_handler_of_its_own(time: VirtualClock) -> None:
    app = site()
    limit_app(app, bucket("1/min"))
    app.add_url_rule("/", "home", lambda: "fine")

    @app.errorhandler(429)
    def sorry(error: TooManyRequests) -> Any:
        return {"again": error.decision.retry_after}, 429, {"Retry-After": dict(error.get_headers())["Retry-After"]}

    app.test_client().get("/")
    answer = app.test_client().get("/")
    assert (answer.status_code, answer.json, answer.headers["Retry-After"]) == (429, {"again": 60}, "60")


def test_a_refusal_reads_nothing_of_the_request(time: VirtualClock) -> None:
    app, body = site(), Unread(b"x" * 1_000)
    limit_app(app, bucket("1/min"))
    app.add_url_rule("/", "home", lambda: "fine", methods=["POST"])
    app.test_client().post("/")
    assert (app.test_client().post("/", input_stream=body).status_code, body.was_read) == (429, False)


def test_keys_costs_shadow_and_stores_that_are_asked(time: VirtualClock) -> None:
    app = site()
    limits = {
        "/key": limited(bucket("1/min"), key=api_key()),
        "/number": limited(bucket("1/min"), key=lambda request: 42),
        "/cost": limited(bucket("4/min"), cost=lambda request: int(request.native.args.get("cost", 2))),
        "/shadow": limited(bucket("1/min", shadow=True)),
        "/slow": limited(Limiter(TokenBucket("1/min"), store=SlowStore())),
        "/nobody": limited(bucket(), key=lambda request: None),
        "/broken": limited(bucket(), key=lambda request: 1 / 0),
    }
    for path, limit in limits.items():
        app.add_url_rule(path, path.strip("/"), limit(lambda: "fine"))
    assert [
        *statuses(app, "/key", 2, headers={"X-API-Key": "a"}),
        *statuses(app, "/key", 1, headers={"X-API-Key": "b"}),
    ] == [200, 429, 200]
    assert (statuses(app, "/number", 2), statuses(app, "/shadow")) == ([200, 429], [200] * 3)
    assert (statuses(app, "/cost"), statuses(app, "/slow", 2)) == ([200, 200, 429], [200, 429])
    with pytest.raises(ConfigError, match="nobody to count"):
        statuses(app, "/nobody")
    with pytest.raises(ZeroDivisionError):
        statuses(app, "/broken")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: limited(TokenBucket("1/s")), "expected a Limiter or Rules"),  # type: ignore[arg-type]
        (lambda: limit_app("app", bucket()), "expected a Flask application"),  # type: ignore[arg-type]
        (lambda: limited(bucket())(MethodView), "lists it in `decorators`"),
        (lambda: limited(bucket(), exempt="health"), "expected a tuple of paths"),
        (lambda: limited(bucket(), exempt=[""]), "or names of endpoints"),
        (lambda: limited(Rules(Rule(TokenBucket("1/s")), store=Memory())), "key=None"),
    ],
)  # fmt: skip
def test_settings_are_checked_at_once(wrong: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        wrong()


def test_a_key_function_that_must_be_awaited_is_refused() -> None:
    async def key(request: Any) -> str:
        return "ann"

    with pytest.raises(ConfigError, match="not async"):
        limited(bucket(), key=key)
