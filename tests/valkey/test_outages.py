"""A server that is killed, frozen, slow or not itself: every decision comes in time, and as `on_outage` says."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis

from seawall import (
    BackendUnavailable,
    CircuitBreaker,
    Decision,
    LeakyBucket,
    Limiter,
    SlidingWindow,
    TokenBucket,
    Valkey,
    events,
)
from seawall.machines.verdict import Verdict
from seawall.stores.valkey.breakers import Breakers
from seawall.testing import VirtualClock
from tests.valkey.conftest import Make
from tests.valkey.proxy import Proxy
from tests.valkey.servers import Server, free_port

SLACK = 0.15
"""What a busy machine may add to a time that was kept."""
WAYS = ["threads", "tasks"]


@pytest.fixture
def proxy(shared: Server) -> Iterator[Proxy]:
    between = Proxy(shared.port)
    yield between
    between.close()


def timed(limiter: Limiter, way: str, times: int = 1, key: str = "ann") -> tuple[list[Decision], float]:
    """Decisions one after the other, in threads or in tasks, and the longest time that one took."""
    longest = 0.0
    if way == "threads":
        found: list[Decision] = []
        for _ in range(times):
            began = time.perf_counter()
            found.append(limiter.hit(key))
            longest = max(longest, time.perf_counter() - began)
        return found, longest

    async def main() -> tuple[list[Decision], float]:
        longest, found = 0.0, []
        for _ in range(times):
            began = time.perf_counter()
            found.append(await limiter.ahit(key))
            longest = max(longest, time.perf_counter() - began)
        return found, longest

    return asyncio.run(main())


@pytest.fixture
def heard() -> Iterator[list[Any]]:
    seen: list[Any] = []
    stop = events.subscribe(seen.append, events.BackendFailed)
    yield seen
    stop()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("mode", ["open", "closed", "local"])
def test_without_a_server_the_mode_decides_and_a_process_that_never_saw_it_is_closed(
    store: Make, heard: list[Any], way: str, mode: str
) -> None:
    nobody = store(f"valkey://127.0.0.1:{free_port()}", on_outage=mode, connect_timeout="50ms", timeout="25ms")
    limiter = Limiter({"a": TokenBucket("10/s"), "b": SlidingWindow("5/min")}, name="nobody", store=nobody)
    (decision,), took = timed(limiter, way)
    assert decision.allowed is (mode == "open")
    assert set(decision.parts) == {"a", "b"}
    assert took < 0.075 + SLACK
    assert mode == "open" or decision.retry_after > 0
    if mode != "open":  # how much is used nobody knows, and so it is not said
        assert "limit 'b' cannot be asked: its store does not answer" in str(decision.parts["b"].error())
        assert "cannot be asked" in str(decision.error()) and "used" not in str(decision.error())
    assert [(event.policy, event.mode, event.allowed) for event in heard] == [("nobody", mode, mode == "open")]
    counts = limiter.snapshot()["without_store"]
    assert counts == {"admitted": int(mode == "open"), "refused": int(mode != "open")}


@pytest.mark.parametrize("way", WAYS)
def test_a_frozen_server_costs_no_more_than_the_configured_time_and_then_nothing(
    server: Server, store: Make, way: str
) -> None:
    limiter = Limiter(
        TokenBucket("1000/s"),
        name="frozen",
        store=store(server.url, connect_timeout="50ms", timeout="25ms", on_outage="open"),
    )
    timed(limiter, way)
    server.freeze()
    try:
        found, longest = timed(limiter, way, 12)
        assert all(found)
        assert longest < 0.075 + SLACK
        began = time.perf_counter()
        timed(limiter, way, 20)
        assert time.perf_counter() - began < 0.2, "the breaker is open: nobody waits"
    finally:
        server.thaw()


@pytest.mark.parametrize("way", WAYS)
def test_callers_together_before_a_frozen_server_wait_no_longer_than_one(server: Server, store: Make, way: str) -> None:
    frozen = store(server.url, connect_timeout="100ms", timeout="50ms", on_outage="closed", breaker=None)
    limiter = Limiter(TokenBucket("1000/s"), name="frozen", store=frozen)
    timed(limiter, way)
    server.freeze()
    try:
        began = time.perf_counter()
        if way == "tasks":

            async def main() -> list[Decision]:
                return await asyncio.gather(*(limiter.ahit(f"user {number}") for number in range(50)))

            found = asyncio.run(main())
        else:
            found = []
            threads = [threading.Thread(target=lambda n=n: found.append(limiter.hit(f"user {n}"))) for n in range(20)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        assert not any(found)
        assert time.perf_counter() - began < 0.15 + 0.2
    finally:
        server.thaw()


@pytest.mark.parametrize("way", WAYS)
def test_a_server_that_drips_does_not_hold_anybody(proxy: Proxy, store: Make, way: str) -> None:
    dripping = store(proxy.url, connect_timeout="60ms", timeout="60ms", on_outage="closed")
    limiter = Limiter(TokenBucket("1000/s"), name="drip", store=dripping)
    assert all(timed(limiter, way)[0])
    proxy.mode = "drip"
    (decision,), took = timed(limiter, way)
    assert not decision
    assert took < 0.12 + SLACK


@pytest.mark.parametrize("way", WAYS)
def test_a_lost_answer_is_not_asked_for_again_and_what_was_taken_counts(
    shared: Server, proxy: Proxy, store: Make, way: str
) -> None:
    limiter = Limiter(TokenBucket("10/h"), name="lost", store=store(proxy.url, on_outage="open", timeout="200ms"))
    direct = Limiter(TokenBucket("10/h"), name="lost", store=store())
    assert timed(limiter, way)[0][0].remaining == 9
    for mode in ("hang up", "swallow"):
        proxy.mode, asked = mode, proxy.requests
        assert all(timed(limiter, way)[0]), "open"
        assert way == "tasks" or proxy.requests == asked + 1  # a loop also looks around, later or never
        proxy.mode = "pass"
    assert direct.peek("ann", 0).remaining == 7, "each was applied once"
    proxy.cut()
    assert timed(limiter, way)[0][0].remaining == 6


@pytest.mark.parametrize("way", WAYS)
def test_a_connection_that_was_closed_while_idle_is_replaced_without_anybody_noticing(
    proxy: Proxy, store: Make, way: str
) -> None:
    limiter = Limiter(TokenBucket("10/h"), name="idle", store=store(proxy.url, on_outage="closed"))
    if way == "threads":
        assert limiter.hit("ann")
        proxy.cut()
        time.sleep(0.05)
        assert limiter.hit("ann")
        return

    async def main() -> None:
        assert await limiter.ahit("ann")
        proxy.cut()
        await asyncio.sleep(0.05)
        assert await limiter.ahit("ann")

    asyncio.run(main())


def test_a_server_that_comes_back_empty_is_used_again(server: Server, store: Make) -> None:
    short = store(server.url, on_outage="closed", connect_timeout="50ms", timeout="100ms")
    limiter = Limiter(TokenBucket("2/h"), name="again", store=short)
    assert [bool(limiter.hit("ann")) for _ in range(2)] == [True, True]
    server.kill()
    assert not limiter.hit("ben")
    server.start()
    assert limiter.hit("ann"), "its script and its states are gone, and it is asked all the same"


def test_flushed_states_and_scripts_are_made_anew(server: Server, store: Make) -> None:
    limiter = Limiter(TokenBucket("2/h"), name="flush", store=store(server.url, on_outage="closed"))
    assert limiter.hit("ann", 2)
    server.do("SCRIPT", "FLUSH")
    assert limiter.hit("ben", 2)
    assert not limiter.hit("ben")
    server.do("FLUSHALL")
    assert limiter.peek("ann").remaining == 2
    assert limiter.hit("ann", 2)


def test_a_promoted_replica_goes_on_with_what_it_has(start: Callable[..., Server], store: Make) -> None:
    primary, replica = start(), start()
    proxy = Proxy(primary.port)
    try:
        replica.do("REPLICAOF", "127.0.0.1", primary.port)
        limiter = Limiter(TokenBucket("10/h"), name="promoted", store=store(proxy.url, on_outage="closed"))
        assert limiter.hit("ann", 4)
        primary.wait_for(replica)
        replica.do("REPLICAOF", "NO", "ONE")
        primary.do("REPLICAOF", "127.0.0.1", replica.port)
        refused = limiter.hit("ann")
        assert not refused, "the old primary answers READONLY, which is an outage"
        proxy.target = replica.port
        assert limiter.hit("ann").remaining == 5
    finally:
        proxy.close()


@pytest.mark.parametrize("mode", ["open", "closed", "local"])
def test_a_busy_or_full_server_is_out(server: Server, store: Make, mode: str) -> None:
    short = store(server.url, on_outage=mode, timeout="200ms", breaker=None)
    limiter = Limiter(TokenBucket("10/h"), name="busy", store=short)
    assert limiter.hit("ann")
    server.do("CONFIG", "SET", "maxmemory", "1")
    assert limiter.hit("ann").allowed is (mode == "open")
    server.do("CONFIG", "SET", "maxmemory", "0")
    server.do("CONFIG", "SET", "busy-reply-threshold", "1")
    blocker = server.client()
    thread = threading.Thread(target=lambda: spin(blocker), daemon=True)
    thread.start()
    time.sleep(0.1)
    assert limiter.hit("ann").allowed is (mode == "open")
    server.do("SCRIPT", "KILL")
    thread.join()
    blocker.close()
    assert limiter.hit("ann").remaining == 8


def spin(client: Any) -> None:
    with contextlib.suppress(redis.ResponseError):
        client.eval("while true do end", 0)


# -- what is wrong is never let through ---------------------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("mode", ["open", "local", "closed"])
def test_a_wrong_password_is_an_error_in_every_mode(server: Server, store: Make, way: str, mode: str) -> None:
    server.do("ACL", "SETUSER", "seawall", "on", ">right", "~*", "&*", "+@all")
    for url in (
        f"valkey://seawall:wrong@127.0.0.1:{server.port}",
        f"valkey://nobody:right@127.0.0.1:{server.port}",
    ):
        limiter = Limiter(TokenBucket("10/h"), name="secret", store=store(url, on_outage=mode))
        with pytest.raises(BackendUnavailable, match="password") as caught:
            timed(limiter, way)
        assert "wrong@" not in str(caught.value) and "right" not in str(caught.value)
    good = Limiter(TokenBucket("10/h"), name="secret", store=store(f"valkey://seawall:right@127.0.0.1:{server.port}"))
    assert timed(good, way)[0][0].allowed


def test_a_server_that_wants_a_password_says_so(start: Callable[..., Server], store: Make) -> None:
    locked = start("--requirepass", "secret")
    limiter = Limiter(TokenBucket("10/h"), name="locked", store=store(locked.url, on_outage="open"))
    with pytest.raises(BackendUnavailable, match="password"):
        limiter.hit("ann")
    assert Limiter(TokenBucket("1/h"), name="l", store=store(f"valkey://:secret@127.0.0.1:{locked.port}")).hit("ann")


RIGHTS = (
    "+eval +evalsha +time +get +set +del +getrange +setrange +append +strlen +pexpire +zadd +zcard +zremrangebyscore"
)


@pytest.mark.parametrize("missing", ["evalsha", "get", "set", "time", "~"])
def test_missing_rights_are_an_error_that_names_the_remedy(server: Server, store: Make, missing: str) -> None:
    rights = [right for right in RIGHTS.split() if right != f"+{missing}"]
    keys = "~other:*" if missing == "~" else "~t*"
    server.do("ACL", "SETUSER", "poor", "on", ">pw", keys, *rights)
    limiter = Limiter(
        TokenBucket("10/h"), name="poor", store=store(f"valkey://poor:pw@127.0.0.1:{server.port}", on_outage="open")
    )
    with pytest.raises(BackendUnavailable, match="doctor"):
        limiter.hit("ann")


def test_an_error_leaves_no_connection_behind(server: Server, store: Make) -> None:
    server.do("ACL", "SETUSER", "poor", "on", ">pw", "~t*", "+ping")
    limiter = Limiter(TokenBucket("10/h"), name="poor", store=store(f"valkey://poor:pw@127.0.0.1:{server.port}"))

    async def main() -> None:
        for _ in range(10):
            with pytest.raises(BackendUnavailable):
                await limiter.ahit("ann")

    for _ in range(10):
        with pytest.raises(BackendUnavailable):
            limiter.hit("ann")
    asyncio.run(main())
    time.sleep(0.05)
    assert server.do("CLIENT", "LIST").count(b"user=poor") <= 1


def test_a_server_that_is_tried_again_gets_one_probe() -> None:
    with VirtualClock() as clock:
        breakers = Breakers("store", CircuitBreaker(None, consecutive=2, open_for="1s", probes=1).rules())
        address = ("127.0.0.1", 1)
        for _ in range(2):
            permit = breakers.admit(address)
            assert permit is not None
            breakers.settle(address, permit, Verdict.FAIL)
        assert breakers.is_open(address) and breakers.admit(address) is None
        assert 0.8e9 < breakers.wait_ns(address) < 1.2e9
        clock.advance("1.2s")
        probe = breakers.admit(address)
        assert probe is not None
        assert breakers.admit(address) is None
        breakers.settle(address, probe, Verdict.OK)
        assert breakers.admit(address) is not None
        assert breakers.states() == {"127.0.0.1:1": "closed"}


def test_the_rights_that_the_docs_name_suffice(server: Server, store: Make) -> None:
    server.do("ACL", "SETUSER", "just", "on", ">pw", "~t*", *RIGHTS.split())
    just = store(f"valkey://just:pw@127.0.0.1:{server.port}")
    limiter = Limiter({"a": TokenBucket("10/h"), "b": SlidingWindow("10/h")}, name="just", store=just)
    with limiter.reserve("ann", 2):
        assert limiter.hit("ann")
    limiter.reset("ann")
    assert limiter.peek("ann").remaining == 10
    leaky = Limiter(LeakyBucket("1/s", queue=5), name="just leaky", store=just)
    assert leaky.take("ann")


def test_other_data_under_a_key_is_an_error_for_that_unit_alone(shared: Server, store: Make) -> None:
    mine = store(on_outage="open", prefix="wrongtype")
    limiter = Limiter(TokenBucket("10/h"), name="typed", store=mine)
    assert limiter.hit("ann")
    (key,) = shared.do("KEYS", "wrongtype:*:token_bucket:*")
    shared.do("DEL", key)
    shared.do("RPUSH", key, "x")

    async def main() -> list[Any]:
        return await asyncio.gather(*(limiter.ahit(who) for who in ("ben", "ann", "eve")), return_exceptions=True)

    ben, ann, eve = asyncio.run(main())
    assert ben.allowed and eve.allowed
    assert isinstance(ann, BackendUnavailable) and "prefix" in str(ann)


def test_what_is_no_valkey_is_an_error(shared: Server, proxy: Proxy, store: Make) -> None:
    proxy.mode = "garbage"
    limiter = Limiter(TokenBucket("10/h"), name="garbage", store=store(proxy.url, on_outage="open"))
    with pytest.raises(BackendUnavailable):
        limiter.hit("ann")


def test_reset_says_so_when_the_store_is_out(store: Make) -> None:
    nobody: Valkey = store(f"valkey://127.0.0.1:{free_port()}", on_outage="open")
    with pytest.raises(BackendUnavailable):
        Limiter(TokenBucket("1/h"), name="nobody", store=nobody).reset("ann")
