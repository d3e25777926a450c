"""The WSGI middleware: the same promises, for applications on threads."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from seawall import ConfigError, Limiter, Memory, Rule, Rules, TokenBucket
from seawall.http import ClientAddress, api_key
from seawall.integrations.wsgi import RateLimitMiddleware, SeawallMiddleware
from seawall.testing import VirtualClock
from tests.entrance.sites import SlowStore, Unread, ask_wsgi, bucket
from tests.policies.worlds import in_threads


def fine(environ: Any, start_response: Any) -> list[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain"), ("X-Path", environ["PATH_INFO"])])
    return [b"fine"]


@pytest.fixture
def time() -> Iterator[VirtualClock]:
    with VirtualClock() as clock:
        yield clock


def test_requests_beyond_the_limit_are_refused_until_there_is_room_again(time: VirtualClock) -> None:
    app = RateLimitMiddleware(fine, bucket())
    assert [ask_wsgi(app).status for _ in range(3)] == [200, 200, 429]
    time.advance("29.999999999s")
    assert ask_wsgi(app).status == 429
    time.advance("1ns")
    assert ask_wsgi(app).status == 200
    assert app.snapshot() == {"refused": 2}


def test_a_refusal_is_a_problem_and_reads_nothing(time: VirtualClock) -> None:
    app = RateLimitMiddleware(fine, bucket("1/min"), fields="both")
    ask_wsgi(app)
    time.advance("0.5s")
    body = Unread(b"x" * 1_000)
    answer = ask_wsgi(app, method="POST", body=body, CONTENT_LENGTH="1000")
    assert (answer.status, answer.get("Retry-After"), answer.problem["status"], body.was_read) == (
        429,
        "60",
        429,
        False,
    )
    assert (answer.get("RateLimit"), answer.get("X-RateLimit-Remaining")) == ('"api";r=0;t=60', "0")
    head = ask_wsgi(app, method="HEAD")
    assert (head.status, head.body, head.get("Content-Length")) == (429, b"", str(len(answer.body)))


@pytest.mark.parametrize(("fields", "count"), [("draft", 2), ("legacy", 3), ("both", 5), ("none", 0)])
def test_fields_are_told_as_they_are_wanted(time: VirtualClock, fields: Any, count: int) -> None:
    app = RateLimitMiddleware(fine, bucket("1/min"), fields=fields)
    served, refused = ask_wsgi(app), ask_wsgi(app)
    assert len(served.told) == len(refused.told) == count
    assert served.get("X-Path") == "/"


def test_fields_are_on_errors_that_replace_a_response(time: VirtualClock) -> None:
    def replaced(environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain")])
        try:
            raise LookupError
        except LookupError:
            import sys

            start_response("500 Sorry", [("Content-Type", "text/plain")], sys.exc_info())
        return [b"sorry"]

    answer = ask_wsgi(RateLimitMiddleware(replaced, bucket()))
    assert (answer.status, answer.get("RateLimit")) == (500, '"api";r=1;t=30')


def test_exempt_paths_and_callers(time: VirtualClock) -> None:
    app = RateLimitMiddleware(fine, bucket("1/min"), exempt=["/health", "/größe"])
    assert [ask_wsgi(app, "/health").status for _ in range(3)] == [200] * 3
    assert [ask_wsgi(app, "/größe".encode().decode("latin-1")).status for _ in range(3)] == [200] * 3
    assert [ask_wsgi(app).status, ask_wsgi(app).status] == [200, 429]
    assert ask_wsgi(app, REMOTE_ADDR="203.0.113.10").status == 200
    assert [ask_wsgi(app, REMOTE_ADDR="").status for _ in range(2)] == [200, 429]


def test_keys_behind_proxies_and_by_header(time: VirtualClock) -> None:
    app = RateLimitMiddleware(fine, bucket("1/min"), key=ClientAddress(trusted=["10.0.0.0/8"]))
    for number in range(2):
        forged = {"HTTP_X_FORWARDED_FOR": f"1.1.1.{number},203.0.113.7", "REMOTE_ADDR": "10.0.0.1"}
        assert ask_wsgi(app, **forged).status == (429 if number else 200)
    keyed = RateLimitMiddleware(fine, bucket("1/min"), key=api_key())
    assert [ask_wsgi(keyed, HTTP_X_API_KEY=key).status for key in ("a", "b", "a")] == [200, 200, 429]
    with pytest.raises(ConfigError, match="nobody to count"):
        ask_wsgi(keyed)


def test_rules_costs_shadow_and_stores_that_are_asked(time: VirtualClock) -> None:
    rules = Rules(Rule(TokenBucket("1/min"), {"method": "POST"}), store=Memory())
    app = RateLimitMiddleware(fine, rules, key=lambda request: {"method": request.method})
    assert [ask_wsgi(app, method=method).status for method in ("POST", "GET", "POST")] == [200, 200, 429]
    costly = RateLimitMiddleware(fine, bucket("4/min"), cost=lambda request: 3)
    assert [ask_wsgi(costly).status for _ in range(2)] == [200, 429]
    shadow = RateLimitMiddleware(fine, bucket("1/min", shadow=True))
    assert [(ask_wsgi(shadow).status, ask_wsgi(shadow).told) for _ in range(2)] == [(200, set())] * 2
    slow = RateLimitMiddleware(fine, Limiter(TokenBucket("1/min"), store=SlowStore()))
    assert [ask_wsgi(slow).status for _ in range(2)] == [200, 429]
    assert time.sleeps == [0.1, 0.1]


def test_many_threads_get_no_more_than_one(time: VirtualClock) -> None:
    app = RateLimitMiddleware(fine, bucket("50/min"))
    ends = in_threads([lambda: [ask_wsgi(app).status for _ in range(20)]] * 8)
    statuses = [status for end in ends for status in end]
    assert (statuses.count(200), statuses.count(429)) == (50, 110)


def test_it_stands_inside_and_outside_the_other_middleware(time: VirtualClock) -> None:
    limit = bucket("1/min")
    for app in (
        RateLimitMiddleware(SeawallMiddleware(fine), limit),
        SeawallMiddleware(RateLimitMiddleware(fine, limit)),
    ):
        limit.reset("address:203.0.113.9")
        assert [ask_wsgi(app).status for _ in range(2)] == [200, 429]


def test_a_key_function_that_must_be_awaited_is_refused() -> None:
    async def key(request: Any) -> str:
        return "ann"

    with pytest.raises(ConfigError, match="not async"):
        RateLimitMiddleware(fine, bucket(), key=key)
