"""The ASGI middleware: what trusted peers say holds for the request, and refusals nobody caught are answered."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from seawall import (
    BudgetSpent,
    Bulkhead,
    ConfigError,
    Criticality,
    DeadlineExceeded,
    Policy,
    RateLimited,
    Rejected,
    Timeout,
    current,
    deadline,
    remaining,
)
from seawall.integrations.asgi import SeawallMiddleware
from seawall.testing import Script, cancel_everywhere, hang, run

HEADERS = [(b"seawall-deadline", b"2000"), (b"seawall-criticality", b"SHEDDABLE"), (b"seawall-attempt", b"3")]
NOTHING = (None, Criticality.CRITICAL, 1)


def scope(headers: Any = HEADERS, client: Any = ("10.0.0.9", 5000), kind: str = "http", **more: Any) -> dict[str, Any]:
    return {"type": kind, "method": "GET", "path": "/", "headers": headers, "client": client, **more}


def facts() -> tuple[Any, ...]:
    return remaining(), current().criticality, current().attempt


class Site:
    """An application in the middleware: `body(send)` is what it does; `sent` is what reached the server."""

    def __init__(self, body: Callable[..., Any], **options: Any) -> None:
        self.sent: list[dict[str, Any]] = []
        self.seen: Any = None
        self.calls = 0

        async def app(scope: Any, receive: Any, send: Any) -> None:
            self.calls += 1
            self.seen = facts()
            await body(send)

        self.middleware = SeawallMiddleware(app, **{"trusted": ["10.0.0.0/8"], **options})

    async def send(self, message: Any) -> None:
        self.sent.append(message)

    async def get(self, what: dict[str, Any] | None = None) -> None:
        await self.middleware(what or scope(), None, self.send)

    @property
    def status(self) -> int:
        return self.sent[0]["status"]

    @property
    def headers(self) -> dict[str, str]:
        return {name.decode(): value.decode() for name, value in self.sent[0]["headers"]}

    @property
    def problem(self) -> dict[str, Any]:
        return json.loads(self.sent[1]["body"])


async def answer(send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"fine"})


def raising(error: BaseException) -> Callable[..., Any]:
    async def body(send: Any) -> None:
        raise error

    return body


# -- inward ----------------------------------------------------------------------------------------------------------


def test_what_a_trusted_peer_says_holds_for_the_request() -> None:
    site = Site(answer)
    run(site.get)
    assert site.seen == (2.0, Criticality.SHEDDABLE, 3)
    assert [message["type"] for message in site.sent] == ["http.response.start", "http.response.body"]
    assert facts() == NOTHING
    assert site.middleware.snapshot() == {"believed": 1, "untrusted": 0, "malformed": 0, "refused": 0, "late": 0}


def test_what_others_say_does_not() -> None:
    site = Site(answer)
    for client in [("203.0.113.9", 1), ("testclient", 1), ("10.0.0.9, 203.0.113.9", 1)]:
        run(lambda client=client: site.get(scope(client=client)))
        assert site.seen == NOTHING
    assert site.middleware.snapshot()["untrusted"] == 3


def test_nobody_is_trusted_by_default() -> None:
    site = Site(answer, trusted=())
    run(lambda: site.get(scope(client=("127.0.0.1", 1))))
    assert site.seen == NOTHING


def test_addresses_in_headers_count_for_nothing() -> None:
    site = Site(answer)
    forged = [(b"x-forwarded-for", b"10.0.0.9"), (b"forwarded", b"for=10.0.0.9"), (b"x-real-ip", b"10.0.0.9"), *HEADERS]
    run(lambda: site.get(scope(forged, client=("203.0.113.9", 1))))
    assert site.seen == NOTHING


@pytest.mark.parametrize("client", [None, ("", 0), ("", None)])
def test_a_unix_socket_has_no_address(client: Any) -> None:
    site = Site(answer, trusted=["unix"])
    for server in (None, ("/run/app.sock", None)):
        run(lambda server=server: site.get(scope(client=client, server=server)))
        assert site.seen[1] is Criticality.SHEDDABLE
    run(lambda: site.get(scope(client=client, server=("10.0.0.1", 8000))))
    assert site.seen == NOTHING, (
        "a server that listens on a port and does not tell the client's address is no Unix socket"
    )


def test_a_scope_without_a_client_is_nobodys_unless_unix_is_trusted() -> None:
    site = Site(answer, trusted=["0.0.0.0/0", "::/0"])
    what = scope()
    del what["client"]
    run(lambda: site.get(what))
    assert site.seen == NOTHING


@pytest.mark.parametrize(
    "headers",
    [
        [(b"seawall-deadline", b"2_000")],
        [(b"seawall-deadline", "٥".encode())],
        [(b"seawall-deadline", b"2000"), (b"seawall-deadline", b"2000")],
        [(b"seawall-deadline", b"9" * 100_000)],
        [(b"seawall-deadline", b"2000 ")],
        [(b"seawall-deadline", b"\xff")],
        [(b"seawall-attempt", b"0")],
        [(b"seawall-criticality", b"critical")],
    ],
)
def test_a_header_that_cannot_be_read_is_ignored_and_counted(headers: Any) -> None:
    site = Site(answer)
    run(lambda: site.get(scope(headers)))
    assert (site.seen, site.status, site.middleware.snapshot()["malformed"]) == (NOTHING, 200, 1)


@pytest.mark.parametrize(
    "name", [b"seawall_deadline", b"seawall-deadline ", b"x-seawall-deadline", b"seawall-deadlines"]
)
def test_a_header_of_another_spelling_is_another_header(name: bytes) -> None:
    site = Site(answer)
    run(lambda: site.get(scope([(name, b"2000")])))
    assert site.seen == NOTHING
    assert site.middleware.snapshot()["malformed"] == 0


def test_20_000_headers_are_looked_through() -> None:
    site = Site(answer)
    run(lambda: site.get(scope([(b"seawall-deadline", b"1")] * 20_000)))
    assert (site.seen, site.middleware.snapshot()["malformed"]) == (NOTHING, 1)


@pytest.mark.parametrize(
    ("options", "arrives", "left"),
    [
        ({}, None, None),
        ({}, 2000, 2),
        ({"deadline": "5s"}, None, 5),
        ({"deadline": "5s"}, 2000, 2),
        ({"deadline": "5s"}, 9000, 9),
        ({"max_deadline": "5s"}, None, 5),
        ({"max_deadline": "5s"}, 2000, 2),
        ({"max_deadline": "5s"}, 9000, 5),
        ({"deadline": "1s", "max_deadline": "5s"}, None, 1),
        ({"deadline": "1s", "max_deadline": "5s"}, 3000, 3),
        ({"deadline": "1s", "max_deadline": "5s"}, 9000, 5),
    ],
)
def test_the_default_is_for_those_without_and_the_maximum_for_all(
    options: Any, arrives: int | None, left: float | None
) -> None:
    site = Site(answer, **options)
    headers = [] if arrives is None else [(b"seawall-deadline", b"%d" % arrives)]
    run(lambda: site.get(scope(headers)))
    assert site.seen[0] == left


def test_a_stranger_gets_the_default_whatever_he_brings() -> None:
    site = Site(answer, deadline="1s", max_deadline="5s")
    run(lambda: site.get(scope([(b"seawall-deadline", b"3000")], client=("203.0.113.9", 1))))
    assert site.seen[0] == 1


@pytest.mark.parametrize(
    "bad",
    [
        {"deadline": 0},
        {"deadline": -1},
        {"max_deadline": float("nan")},
        {"deadline": True},
        {"trusted": "10.0.0.0/8"},
        {"deadline": "6s", "max_deadline": "5s"},
    ],
)
def test_a_wrong_setting_is_refused_by_name(bad: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=rf"SeawallMiddleware\({next(iter(bad))}="):
        SeawallMiddleware(answer, **bad)


def test_the_policies_of_the_application_obey_what_arrived() -> None:
    async def body(send: Any) -> None:
        await Policy(Timeout(None), name="stock").acall(asyncio.sleep, 60)

    site = Site(body)

    async def main() -> float:
        await site.get()
        return asyncio.get_running_loop().time()

    assert run(main) == 2
    assert site.status == 504


def test_a_caller_in_this_process_bounds_it_too() -> None:
    site = Site(answer)

    async def main() -> None:
        with deadline("500ms"):
            await site.get()
            assert remaining() == 0.5

    run(main)
    assert site.seen[0] == 0.5


def test_requests_beside_each_other_have_each_their_own() -> None:
    seen: dict[float, list[float | None]] = {}

    async def app(scope: Any, receive: Any, send: Any) -> None:
        before = remaining()
        await asyncio.sleep(0.1)
        seen[scope["number"]] = [before, remaining()]

    middleware = SeawallMiddleware(app, trusted=["10.0.0.0/8"])

    async def main() -> None:
        await asyncio.gather(
            *(middleware(scope([(b"seawall-deadline", b"%d000" % n)], number=n), None, None) for n in range(1, 50))
        )

    run(main)
    assert all(seen[n] == [n, pytest.approx(n - 0.1)] for n in range(1, 50))


def test_when_the_answer_is_out_the_deadline_is_lifted_also_for_tasks_of_the_application() -> None:
    after: list[Any] = []

    async def body(send: Any) -> None:
        async def beside() -> None:
            await asyncio.sleep(1)
            after.append(facts())

        task = asyncio.create_task(beside())
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"part", "more_body": True})
        after.append(remaining())
        await send({"type": "http.response.body", "body": b"end"})
        after.append(remaining())
        await task

    site = Site(body)
    run(site.get)
    assert after == [2, None, (None, Criticality.SHEDDABLE, 3)]


# -- refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "status", "kind", "wait"),
    [
        (Rejected("x", policy="secret", retry_after=1.2), 503, "urn:seawall:rejected", "2"),
        (RateLimited(), 429, "urn:seawall:rate-limited", None),
        (BudgetSpent(), 429, "https://iana.org/assignments/http-problem-types#quota-exceeded", None),
        (DeadlineExceeded(), 504, "urn:seawall:deadline-exceeded", None),
        (
            ExceptionGroup("forks", [Rejected(retry_after=7), RateLimited(retry_after=3)]),
            429,
            "urn:seawall:rate-limited",
            "3",
        ),
    ],
)
def test_a_refusal_that_nobody_caught_is_answered(error: Exception, status: int, kind: str, wait: str | None) -> None:
    site = Site(raising(error))
    run(site.get)
    assert (site.status, site.problem["type"], site.headers.get("retry-after")) == (status, kind, wait)
    assert site.headers["content-type"] == "application/problem+json"
    assert int(site.headers["content-length"]) == len(site.sent[1]["body"])
    assert b"secret" not in site.sent[1]["body"]
    snapshot = site.middleware.snapshot()
    assert (snapshot["refused"], snapshot["late"]) == ((0, 1) if status == 504 else (1, 0))


@pytest.mark.parametrize(
    "error",
    [
        ValueError("x"),
        TimeoutError(),
        asyncio.CancelledError(),
        KeyboardInterrupt(),
        ExceptionGroup("", [Rejected(), ValueError()]),
    ],
)
def test_other_errors_pass_unchanged(error: BaseException) -> None:
    site = Site(raising(error))

    async def main() -> None:
        with pytest.raises(type(error)) as caught:
            await site.get()
        assert caught.value is error

    run(main)
    assert site.sent == []


def test_a_refusal_after_the_response_began_passes_unchanged() -> None:
    error = Rejected("too late")

    async def body(send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise error

    site = Site(body)

    async def main() -> None:
        with pytest.raises(Rejected) as caught:
            await site.get()
        assert caught.value is error

    run(main)
    assert len(site.sent) == 1
    assert site.middleware.snapshot()["refused"] == 0


def test_what_comes_before_a_response_does_not_begin_it() -> None:
    async def body(send: Any) -> None:
        await send({"type": "http.response.early_hint", "links": []})
        raise Rejected("x")

    site = Site(body)
    run(site.get)
    assert [message["type"] for message in site.sent] == [
        "http.response.early_hint",
        "http.response.start",
        "http.response.body",
    ]


def test_a_deadline_at_0_is_answered_without_calling_the_application() -> None:
    site = Site(answer)
    run(lambda: site.get(scope([(b"seawall-deadline", b"0")])))
    assert (site.status, site.calls, site.middleware.snapshot()["late"]) == (504, 0, 1)


def test_from_a_stranger_a_deadline_at_0_means_nothing() -> None:
    site = Site(answer)
    run(lambda: site.get(scope([(b"seawall-deadline", b"0")], client=("203.0.113.9", 1))))
    assert (site.status, site.calls) == (200, 1)


def test_the_answer_to_head_has_no_body() -> None:
    site = Site(raising(Rejected("x")))
    run(lambda: site.get(scope(method="HEAD")))
    assert site.sent[1]["body"] == b""
    assert int(site.headers["content-length"]) > 0


# -- other scopes ----------------------------------------------------------------------------------------------------


def test_lifespan_passes_untouched() -> None:
    given: list[Any] = []

    async def app(*args: Any) -> None:
        given.extend(args)
        raise Rejected("as it is")

    what, receive, send = {"type": "lifespan"}, object(), object()

    async def main() -> None:
        with pytest.raises(Rejected):
            await SeawallMiddleware(app, deadline="1s")(what, receive, send)

    run(main)
    assert given[0] is what and given[1] is receive and given[2] is send


def test_receive_is_the_servers_own() -> None:
    given: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        given.append(receive)

    receive = object()
    run(lambda: SeawallMiddleware(app)(scope(), receive, None))
    assert given == [receive], "the middleware waits for no message, a disconnect included"


def test_a_websocket_has_what_arrived_and_no_deadline_of_ours() -> None:
    site = Site(answer, deadline="5s", max_deadline="6s")
    run(lambda: site.get(scope(kind="websocket")))
    assert site.seen == (2.0, Criticality.SHEDDABLE, 3)
    run(lambda: site.get(scope([], kind="websocket")))
    assert site.seen == NOTHING


def test_a_refused_handshake_is_answered_where_the_server_can() -> None:
    site = Site(raising(Rejected("x", retry_after=5)))
    run(lambda: site.get(scope(kind="websocket", extensions={"websocket.http.response": {}})))
    assert [message["type"] for message in site.sent] == [
        "websocket.http.response.start",
        "websocket.http.response.body",
    ]
    assert (site.status, site.headers["retry-after"]) == (503, "5")


@pytest.mark.parametrize("extensions", [{}, None])
def test_elsewhere_it_is_closed(extensions: Any) -> None:
    site = Site(raising(Rejected("x")))
    run(lambda: site.get(scope(kind="websocket", extensions=extensions)))
    assert site.sent == [{"type": "websocket.close", "code": 1013}]


@pytest.mark.parametrize("begun", ["websocket.accept", "websocket.close"])
def test_a_refusal_after_the_handshake_passes_unchanged(begun: str) -> None:
    async def body(send: Any) -> None:
        await send({"type": begun})
        raise Rejected("x")

    site = Site(body)

    async def main() -> None:
        with pytest.raises(Rejected):
            await site.get(scope(kind="websocket", extensions={"websocket.http.response": {}}))

    run(main)
    assert site.sent == [{"type": begun}]


# -- cancellation ----------------------------------------------------------------------------------------------------


def test_a_cancelled_request_gives_everything_back() -> None:
    async def scenario(victim: Any) -> None:
        policy = Policy(Bulkhead(1))

        async def body(send: Any) -> None:
            await policy.acall(asyncio.sleep, 1)
            await answer(send)

        site = Site(body)

        async def request() -> None:
            await site.get()
            assert facts() == NOTHING

        await victim(request())
        assert policy[Bulkhead].in_use == 0
        assert facts() == NOTHING

    assert cancel_everywhere(scenario) > 5


def test_a_request_that_hangs_is_cancelled_as_without_the_middleware() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await Script(hang).aio()

    async def main() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await SeawallMiddleware(app)(scope(), None, None)

    run(main)
