"""Slots that a cluster shares, on a real server: holders that are killed and frozen, servers that are flushed and out."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any, cast

import pytest

from seawall import (
    BackendUnavailable,
    ConcurrencyLimit,
    ConfigError,
    Limiter,
    RateLimited,
    TokenBucket,
    Valkey,
    events,
)
from seawall.runtime.blocking import drive
from seawall.stores.valkey import threads
from tests.policies.worlds import heard
from tests.valkey.conftest import Make
from tests.valkey.proxy import Proxy
from tests.valkey.servers import Server, free_port, until

SLACK = 0.15
WAYS = ["threads", "tasks"]


def keys_of(server: Server) -> list[bytes]:
    return [key for key in server.do("KEYS", "*") if b":leases:" in key]


def inside(server: Server) -> int:
    """How many leases are there, run out or not."""
    return sum(int(server.do("ZCARD", key)) - 1 for key in keys_of(server))


def wait(way: str, limit: ConcurrencyLimit, seconds: float, **how: Any) -> bool:
    """Hold a slot for so long; tells whether it was lost."""
    if way == "threads":
        with limit.slot("ann", **how) as slot:
            time.sleep(seconds)
            return slot.lost

    async def main() -> bool:
        async with limit.slot("ann", **how) as slot:
            await asyncio.sleep(seconds)
            return slot.lost

    return asyncio.run(main())


def refuses(limit: ConcurrencyLimit) -> bool:
    try:
        wait("threads", limit, 0)
    except RateLimited:
        return True
    return False


@pytest.fixture
def pair(server: Server, store: Make) -> tuple[ConcurrencyLimit, ConcurrencyLimit]:
    """The same limit in two processes, as far as the server can tell."""
    one, other = (ConcurrencyLimit(2, lease="400ms", name="same", store=store(server.url)) for _ in range(2))
    return one, other


@pytest.mark.parametrize("way", WAYS)
def test_all_processes_together_have_so_many_and_no_more(
    server: Server, pair: tuple[ConcurrencyLimit, ConcurrencyLimit], way: str
) -> None:
    one, other = pair
    with one.slot("ann") as slot, other.slot("ann"):
        assert (slot.decision.remaining, other.peek("ann").remaining) == (1, 0)
        with pytest.raises(RateLimited) as caught:
            wait(way, one, 0)
        assert 0 < (caught.value.retry_after or 0) <= 0.4
        with one.slot("ben"):
            pass
    assert one.peek("ann").remaining == 2
    assert keys_of(server) == []


@pytest.mark.parametrize("way", WAYS)
def test_whoever_works_for_longer_than_a_lease_keeps_his_slot(
    pair: tuple[ConcurrencyLimit, ConcurrencyLimit], way: str
) -> None:
    one, other = pair
    full: list[bool] = []

    def look() -> None:
        for _ in range(10):
            time.sleep(0.1)
            full.append(other.peek("ann").remaining == 1)

    thread = threading.Thread(target=look)
    thread.start()
    assert not wait(way, one, 1.2)
    thread.join()
    assert all(full)
    assert other.peek("ann").remaining == 2


@pytest.mark.parametrize("way", WAYS)
def test_whoever_waits_is_served_soon_after_another_process_has_left(
    pair: tuple[ConcurrencyLimit, ConcurrencyLimit], way: str
) -> None:
    one, other = pair
    with one.slot("ann"):
        block = one.slot("ann")
        block.__enter__()
        threading.Timer(0.3, lambda: block.__exit__(None, None, None)).start()
        began = time.perf_counter()
        assert not wait(way, other, 0, max_wait=5)
        assert 0.25 < time.perf_counter() - began < 0.3 + 0.25 + SLACK
        began = time.perf_counter()
        with other.slot("ann"), pytest.raises(RateLimited):
            wait(way, other, 0, max_wait=0.2)
        assert time.perf_counter() - began < 0.2 + SLACK


HOLDER = """
import sys, time
from seawall import ConcurrencyLimit, Valkey, events
limit = ConcurrencyLimit(1, lease="600ms", name="held", store=Valkey(sys.argv[1], timeout="2s", connect_timeout="2s"))
events.subscribe(lambda event: print("lost", event.why, event.retaken, flush=True), events.LeaseLost)
with limit.slot("ann") as slot:
    print("inside", flush=True)
    for _ in range(2000):
        time.sleep(0.01)
        if slot.lost:
            print("slot.lost", flush=True)
            break
    sys.stdin.readline()
"""


@contextlib.contextmanager
def holder(server: Server) -> Iterator[subprocess.Popen[str]]:
    """Another process that has the slot."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, server.url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "inside\n"
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def held(server: Server) -> ConcurrencyLimit:
    store = Valkey(server.url, timeout="2s", connect_timeout="2s")
    return ConcurrencyLimit(1, lease="600ms", name="held", store=store)


def test_the_slot_of_a_process_that_was_killed_is_free_after_its_lease_and_not_before(server: Server) -> None:
    limit = held(server)
    with holder(server) as process:
        time.sleep(1)
        assert refuses(limit), "it renews its lease"
        process.send_signal(signal.SIGKILL)
        process.wait()
        killed = time.monotonic()
        assert refuses(limit)
        until(lambda: not refuses(limit), "the slot is free", 5)
        assert time.monotonic() - killed <= 0.6 + SLACK
    limit.store.close()  # type: ignore[attr-defined]


def test_a_process_that_was_frozen_for_a_lease_has_lost_its_slot_and_hears_of_it(server: Server) -> None:
    limit = held(server)
    with holder(server) as process:
        process.send_signal(signal.SIGSTOP)
        until(lambda: not refuses(limit), "the slot is free", 5)
        with limit.slot("ann") as slot:
            process.send_signal(signal.SIGCONT)
            assert process.stdout is not None
            said = {process.stdout.readline().strip() for _ in range(2)}
            assert said == {"slot.lost", "lost it had run out False"}
            assert inside(server) == 1, "it is not taken back"
            time.sleep(0.7)
            assert not slot.lost
            process.communicate("\n")
            assert inside(server) == 1, "nor does his end throw anybody out"
    assert keys_of(server) == []
    limit.store.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize("way", WAYS)
def test_a_flushed_server_hears_of_those_who_are_inside_with_their_next_renewal(
    server: Server, store: Make, way: str
) -> None:
    limit = ConcurrencyLimit(1, lease="400ms", name="flush", store=store(server.url))

    def flush() -> None:
        server.do("SCRIPT", "FLUSH")
        server.do("FLUSHALL")

    threading.Timer(0.2, flush).start()
    with heard(events.LeaseLost) as seen:
        assert wait(way, limit, 0.8)
    assert [(event.policy, event.retaken) for event in seen] == [("flush", True)]
    assert keys_of(server) == []


def test_short_blocks_with_shorter_leases_leave_nothing_behind(server: Server, store: Make) -> None:
    """Each ends near its own renewal, which must not take the slot again."""
    limit = ConcurrencyLimit(100, lease="30ms", name="race", store=store(server.url))

    async def work(number: int) -> None:
        for turn in range(20):
            async with limit.slot("ann"):
                await asyncio.sleep(0.009 + ((number * 7 + turn) % 20) / 10_000)

    async def main() -> None:
        await asyncio.gather(*(work(number) for number in range(20)))
        assert (await limit.apeek("ann")).remaining == 100
        assert await asyncio.to_thread(inside, server) == 0

    asyncio.run(main())
    threads = [threading.Thread(target=lambda: [wait("threads", limit, 0.0095) for _ in range(20)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert limit.peek("ann").remaining == 100


def test_a_task_cancelled_at_any_moment_of_its_command_leaves_nothing_behind(server: Server, store: Make) -> None:
    limit = ConcurrencyLimit(1, name="cancel", store=store(server.url))

    async def work() -> None:
        async with limit.slot("ann", max_wait=None):
            await asyncio.sleep(0)

    async def main() -> None:
        await work()
        for turns in range(60):
            task = asyncio.create_task(work())
            for _ in range(turns % 20):
                await asyncio.sleep(0)
            if turns >= 20:
                await asyncio.sleep(turns % 20 / 20_000)
            task.cancel()
            await asyncio.wait([task])
            await asyncio.wait_for(work(), 5)  # it has to wait for no lease
        assert (await limit.apeek("ann")).remaining == 1

    began = time.perf_counter()
    asyncio.run(main())
    assert time.perf_counter() - began < 20
    assert keys_of(server) == []


# -- outages -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("mode", ["open", "closed", "local"])
def test_without_a_server_the_mode_decides_and_a_process_that_never_saw_it_is_closed(
    store: Make, way: str, mode: str
) -> None:
    nobody = store(f"valkey://127.0.0.1:{free_port()}", on_outage=mode, connect_timeout="50ms", timeout="25ms")
    limit = ConcurrencyLimit(1, name="nobody", store=nobody)
    with heard(events.BackendFailed) as seen:
        began = time.perf_counter()
        if mode == "open":
            assert not wait(way, limit, 0)
        else:
            with pytest.raises(RateLimited, match="cannot be asked: its store does not answer"):
                wait(way, limit, 0)
        assert time.perf_counter() - began < 2 * 0.075 + SLACK
    assert [(event.policy, event.mode, event.allowed) for event in seen] == [("nobody", mode, mode == "open")]
    counts = limit.snapshot()["without_store"]
    assert counts == {"admitted": int(mode == "open"), "refused": int(mode != "open")}


@pytest.mark.parametrize("way", WAYS)
def test_a_frozen_server_costs_no_more_than_the_configured_time_at_both_ends(
    server: Server, store: Make, way: str
) -> None:
    short = store(server.url, connect_timeout="50ms", timeout="50ms", on_outage="closed")
    limit = ConcurrencyLimit(2, lease="500ms", name="frozen", store=short)
    threading.Timer(0.1, server.freeze).start()
    with heard(events.LeaseLost) as seen:
        began = time.perf_counter()
        assert wait(way, limit, 1), "nobody could renew it"
        assert time.perf_counter() - began < 1 + 0.1 + SLACK
    assert [event.why for event in seen] == ["the store could not be asked"]
    began = time.perf_counter()
    with pytest.raises(RateLimited):
        wait(way, limit, 0)
    assert time.perf_counter() - began < 0.1 + SLACK
    server.thaw()


def test_the_share_of_a_process_is_counted_against_those_who_came_before_the_outage(
    server: Server, store: Make
) -> None:
    alone = ConcurrencyLimit(3, name="local", store=store(server.url, breaker=None, timeout="100ms"))
    crowd = ConcurrencyLimit(
        4, lease="400ms", name="crowd", store=store(server.url, nodes=2, breaker=None, timeout="100ms")
    )
    with alone.slot("ann"), alone.slot("ann"), crowd.slot("ann"), contextlib.ExitStack() as stack:
        server.kill()
        with alone.slot("ann"):
            assert refuses(alone), "three are inside, two of them by the server"
        assert refuses(crowd), "others may have got all there is"
        time.sleep(0.45)
        stack.enter_context(crowd.slot("ann"))
        assert refuses(crowd), "two of four are its share"
        server.start()
        until(lambda: inside(server) == 2, "the two of the crowd are brought to the server")
    until(lambda: not keys_of(server), "all have left")


def test_missing_rights_are_an_error_for_those_who_enter_and_none_for_those_who_leave(
    server: Server, store: Make
) -> None:
    server.do("ACL", "SETUSER", "poor", "on", ">pw", "~*", "+@all")
    mine = store(f"valkey://poor:pw@127.0.0.1:{server.port}", on_outage="open")
    limit = ConcurrencyLimit(2, lease="300ms", name="poor", store=mine)
    with limit.slot("ann") as slot:
        server.do("ACL", "SETUSER", "poor", "-zscore")
        with pytest.raises(BackendUnavailable, match="doctor"), limit.slot("ann"):
            pass
        with pytest.raises(BackendUnavailable, match="doctor"):
            limit.peek("ann")
        time.sleep(0.5)
        assert slot.lost


def test_an_answer_that_is_lost_costs_a_task_its_slot_no_longer_than_the_way_back(server: Server, store: Make) -> None:
    proxy = Proxy(server.port)
    far = store(proxy.url, connect_timeout="200ms", timeout="100ms", on_outage="closed", breaker=None)
    limit = ConcurrencyLimit(1, lease="1h", name="lost", store=far)

    async def main() -> None:
        await limit.apeek("ann")
        proxy.mode = "swallow"
        with pytest.raises(RateLimited):
            async with limit.slot("ann"):
                pass
        proxy.mode = "pass"
        async with limit.slot("ann", max_wait=2):
            pass

    try:
        asyncio.run(main())
    finally:
        proxy.close()


# -- names -------------------------------------------------------------------------------------------------------------


def test_a_shared_limit_needs_a_name_and_limiters_of_that_name_are_left_alone(shared: Server, store: Make) -> None:
    with pytest.raises(ConfigError, match="ConcurrencyLimit.*name="):
        ConcurrencyLimit(1, store=store())
    limit = ConcurrencyLimit(1, name="same", store=store())
    limiter = Limiter(TokenBucket("1/h"), name="same", store=store())
    with limit.slot("ann"):
        assert limiter.hit("ann")
        assert not limiter.hit("ann")
        limiter.reset("ann")
        assert refuses(limit)
        limit.reset("ann")
        with limit.slot("ann"):
            pass


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_gives_back_and_renews_none_of_the_slots_of_its_parent(server: Server, store: Make) -> None:
    limit = ConcurrencyLimit(1, lease="1s", name="fork", store=store(server.url))
    with contextlib.ExitStack() as stack:
        slot = stack.enter_context(limit.slot("ann"))
        pid = os.fork()
        if not pid:
            stack.close()
            os._exit(0 if refuses(limit) else 1)
        assert os.waitpid(pid, 0)[1] == 0
        assert inside(server) == 1
        time.sleep(1.2)
        assert not slot.lost
    assert keys_of(server) == []
    gc.collect()


@pytest.mark.parametrize("at", ["while it sends", "while it queues up"])
def test_a_finalizer_in_the_midst_of_a_call_of_its_own_thread_does_not_wait_for_it(
    server: Server, store: Make, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    limit = ConcurrencyLimit(2, lease="1h", name="finalized", store=store(server.url))

    def hold() -> Iterator[None]:
        with limit.slot("ann"):
            yield

    held = hold()
    next(held)
    began, took = time.monotonic(), 0.0
    if at == "while it sends":

        def send(coroutine: Any) -> Any:
            monkeypatch.undo()
            held.close()  # type: ignore[attr-defined]
            return drive(coroutine)

        monkeypatch.setattr("seawall.stores.valkey.threads.drive", send)
        limit.peek("bob")
        took = time.monotonic() - began
    else:
        server.freeze()
        first = threading.Thread(target=limit.peek, args=("bob",))
        first.start()

        def gate() -> Any:
            nonlocal took
            monkeypatch.undo()
            began = time.monotonic()
            held.close()  # type: ignore[attr-defined]
            took = time.monotonic() - began
            server.thaw()
            return threads._Gate()

        client = cast("Any", limit._table)._core.threads()
        until(lambda: any(lane.led for lane in client._lanes.values()), "somebody leads")
        monkeypatch.setattr(threads, "_Gate", gate)
        limit.peek("bob")
        first.join()
    assert took < 2, "it waited for itself"
    assert keys_of(server) == [], "it was given back all the same"
