"""WebSockets: counted when they connect, refused as well as the server can, and their messages counted one by one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any

from seawall import Limiter, Memory, Rule, Rules, TokenBucket
from seawall.http import api_key
from seawall.http.messages import Metered
from seawall.integrations.asgi import RateLimitMiddleware
from seawall.testing import run
from tests.entrance.sites import Answer, Site, SlowStore, bucket

DENIAL = {"websocket.http.response": {}}


def in_time(scenario: Callable[[], Any]) -> Callable[[], None]:
    return lambda: run(scenario)


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Accepts, and sends back what it receives, until the client is gone."""
    assert (await receive())["type"] == "websocket.connect"
    await send({"type": "websocket.accept", "headers": [(b"x-app", b"1")]})
    while True:
        message = await receive()
        if message["type"] == "websocket.disconnect":
            return
        await send({"type": "websocket.send", "text": message["text"]})


def texts(count: int) -> Iterable[dict[str, Any]]:
    yield {"type": "websocket.connect"}
    for number in range(count):
        yield {"type": "websocket.receive", "text": str(number)}
    yield {"type": "websocket.disconnect", "code": 1000}


def site(limiter: Any = None, answers: Callable[..., Any] = echo, **options: Any) -> Site:
    made = bucket() if limiter is None else limiter
    return Site(lambda app: RateLimitMiddleware(app, made, **options), answers)


async def connect(site: Site, count: int = 0, **more: Any) -> Answer:
    return await site.ask(kind="websocket", incoming=texts(count), **more)


def sent(answer: Answer) -> list[str]:
    return [message["text"] for message in answer.messages if message["type"] == "websocket.send"]


@in_time
async def test_connections_beyond_the_limit_are_refused_before_they_are_accepted() -> None:
    it = site()
    for _ in range(2):
        answer = await connect(it, 1)
        assert (answer.messages[0]["type"], answer.get("X-App"), sent(answer)) == ("websocket.accept", "1", ["0"])
        assert answer.get("RateLimit-Policy") == '"api";q=2;w=60'
    reads = it.reads
    assert (await connect(it)).messages == [{"type": "websocket.close", "code": 1013}]
    denied = await connect(it, extensions=DENIAL)
    assert (denied.status, denied.get("Retry-After"), denied.problem["status"]) == (429, "30", 429)
    assert [message["type"] for message in denied.messages] == [
        "websocket.http.response.start",
        "websocket.http.response.body",
    ]
    assert (it.calls, it.reads) == (2, reads)


@in_time
async def test_requests_and_connections_are_counted_together() -> None:
    async def both(scope: Any, receive: Any, send: Any) -> None:
        await (echo if scope["type"] == "websocket" else http)(scope, receive, send)

    async def http(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})

    it = site(answers=both)
    await it.ask()
    await connect(it)
    assert (await it.ask()).status == 429


@in_time
async def test_one_message_too_many_closes_the_connection() -> None:
    it = site(messages=bucket("3/min"))
    answer = await connect(it, 10)
    assert sent(answer) == ["0", "1", "2"]
    assert answer.messages[-1] == {"type": "websocket.close", "code": 1008, "reason": "too many messages"}
    assert it.app.snapshot() == {"refused": 0, "closed": 1}
    assert sent(await connect(it, 1)) == [], "the same caller, with another connection"
    assert sent(await connect(it, 1, client=("203.0.113.10", 1))) == ["0"]


@in_time
async def test_messages_within_the_limit_go_on_for_ever() -> None:
    async def slowly(scope: Any, receive: Any, send: Any) -> None:
        async def paced() -> Any:
            await asyncio.sleep(20)
            return await receive()

        await echo(scope, paced, send)

    answer = await connect(site(messages=bucket("3/min"), answers=slowly), 200)
    assert sent(answer) == [str(number) for number in range(200)]
    assert answer.messages[-1]["type"] == "websocket.send"


@in_time
async def test_after_the_close_nothing_is_sent_and_nothing_received() -> None:
    seen: list[Any] = []

    async def stubborn(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        for _ in range(4):
            seen.append((await receive())["type"])
        try:
            await send({"type": "websocket.send", "text": "still there?"})
        except OSError as error:
            seen.append(type(error))

    it = site(messages=bucket("1/min"), answers=stubborn)
    answer = await connect(it, 10)
    assert seen == ["websocket.receive", *["websocket.disconnect"] * 3, ConnectionResetError]
    assert [message["type"] for message in answer.messages] == ["websocket.accept", "websocket.close"]
    assert it.reads == 3, "what the client goes on sending is not even looked at"


@in_time
async def test_who_closes_what_is_closed_already_has_what_he_wants() -> None:
    async def polite(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        while (await receive())["type"] != "websocket.disconnect":
            pass
        await send({"type": "websocket.close", "code": 1011})

    answer = await connect(site(messages=bucket("1/min"), answers=polite), 10)
    kinds = [(message["type"], message.get("code")) for message in answer.messages]
    assert kinds == [("websocket.accept", None), ("websocket.close", 1008)]


@in_time
async def test_two_readers_close_it_once() -> None:
    async def two(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})

        async def read() -> None:
            while (await receive())["type"] != "websocket.disconnect":
                pass

        await asyncio.gather(read(), read())

    messages = Limiter(TokenBucket("1/min"), store=SlowStore())
    answer = await connect(site(messages=messages, answers=two), 10)
    assert [message["type"] for message in answer.messages].count("websocket.close") == 1


@in_time
async def test_the_key_of_messages_is_found_once() -> None:
    asked: list[Any] = []
    by_key = api_key()

    def key(request: Any) -> Any:
        asked.append(request)
        return by_key(request)

    it = site(key=key, messages=bucket("5/min"))
    answer = await connect(it, 10, headers=[("X-API-Key", "k")])
    assert (sent(answer), len(asked)) == (["0", "1", "2", "3", "4"], 1)


@in_time
async def test_messages_may_have_rules_and_a_store_that_is_asked() -> None:
    def parts(request: Any) -> dict[str, str]:
        return {"role": request.header("x-role") or "free"}

    rules = Rules(Rule(TokenBucket("1/min"), {"role": "free"}), Rule(TokenBucket("4/min")), store=SlowStore())
    it = site(Rules(Rule(TokenBucket("100/min")), store=Memory()), key=parts, messages=rules)
    assert len(sent(await connect(it, 10))) == 1
    assert len(sent(await connect(it, 10, headers=[("X-Role", "paid")]))) == 4


@in_time
async def test_exempt_connections_are_counted_in_no_way() -> None:
    it = site(bucket("1/min"), exempt=["/live"], messages=bucket("1/min"))
    for _ in range(3):
        assert len(sent(await connect(it, 5, path="/live"))) == 5


@in_time
async def test_in_shadow_no_connection_is_closed() -> None:
    it = site(bucket("1/min", shadow=True), messages=bucket("1/min", shadow=True))
    for _ in range(2):
        assert len(sent(await connect(it, 5))) == 5


def meters(sends: list[str], fault: Exception | None = None) -> Metered:
    """What stands before a server that has one message more, none of which is admitted."""

    async def receive() -> dict[str, Any]:
        return {"type": "websocket.receive", "text": "one too many"}

    async def send(message: Any) -> None:
        sends.append(message["type"])
        if fault is not None:
            raise fault

    async def admit() -> bool:
        return False

    return Metered(receive, send, admit, ConnectionResetError)


@in_time
async def test_a_client_that_is_gone_before_it_is_closed_is_gone_and_no_error() -> None:
    sends: list[str] = []
    metered = meters(sends, BrokenPipeError("the client has hung up"))
    assert (await metered.receive())["type"] == "websocket.disconnect"
    assert sends == ["websocket.close"]


@in_time
async def test_what_the_application_has_closed_is_not_closed_once_more() -> None:
    sends: list[str] = []
    metered = meters(sends)
    await metered.send({"type": "websocket.close"})
    assert (await metered.receive())["type"] == "websocket.disconnect"
    assert sends == ["websocket.close"]
