"""Limits in Django: as middleware and as decorator, sync and async, by user; through Django's test clients."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Iterator
from types import ModuleType
from typing import Any

import django
import pytest
from django.conf import settings
from django.http import HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse
from django.test import AsyncClient, AsyncRequestFactory, Client, RequestFactory, override_settings
from django.urls import include, path
from django.utils.decorators import method_decorator
from django.views import View

from seawall import ConfigError, Limiter, Memory, Rule, Rules, TokenBucket
from seawall.http import ClientAddress, first_of
from seawall.integrations.django import limited, user
from seawall.testing import VirtualClock, run
from tests.entrance.sites import SlowStore, bucket

URLS = ModuleType("entrance_urls")
LIMITS = ModuleType("entrance_limits")


@pytest.fixture(autouse=True, scope="module")
def project() -> Iterator[None]:
    """The smallest project there can be, without a database."""
    sys.modules |= {URLS.__name__: URLS, LIMITS.__name__: LIMITS}
    if not settings.configured:
        settings.configure(
            ROOT_URLCONF=URLS.__name__, ALLOWED_HOSTS=["*"], SECRET_KEY="secret", DATABASES={}, USE_TZ=True
        )
        django.setup()
    yield
    for module in (URLS, LIMITS):
        del sys.modules[module.__name__]


@pytest.fixture
def time() -> Iterator[VirtualClock]:
    with VirtualClock() as clock:
        yield clock


class Ann:
    """A user as Django's authentication has them."""

    def __init__(self, pk: int | None) -> None:
        self.pk = pk
        self.is_authenticated = pk is not None


def authenticates(get_response: Callable[[HttpRequest], Any]) -> Callable[[HttpRequest], Any]:
    """Stands for AuthenticationMiddleware, with the user in a header."""

    def pk(request: Any) -> int | None:
        return int(request.headers["X-User"]) if "X-User" in request.headers else None

    if asyncio.iscoroutinefunction(get_response):

        async def asynchronous(request: Any) -> Any:
            async def fetch() -> Ann:
                await asyncio.sleep(0)
                return Ann(pk(request))

            request.auser = fetch
            return await get_response(request)

        return asynchronous

    def synchronous(request: Any) -> Any:
        request.user = Ann(pk(request))
        return get_response(request)

    return synchronous


authenticates.sync_capable = authenticates.async_capable = True  # type: ignore[attr-defined]


def view(request: HttpRequest, **kwargs: Any) -> HttpResponse:
    return HttpResponse("fine")


async def async_view(request: HttpRequest, **kwargs: Any) -> HttpResponse:
    await asyncio.sleep(0)
    return HttpResponse("fine")


class Project:
    """URLs and middlewares for one test; asked by both kinds of clients."""

    def __init__(self, middlewares: list[Any] = [], **views: Any) -> None:  # noqa: B006  # it is only read
        patterns = [path(f"{name}/", each, name=name) for name, each in views.items()]
        URLS.urlpatterns = [*patterns, path("v1/", include((patterns, "v1")))]  # type: ignore[attr-defined]
        names = []
        for number, middleware in enumerate(middlewares):
            setattr(LIMITS, f"limit_{number}", middleware)
            names.append(f"{LIMITS.__name__}.limit_{number}")
        self._settings = override_settings(ROOT_URLCONF=URLS.__name__, MIDDLEWARE=names)

    def get(
        self, where: str = "home", count: int = 1, *, is_async: bool = False, method: str = "get", **headers: str
    ) -> list[Any]:
        from django.urls import clear_url_caches

        clear_url_caches()
        with self._settings:
            if not is_async:
                client = Client(raise_request_exception=True)
                return [getattr(client, method)(f"/{where}/", headers=headers) for _ in range(count)]
            return asyncio.run(self._aget(where, count, method, headers))

    async def _aget(self, where: str, count: int, method: str, headers: dict[str, str]) -> list[Any]:
        client = AsyncClient(raise_request_exception=True)
        return [await getattr(client, method)(f"/{where}/", headers=headers) for _ in range(count)]

    def statuses(self, *args: Any, **kwargs: Any) -> list[int]:
        return [answer.status_code for answer in self.get(*args, **kwargs)]


BOTH = pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
VIEWS = pytest.mark.parametrize("home", [view, async_view], ids=["view", "async view"])


# -- as middleware ---------------------------------------------------------------------------------------------------


@BOTH
@VIEWS
def test_as_a_middleware_it_limits_all_requests(home: Any, is_async: bool, time: VirtualClock) -> None:
    project = Project([limited(bucket(), fields="both")], home=home)
    served, second, refused = project.get(count=3, is_async=is_async)
    assert [served.status_code, second.status_code, refused.status_code] == [200, 200, 429]
    assert (served.headers["RateLimit"], served.headers["X-RateLimit-Remaining"]) == ('"api";r=1;t=30', "1")
    assert (refused.headers["Retry-After"], refused.headers["Content-Type"]) == ("30", "application/problem+json")
    assert (refused.json()["status"], refused.headers["Content-Length"]) == (429, str(len(refused.content)))
    time.advance(30)
    assert project.statuses(is_async=is_async, count=2) == [200, 429]
    assert project.statuses("nowhere", is_async=is_async) == [429], "what is not there is counted as well"


@BOTH
def test_paths_and_views_may_be_exempt(is_async: bool, time: VirtualClock) -> None:
    limit = limited(bucket("1/min"), exempt=["/health/", "probe", "v1:probe", "/v1/health/*"])
    project = Project([limit], home=view, health=view, probe=view)
    for where in ("health", "probe", "v1/probe", "v1/health"):
        assert project.statuses(where, 3, is_async=is_async) == [200] * 3
    assert project.statuses("home", 2, is_async=is_async) == [200, 429]


@BOTH
@VIEWS
def test_the_user_is_the_key_after_authentication(home: Any, is_async: bool, time: VirtualClock) -> None:
    project = Project([authenticates, limited(bucket("1/min"), key=first_of(user, ClientAddress()))], home=home)
    for headers in ({"X-User": "1"}, {"X-User": "2"}, {}):
        assert project.statuses(count=2, is_async=is_async, **headers) == [200, 429]


@BOTH
def test_without_authentication_there_is_no_user_and_that_is_said(is_async: bool, time: VirtualClock) -> None:
    project = Project([limited(bucket(), key=user), authenticates], home=view)
    with pytest.raises(ConfigError, match="stands above AuthenticationMiddleware"):
        project.get(is_async=is_async)


@BOTH
def test_who_is_anonymous_is_nobody(is_async: bool, time: VirtualClock) -> None:
    project = Project([authenticates, limited(bucket(), key=user)], home=view)
    with pytest.raises(ConfigError, match="nobody to count"):
        project.get(is_async=is_async)


@BOTH
def test_two_middlewares_tell_together(is_async: bool, time: VirtualClock) -> None:
    outer = limited(Limiter(TokenBucket("9/min", name="all"), store=Memory()), fields="both")
    (answer,) = Project([outer, limited(bucket(), fields="both")], home=view).get(is_async=is_async)
    assert answer.headers["RateLimit"] == '"api";r=1;t=30, "all";r=8;t=7'
    assert answer.headers["X-RateLimit-Limit"] == "2"


@BOTH
def test_rules_know_the_name_of_the_view(is_async: bool, time: VirtualClock) -> None:
    rules = Rules(
        Rule(TokenBucket("1/min"), {"operation": "v1:search"}),
        Rule(TokenBucket("2/min"), {"operation": "search"}),
        store=Memory(),
    )
    project = Project([limited(rules, key=lambda request: {})], search=view)
    assert project.statuses("v1/search", 3, is_async=is_async) == [200, 429, 429]
    assert project.statuses("search", 3, is_async=is_async) == [200, 200, 429]
    assert project.statuses("nowhere", 2, is_async=is_async) == [404, 404]


# -- as decorator ----------------------------------------------------------------------------------------------------


class Plain(View):
    def get(self, request: HttpRequest, item: int = 0) -> HttpResponse:
        return HttpResponse("fine")

    post = get


class Awaited(View):
    async def get(self, request: HttpRequest) -> HttpResponse:
        await asyncio.sleep(0)
        return HttpResponse("fine")


class OneMethod(View):
    @limited(bucket("2/min"))
    def get(self, request: HttpRequest) -> HttpResponse:
        return HttpResponse("fine")

    def post(self, request: HttpRequest) -> HttpResponse:
        return HttpResponse("fine")


@BOTH
@pytest.mark.parametrize(
    "decorated",
    [
        lambda limit: limit(view), lambda limit: limit(async_view), lambda limit: limit(Plain.as_view()), lambda limit: limit(Awaited.as_view()),
        lambda limit: method_decorator(limit, name="dispatch")(type("P", (Plain,), {})).as_view(),
        lambda limit: method_decorator(limit, name="dispatch")(type("A", (Awaited,), {})).as_view(),
        lambda limit: method_decorator(limit, name="get")(type("A", (Awaited,), {})).as_view(),
    ],
    ids=["view", "async view", "class", "async class", "dispatch", "async dispatch", "async get"],
)  # fmt: skip
def test_as_a_decorator_it_limits_every_kind_of_view(decorated: Any, is_async: bool, time: VirtualClock) -> None:
    project = Project(home=decorated(limited(bucket())), other=view)
    answers = project.get(count=3, is_async=is_async)
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert [answer.headers["RateLimit"] for answer in answers] == ['"api";r=1;t=30', '"api";r=0;t=60', '"api";r=0;t=30']
    assert project.statuses("other", 3, is_async=is_async) == [200] * 3


def test_methods_may_be_decorated_one_by_one(time: VirtualClock) -> None:
    project = Project(home=OneMethod.as_view())
    assert project.statuses(count=3) == [200, 200, 429]
    assert project.statuses(count=3, method="post") == [200] * 3


def test_what_is_said_of_a_view_stays_said() -> None:
    def marked(request: HttpRequest) -> HttpResponse:
        """Says so."""
        return HttpResponse()

    marked.csrf_exempt = True  # type: ignore[attr-defined]
    decorated: Any = limited(bucket())(marked)
    assert (decorated.__name__, decorated.__doc__, decorated.csrf_exempt) == ("marked", "Says so.", True)


def test_every_kind_of_response_is_told(time: VirtualClock) -> None:
    kinds = {
        "stream": lambda request: StreamingHttpResponse(iter([b"a", b"b"])),
        "json": lambda request: JsonResponse({"fine": True}, status=201),
    }
    project = Project(**{name: limited(bucket())(each) for name, each in kinds.items()})
    (stream,), (json,) = project.get("stream"), project.get("json")
    assert (b"".join(stream.streaming_content), stream.headers["RateLimit"]) == (b"ab", '"api";r=1;t=30')
    assert (json.status_code, json.headers["RateLimit"]) == (201, '"api";r=1;t=30')
    stream.close()


def test_a_head_request_is_refused_without_a_body(time: VirtualClock) -> None:
    project = Project(home=limited(bucket("1/min"))(view))
    assert project.statuses(method="head", count=2) == [200, 429]
    assert project.get(method="head")[0].content == b""


@BOTH
def test_costs_shadow_and_stores_that_are_asked(is_async: bool, time: VirtualClock) -> None:
    limits = {
        "cost": limited(bucket("4/min"), cost=lambda request: int(request.native.GET.get("cost", 2))),
        "shadow": limited(bucket("1/min", shadow=True)),
        "slow": limited(Limiter(TokenBucket("1/min"), store=SlowStore())),
    }
    project = Project(**{name: each(async_view if is_async else view) for name, each in limits.items()})
    expected = {"cost": [200, 200, 429], "shadow": [200, 200, 200]}
    if not is_async:
        expected["slow"] = [200, 429, 429]
    for name, statuses in expected.items():
        assert project.statuses(name, 3, is_async=is_async) == statuses


def test_an_async_view_awaits_its_key_and_its_store() -> None:
    async def key(request: Any) -> int:
        await asyncio.sleep(1)
        return 42

    decorated: Callable[..., Awaitable[Any]] = limited(Limiter(TokenBucket("1/min"), store=SlowStore()), key=key)(
        async_view
    )

    async def main() -> None:
        statuses = [(await decorated(AsyncRequestFactory().get("/"))).status_code for _ in range(2)]
        assert (statuses, asyncio.get_running_loop().time()) == ([200, 429], 2.2)

    run(main)
    with pytest.raises(ConfigError, match="needs an async view"):
        limited(bucket(), key=key)(view)


@BOTH
def test_an_error_in_a_key_function_lets_nobody_in(is_async: bool, time: VirtualClock) -> None:
    served: list[Any] = []
    project = Project([limited(bucket(), key=lambda request: 1 / 0)], home=lambda request: served.append(1))
    with pytest.raises(ZeroDivisionError):
        project.get(is_async=is_async)
    assert not served


def test_wrapped_requests_of_other_frameworks_are_requests(time: VirtualClock) -> None:
    class Wrapped:
        def __init__(self, request: HttpRequest) -> None:
            self._request = request

        def __getattr__(self, name: str) -> Any:
            return getattr(self._request, name)

    decorated = limited(bucket("1/min"))(view)
    assert [decorated(Wrapped(RequestFactory().get("/"))).status_code for _ in range(2)] == [200, 429]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: limited(TokenBucket("1/s")), "expected a Limiter or Rules"),  # type: ignore[arg-type]
        (lambda: limited(bucket())(Plain), "method_decorator"),
        (lambda: limited(bucket())("view"), "expected a view"),  # type: ignore[arg-type]
        (lambda: limited(bucket())(lambda: None)(), "without a request"),
        (lambda: limited(bucket(), fields="new"), "fields='new'"),  # type: ignore[arg-type]
        (lambda: limited(Rules(Rule(TokenBucket("1/s")), store=Memory())), "key=None"),
    ],
)  # fmt: skip
def test_settings_are_checked(wrong: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        wrong()
