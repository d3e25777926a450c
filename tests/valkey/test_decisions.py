"""A limiter on a real server: every call of it, from threads and from tasks."""

from __future__ import annotations

import asyncio
import threading

import pytest

from seawall import (
    ConfigError,
    FixedWindow,
    LeakyBucket,
    Limiter,
    RateLimited,
    SlidingLog,
    SlidingWindow,
    TokenBucket,
)
from tests.valkey.conftest import Make
from tests.valkey.servers import Server

ALL = [TokenBucket("5/min"), FixedWindow("5/d"), SlidingWindow("5/min"), SlidingLog("5/min")]


@pytest.mark.parametrize("limit", ALL, ids=lambda limit: limit.name)
def test_a_limit_is_shared_by_all_who_ask_the_server(store: Make, limit: TokenBucket) -> None:
    here, there = (Limiter(limit, name="shared", store=store()) for _ in range(2))
    assert [bool(each.hit("ann")) for each in (here, there, here, there, here, there)] == [True] * 5 + [False]
    assert here.hit("ben").remaining == 4


@pytest.mark.parametrize("limit", ALL, ids=lambda limit: limit.name)
def test_tasks_and_threads_get_the_same_answers(store: Make, limit: TokenBucket) -> None:
    limiter = Limiter(limit, name="both", store=store())

    async def main() -> list[bool]:
        return [bool(await limiter.ahit("ann")) for _ in range(3)]

    assert asyncio.run(main()) == [True] * 3
    decision = limiter.hit("ann", 2)
    assert decision.allowed and decision.remaining == 0
    refused = limiter.hit("ann")
    assert not refused.allowed and refused.retry_after > 0 and refused.reset_after > 0


def test_several_limits_are_taken_all_or_none(store: Make) -> None:
    limits = {"requests": SlidingWindow("10/min"), "tokens": TokenBucket("100/min")}
    limiter = Limiter(limits, name="llm", store=store())
    assert limiter.hit("org", {"requests": 1, "tokens": 90})
    refused = limiter.hit("org", {"requests": 1, "tokens": 20})
    assert not refused and refused.name == "tokens"
    assert refused.parts["requests"].allowed and not refused.parts["tokens"].allowed
    assert limiter.peek("org", {"requests": 1}).remaining == 9
    assert list(limiter.hit("org", {"requests": 2}).parts) == []


def test_a_peek_takes_nothing(store: Make) -> None:
    limiter = Limiter(TokenBucket("3/h"), name="peek", store=store())
    for _ in range(5):
        assert limiter.peek("ann", 2).remaining == 3
    assert limiter.hit("ann", 3)
    assert not limiter.peek("ann")
    assert limiter.peek("ann", 0)


def test_reset_forgets_what_was_used_and_the_hint_with_it(store: Make) -> None:
    limiter = Limiter(TokenBucket("1/h"), name="reset", store=store())
    assert limiter.hit("ann")
    assert not limiter.hit("ann")
    limiter.reset("ann")
    assert limiter.hit("ann")


def test_what_is_held_is_settled_by_what_was_used(store: Make) -> None:
    limiter = Limiter(TokenBucket("1000/h"), name="hold", store=store())
    with limiter.reserve("org", 800) as held:
        assert limiter.peek("org").remaining == 200
        with pytest.raises(RateLimited):
            limiter.reserve("org", 300)
        assert held.settle(120) is True
    assert limiter.peek("org").remaining == 880
    assert held.cancel() is False
    assert limiter.reserve("org", 800).cancel() is True
    assert limiter.peek("org").remaining == 880


def test_a_hold_of_tasks_is_settled_or_counts_at_the_end_of_its_block(store: Make) -> None:
    limiter = Limiter({"a": SlidingWindow("100/h"), "b": TokenBucket("100/h")}, name="hold", store=store())

    async def main() -> None:
        async with limiter.areserve("org", {"a": 1, "b": 60}) as held:
            assert await held.asettle(b=10)
        assert {name: part.remaining for name, part in (await limiter.apeek("org", 0)).parts.items()} == {
            "a": 99,
            "b": 90,
        }
        async with limiter.areserve("org", {"b": 50}):
            pass
        assert (await limiter.apeek("org", {"b": 0})).remaining == 40

    asyncio.run(main())


def test_a_hold_that_is_never_settled_counts_in_full_at_its_end(store: Make) -> None:
    limiter = Limiter(SlidingLog("10/h"), name="expire", store=store())
    held = limiter.reserve("org", 6, lasts="80ms")
    assert limiter.peek("org", 0).remaining == 4
    refused = limiter.peek("org", 5)
    assert not refused and refused.retry_after > 3_000  # when the hold has ended and left the window
    threading.Event().wait(0.12)
    assert limiter.hit("org", 4)
    assert not limiter.hit("org", 1)
    assert held.settle(0) is False


def test_a_leaky_bucket_hands_out_slots_in_turn(store: Make) -> None:
    limiter = Limiter(LeakyBucket("50/s", queue=3), name="leaky", store=store())

    async def main() -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        await asyncio.gather(*(limiter.atake("host") for _ in range(4)))
        assert loop.time() - began >= 0.055

    asyncio.run(main())
    slow = Limiter(LeakyBucket("1/h", queue=3), name="slow", store=store())
    assert slow.hit("host")
    assert not slow.hit("host")
    with pytest.raises(RateLimited):
        slow.take("host", max_wait="1s")


def test_a_waiter_who_gives_up_gives_his_slot_back_if_he_is_the_last(store: Make) -> None:
    limiter = Limiter(LeakyBucket("2/s", queue=10), name="give up", store=store())

    async def main() -> None:
        assert await limiter.ahit("host")
        waiting = asyncio.create_task(limiter.atake("host"))
        await asyncio.sleep(0.05)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await asyncio.sleep(0.05)
        assert (await limiter.apeek("host")).retry_after < 0.5

    asyncio.run(main())


def test_live_changes_keep_what_is_used(store: Make) -> None:
    here, there = (Limiter(TokenBucket("10/h"), name="change", store=store()) for _ in range(2))
    assert here.hit("ann", 6)
    here.reconfigure(TokenBucket("20/h"))
    assert here.peek("ann").remaining == 14
    assert there.peek("ann").remaining == 4
    here.reconfigure(TokenBucket("5/h"))
    assert not here.peek("ann")


def test_a_server_of_a_unix_socket_and_a_ready_client_are_the_same_store(shared: Server, store: Make) -> None:
    client = shared.client()
    try:
        stores = [store(), store(f"unix://{shared.socket}"), store(client)]
        limiters = [Limiter(TokenBucket("3/h"), name="ways", store=each) for each in stores]
        assert [bool(each.hit("ann")) for each in [*limiters, limiters[0]]] == [True, True, True, False]
    finally:
        client.close()


def test_a_limiter_without_a_name_of_its_own_is_refused(store: Make) -> None:
    with pytest.raises(ConfigError, match="name="):
        Limiter(TokenBucket("1/s"), store=store())


def test_long_keys_and_odd_ones_are_told_apart(shared: Server, store: Make) -> None:
    limiter = Limiter(TokenBucket("1/h"), name="odd {name}\r\n", store=store())
    odd = ["a\0b", "a\r\nb", "{}", "\udcff", "x" * 70, "x" * 71, "y" * 1_000_000, "", b"\xff\xfe", "a}b{c"]
    assert all(limiter.hit(key) for key in odd)
    again = [Limiter(TokenBucket("1/h"), name="odd {name}\r\n", store=store()).hit(key) for key in odd]
    assert not any(again)
