"""Bodies through the transports for httpx and httpx2: sent again only if they can be, read as they come, within bounds."""

from __future__ import annotations

import asyncio
import io
from contextlib import nullcontext
from typing import Any

import pytest

from seawall import (
    Bulkhead,
    CircuitBreaker,
    Cluster,
    DeadlineExceeded,
    Failfast,
    Failover,
    Fallback,
    Forking,
    Registry,
    Retry,
    Timeout,
    deadline,
)
from seawall.http import sending
from seawall.testing import cancel_everywhere, hang, run, slow
from tests.integrations.shop import Shop, Stream, with_every_client

AT_ONCE = Failover(retries=2, base=0, cap=0, budget=None)
PROBLEM = {"content-type": "application/problem+json"}

# -- of requests -----------------------------------------------------------------------------------------------------


class Pieces:
    """A body that can be read once, piece by piece."""

    def __init__(self) -> None:
        self.read = 0

    def sync(self) -> Any:
        for piece in (b"a", b"b"):
            self.read += 1
            yield piece

    async def asynchronous(self) -> Any:
        for piece in (b"a", b"b"):
            self.read += 1
            yield piece


def pieces_of(shop: Shop) -> Any:
    return Pieces().asynchronous() if shop.world.is_async else Pieces().sync()


@with_every_client
async def test_a_body_that_was_begun_is_not_sent_again(shop: Shop) -> None:
    answer = await shop.request(shop.cluster([503, 200], strategy=AT_ONCE), "PUT", content=pieces_of(shop))
    assert (answer.status_code, len(shop.requests)) == (503, 1)
    for kind in (shop.package.ReadError, shop.package.ConnectError):
        cluster = shop.cluster([kind, 200], strategy=Failover(base=1, cap=1))
        error = await shop.error_of(cluster, "PUT", content=pieces_of(shop))
        assert (type(error), shop.world.now) == (kind, 0), "nor is there a pause for it"
    with sending(idempotent=True):
        answer = await shop.request(shop.cluster([503, 200], strategy=AT_ONCE), "PUT", content=pieces_of(shop))
    assert answer.status_code == 503, "whatever anybody says: it is gone"


class Refusing:
    """A transport that refuses connections to one host before it touches the body."""

    def __init__(self, shop: Shop) -> None:
        self.shop = shop
        self.inner = shop.inner()

    def handle_request(self, request: Any) -> Any:
        if request.url.host == "10.0.0.1":
            raise self.shop.package.ConnectError("refused")
        return self.inner.handle_request(request)

    async def handle_async_request(self, request: Any) -> Any:
        if request.url.host == "10.0.0.1":
            raise self.shop.package.ConnectError("refused")
        return await self.inner.handle_async_request(request)

    def close(self) -> None: ...
    async def aclose(self) -> None: ...


@with_every_client
async def test_a_body_that_was_not_begun_goes_elsewhere(shop: Shop) -> None:
    cluster = shop.cluster(200, 200, 200)
    for _ in range(6):
        transport = shop.transport(cluster, inner=Refusing(shop))
        request = shop.package.Request("POST", "http://shop/", content=pieces_of(shop))
        if shop.world.is_async:
            answer = await transport.handle_async_request(request)
        else:
            answer = transport.handle_request(request)
        assert answer.status_code == 200
    assert "1" not in shop.asked


@pytest.mark.parametrize(
    ("make", "again"),
    [
        (lambda: {"content": b"abc"}, True),
        (lambda: {"content": "abc"}, True),
        (lambda: {"json": {"a": 1}}, True),
        (lambda: {"data": {"a": "1"}}, True),
        (lambda: {"files": {"a": b"abc"}}, True),
        (lambda: {"files": {"a": ("a.txt", io.BytesIO(b"abc"))}, "data": {"b": "1"}}, True),
        (lambda: {"files": {"a": Unseekable(b"abc")}}, False),
        (dict, True),
    ],
)
@with_every_client
async def test_what_can_be_sent_again_is_sent_whole(shop: Shop, make: Any, again: bool) -> None:
    bodies: list[bytes] = []
    cluster = shop.cluster(
        [lambda request: bodies.append(request.read()) or shop.response(503)] * 2 + [200], strategy=AT_ONCE
    )
    if shop.world.is_async:
        shop.scripts["10.0.0.1"] = [lambda request: bodies.append(request.content) or shop.response(503)] * 2 + [200]
    answer = await shop.request(cluster, "PUT", **make())
    assert answer.status_code == (200 if again else 503)
    assert len(set(bodies)) == 1 and len(bodies) == (2 if again else 1)


class Unseekable(io.BytesIO):
    def seekable(self) -> bool:
        return False

    def seek(self, *args: Any) -> int:
        raise io.UnsupportedOperation("seek")


@with_every_client
async def test_a_body_that_is_read_from_somewhere_is_not_sent_to_two_at_once(shop: Shop) -> None:
    cluster = shop.cluster(503, 503, strategy=Forking(2))
    await shop.request(cluster, "PUT", content=pieces_of(shop))
    await shop.request(cluster, "PUT", files={"a": ("a.txt", io.BytesIO(b"abc"))}, extensions={"idempotent": False})
    assert len(shop.requests) == 2
    await shop.request(cluster, "PUT", content=b"abc")
    assert len(shop.requests) == 4


# -- of responses ----------------------------------------------------------------------------------------------------


@with_every_client
async def test_a_response_is_read_as_it_comes(shop: Shop) -> None:
    stream = Stream(shop, b"a", slow("1s", b"b"), slow("1s", b"c"))
    async with shop.streaming(shop.cluster(lambda _: shop.streamed(stream))) as chunks:
        seen = [(chunk, stream.sent, shop.world.now) async for chunk in chunks]
    assert seen == [(b"a", 1, 0), (b"b", 2, 1), (b"c", 3, 2)]
    assert stream.closed >= 1


@with_every_client
async def test_a_reader_who_leaves_early_closes_it(shop: Shop) -> None:
    stream = Stream(shop, b"a", b"b", b"c")
    async with shop.streaming(shop.cluster(lambda _: shop.streamed(stream))) as chunks:
        async for _ in chunks:
            break
        if shop.world.is_async:
            await chunks.aclose()
    assert (stream.sent, stream.closed >= 1) == (1, True)


@with_every_client
async def test_the_deadline_of_the_call_holds_while_it_is_read_also_after_its_block(shop: Shop) -> None:
    stream = Stream(shop, b"a", slow("1s", b"b"), slow("1s", b"c"), slow("1s", b"d"))
    got: list[bytes] = []
    with deadline("1500ms"):
        streaming = shop.streaming(shop.cluster(lambda _: shop.streamed(stream)))
        chunks = await streaming.__aenter__()
    with pytest.raises(shop.package.ReadTimeout) as caught:
        async for chunk in chunks:
            got.append(chunk)
    assert isinstance(caught.value, DeadlineExceeded)
    assert got[:2] == [b"a", b"b"] and len(got) <= 3
    assert shop.world.now <= (1.5 if shop.world.is_async else 2), "a thread waits for what it has begun to wait for"
    assert stream.closed >= 1
    await streaming.__aexit__(None, None, None)


@with_every_client
async def test_a_timeout_of_the_attempt_holds_for_the_whole_response(shop: Shop) -> None:
    stream = Stream(shop, *(slow("400ms", b"x") for _ in range(10)))
    cluster = shop.cluster(lambda _: shop.streamed(stream), each=(Timeout("1s"),))
    error = await shop.error_of(cluster)
    assert isinstance(error, DeadlineExceeded)
    assert shop.world.now < 1.5


@pytest.mark.parametrize(
    ("patience", "inherited", "policy"), [(None, False, "shop"), ("1h", False, "shop"), ("600ms", True, "")]
)
@with_every_client
async def test_a_body_that_hangs_is_the_replicas_fault_unless_the_callers_time_is_over(
    shop: Shop, patience: str | None, inherited: bool, policy: str
) -> None:
    cluster = shop.cluster(
        lambda _: shop.streamed(Stream(shop, *(slow("400ms", b"x") for _ in range(10)))), each=(Timeout("1s"),)
    )
    with nullcontext() if patience is None else deadline(patience):
        error = await shop.error_of(cluster)
    assert isinstance(error, DeadlineExceeded) and isinstance(error, shop.package.ReadTimeout)
    assert (error.inherited, error.policy) == (inherited, policy)


@with_every_client
async def test_a_stream_that_was_announced_takes_its_time_within_the_callers_deadline(shop: Shop) -> None:
    def body(_: Any) -> Any:
        return shop.streamed(Stream(shop, *(slow("400ms", b"x") for _ in range(10))))

    cluster = shop.cluster(body, each=(Timeout("1s"),))
    with sending(stream=True):
        assert (await shop.get(cluster)).content == b"x" * 10
        with sending(idempotent=True), deadline("2s"):
            assert isinstance(await shop.error_of(cluster), DeadlineExceeded)
            assert shop.world.now > 5.9, "an inner block changes only what it names"
        shop.scripts["10.0.0.1"] = [slow("2s", 200)] if shop.world.is_async else [shop.package.ReadTimeout]
        assert isinstance(await shop.error_of(cluster), shop.package.TimeoutException), (
            "until it begins it is an attempt"
        )


@with_every_client
async def test_a_response_has_a_largest_size(shop: Shop) -> None:
    def body(_: Any) -> Any:
        return shop.streamed(Stream(shop, *[b"x" * 100] * 11))

    cluster = shop.cluster(body)
    error = await shop.error_of(cluster, max_body=1_000)
    assert isinstance(error, shop.package.RemoteProtocolError) and "max_body=1000" in str(error)
    assert len((await shop.get(cluster, max_body=1_100)).content) == 1_100
    assert len((await shop.get(cluster, max_body=None)).content) == 1_100
    with sending(stream=True):
        assert len((await shop.get(cluster, max_body=10)).content) == 1_100


@with_every_client
async def test_an_error_in_the_body_is_the_clients_own(shop: Shop) -> None:
    stream = Stream(shop, b"a", shop.package.ReadError("reset"))
    assert type(await shop.error_of(shop.cluster(lambda _: shop.streamed(stream)))) is shop.package.ReadError


# -- of responses that nobody wants ----------------------------------------------------------------------------------


@with_every_client
async def test_a_response_that_is_passed_over_is_closed(shop: Shop) -> None:
    first, second = Stream(shop, b"down"), Stream(shop, b"up")
    cluster = shop.cluster([lambda _: shop.streamed(first, 503), lambda _: shop.streamed(second)], strategy=AT_ONCE)
    assert (await shop.get(cluster)).content == b"up"
    assert first.closed >= 1


@pytest.mark.parametrize("where", ["each", "around"])
@with_every_client
async def test_responses_that_a_retry_of_the_user_passes_over_are_closed_as_it_goes(shop: Shop, where: str) -> None:
    streams = [Stream(shop, b"down") for _ in range(3)]

    def step(which: int) -> Any:
        def answer(_: Any) -> Any:
            assert all(stream.closed for stream in streams[:which])
            return shop.streamed(streams[which], 503)

        return answer

    retry = Retry(on=lambda error: True, attempts=3, delay=0, budget=None)
    cluster = shop.cluster([step(0), step(1), step(2)], strategy=Failfast(), **{where: (retry,)})
    answer = await shop.get(cluster)
    assert (answer.status_code, answer.content) == (503, b"down")
    assert all(stream.closed for stream in streams)
    late = Stream(shop, b"down")
    cluster = shop.cluster(
        lambda _: shop.streamed(late, 503), strategy=Failfast(), around=(Fallback(lambda _: shop.response(200)),)
    )
    assert (await shop.get(cluster)).status_code == 200
    assert late.closed, "also where something else answers"


@with_every_client
async def test_a_failure_that_is_given_to_the_sender_is_whole_and_not_read_before(shop: Shop) -> None:
    stream = Stream(shop, b"a", slow("3s", b"b"))
    async with shop.streaming(shop.cluster(lambda _: shop.streamed(stream, 503), strategy=Failfast())) as chunks:
        assert (stream.sent, stream.closed) == (0, 0)
        assert [chunk async for chunk in chunks] == [b"a", b"b"]


@with_every_client
async def test_if_nobody_else_can_be_asked_the_failure_is_still_whole(shop: Shop) -> None:
    stream = Stream(shop, b"the ", b"reason")
    cluster = shop.cluster(lambda _: shop.streamed(stream, 503), 200, strategy=AT_ONCE, each=(Bulkhead(1),))
    held = cluster["http://10.0.0.2:80"].guard()
    with held:
        shop.scripts["10.0.0.1"] = [lambda _: shop.streamed(stream, 503), shop.package.ReadError]
        cluster = cluster.using(Failover(retries=0))
        answer = await shop.get(cluster)
    assert (answer.status_code, answer.content) == (503, b"the reason")


@with_every_client
async def test_passing_over_takes_no_longer_than_a_moment(shop: Shop) -> None:
    def body(_: Any) -> Any:
        return shop.streamed(Stream(shop, *(slow("40ms", b"x") for _ in range(100))), 503)

    answer = await shop.get(shop.cluster([body, 200], strategy=AT_ONCE))
    assert answer.status_code == 200
    assert shop.world.now <= 0.1


@with_every_client
async def test_a_problem_that_has_to_be_looked_at_stays_readable(shop: Shop) -> None:
    body = b'{"type": "urn:x:quota-exceeded"}'
    stream = Stream(shop, body[:5], body[5:])
    answer = await shop.get(shop.cluster([lambda _: shop.streamed(stream, 429, headers=PROBLEM), 200]))
    assert (answer.status_code, answer.content, len(shop.requests)) == (429, body, 1)


@with_every_client
async def test_a_problem_that_drips_is_looked_at_for_a_second_and_no_longer(shop: Shop) -> None:
    stream = Stream(shop, *(slow("300ms", b" ") for _ in range(1_000)))
    answer = await shop.get(
        shop.cluster([lambda _: shop.streamed(stream, 429, headers=PROBLEM), 200], strategy=AT_ONCE)
    )
    assert (answer.status_code, stream.closed >= 1) == (200, True)
    assert shop.world.now <= 1.2


@with_every_client
async def test_a_problem_that_is_too_long_or_breaks_off_is_no_quota(shop: Shop) -> None:
    long = Stream(shop, *[b" " * 40_000] * 3)
    broken = Stream(shop, b"{", shop.package.ReadError("reset"))
    declared = Stream(shop, b"{")
    steps = [
        lambda _: shop.streamed(long, 429, headers=PROBLEM),
        lambda _: shop.streamed(broken, 429, headers=PROBLEM),
        lambda _: shop.streamed(declared, 429, headers={**PROBLEM, "content-length": "9" * 30}),
        200,
    ]
    answer = await shop.get(shop.cluster(steps, strategy=Failover(retries=3, base=0, cap=0, budget=None)))
    assert (answer.status_code, long.closed >= 1, broken.closed >= 1, declared.closed >= 1) == (200, True, True, True)
    assert (long.sent, declared.sent) == (2, 0), "no more is read than could be one"


def shop_of_async() -> Shop:
    import httpx

    from tests.policies.worlds import World

    return Shop(httpx, World(is_async=True))


def test_losers_of_a_race_are_closed_and_the_winner_can_be_read() -> None:
    shop = shop_of_async()
    loser, winner = Stream(shop, b"late"), Stream(shop, b"a", slow("5s", b"b"))
    cluster = shop.cluster(
        slow("1s", lambda _: shop.streamed(loser)), slow("100ms", lambda _: shop.streamed(winner)), strategy=Forking(2)
    )

    async def main() -> None:
        assert (await shop.get(cluster)).content == b"ab"
        assert loser.sent == 0

    run(main)


def test_a_loser_that_answers_in_the_same_instant_is_closed() -> None:
    for seed in range(20):
        shop = shop_of_async()
        streams = [Stream(shop, b"x") for _ in range(3)]
        steps = [slow("1s", lambda _, stream=stream: shop.streamed(stream)) for stream in streams]
        cluster = shop.cluster(*steps, strategy=Forking("all"))

        async def main() -> None:
            assert (await shop.get(cluster)).content == b"x"
            await asyncio.sleep(1)

        run(main, seed=seed)
        answered = [stream for stream, request in zip(streams, shop.requests, strict=False) if request]
        assert all(stream.closed for stream in answered if stream.sent or stream.closed)
        assert sum(stream.sent for stream in streams) == 1


def test_forks_that_all_fail_give_a_whole_response() -> None:
    for seed in range(20):
        shop = shop_of_async()
        streams = [Stream(shop, b"re", b"ason") for _ in range(2)]
        cluster = shop.cluster(*[lambda _, s=s: shop.streamed(s, 503) for s in streams], strategy=Forking(2))

        async def main() -> None:
            answer = await shop.get(cluster)
            assert (answer.status_code, answer.content) == (503, b"reason")
            await asyncio.sleep(1)
            assert all(stream.closed for stream in streams)

        run(main, seed=seed)


# -- cancellation ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", [Failfast(), AT_ONCE, Forking(2), Forking(2, stagger="1s")], ids=repr)
def test_a_cancelled_request_leaves_nothing_open(strategy: Any) -> None:
    async def scenario(victim: Any) -> None:
        shop = shop_of_async()
        streams: list[Stream] = []

        def body(status: int, *chunks: object) -> Any:
            def make(_: Any) -> Any:
                streams.append(Stream(shop, *chunks))
                return shop.streamed(streams[-1], status)

            return make

        steps = [slow("1s", body(503, b"d", b"own")), slow("2s", body(200, b"a", slow("1s", b"b")))]
        cluster = shop.cluster(steps, list(steps), strategy=strategy, each=(CircuitBreaker(), Bulkhead(1)))
        await victim(shop.get(cluster))
        await asyncio.sleep(10)
        assert all(stream.closed for stream in streams), "a response is open"
        for endpoint in cluster.endpoints:
            assert cluster[endpoint][Bulkhead].in_use == 0
            assert cluster.snapshot()["endpoints"][0]["in_flight"] == 0

    assert cancel_everywhere(scenario, seeds=(None, 0)) > 5


def test_a_request_that_hangs_ends_when_its_sender_is_cancelled() -> None:
    shop = shop_of_async()
    cluster = shop.cluster(hang, each=(Bulkhead(1),))

    async def main() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await shop.get(cluster)
        assert cluster["http://10.0.0.1:80"][Bulkhead].in_use == 0

    run(main)
    assert isinstance(cluster, Cluster) and Registry


# -- what is left behind ---------------------------------------------------------------------------------------------


@with_every_client
async def test_an_error_leaves_no_circle_behind(shop: Shop) -> None:
    import gc
    import weakref

    class Known(shop.package.ReadError):  # type: ignore[misc, name-defined]
        pass

    def fail(_: Any) -> Any:
        error = Known("reset")
        known.append(weakref.ref(error))
        try:
            raise error
        finally:
            del error

    known: list[Any] = []
    cluster = shop.cluster(fail, strategy=Failfast())
    transport = shop.transport(cluster)

    async def send() -> None:
        request = shop.package.Request("GET", "http://shop/")
        try:
            if shop.world.is_async:
                await transport.handle_async_request(request)
            else:
                transport.handle_request(request)
        except Known:
            pass

    await send()
    known.clear()
    gc.collect()
    gc.disable()
    try:
        await send()
        assert known[0]() is None, "a circle of error and frame"
    finally:
        gc.enable()
