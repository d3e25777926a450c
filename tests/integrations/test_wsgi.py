"""The WSGI middleware: what trusted peers say holds while the application works, its body included; refusals are answered."""

from __future__ import annotations

import contextvars
import io
import json
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any
from wsgiref.handlers import SimpleHandler
from wsgiref.util import FileWrapper, setup_testing_defaults
from wsgiref.validate import validator

import pytest

from seawall import (
    BudgetSpent,
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
from seawall.integrations.wsgi import SeawallMiddleware
from seawall.runtime import clock
from seawall.testing import VirtualClock
from tests.policies.worlds import in_threads

HEADERS = {
    "HTTP_SEAWALL_DEADLINE": "2000",
    "HTTP_SEAWALL_CRITICALITY": "SHEDDABLE",
    "HTTP_SEAWALL_ATTEMPT": "3",
}
NOTHING = (None, Criticality.CRITICAL, 1)
ARRIVED = (2.0, Criticality.SHEDDABLE, 3)


def environ(peer: str | None = "10.0.0.9", headers: dict[str, str] | None = None, **more: Any) -> dict[str, Any]:
    made: dict[str, Any] = {}
    setup_testing_defaults(made)
    if peer is not None:
        made["REMOTE_ADDR"] = peer
    return {**made, **(HEADERS if headers is None else headers), **more}


def facts() -> tuple[Any, ...]:
    return remaining(), current().criticality, current().attempt


class Server:
    """Calls an application in the middleware as servers do, and keeps what it was told."""

    def __init__(self, app: Callable[..., Any], **options: Any) -> None:
        self.middleware = SeawallMiddleware(app, **{"trusted": ["10.0.0.0/8"], **options})
        self.started: list[tuple[str, dict[str, str], Any]] = []
        self.headers_sent = False

    def start_response(
        self, status: str, headers: list[tuple[str, str]], exc_info: Any = None
    ) -> Callable[[bytes], object]:
        if exc_info is not None:
            if self.headers_sent:
                raise exc_info[1].with_traceback(exc_info[2])
        elif self.started:
            raise AssertionError("started twice")
        self.started.append((status, dict(headers), exc_info is not None))
        return self.write

    def write(self, data: bytes) -> None:
        self.headers_sent = True

    def get(self, request: dict[str, Any] | None = None) -> Iterable[bytes]:
        return self.middleware(request or environ(), self.start_response)

    def read(self, request: dict[str, Any] | None = None) -> bytes:
        result = self.get(request)
        chunks: list[bytes] = []
        try:
            for chunk in result:
                if chunk:
                    self.headers_sent = True
                chunks.append(chunk)
        finally:
            close = getattr(result, "close", None)
            if close is not None:
                close()
        return b"".join(chunks)

    @property
    def status(self) -> str:
        return self.started[-1][0]


def raising(error: BaseException) -> Callable[..., Any]:
    def app(environ: Any, start_response: Any) -> Any:
        raise error

    return app


def plain(environ: Any, start_response: Any) -> list[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [repr(facts()).encode()]


# -- inward ----------------------------------------------------------------------------------------------------------


def test_what_a_trusted_peer_says_holds_for_the_request() -> None:
    with VirtualClock():
        server = Server(plain)
        assert server.read() == repr(ARRIVED).encode()
        assert facts() == NOTHING
    assert server.middleware.snapshot() == {"believed": 1, "untrusted": 0, "malformed": 0, "refused": 0, "late": 0}


@pytest.mark.parametrize("peer", ["203.0.113.9", "10.0.0.9, 203.0.113.9", "", None, "unix:"])
def test_what_others_say_does_not(peer: str | None) -> None:
    server = Server(plain)
    assert (
        server.read(environ(peer, HTTP_X_FORWARDED_FOR="10.0.0.9", HTTP_FORWARDED="for=10.0.0.9"))
        == repr(NOTHING).encode()
    )
    assert server.middleware.snapshot()["untrusted"] == 1


@pytest.mark.parametrize(("peer", "port"), [("", "80"), ("", ""), (None, "")])
def test_a_unix_socket_has_no_address(peer: str | None, port: str) -> None:
    with VirtualClock():
        assert Server(plain, trusted=["unix"]).read(environ(peer, SERVER_PORT=port)) == repr(ARRIVED).encode()
    assert Server(plain, trusted=["unix"]).read(environ(None, SERVER_PORT="80")) == repr(NOTHING).encode(), (
        "a server that listens on a port and does not tell the client's address is no Unix socket"
    )
    assert Server(plain, trusted=["unix"]).read(environ("127.0.0.1")) == repr(NOTHING).encode()


@pytest.mark.parametrize(
    "value", ["2_000", "2000,2000", "2000, 2000", " 2000", "", "٥", "9" * 100_000, "-1", "\xff", "5\n"]
)
def test_a_header_that_cannot_be_read_is_ignored_and_counted(value: str) -> None:
    server = Server(plain)
    assert server.read(environ(headers={"HTTP_SEAWALL_DEADLINE": value})) == repr(NOTHING).encode()
    assert server.middleware.snapshot()["malformed"] == 1


def test_the_default_is_for_those_without_and_the_maximum_for_all() -> None:
    with VirtualClock():
        server = Server(lambda *_: [repr(remaining()).encode()], deadline="1s", max_deadline="5s")
        bring = lambda value: server.read(environ(headers={"HTTP_SEAWALL_DEADLINE": value}))  # noqa: E731
        assert [server.read(environ(headers={})), bring("3000"), bring("9000")] == [b"1.0", b"3.0", b"5.0"]


@pytest.mark.parametrize(
    "bad", [{"deadline": 0}, {"max_deadline": -1}, {"trusted": "10.0.0.0/8"}, {"deadline": "6s", "max_deadline": "5s"}]
)
def test_a_wrong_setting_is_refused_by_name(bad: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=rf"SeawallMiddleware\({next(iter(bad))}="):
        SeawallMiddleware(plain, **bad)


# -- the body --------------------------------------------------------------------------------------------------------


class Body:
    """A body that looks at its context in every step, and is closed once."""

    def __init__(self, steps: int = 2) -> None:
        self.seen: list[Any] = []
        self.steps = steps
        self.closed = 0

    def __iter__(self) -> Iterator[bytes]:
        self.seen.append(facts())
        return self

    def __next__(self) -> bytes:
        self.seen.append(facts())
        if not self.steps:
            raise StopIteration
        self.steps -= 1
        return b"x"

    def close(self) -> None:
        self.seen.append(facts())
        self.closed += 1


def serving(body: Any) -> Callable[..., Any]:
    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [("Content-Type", "text/plain")])
        return body

    return app


def test_the_context_holds_while_the_body_is_read_and_closed_and_not_between() -> None:
    body = Body()
    with VirtualClock():
        result = Server(serving(body)).get()
        assert facts() == NOTHING
        for chunk in result:
            assert (chunk, facts()) == (b"x", NOTHING)
        result.close()  # type: ignore[attr-defined]
    assert body.seen == [ARRIVED] * 5
    assert body.closed == 1


def test_it_holds_in_whatever_thread_and_context_each_step_is_taken() -> None:
    body = Body()
    with VirtualClock():
        server = Server(serving(body))
        result: Any = contextvars.copy_context().run(server.get)
        steps: list[Callable[[], object]] = [
            lambda: next(result),
            lambda: contextvars.Context().run(next, result),
            result.close,
        ]
        for step in steps:
            in_threads([step])
    assert body.seen == [ARRIVED] * 4


def test_what_a_generator_sets_stays_from_step_to_step() -> None:
    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [])
        with deadline("500ms"):
            yield repr(remaining()).encode()
            clock.sleep_ns(100_000_000)
            yield repr(remaining()).encode()
        yield repr(remaining()).encode()

    with VirtualClock():
        assert Server(app).read() == b"0.50.41.9"
    assert facts() == NOTHING


def test_a_body_given_up_while_another_thread_is_in_it_is_closed_all_the_same() -> None:
    server: Any = None

    class Busy(Body):
        def __next__(self) -> bytes:
            server.result.close()
            return b""

    body = Busy()
    with VirtualClock():
        server = Server(serving(body))
        server.result = server.get()
        next(server.result)
    assert (body.closed, body.seen[-1]) == (1, ARRIVED)


@pytest.mark.parametrize("body", [[b"a", b"b"], (b"a",), FileWrapper(io.BytesIO(b"file"))])
def test_a_body_in_which_no_code_runs_is_handed_on_as_it_is(body: Any) -> None:
    assert Server(serving(body)).get(environ(**{"wsgi.file_wrapper": FileWrapper})) is body


def test_a_body_without_close_is_closed_without_it() -> None:
    assert Server(serving(iter([b"a", b"b"]))).read() == b"ab"


def test_errors_of_close_go_to_the_server() -> None:
    class Broken(Body):
        def close(self) -> None:
            raise OSError("disk")

    with pytest.raises(OSError, match="disk"):
        Server(serving(Broken())).read()


def test_requests_in_many_threads_have_each_their_own() -> None:
    both: list[Any] = []

    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [])
        for _ in range(50):
            both.append((environ["NUMBER"], current().attempt))
            yield b""

    middleware = SeawallMiddleware(app, trusted=["10.0.0.0/8"])

    def request(number: int) -> Callable[[], object]:
        made = environ(headers={"HTTP_SEAWALL_ATTEMPT": str(number)}, NUMBER=number)
        return lambda: list(middleware(made, lambda *_: lambda _: None))

    in_threads([request(number) for number in range(1, 9)])
    assert len(both) == 400 and all(number == attempt for number, attempt in both)


# -- refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "status", "wait"),
    [
        (Rejected("x", policy="secret", retry_after=1.2), "503 Service Unavailable", "2"),
        (RateLimited(), "429 Too Many Requests", None),
        (BudgetSpent(), "429 Too Many Requests", None),
        (DeadlineExceeded(), "504 Gateway Timeout", None),
        (ExceptionGroup("forks", [Rejected(retry_after=7), RateLimited(retry_after=3)]), "429 Too Many Requests", "3"),
    ],
)
@pytest.mark.parametrize("when", ["called", "read"])
def test_a_refusal_that_nobody_caught_is_answered(error: Exception, status: str, wait: str | None, when: str) -> None:
    def generator(environ: Any, start_response: Any) -> Iterator[bytes]:
        yield from raising(error)(environ, start_response)

    server = Server(raising(error) if when == "called" else generator)
    body = server.read()
    assert server.status == status
    headers = server.started[-1][1]
    assert (headers["Content-Type"], headers.get("Retry-After")) == ("application/problem+json", wait)
    assert int(headers["Content-Length"]) == len(body)
    assert json.loads(body)["status"] == int(status[:3])
    assert b"secret" not in body


@pytest.mark.parametrize(
    "error", [ValueError("x"), TimeoutError(), KeyboardInterrupt(), ExceptionGroup("", [Rejected(), OSError()])]
)
@pytest.mark.parametrize("when", ["called", "read"])
def test_other_errors_pass_unchanged(error: BaseException, when: str) -> None:
    def generator(environ: Any, start_response: Any) -> Iterator[bytes]:
        yield from raising(error)(environ, start_response)

    server = Server(raising(error) if when == "called" else generator)
    with pytest.raises(type(error)) as caught:
        server.read()
    assert caught.value is error
    assert server.started == []


def test_a_response_that_was_announced_but_not_sent_is_replaced() -> None:
    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain")])
        yield b""
        raise Rejected("x")

    server = Server(app)
    assert b"urn:seawall:rejected" in server.read()
    assert [(status, with_error) for status, _, with_error in server.started] == [
        ("200 OK", False),
        ("503 Service Unavailable", True),
    ]


def test_a_refusal_after_part_of_the_body_is_out_passes_unchanged() -> None:
    error = Rejected("too late")

    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [])
        yield b"part"
        raise error

    server = Server(app)
    with pytest.raises(Rejected) as caught:
        server.read()
    assert caught.value is error
    assert (len(server.started), server.middleware.snapshot()["refused"]) == (1, 0)


def test_after_write_the_server_raises_the_refusal_again() -> None:
    error = Rejected("too late")

    def app(environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [])(b"part")
        raise error

    with pytest.raises(Rejected) as caught:
        Server(app).read()
    assert caught.value is error


def test_the_body_of_a_refused_request_is_closed() -> None:
    class Refusing(Body):
        def __next__(self) -> bytes:
            raise Rejected("x")

    body = Refusing()
    server = Server(serving(body))
    assert b"rejected" in server.read()
    assert body.closed == 1


def test_a_deadline_at_0_is_answered_without_calling_the_application() -> None:
    server = Server(raising(AssertionError("called")))
    server.read(environ(headers={"HTTP_SEAWALL_DEADLINE": "0"}))
    assert (server.status, server.middleware.snapshot()["late"]) == ("504 Gateway Timeout", 1)


def test_the_policies_of_the_application_obey_what_arrived() -> None:
    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        clock.sleep_ns(2_100_000_000)
        yield Policy(Timeout(None)).call(bytes)

    with VirtualClock():
        server = Server(app)
        server.read()
    assert server.status == "504 Gateway Timeout"


def test_the_answer_to_head_has_no_body() -> None:
    server = Server(raising(Rejected("x")))
    assert server.read(environ(REQUEST_METHOD="HEAD")) == b""
    assert int(server.started[-1][1]["Content-Length"]) > 0


def test_an_unheard_of_status_has_a_phrase_all_the_same() -> None:
    error = Rejected("x")
    error.status = 599
    server = Server(raising(error))
    server.read()
    assert server.status == "599 Refused"


@pytest.mark.parametrize(
    "app",
    [plain, raising(Rejected("x", retry_after=5)), serving(iter([b"a", b"b"]))],
    ids=["list", "refusal", "iterator"],
)
def test_the_servers_rules_are_kept(app: Any) -> None:
    request = environ(SERVER_PROTOCOL="HTTP/1.1", QUERY_STRING="")
    wrapped = validator(SeawallMiddleware(app, trusted=["10.0.0.0/8"]))
    out, err = io.BytesIO(), io.StringIO()
    handler = SimpleHandler(io.BytesIO(), out, err, request)
    handler.run(wrapped)
    assert not err.getvalue()
    assert out.getvalue().startswith((b"Status: 200", b"HTTP/1.0 200", b"Status: 503", b"HTTP/1.0 503"))


def test_no_error_is_kept_alive_by_the_exchange() -> None:
    import gc
    import weakref

    class Known(Rejected):
        pass

    def refuse(environ: Any, start_response: Any) -> Any:
        error = Known("x")
        known.append(weakref.ref(error))
        try:
            raise error
        finally:
            del error

    known: list[Any] = []
    gc.collect()
    gc.disable()
    try:
        SeawallMiddleware(refuse)(environ(), lambda status, headers, exc_info=None: None)
        assert known[0]() is None, "a circle of error and frame"
    finally:
        gc.enable()
    assert sys.exc_info() == (None, None, None)
