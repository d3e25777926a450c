"""The ASGI middleware: so many requests of one caller are served, the next is answered with 429, and all are told."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from seawall import ConfigError, FixedWindow, Limiter, Memory, Rule, Rules, SlidingWindow, TokenBucket
from seawall.http import ClientAddress, api_key, first_of
from seawall.integrations.asgi import RateLimitMiddleware
from seawall.testing import cancel_everywhere, run
from tests.entrance.sites import Answer, Site, SlowStore, bucket

DRAFT = {"ratelimit", "ratelimit-policy"}
LEGACY = {"x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset"}


def limited(limiter: Any = None, answers: Callable[..., Any] | None = None, **options: Any) -> Site:
    made = bucket() if limiter is None else limiter
    return Site(lambda app: RateLimitMiddleware(app, made, **options), answers)


def in_time(scenario: Callable[[], Any]) -> Callable[[], None]:
    return lambda: run(scenario)


# -- so many and no more ---------------------------------------------------------------------------------------------


@in_time
async def test_requests_beyond_the_limit_are_refused_until_there_is_room_again() -> None:
    site = limited()
    assert [(await site.ask()).status for _ in range(4)] == [200, 200, 429, 429]
    assert site.calls == 2
    await asyncio.sleep(29.999_999_999)
    assert (await site.ask()).status == 429
    await asyncio.sleep(1e-9)
    assert (await site.ask()).status == 200
    assert site.app.snapshot() == {"refused": 3, "closed": 0}


@in_time
async def test_a_refusal_says_when_to_come_back_and_nothing_of_what_is_inside() -> None:
    site = limited()
    for _ in range(2):
        await site.ask()
    await asyncio.sleep(0.5)
    answer = await site.ask()
    assert (answer.status, answer.get("Retry-After"), answer.get("Content-Type")) == (
        429,
        "30",
        "application/problem+json",
    )
    assert answer.get("Cache-Control") == "no-store"
    assert answer.problem == {
        "type": "urn:seawall:rate-limited",
        "title": "Too many requests",
        "status": 429,
        "retry_after": 30,
    }
    assert int(answer.get("Content-Length") or 0) == len(answer.body)
    await asyncio.sleep(30)
    assert (await site.ask()).status == 200, "who comes back then is served"


@pytest.mark.parametrize("waited", [0, 1e-9, 0.5, 0.999_999_999, 1, 28.999_999_999, 29, 29.5])
def test_retry_after_is_rounded_up(waited: float) -> None:
    async def main() -> None:
        site = limited()
        for _ in range(2):
            await site.ask()
        await asyncio.sleep(waited)
        told = int((await site.ask()).get("Retry-After") or 0)
        assert told >= 30 - waited
        assert told - (30 - waited) < 1
        await asyncio.sleep(told)
        assert (await site.ask()).status == 200

    run(main)


@in_time
async def test_a_refusal_reads_nothing_of_the_request() -> None:
    site = limited(bucket("1/min"))
    assert (await site.ask(method="POST")).status == 200
    refused = await site.ask(
        method="POST", incoming=[{"type": "http.request", "body": b"x" * 65536, "more_body": True}]
    )
    assert (refused.status, site.reads, site.calls) == (429, 0, 1)


@in_time
async def test_a_head_request_is_refused_without_a_body() -> None:
    site = limited(bucket("1/min"))
    assert (await site.ask(method="HEAD")).status == 200
    answer = await site.ask(method="HEAD")
    assert (answer.status, answer.body) == (429, b"")
    assert int(answer.get("Content-Length") or 0) == len((await site.ask()).body)


@in_time
async def test_callers_do_not_take_from_each_other() -> None:
    site = limited(bucket("1/min"))
    for client in ("203.0.113.1", "203.0.113.2", "2001:db8::1", "2001:db8:1::1"):
        assert (await site.ask(client=(client, 1))).status == 200
        assert (await site.ask(client=(client, 2))).status == 429
    assert (await site.ask(client=("2001:db8::2", 1))).status == 429, "the same network"
    assert (await site.ask(client=None, server=("/run/app", None))).status == 200
    assert (await site.ask(client=None, server=("/run/app", None))).status == 429


@in_time
async def test_a_forged_address_does_not_help() -> None:
    site = limited(bucket("1/min"), key=ClientAddress(trusted=["10.0.0.0/8"]))
    for number in range(3):
        headers = [("X-Forwarded-For", f"1.1.1.{number}"), ("X-Forwarded-For", "203.0.113.7")]
        assert (await site.ask(headers=headers, client=("10.0.0.1", 1))).status == (429 if number else 200)
    assert (await site.ask(headers=[("X-Forwarded-For", "203.0.113.7")], client=("198.51.100.1", 1))).status == 200


@in_time
async def test_a_hundred_kilobytes_of_header_are_one_key_like_any_other() -> None:
    limiter = bucket("1/min")
    site = limited(limiter, key=api_key())
    for key in ("x" * 100_000, "y" * 100_000):
        assert (await site.ask(headers=[("X-API-Key", key)])).status == 200
        assert (await site.ask(headers=[("X-API-Key", key)])).status == 429
    twice = [("X-API-Key", "a"), ("X-API-Key", "b")]
    with pytest.raises(ConfigError, match=r"first_of"):
        await site.ask(headers=twice)
    assert (await limited(limiter, key=first_of(api_key(), ClientAddress())).ask(headers=twice)).status == 200


# -- what is told ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "told"), [("draft", DRAFT), ("legacy", LEGACY), ("both", DRAFT | LEGACY), ("none", set())]
)
def test_fields_are_told_as_they_are_wanted(fields: Any, told: set[str]) -> None:
    async def main() -> None:
        site = limited(bucket("1/min"), fields=fields)
        for status in (200, 429):
            answer = await site.ask()
            assert (answer.status, answer.told) == (status, told)
            for name in told:
                assert len(answer.all(name)) == 1
            assert answer.get("Retry-After") == ("60" if status == 429 else None)

    run(main)


@in_time
async def test_fields_say_how_much_is_left() -> None:
    site = limited(fields="both")
    answer = await site.ask()
    assert (answer.get("RateLimit-Policy"), answer.get("RateLimit")) == ('"api";q=2;w=60', '"api";r=1;t=30')
    assert [answer.get(f"X-RateLimit-{name}") for name in ("Limit", "Remaining", "Reset")] == ["2", "1", "30"]
    await asyncio.sleep(0.1)
    assert (await site.ask()).get("RateLimit") == '"api";r=0;t=60'
    refused = await site.ask()
    assert (refused.get("RateLimit"), refused.get("Retry-After")) == ('"api";r=0;t=30', "30")


@in_time
async def test_several_limits_are_all_told_and_the_older_fields_speak_of_the_tightest() -> None:
    limits = {"second": TokenBucket("10/s"), "day": FixedWindow("100/d")}
    site = limited(Limiter(limits, name="api", store=Memory()), fields="both")
    answer = await site.ask()
    assert answer.get("RateLimit-Policy") == '"second";q=10;w=1, "day";q=100;w=86400'
    assert answer.get("RateLimit") == '"second";r=9;t=1, "day";r=99;t=86400'
    assert answer.get("X-RateLimit-Limit") == "10"


@in_time
async def test_the_name_of_a_limit_cannot_leave_its_place() -> None:
    name = 'a"b\\c\r\nSet-Cookie: x' + "é" * 100
    site = limited(Limiter(TokenBucket("2/min", name=name), store=Memory()))
    value = (await site.ask()).get("RateLimit") or ""
    assert value.startswith('"a\\"b\\\\c??Set-Cookie: x??') and "\n" not in value and len(value) < 90


@in_time
async def test_a_live_change_is_told_at_once() -> None:
    limiter = bucket()
    site = limited(limiter)
    assert (await site.ask()).get("RateLimit-Policy") == '"api";q=2;w=60'
    limiter.reconfigure(TokenBucket("5/min", name="api"))
    assert (await site.ask()).get("RateLimit-Policy") == '"api";q=5;w=60'
    assert (await site.ask()).status == 200


@in_time
async def test_headers_of_the_application_stay_as_they_were() -> None:
    kept: list[Any] = [(b"x-app", b"1"), (b"x-app", b"2")]

    async def answers(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": kept})
        await send({"type": "http.response.body", "body": b""})

    site = limited(answers=answers)
    assert (await site.ask()).all("X-App") == ["1", "2"]
    assert kept == [(b"x-app", b"1"), (b"x-app", b"2")], "an application may use its list again"


@in_time
async def test_a_response_without_headers_gets_some() -> None:
    async def answers(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 204})
        await send({"type": "http.response.body"})

    assert (await limited(answers=answers).ask()).told == DRAFT


@in_time
async def test_a_stream_goes_through_as_it_is_made() -> None:
    async def answers(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for number in range(3):
            await asyncio.sleep(1)
            await send({"type": "http.response.body", "body": b"%d" % number, "more_body": True})
        await send({"type": "http.response.trailers", "headers": []})
        await send({"type": "http.response.body", "body": b""})

    site = limited(answers=answers)
    answer = await site.ask()
    assert [message["type"].rpartition(".")[2] for message in answer.messages] == [
        "start",
        "body",
        "body",
        "body",
        "trailers",
        "body",
    ]
    assert (answer.body, answer.told) == (b"012", DRAFT)
    assert len(answer.all("RateLimit")) == 1


@in_time
async def test_two_middlewares_each_tell_of_their_own() -> None:
    inner, outer = bucket("1/min"), Limiter(TokenBucket("5/min", name="all"), store=Memory())
    site = Site(lambda app: RateLimitMiddleware(RateLimitMiddleware(app, inner), outer))
    assert (await site.ask()).all("RateLimit") == ['"api";r=0;t=60', '"all";r=4;t=12']
    refused = await site.ask()
    assert (refused.status, refused.all("RateLimit")) == (429, ['"api";r=0;t=60', '"all";r=3;t=24'])


# -- who is not counted ----------------------------------------------------------------------------------------------


@in_time
async def test_exempt_paths_are_neither_counted_nor_told() -> None:
    site = limited(bucket("1/min"), exempt=["/health", "/static/*"])
    for path in ("/health", "/static/", "/static/a/b.css") * 3:
        answer = await site.ask(path)
        assert (answer.status, answer.told) == (200, set())
    assert (await site.ask("/health/")).status == 200
    for path in ("/health/", "/healthy", "/static", "//health", "/Health", "/"):
        assert (await site.ask(path)).status == 429


@in_time
async def test_a_predicate_may_exempt() -> None:
    site = limited(bucket("1/min"), exempt=lambda request: request.method == "OPTIONS" or request.header("X-Probe"))
    for _ in range(3):
        assert (await site.ask(method="OPTIONS")).status == 200
        assert (await site.ask(headers=[("x-probe", "1")])).status == 200
    assert [(await site.ask()).status for _ in range(2)] == [200, 429]


@in_time
async def test_what_is_no_request_goes_through() -> None:
    seen: list[str] = []

    async def answers(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["type"])

    site = limited(bucket("1/min"), answers)
    for kind in ("lifespan", "lifespan", "other"):
        await site.app({"type": kind}, None, None)
    assert seen == ["lifespan", "lifespan", "other"]


# -- keys and costs --------------------------------------------------------------------------------------------------


@in_time
async def test_a_cost_may_depend_on_the_request() -> None:
    site = limited(bucket("10/min"), cost=lambda request: 5 if request.path == "/export" else 1)
    assert [(await site.ask("/export")).status for _ in range(3)] == [200, 200, 429]
    assert limited(bucket("10/min"), cost=3) is not None
    assert [(await site.ask("/"), await site.ask("/export"))[0].status for _ in range(2)] == [429, 429]


@in_time
async def test_a_key_may_be_a_number_and_may_be_awaited() -> None:
    async def user(request: Any) -> int | None:
        await asyncio.sleep(0.01)
        return {"ann": 42}.get(request.header("x-user"))

    site = limited(bucket("1/min"), key=user)
    headers = [("X-User", "ann")]
    assert [(await site.ask(headers=headers)).status for _ in range(2)] == [200, 429]
    both = limited(bucket("1/min"), key=first_of(user, ClientAddress()))
    assert [(await both.ask(headers=headers)).status, (await both.ask()).status, (await both.ask()).status] == [
        200,
        200,
        429,
    ]


@pytest.mark.parametrize("nobody", [None, True, 1.5, object(), ["ann"]])
def test_a_key_that_is_none_is_an_error_and_lets_nobody_in(nobody: Any) -> None:
    async def main() -> None:
        site = limited(key=lambda request: nobody)
        with pytest.raises(ConfigError, match="nobody to count|expected str or bytes"):
            await site.ask()
        assert site.calls == 0

    run(main)


def test_an_empty_key_is_a_key() -> None:
    async def main() -> None:
        site = limited(bucket("1/min"), key=lambda request: request.header("x") or "")
        assert [(await site.ask()).status for _ in range(2)] == [200, 429]

    run(main)


@pytest.mark.parametrize("setting", ["key", "cost", "exempt"])
def test_an_error_in_a_function_is_raised_and_lets_nobody_in(setting: str) -> None:
    async def main() -> None:
        site = limited(**{setting: lambda request: 1 / 0})
        with pytest.raises(ZeroDivisionError):
            await site.ask()
        assert site.calls == 0

    run(main)


@pytest.mark.parametrize("cost", [-1, True, 1.5, "1", 3])
def test_a_cost_that_cannot_be_is_an_error(cost: Any) -> None:
    async def main() -> None:
        with pytest.raises(ConfigError, match="cost"):
            await limited(cost=lambda request: cost).ask()

    run(main)


# -- rules -----------------------------------------------------------------------------------------------------------


def parts(request: Any) -> dict[str, Any]:
    return {
        "operation": request.path.strip("/"),
        "role": request.header("x-role"),
        "user": ClientAddress()(request),
    }


@in_time
async def test_rules_decide_by_operation_and_role() -> None:
    rules = Rules(
        Rule(TokenBucket("1/min"), {"operation": "search", "role": "free"}),
        Rule(TokenBucket("3/min"), {"operation": "search"}),
        Rule(TokenBucket("1/min"), {"operation": "export"}, cost=1, per=()),
        per=("user",),
        store=Memory(),
    )
    site = limited(rules, key=parts)
    free = [("X-Role", "free")]
    assert [(await site.ask("/search", headers=free)).status for _ in range(2)] == [200, 429]
    assert [(await site.ask("/search")).status for _ in range(4)] == [200, 200, 200, 429]
    assert (await site.ask("/search", headers=free, client=("203.0.113.10", 1))).status == 200
    assert [(await site.ask("/export", client=(client, 1))).status for client in ("203.0.113.1", "203.0.113.2")] == [
        200,
        429,
    ]
    unlimited = await site.ask("/other")
    assert (unlimited.status, unlimited.told) == (200, set())


@in_time
async def test_what_no_rule_allows_is_refused_without_a_promise() -> None:
    site = limited(
        Rules(Rule(TokenBucket("1/min"), {"operation": "search"}), otherwise="refuse", store=Memory()), key=parts
    )
    answer = await site.ask("/other")
    assert (answer.status, answer.get("Retry-After"), answer.told) == (429, None, set())
    assert "retry_after" not in answer.problem


@in_time
async def test_rules_need_the_parts_they_count_by() -> None:
    rules = Rules(Rule(TokenBucket("1/min")), per=("user",), store=Memory())
    for key, message in (
        (lambda request: {}, "has no user"),
        (lambda request: {"user": None}, "has no user"),
        (lambda request: {"user": 1.5}, "expected a text"),
        (lambda request: "ann", "as a mapping"),
        (lambda request: None, "as a mapping"),
    ):
        site = limited(rules, key=key)
        with pytest.raises(ConfigError, match=message):
            await site.ask()
        assert site.calls == 0
    assert (await limited(rules, key=lambda request: {"user": 42}).ask()).status == 200


@in_time
async def test_a_cost_at_the_entrance_stands_above_that_of_the_rule() -> None:
    rules = Rules(Rule(TokenBucket("4/min"), cost=2), store=Memory())
    assert [
        (await limited(rules, key=lambda request: {}, cost=4).ask()).status,
        (await limited(rules, key=lambda request: {}).ask()).status,
    ] == [200, 429]


# -- stores, shadow, off ---------------------------------------------------------------------------------------------


@in_time
async def test_a_store_that_must_be_asked_is_awaited() -> None:
    store = SlowStore()
    site = limited(Limiter(SlidingWindow("2/min", name="api"), name="api", store=store))
    answers: list[Answer] = await asyncio.gather(*[site.ask() for _ in range(3)])
    assert sorted(answer.status or 0 for answer in answers) == [200, 200, 429]
    assert (asyncio.get_running_loop().time(), store.asked) == (0.1, 3)


@pytest.mark.parametrize("slow", [False, True])
def test_in_shadow_everybody_is_served_and_nothing_is_told(slow: bool) -> None:
    async def main() -> None:
        limiter = Limiter(TokenBucket("1/min"), shadow=True, store=SlowStore() if slow else Memory())
        site = limited(limiter, fields="both")
        for _ in range(3):
            answer = await site.ask()
            assert (answer.status, answer.told) == (200, set())
        assert (limiter.refused, site.app.snapshot()["refused"]) == (2, 0)
        rules = Rules(Rule(TokenBucket("1/min")), shadow=True, store=Memory())
        assert [(await limited(rules, key=parts).ask()).told for _ in range(2)] == [set(), set()]

    run(main)


@in_time
async def test_when_seawall_is_off_everybody_is_served() -> None:
    import seawall

    site = limited(bucket("1/min"))
    seawall.disable()
    try:
        assert [(await site.ask()).status for _ in range(3)] == [200] * 3
    finally:
        seawall.enable()
    assert [(await site.ask()).status for _ in range(2)] == [200, 429]


def test_a_cancelled_request_leaves_nothing_behind() -> None:
    async def scenario(victim: Any) -> None:
        site = limited(Limiter(TokenBucket("2/min"), store=SlowStore()))
        await victim(site.ask())
        assert (await site.ask()).status == 200

    cancel_everywhere(scenario)


@in_time
async def test_an_error_of_the_application_goes_on_its_way() -> None:
    async def answers(scope: Any, receive: Any, send: Any) -> None:
        raise LookupError("inside")

    site = limited(bucket("1/min"), answers)
    with pytest.raises(LookupError, match="inside"):
        await site.ask()
    assert (await site.ask()).status == 429, "it was counted"


# -- settings --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"limiter": TokenBucket("1/s")}, r"RateLimitMiddleware\(limiter=TokenBucket.*expected a Limiter or Rules"),
        ({"key": "x"}, r"RateLimitMiddleware\(key='x'\): expected a function of the request"),
        ({"cost": lambda: 1, "key": 7}, r"\(key=7\)"),
        ({"fields": "new"}, r'fields=\'new\'\): expected "draft", "legacy", "both" or "none"'),
        ({"exempt": "/health"}, r"exempt='/health'\): expected a tuple of paths"),
        ({"exempt": ["health"]}, r"expected paths such as"),
        ({"exempt": [7]}, r"expected paths such as"),
        ({"messages": TokenBucket("1/s")}, r"messages=TokenBucket.*expected a Limiter or Rules"),
        ({"messages": Rules(Rule(TokenBucket("1/s")))}, r"expected Rules beside Rules"),
        ({"limiter": Rules(Rule(TokenBucket("1/s")))}, r"key=None\): Rules need a function"),
        ({"limiter": Rules(Rule(TokenBucket("1/s"))), "key": parts, "messages": bucket()}, r"expected Rules beside Rules"),
    ],
)  # fmt: skip
def test_settings_are_checked_at_once(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        RateLimitMiddleware(None, **{"limiter": bucket(), **options})  # type: ignore[arg-type]


def test_async_functions_that_are_not_awaited_are_refused() -> None:
    async def function(request: Any) -> int:
        return 1

    for name in ("cost", "exempt"):
        with pytest.raises(ConfigError, match="not async"):
            RateLimitMiddleware(None, bucket(), **{name: function})  # type: ignore[arg-type]


def test_the_body_of_a_refusal_is_json_of_the_problem_alone() -> None:
    async def main() -> None:
        site = limited(Limiter(TokenBucket("1/min"), name="secret-name", store=Memory()), fields="none")
        await site.ask()
        answer = await site.ask(headers=[("X-API-Key", "k")])
        assert set(json.loads(answer.body)) == {"type", "title", "status", "retry_after"}
        assert b"secret" not in answer.body and "secret" not in str(answer.headers)

    run(main)
