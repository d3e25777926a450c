"""Everything a server may say instead of an answer is either an outage, or an error in every mode; nothing is counted."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from seawall import BackendUnavailable, ConfigError, Limiter, TokenBucket, Valkey
from seawall.runtime import clock
from tests.valkey.conftest import Make
from tests.valkey.proxy import Proxy
from tests.valkey.servers import Server

HOURS = 3_600 * 1_000_000_000
OUTAGES = [
    b"-LOADING Valkey is loading the dataset in memory",
    b"-BUSY Valkey is busy running a script. You can only call SCRIPT KILL or FUNCTION KILL.",
    b"-OOM command not allowed when used memory > 'maxmemory'.",
    b"-READONLY You can't write against a read only replica.",
    b"-MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
    b"-CLUSTERDOWN The cluster is down",
    b"-TRYAGAIN Multiple keys request during rehashing of slot",
    b"-MISCONF Errors writing to the AOF file: No space left on device",
    b"-NOREPLICAS Not enough good replicas to write.",
    b"-ERR max number of clients reached",
]
ERRORS = [
    b"-WRONGTYPE Operation against a key holding the wrong kind of value",
    b"-NOAUTH Authentication required.",
    b"-WRONGPASS invalid username-password pair or user is disabled.",
    b"-NOPERM User limits has no permissions to run the 'evalsha' command",
    b"-CROSSSLOT Keys in request don't hash to the same slot",
    b"-MOVED 3999 127.0.0.1:1",
    b"-MOVED nonsense",
    b"-ASK 3999 127.0.0.1:1",
    b"-ERR unknown command 'EVALSHA'",
    b"-ERR Error compiling script (new function): user_script:1: unexpected symbol",
    b"-ERR",
    b"-what",
    b"+OK",
    b":1",
    b"$0\r\n",
    b"$1\r\n\x00",
    b"$-1",
    b"*0",
]


def word(line: bytes) -> str:
    return line.partition(b"\r")[0].decode()[:24]


@pytest.fixture
def proxy(shared: Server) -> Iterator[Proxy]:
    between = Proxy(shared.port)
    yield between
    between.close()


def hit(limiter: Limiter, way: str, key: str = "ann") -> Any:
    return limiter.hit(key) if way == "threads" else asyncio.run(limiter.ahit(key))


@pytest.mark.parametrize("line", OUTAGES, ids=word)
@pytest.mark.parametrize("mode", ["open", "closed", "local"])
def test_a_server_that_cannot_serve_now_is_out_and_the_mode_decides(
    proxy: Proxy, store: Make, line: bytes, mode: str
) -> None:
    limiter = Limiter(TokenBucket("10/h"), name="said", store=store(proxy.url, on_outage=mode, breaker=None))
    assert [limiter.hit("ann").remaining for _ in range(2)] == [9, 8]
    proxy.mode, proxy.garbage = "garbage", line + b"\r\n"
    assert limiter.hit("ben").allowed is (mode == "open")
    counts = limiter.snapshot()["without_store"]
    assert counts == {"admitted": int(mode == "open"), "refused": int(mode != "open")}
    proxy.mode = "pass"
    assert limiter.hit("ann").remaining == 7, "the connection goes on"


@pytest.mark.parametrize("way", ["threads", "tasks"])
@pytest.mark.parametrize("line", ERRORS, ids=word)
def test_whatever_else_a_server_says_is_an_error_and_lets_nobody_through(
    proxy: Proxy, store: Make, line: bytes, way: str
) -> None:
    limiter = Limiter(TokenBucket("10/h"), name="said", store=store(proxy.url, on_outage="open", breaker=None))
    assert [limiter.hit("ann").remaining for _ in range(2)] == [9, 8]
    if way == "threads":
        proxy.mode, proxy.garbage = "garbage", line + b"\r\n"
        with pytest.raises(BackendUnavailable, match="nothing is let through"):
            limiter.hit("ann")
    else:

        async def main() -> None:
            for _ in range(2):
                await limiter.apeek("ann")
            proxy.mode, proxy.garbage = "garbage", line + b"\r\n"
            with pytest.raises(BackendUnavailable, match="nothing is let through"):
                await limiter.ahit("ann")

        asyncio.run(main())
    assert limiter.snapshot()["without_store"] == {"admitted": 0, "refused": 0}


@pytest.mark.parametrize("way", ["threads", "tasks"])
@pytest.mark.parametrize("mode", ["open", "closed"])
def test_a_server_that_dies_in_the_midst_of_a_call_is_noticed_at_once(
    server: Server, store: Make, way: str, mode: str
) -> None:
    limiter = Limiter(TokenBucket("10/h"), name="died", store=store(server.url, on_outage=mode))
    found: list[Any] = []

    async def main() -> None:
        assert await limiter.ahit("ann")
        server.freeze()
        asked = asyncio.create_task(limiter.ahit("ann"))
        await asyncio.sleep(0.1)
        await asyncio.to_thread(server.kill)
        found.append(await asked)

    began = time.monotonic()
    if way == "tasks":
        asyncio.run(main())
    else:
        assert limiter.hit("ann")
        server.freeze()
        thread = threading.Thread(target=lambda: found.append(limiter.hit("ann")))
        thread.start()
        time.sleep(0.1)
        server.kill()
        thread.join()
    assert [decision.allowed for decision in found] == [mode == "open"]
    assert time.monotonic() - began < 2, "long before the time of a call is over, which is 5 s here"


def test_a_thread_that_is_interrupted_in_the_midst_of_a_call_leaves_no_answer_to_the_next(
    server: Server, store: Make
) -> None:
    limiter = Limiter(TokenBucket("100/h"), name="interrupted", store=store(server.url, on_outage="closed"))
    for _ in range(2):
        assert limiter.hit("ann")

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGUSR1, interrupt)
    try:
        server.freeze()
        timer = threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGUSR1))
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            limiter.hit("ann", 10)
        timer.join()
    finally:
        signal.signal(signal.SIGUSR1, before)
        server.thaw()
    assert [limiter.hit("ben", 20).remaining for _ in range(3)] == [80, 60, 40]


def test_a_failover_to_an_empty_replica_begins_anew_and_keeps_the_limit_from_there(
    start: Callable[..., Server], store: Make
) -> None:
    primary, empty = start(), start()
    proxy = Proxy(primary.port)
    try:
        limiter = Limiter(TokenBucket("2/h"), name="empty", store=store(proxy.url, on_outage="closed"))
        assert [limiter.hit("ann").allowed for _ in range(2)] == [True, True]
        held = limiter.reserve("eve", 2, lasts="1min")
        proxy.target = empty.port
        proxy.cut()
        assert [limiter.hit("ann").allowed for _ in range(4)] == [True, True, False, False]
        assert not held.settle(2), "nobody knows it any more"
        assert limiter.peek("eve").remaining in (0, 2)
        assert limiter.snapshot()["without_store"] == {"admitted": 0, "refused": 0}
        assert all(empty.do("PTTL", key) > 0 for key in empty.do("KEYS", "*"))
    finally:
        proxy.close()


@pytest.mark.parametrize("hours", [8, -1], ids=["8 h asleep", "clock 1 h back"])
def test_a_client_whose_own_clock_jumps_gets_neither_more_nor_less(proxy: Proxy, store: Make, hours: int) -> None:
    """Its connections were closed meanwhile. Time passes on the server only."""
    limiter = Limiter(TokenBucket("2/h"), name="asleep", store=store(proxy.url, on_outage="closed"))
    assert [limiter.hit("ann").allowed for _ in range(3)] == [True, True, False]
    real_now, real_wall = clock.now_ns, clock.wall_ns
    restore = clock.install(lambda: real_now() + hours * HOURS, clock.sleep_ns, lambda: real_wall() + hours * HOURS)
    try:
        proxy.cut()
        refused = limiter.hit("ann")
        assert not refused
        assert limiter.hit("ben").remaining == 1
        peeked = limiter.peek("ann")
        assert not peeked and 1_790 < peeked.retry_after <= 1_800
    finally:
        restore()
    assert limiter.snapshot()["without_store"] == {"admitted": 0, "refused": 0}


@pytest.mark.parametrize("time_limit", [0, -1, float("nan"), float("inf"), None, True, "soon", "0s", 10**30])
@pytest.mark.parametrize("name", ["timeout", "connect_timeout"])
def test_a_time_limit_that_is_none_is_refused_by_name(name: str, time_limit: Any) -> None:
    """asyncio takes NaN for no timeout at all, and redis-py None: then a frozen server would hold everybody."""
    with pytest.raises(ConfigError, match=rf"Valkey\({name}"):
        Valkey("valkey://127.0.0.1", **{name: time_limit})
