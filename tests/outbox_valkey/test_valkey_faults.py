"""Servers that die, freeze, lie, are full or somebody else's: every step ends in time, and nothing acknowledged is lost."""

from __future__ import annotations

import asyncio
import os
import threading
import time
import warnings
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest

from seawall.errors import BackendUnavailable, ConfigError, NotQueued
from seawall.outbox import Outbox
from seawall.outbox.record import Work
from seawall.outbox.store import OpenStore
from seawall.outbox.valkey import ValkeyStore
from seawall.runtime import clock
from seawall.runtime.blocking import BLOCKING, drive
from seawall.runtime.which import asyncio_runtime
from tests.outbox.benches import HOUR, SECOND
from tests.outbox.benches import make_work as work
from tests.outbox_valkey.conftest import Make, fresh_name
from tests.valkey.proxy import Proxy
from tests.valkey.servers import Server, free_port, until
from tests.valkey.test_cluster import Cluster

pytestmark = [pytest.mark.once, pytest.mark.filterwarnings("ignore:.*keeps no log:RuntimeWarning")]

SLACK = 1.0
"""What a busy machine may add to a time that was kept."""
Steps = Callable[[OpenStore], Coroutine[Any, Any, Any]]
WAYS = ["threads", "tasks"]
each_way = pytest.mark.parametrize("way", WAYS)


def do(store: ValkeyStore, way: str, steps: Steps) -> Any:
    if way == "threads":
        return drive(steps(store.open(BLOCKING)))

    async def main() -> Any:
        return await steps(store.open(asyncio_runtime()))

    return asyncio.run(main())


@pytest.fixture
def proxy(shared: Server) -> Iterator[Proxy]:
    between = Proxy(shared.port)
    yield between
    between.close()


@each_way
def test_a_server_that_is_not_there_is_an_error_in_time(way: str, make: Make) -> None:
    store = make(f"valkey://127.0.0.1:{free_port()}", timeout="500ms", connect_timeout="200ms")
    began = time.monotonic()
    with pytest.raises(BackendUnavailable, match="127.0.0.1"):
        do(store, way, lambda opened: opened.put(work()))
    assert time.monotonic() - began < 0.5 + SLACK


@each_way
def test_a_frozen_server_is_an_error_in_time_and_used_again_when_it_thaws(way: str, make: Make, server: Server) -> None:
    store = make(server.url, timeout="300ms", connect_timeout="300ms")
    do(store, way, lambda opened: opened.put(work()))
    server.freeze()
    try:
        for step in (lambda opened: opened.put(work()), lambda opened: opened.lease(1, SECOND)):
            began = time.monotonic()
            with pytest.raises(BackendUnavailable):
                do(store, way, step)
            assert time.monotonic() - began < 0.3 + SLACK
    finally:
        server.thaw()
    # What was asked while it was frozen may have been done since: a lease, too.
    stats = do(store, way, lambda opened: opened.stats())
    assert stats.waiting + stats.leased >= 1


@each_way
@pytest.mark.parametrize("mode", ["swallow", "hang up", "garbage", "drip"])
def test_a_record_whose_answer_was_lost_may_be_put_again_and_is_there_once(
    way: str, mode: str, make: Make, proxy: Proxy
) -> None:
    store = make(proxy.url, timeout="400ms")
    do(store, way, lambda opened: opened.stats())
    record = work()
    proxy.mode, proxy.drip_seconds = mode, 0.2
    with pytest.raises(BackendUnavailable):
        do(store, way, lambda opened: opened.put(record))
    proxy.mode = "pass"

    async def again(opened: OpenStore) -> int:
        await opened.put(record)
        return (await opened.stats()).waiting

    assert do(store, way, again) == 1


def test_a_server_that_forgot_the_script_is_given_it_again(make: Make, server: Server) -> None:
    opened = make(server.url).open(BLOCKING)
    drive(opened.put(work()))
    server.do("SCRIPT", "FLUSH")
    drive(opened.put(work()))
    assert drive(opened.stats()).waiting == 2


def test_a_wrong_password_is_an_error_that_says_what_to_do(make: Make, start: Callable[..., Server]) -> None:
    server = start("--requirepass", "secret")
    for url in (server.url, f"valkey://:wrong@127.0.0.1:{server.port}"):
        with pytest.raises(BackendUnavailable, match="password") as caught:
            drive(make(url).open(BLOCKING).put(work()))
        assert "secret" not in str(caught.value)
    drive(make(f"valkey://:secret@127.0.0.1:{server.port}").open(BLOCKING).put(work()))


def test_a_full_server_refuses_and_keeps_what_it_has(make: Make, start: Callable[..., Server]) -> None:
    server = start("--maxmemory", "8mb", "--maxmemory-policy", "noeviction")
    outbox = Outbox(make(server.url))
    outbox.operation("note")(note)
    kept = 0
    with pytest.raises(NotQueued, match="maxmemory"):
        for _ in range(200):
            outbox.put(note, "x" * 100_000)
            kept += 1
    assert kept > 10
    assert outbox.stats().waiting == kept


def note(text: str) -> None: ...


def test_a_replica_is_no_place_to_queue(make: Make, server: Server, start: Callable[..., Server]) -> None:
    replica = start("--replicaof", "127.0.0.1", str(server.port))
    server.wait_for(replica)
    with pytest.raises(BackendUnavailable, match="READONLY|read only"):
        drive(make(replica.url).open(BLOCKING).put(work()))


def test_other_data_under_its_keys_is_an_error_and_left_alone(make: Make, shared: Server) -> None:
    store = make()
    key = store.prefix + b"held"
    shared.do("SET", key, "mine")
    with pytest.raises(BackendUnavailable, match="WRONGTYPE|wrong kind"):
        drive(store.open(BLOCKING).put(work()))
    assert shared.do("GET", key) == b"mine"


# -- what is safe ------------------------------------------------------------------------------------------------------


@each_way
def test_a_server_with_a_log_that_is_killed_loses_nothing_that_was_acknowledged(
    way: str, make: Make, start: Callable[..., Server]
) -> None:
    server = start("--appendonly", "yes", "--appendfsync", "everysec")
    store = make(server.url, timeout="2s")
    acknowledged: list[str] = []
    killer = threading.Timer(0.15, server.kill)

    async def until_it_dies(opened: OpenStore) -> None:
        while True:
            record = work()
            await opened.put(record)
            acknowledged.append(record.id)

    killer.start()
    with pytest.raises(BackendUnavailable):
        do(store, way, until_it_dies)
    killer.join()
    server.start()
    until(lambda: server.do("PING"), "it has read its log")

    async def found(opened: OpenStore) -> list[Work | None]:
        return [await opened.find(key) for key in acknowledged]

    assert len(acknowledged) > 20
    assert None not in do(store, way, found)


def test_a_put_that_is_to_be_on_a_replica_is_an_error_without_one(make: Make, start: Callable[..., Server]) -> None:
    server = start()
    opened = make(server.url, replicas=1, timeout="2s").open(BLOCKING)
    with pytest.raises(BackendUnavailable, match="WAIT was not reached"):
        drive(opened.put(work()))
    replica = start("--replicaof", "127.0.0.1", str(server.port))
    server.wait_for(replica)
    drive(make(server.url, replicas=1).open(BLOCKING).put(work()))


def test_a_put_that_is_to_be_on_disk_waits_for_it(make: Make, start: Callable[..., Server]) -> None:
    with pytest.raises(BackendUnavailable, match="WAITAOF"):
        drive(make(start().url, aof=True, timeout="400ms").open(BLOCKING).put(work()))
    logging = start("--appendonly", "yes")
    drive(make(logging.url, aof=True).open(BLOCKING).put(work()))


@pytest.mark.filterwarnings("default")
def test_a_server_that_would_lose_records_is_warned_about_once(make: Make, start: Callable[..., Server]) -> None:
    server = start("--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru")
    store = make(server.url)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        drive(store.open(BLOCKING).put(work()))
        drive(store.open(BLOCKING).put(work()))
    assert len(told) == 2
    assert "appendonly" in str(told[0].message) and "allkeys-lru" in str(told[1].message)
    safe = start("--appendonly", "yes")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        drive(make(safe.url).open(BLOCKING).put(work()))


# -- time --------------------------------------------------------------------------------------------------------------


def test_leases_end_by_the_clock_of_the_server_however_wrong_ours_is(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = make()
    opened = store.open(BLOCKING)
    drive(opened.put(work()))
    leases, _ = drive(opened.lease(1, 3_600 * SECOND))
    real = clock.wall_ns
    monkeypatch.setattr(clock, "wall_ns", lambda: real() + 2 * HOUR)
    assert drive(opened.lease(1, SECOND))[0] == []
    assert drive(opened.ack(leases[0]))


# -- callers -----------------------------------------------------------------------------------------------------------


def test_more_callers_than_connections_wait_and_all_are_served(make: Make) -> None:
    store = make(connections=2)
    opened = store.open(BLOCKING)
    threads = [threading.Thread(target=lambda: drive(opened.put(work()))) for _ in range(30)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    async def main() -> int:
        other = store.open(asyncio_runtime())
        await asyncio.gather(*(other.put(work()) for _ in range(200)))
        return (await other.stats()).waiting

    assert asyncio.run(main()) == 230


def test_a_cancelled_step_leaves_no_connection_that_answers_somebody_else(make: Make, proxy: Proxy) -> None:
    store = make(proxy.url, connections=1)

    async def main() -> None:
        opened = store.open(asyncio_runtime())
        await opened.put(work())
        proxy.mode = "swallow"
        for _ in range(5):
            task = asyncio.create_task(opened.stats())
            await asyncio.sleep(0.02)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        proxy.mode = "pass"
        assert (await opened.stats()).waiting == 1
        waiting = [asyncio.create_task(opened.stats()) for _ in range(20)]
        await asyncio.sleep(0)
        for task in waiting[::2]:
            task.cancel()
        told = await asyncio.gather(*waiting, return_exceptions=True)
        assert all(isinstance(each, asyncio.CancelledError) or each.waiting == 1 for each in told)
        assert (await opened.stats()).waiting == 1

    asyncio.run(main())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_has_connections_of_its_own(make: Make) -> None:
    store = make()
    opened = store.open(BLOCKING)
    drive(opened.put(work()))
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            drive(store.open(BLOCKING).put(work()))
            code = 0
        finally:
            os._exit(code)
    for _ in range(50):
        drive(opened.stats())
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert drive(opened.stats()).waiting == 2


def test_two_stores_with_one_name_are_one_outbox_and_each_record_is_leased_once(make: Make) -> None:
    name = fresh_name()
    first, second = (make(name=name).open(BLOCKING) for _ in range(2))
    works = [work() for _ in range(200)]
    for number, record in enumerate(works):
        drive((first, second)[number % 2].put(record))
    leased: list[str] = []

    def take(opened: OpenStore) -> None:
        while leases := drive(opened.lease(7, 60 * SECOND))[0]:
            leased.extend(lease.work.id for lease in leases)

    threads = [threading.Thread(target=take, args=(opened,)) for opened in (first, second) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(leased) == sorted(record.id for record in works)


def test_whoever_listens_hears_of_what_another_process_put(make: Make) -> None:
    name = fresh_name()
    heard = threading.Event()
    deaf = make(name=name).listen(heard.set)
    try:
        assert heard.wait(5), "the first look"
        heard.clear()
        drive(make(name=name).open(BLOCKING).put(work()))
        assert heard.wait(5)
    finally:
        deaf()


def test_a_cluster_keeps_an_outbox_on_one_of_its_servers(make: Make) -> None:
    cluster = Cluster()
    try:
        for way in WAYS:
            store = make(cluster.url)

            async def steps(opened: OpenStore) -> int:
                for _ in range(10):
                    await opened.put(work(order_key="k"))
                leases, _ = await opened.lease(5, SECOND)
                assert [await opened.ack(lease) for lease in leases] == [True]
                return (await opened.stats()).waiting

            assert do(store, way, steps) == 9
    finally:
        cluster.close()


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("valkey://h?replicas=x", "replicas"),
        ("valkey://h?aof=yes", "aof"),
        ("valkey://h?timeout=-1s", "timeout"),
        ("valkey://h?connections=0", "connections"),
        ("valkey://h?nonsense=1", "nonsense"),
    ],
)
def test_settings_that_do_not_fit_are_refused(url: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Outbox(url)


def test_a_url_may_hold_the_settings_and_is_shown_without_its_password() -> None:
    outbox = Outbox("valkey://ann:secret@h:1/2?replicas=1&aof=1&timeout=3s", name="orders", backlog=7)
    shown = outbox.store.snapshot()
    assert (shown["place"], shown["backlog"], shown["name"]) == ("valkey://h:1", 7, "orders")
    assert [words.split()[0] for words in shown["waits_for"]] == ["WAITAOF", "WAIT"]
    assert "secret" not in repr(outbox.store) + str(shown)
