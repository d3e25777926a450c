"""Limits inside FastAPI: after authentication, by route, on every kind of response."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Annotated, Any

import httpx
import pytest
from fastapi import APIRouter, Depends, FastAPI, Header, HTTPException, Request, Response, Security
from fastapi.responses import JSONResponse, StreamingResponse

from seawall import CircuitOpen, ConfigError, DeadlineExceeded, Decision, Limiter, Memory, Rule, Rules, TokenBucket
from seawall.http import ClientAddress, api_key
from seawall.http import Request as OurRequest
from seawall.integrations.asgi import RateLimitMiddleware
from seawall.integrations.fastapi import TooManyRequests, install, limited, limited_endpoint
from seawall.testing import VirtualClock, run
from tests.entrance.sites import SlowStore, bucket

USERS = {"Bearer a": "ann", "Bearer b": "bob"}


async def current_user(authorization: Annotated[str | None, Header()] = None) -> str:
    """Authentication, with a dependency of its own on the request."""
    user = USERS.get(authorization or "")
    if user is None:
        raise HTTPException(401, "who are you?")
    return user


def client(app: Any, address: str = "203.0.113.9") -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app, client=(address, 1)), base_url="http://api")


def in_time(scenario: Callable[[], Any]) -> Callable[[], None]:
    return lambda: run(scenario)


def in_real_time(scenario: Any) -> None:
    """What is not async runs in threads of the framework, which virtual time does not wait for."""
    with VirtualClock():
        asyncio.run(scenario)


def site(*, installed: bool = True) -> FastAPI:
    app = FastAPI()
    if installed:
        install(app)
    return app


def told(answer: httpx.Response) -> list[str]:
    return answer.headers.get_list("ratelimit")


ANN, BOB = {"Authorization": "Bearer a"}, {"Authorization": "Bearer b"}


# -- the dependency --------------------------------------------------------------------------------------------------


@in_time
async def test_a_limit_may_run_after_authentication() -> None:
    app = site()

    @app.get("/", dependencies=[Depends(limited(bucket(), key=current_user))])
    async def home() -> str:
        return "fine"

    async with client(app) as http:
        assert [(await http.get("/", headers=ANN)).status_code for _ in range(3)] == [200, 200, 429]
        assert (await http.get("/", headers=BOB)).status_code == 200
        assert (await http.get("/")).status_code == 401, "who is nobody is not counted"
        await asyncio.sleep(30)
        assert (await http.get("/", headers=ANN)).status_code == 200


@pytest.mark.parametrize("installed", [True, False])
def test_the_answer_to_a_refusal_with_and_without_the_handler(installed: bool) -> None:
    async def main() -> None:
        app = site(installed=installed)

        @app.get("/", dependencies=[Depends(limited(bucket("1/min"), fields="both"))])
        async def home() -> str:
            return "fine"

        async with client(app) as http:
            await http.get("/")
            await asyncio.sleep(0.5)
            answer = await http.get("/")
            assert (answer.status_code, answer.headers["retry-after"], told(answer)) == (429, "60", ['"api";r=0;t=60'])
            assert answer.headers.get_list("x-ratelimit-remaining") == ["0"]
            assert answer.headers["cache-control"] == "no-store"
            assert int(answer.headers["content-length"]) == len(answer.content)
            if installed:
                assert answer.headers["content-type"] == "application/problem+json"
                assert answer.json()["retry_after"] == 60
            else:
                assert answer.json() == {"detail": "Too many requests"}

    run(main)


async def stream() -> Any:
    for part in (b"a", b"b"):
        await asyncio.sleep(0)
        yield part


RESPONSES: dict[str, Callable[[], Any]] = {
    "value": lambda: {"fine": True},
    "response": lambda: Response("fine"),
    "json": lambda: JSONResponse({"fine": True}, 201),
    "stream": lambda: StreamingResponse(stream()),
    "none": lambda: None,
}


@pytest.mark.parametrize("kind", RESPONSES)
@pytest.mark.parametrize("way", ["installed", "decorated"])
@pytest.mark.parametrize("is_async", [True, False])
def test_the_fields_are_on_every_kind_of_response(kind: str, way: str, is_async: bool) -> None:
    async def main() -> None:
        app, limiter = site(installed=way == "installed"), bucket()

        async def asynchronous() -> Any:
            return RESPONSES[kind]()

        def synchronous() -> Any:
            return RESPONSES[kind]()

        endpoint = asynchronous if is_async else synchronous
        if way == "installed":
            app.get("/", dependencies=[Depends(limited(limiter, fields="both"))], response_model=None)(endpoint)
        else:
            app.get("/", response_model=None)(limited_endpoint(limiter, fields="both")(endpoint))
        async with client(app) as http:
            answer = await http.get("/")
        assert answer.status_code in (200, 201)
        assert told(answer) == ['"api";r=1;t=30']
        assert answer.headers.get_list("x-ratelimit-remaining") == ["1"]

    in_real_time(main())


@in_time
async def test_without_the_handler_values_carry_the_fields_all_the_same() -> None:
    app = site(installed=False)

    @app.get("/", dependencies=[Depends(limited(bucket()))])
    async def home() -> dict[str, bool]:
        return {"fine": True}

    async with client(app) as http:
        assert told(await http.get("/")) == ['"api";r=1;t=30']


@in_time
async def test_errors_of_an_endpoint_carry_the_fields_too() -> None:
    app = site()

    @app.get("/", dependencies=[Depends(limited(bucket()))])
    async def home(number: int = 0) -> str:
        raise HTTPException(404, "not here")

    async with client(app) as http:
        for path, status in (("/", 404), ("/?number=x", 422)):
            answer = await http.get(path)
            assert (answer.status_code, len(told(answer))) == (status, 1)


@in_time
async def test_a_dependency_is_asked_once_a_request_and_gives_the_decision() -> None:
    app, limit = site(), limited(bucket("5/min"))
    router = APIRouter(dependencies=[Depends(limit)])

    @router.get("/")
    async def home(decision: Decision = Depends(limit)) -> int:  # noqa: B008  # as FastAPI has it
        return decision.remaining

    app.include_router(router)
    async with client(app) as http:
        assert [(await http.get("/")).json() for _ in range(2)] == [4, 3]


@in_time
async def test_several_limits_are_all_told_and_the_tightest_in_the_older_fields() -> None:
    app = site()
    app.add_middleware(RateLimitMiddleware, limiter=Limiter(TokenBucket("9/min", name="all"), store=Memory()))
    narrow, wide = (
        Limiter(TokenBucket("2/min", name="narrow"), store=Memory()),
        Limiter(TokenBucket("5/min", name="wide"), store=Memory()),
    )
    router = APIRouter(dependencies=[Depends(limited(wide, fields="both"))])

    @router.get("/", dependencies=[Depends(limited(narrow, fields="both"))])
    async def home() -> str:
        return "fine"

    app.include_router(router)
    async with client(app) as http:
        answer = await http.get("/")
        assert told(answer) == ['"wide";r=4;t=12, "narrow";r=1;t=30', '"all";r=8;t=7']
        assert answer.headers.get_list("x-ratelimit-limit") == ["2"]
        await http.get("/")
        refused = await http.get("/")
        assert refused.status_code == 429
        assert refused.headers.get_list("x-ratelimit-remaining") == ["0"], "once, of the limit that refused"


# -- keys ------------------------------------------------------------------------------------------------------------


async def numbered() -> int:
    return 42


def by_tenant(tenant: str) -> str:
    """A dependency that wants a part of the path."""
    return tenant


class Account:
    """A dependency that is an object."""

    async def __call__(self, x_account: Annotated[str, Header()]) -> str:
        return x_account


def by_our_request(asked: OurRequest) -> str | None:
    return asked.header("x-account")


async def by_our_request_slowly(asked: OurRequest) -> str | None:
    await asyncio.sleep(0)
    return asked.header("x-account")


def by_their_request(request: Request) -> str:
    return request.headers["x-account"]


@pytest.mark.parametrize(
    "key",
    [
        numbered, by_tenant, Account(), by_our_request, by_our_request_slowly, by_their_request, api_key("X-Account"), ClientAddress(),
        Depends(by_tenant), Security(by_tenant), lambda request: request.header("x-account"), lambda r: r.native["path"], lambda: "all", None,
    ],
)  # fmt: skip
def test_a_key_is_a_dependency_or_a_function_of_the_request(key: Any) -> None:
    async def main(way: str) -> None:
        app = site()
        limiter = bucket("1/min")
        if way == "dependency":

            @app.get("/{tenant}", dependencies=[Depends(limited(limiter, key=key))])
            async def home(tenant: str) -> str:
                return tenant
        else:

            @app.get("/{tenant}")
            @limited_endpoint(limiter, key=key)
            async def decorated(tenant: str) -> str:
                return tenant

        async with client(app) as http:
            statuses = [(await http.get("/t", headers={"X-Account": "a"})).status_code for _ in range(2)]
            assert statuses == [200, 429]
            assert set(app.openapi()["paths"]) == {"/{tenant}"}

    for way in ("dependency", "decorator"):
        in_real_time(main(way))


@pytest.mark.parametrize("nobody", [None, 1.5, True])
def test_a_key_that_is_none_lets_nobody_in(nobody: Any) -> None:
    async def key() -> Any:
        return nobody

    async def main() -> None:
        app, served = site(), []

        @app.get("/", dependencies=[Depends(limited(bucket(), key=key))])
        async def home() -> None:
            served.append(1)

        async with client(app) as http:
            with pytest.raises(ConfigError, match="nobody to count|expected str or bytes"):
                await http.get("/")
        assert not served

    run(main)


@in_time
async def test_rules_know_the_route_and_may_know_the_role() -> None:
    async def parts(user: Annotated[str, Depends(current_user)]) -> dict[str, str]:
        return {"user": user, "role": "free" if user == "bob" else "paid"}

    rules = Rules(
        Rule(TokenBucket("1/min"), {"operation": "search", "role": "free"}),
        Rule(TokenBucket("3/min"), {"operation": "search"}),
        per=("user",),
        store=Memory(),
    )
    app = site()
    router = APIRouter(prefix="/v1", dependencies=[Depends(limited(rules, key=parts))])

    @router.get("/search")
    async def search() -> str:
        return "found"

    @router.get("/other")
    @limited_endpoint(rules, key=lambda request: {"user": "x", "role": "free", "operation": "search"})
    async def other() -> str:
        return "fine"

    app.include_router(router)
    async with client(app) as http:
        for headers, served in ((ANN, 3), (BOB, 1)):
            statuses = [(await http.get("/v1/search", headers=headers)).status_code for _ in range(4)]
            assert statuses == [200] * served + [429] * (4 - served)
        assert [(await http.get("/v1/other", headers=ANN)).status_code for _ in range(2)] == [200, 429], (
            "its own word counts"
        )


async def fine() -> str:
    return "fine"


@in_time
async def test_exempt_costs_shadow_and_a_store_that_is_asked() -> None:
    app = site()
    limits = {
        "/exempt": limited(bucket("1/min"), exempt=lambda request: request.header("x-probe")),
        "/cost": limited(bucket("4/min"), cost=lambda request: int(request.header("x-cost") or 1)),
        "/shadow": limited(bucket("1/min", shadow=True)),
        "/slow": limited(Limiter(TokenBucket("1/min"), store=SlowStore())),
    }
    for path, limit in limits.items():
        app.get(path, dependencies=[Depends(limit)])(fine)
    async with client(app) as http:
        for path, headers, expected in (
            ("/exempt", {"x-probe": "1"}, [200, 200, 200]),
            ("/cost", {"x-cost": "2"}, [200, 200, 429]),
            ("/shadow", {}, [200, 200, 200]),
            ("/slow", {}, [200, 429, 429]),
        ):
            assert [(await http.get(path, headers=headers)).status_code for _ in range(3)] == expected


# -- the decorator ---------------------------------------------------------------------------------------------------


@in_time
async def test_a_decorated_endpoint_keeps_its_signature() -> None:
    app = site()

    @app.post("/items/{number}", status_code=201)
    @limited_endpoint(bucket(), key=current_user)
    async def create(
        number: int, request: Request, text: Annotated[str, Header(alias="x-text")], size: int = 3
    ) -> dict[str, Any]:
        """Makes one."""
        return {"number": number, "text": text, "size": size, "path": request.url.path}

    async with client(app) as http:
        answer = await http.post("/items/7?size=5", headers={**ANN, "X-Text": "t"})
        assert (answer.status_code, answer.json()) == (201, {"number": 7, "text": "t", "size": 5, "path": "/items/7"})
        assert (await http.post("/items/x", headers={**ANN, "X-Text": "t"})).status_code == 422
        assert [(await http.post("/items/7", headers={**ANN, "X-Text": "t"})).status_code for _ in range(2)] == [
            429,
            429,
        ]
    documented = app.openapi()["paths"]["/items/{number}"]["post"]
    assert (documented["description"], documented["operationId"]) == ("Makes one.", "create_items__number__post")
    assert {parameter["name"] for parameter in documented["parameters"]} == {
        "number",
        "size",
        "x-text",
        "authorization",
    }


@in_time
async def test_a_decorated_endpoint_may_take_any_keyword_and_may_be_a_generator() -> None:
    app = site()

    @app.get("/lines")
    @limited_endpoint(bucket("1/min"))
    async def lines() -> Any:
        yield {"number": 1}
        yield {"number": 2}

    async with client(app) as http:
        answer = await http.get("/lines")
        assert (answer.status_code, told(answer)) == (200, ['"api";r=0;t=60'])
        assert answer.text.replace(" ", "").split() == ['{"number":1}', '{"number":2}']
        assert (await http.get("/lines")).status_code == 429


@in_time
async def test_an_endpoint_may_have_several_limits() -> None:
    app = site()

    @app.get("/{item}")
    @limited_endpoint(bucket("3/min"), key=current_user)
    @limited_endpoint(bucket("2/min"), key=lambda request: request.path)
    async def stock(item: int) -> int:
        return item

    async with client(app) as http:
        answer = await http.get("/1", headers=ANN)
        assert (answer.json(), told(answer)) == (1, ['"api";r=1;t=30, "api";r=2;t=20'])
        assert [(await http.get(path, headers=ANN)).status_code for path in ("/1", "/1", "/2", "/2")] == [
            200,
            429,
            200,
            429,
        ]
        assert (await http.get("/2", headers=BOB)).status_code == 429, "each counts what it has let in itself"
        assert (await http.get("/3", headers=BOB)).status_code == 200


@in_time
async def test_methods_may_be_endpoints() -> None:
    class Shop:
        @limited_endpoint(bucket("1/min"))
        async def stock(self, item: int) -> int:
            return item

    app = site()
    app.get("/stock/{item}")(Shop().stock)
    async with client(app) as http:
        assert [(await http.get(f"/stock/{item}")).status_code for item in (1, 2)] == [200, 429]


@pytest.mark.parametrize("wrong", [type("Endpoint", (), {}), "search", None])
def test_only_endpoints_are_decorated(wrong: Any) -> None:
    with pytest.raises(ConfigError, match="expected an endpoint"):
        limited_endpoint(bucket())(wrong)


def test_an_endpoint_that_is_called_by_hand_is_told_what_it_lacks() -> None:
    @limited_endpoint(bucket())
    def search() -> str:
        return "found"

    with pytest.raises(ConfigError, match="without a request"):
        search()


# -- what is installed -----------------------------------------------------------------------------------------------


@in_time
async def test_errors_of_policies_are_answered_as_well() -> None:
    app = site()
    errors = {"open": CircuitOpen(retry_after=1.2), "late": DeadlineExceeded(), "own": LookupError("inside")}

    @app.get("/{name}")
    async def fail(name: str) -> None:
        raise errors[name]

    async with client(app) as http:
        answer = await http.get("/open")
        assert (answer.status_code, answer.headers["retry-after"], answer.headers["content-type"]) == (
            503,
            "2",
            "application/problem+json",
        )
        assert (await http.get("/late")).status_code == 504
        with pytest.raises(LookupError):
            await http.get("/own")


@in_time
async def test_an_application_may_have_a_handler_of_its_own() -> None:
    app = site()

    @app.exception_handler(429)
    async def sorry(request: Request, error: TooManyRequests) -> Response:
        return Response(f"again in {error.decision.retry_after:.0f} s", 429, dict(error.headers or {}))

    @app.get("/", dependencies=[Depends(limited(bucket("1/min")))])
    async def home() -> str:
        return "fine"

    async with client(app) as http:
        await http.get("/")
        answer = await http.get("/")
        assert (answer.text, answer.headers["retry-after"]) == ("again in 60 s", "60")


@in_time
async def test_a_head_request_is_refused_without_a_body() -> None:
    app = site()

    @app.head("/", dependencies=[Depends(limited(bucket("1/min")))])
    async def home() -> None:
        pass

    async with client(app) as http:
        await http.head("/")
        answer = await http.head("/")
        assert (answer.status_code, answer.content, answer.headers["content-length"]) == (429, b"", "100")


@pytest.mark.parametrize("owner", [limited, limited_endpoint])
def test_settings_are_checked_at_once(owner: Any) -> None:
    for options, message in (
        ({"limiter": TokenBucket("1/s")}, "expected a Limiter or Rules"),
        ({"limiter": Rules(Rule(TokenBucket("1/s")), store=Memory())}, "key=None"),
        ({"fields": "new"}, "fields='new'"),
        ({"key": "x"}, "key='x'"),
        ({"messages": 7}, "messages=7"),
        ({"exempt": "/x"}, "exempt='/x'"),
    ):
        with pytest.raises(ConfigError, match=f"{owner.__name__}.*{message}"):
            owner(**{"limiter": bucket(), **options})
