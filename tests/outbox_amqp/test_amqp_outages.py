"""A broker that is killed, frozen, short of memory or hangs up: no confirmed record is lost, and every step ends."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from seawall.errors import BackendUnavailable, NotQueued, SeawallError
from seawall.outbox import Outbox
from seawall.outbox.amqp import AmqpStore
from seawall.outbox.amqp.desk import Held
from seawall.outbox.store import OpenStore
from seawall.runtime import clock
from seawall.runtime.aio import ASYNCIO
from seawall.runtime.blocking import BLOCKING, drive
from tests.outbox.benches import SECOND, make_work
from tests.outbox_amqp.brokers import Broker, until
from tests.outbox_amqp.conftest import Make
from tests.valkey.proxy import Proxy

pytestmark = pytest.mark.once
SLACK = 0.25
"""What a busy machine may add to a time that was kept."""


@pytest.fixture
def proxy(broker: Broker) -> Iterator[Proxy]:
    between = Proxy(broker.port)
    yield between
    between.close()


def everything(store: OpenStore, seconds: float = 10) -> dict[str, int]:
    """All that can be leased, each done at once: the attempts of each id. Ends when the queues are empty."""
    found: dict[str, int] = {}
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        leases, _ = drive(store.lease(8, 60 * SECOND))
        for lease in leases:
            found[lease.work.id] = lease.work.attempts
            assert drive(store.ack(lease))
        if not leases and not drive(store.stats()).waiting:
            return found
        if not leases:
            time.sleep(0.02)
    raise AssertionError("the queues do not become empty")


def again(step: Callable[[], Any], seconds: float = 10) -> Any:
    """What a step gives once the broker is back; until then, only the store's own error."""
    end = time.monotonic() + seconds
    while True:
        try:
            return step()
        except BackendUnavailable:
            assert time.monotonic() < end, "it does not come back"
            time.sleep(0.05)


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_a_broker_that_is_frozen_holds_nobody_up_and_is_found_again(broker: Broker, make: Make, is_async: bool) -> None:
    here = make(broker.url, timeout="400ms", scan_timeout="400ms")
    blocking = here.open(BLOCKING)
    again(lambda: drive(blocking.put(make_work())))
    ((lease,), _) = drive(blocking.lease(1, 60 * SECOND))
    store = here.open(ASYNCIO if is_async else BLOCKING)

    async def steps() -> None:
        for step in (
            lambda: store.put(make_work()),
            lambda: store.ack(lease),
            lambda: store.lease(3, SECOND),
            lambda: store.page("dead"),
            store.stats,
            lambda: store.put(make_work()),
        ):
            begun = time.monotonic()
            with pytest.raises(BackendUnavailable, match="127.0.0.1"):
                await step()
            assert time.monotonic() - begun < 0.4 + SLACK

    broker.freeze()
    try:
        asyncio.run(steps()) if is_async else drive(steps())
    finally:
        broker.thaw()
    again(lambda: drive(blocking.put(make_work())))
    assert again(lambda: everything(blocking))


def test_a_broker_that_hangs_up_before_it_confirms_is_an_error_and_the_record_may_be_there(
    broker: Broker, proxy: Proxy, make: Make
) -> None:
    store = make(Broker.url_by(proxy.port), timeout="3s").open(BLOCKING)
    drive(store.put(make_work()))
    assert len(everything(store)) == 1
    for _ in range(2):
        proxy.mode = "hang up"
        begun = time.monotonic()
        with pytest.raises(BackendUnavailable, match="may have happened|cannot be reached|tried a moment ago"):
            drive(store.put(make_work()))
        assert time.monotonic() - begun < 2, "an end of the connection is no reason to wait"
        proxy.mode = "pass"
        again(lambda: drive(store.put(make_work())))
    assert 2 <= len(again(lambda: everything(store))) <= 4


def test_a_confirm_that_never_comes_is_waited_for_no_longer_than_the_step_may_take(
    broker: Broker, proxy: Proxy, make: Make
) -> None:
    outbox = Outbox(make(Broker.url_by(proxy.port), timeout="300ms"))

    @outbox.operation("do")
    def do() -> None: ...

    outbox.put(do)
    proxy.mode = "swallow"
    begun = time.monotonic()
    with pytest.raises(NotQueued, match="may have happened"):
        outbox.put(do)
    assert time.monotonic() - begun < 0.3 + SLACK
    proxy.mode = "pass"
    again(lambda: drive(outbox.store.open(BLOCKING).put(make_work())))


def test_between_the_copy_and_the_farewell_a_record_may_be_there_twice_but_never_not_at_all(
    broker: Broker, proxy: Proxy, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process dies when the broker has the copy of a retry, and has not heard that the first is done with."""
    store = make(Broker.url_by(proxy.port), timeout="1s").open(BLOCKING)
    drive(store.put(make_work(idempotency_key="order-17")))
    ((lease,), _) = drive(store.lease(1, 60 * SECOND))

    async def dies(_held: Held) -> None:
        raise ConnectionResetError("the process dies here")

    with monkeypatch.context() as patch:
        patch.setattr(Held, "answer", dies)
        with pytest.raises(BackendUnavailable):
            drive(store.retry(lease, clock.wall_ns(), "no"))
    proxy.cut()
    seen: list[tuple[str, str]] = []

    def look() -> bool:
        leases, _ = drive(store.lease(8, 60 * SECOND))
        seen.extend((lease.work.id, lease.work.idempotency_key) for lease in leases)
        return len(seen) == 2

    until(lambda: again(look), "both are there")
    assert seen == [(lease.work.id, "order-17")] * 2


def test_a_broker_that_is_short_of_memory_refuses_new_work_in_time_and_hears_what_is_done(
    broker: Broker, make: Make
) -> None:
    store = make(broker.url, timeout="500ms").open(BLOCKING)
    drive(store.put(make_work()))
    ((lease,), _) = drive(store.lease(1, 60 * SECOND))
    broker.tell("set_vm_memory_high_watermark", "0.00001")
    try:
        begun = time.monotonic()
        with pytest.raises(BackendUnavailable):
            drive(store.put(make_work()))
        assert time.monotonic() - begun < 0.5 + SLACK
        assert drive(store.renew(lease, 60 * SECOND))
        assert drive(store.ack(lease))
    finally:
        broker.tell("set_vm_memory_high_watermark", "absolute", "1GB")
    again(lambda: drive(store.put(make_work())))


def test_a_forked_child_has_a_connection_of_its_own_and_leaves_the_parents_alone(broker: Broker, make: Make) -> None:
    here = make(broker.url)
    store = here.open(BLOCKING)
    drive(store.put(make_work()))
    ((lease,), _) = drive(store.lease(1, 60 * SECOND))
    child = os.fork()
    if child == 0:
        code = 1
        try:
            mine = here.open(BLOCKING)
            drive(mine.put(make_work()))
            code = 0 if not drive(mine.ack(lease)) and not here.desk.leases else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert drive(store.ack(lease)), "the parent's leases are what they were"
    assert len(everything(store)) == 1


def test_when_a_process_is_killed_its_leases_go_to_others_though_its_children_live(broker: Broker, make: Make) -> None:
    """A child that kept the socket of its parent would keep the lease, too."""
    store = make(broker.url).open(BLOCKING)
    drive(store.put(make_work()))
    told, tell = os.pipe()
    parent = os.fork()
    if parent == 0:
        try:
            mine = AmqpStore(broker.url, name="tests").open(BLOCKING)
            drive(mine.lease(1, 60 * SECOND))
            if os.fork() == 0:
                os.write(tell, b"%10d" % os.getpid())
                time.sleep(20)
            else:
                time.sleep(0.2)
        finally:
            os.kill(os.getpid(), 9)
    os.waitpid(parent, 0)
    grandchild = int(os.read(told, 10))
    try:
        assert list(everything(store, seconds=5).values()) == [2]
    finally:
        os.kill(grandchild, 9)
        os.close(told)
        os.close(tell)


def test_a_broker_that_is_killed_loses_nothing_that_it_confirmed(broker: Broker, make: Make) -> None:
    """Waiting, delayed, leased, dead: while many are being put."""
    # The last of the tests here: a broker that dies within seconds of making a queue may not find that queue again.
    store = make(broker.url, timeout="3s").open(BLOCKING)
    now = clock.wall_ns()
    confirmed: dict[str, str] = {}
    dead, leased = make_work(), make_work()
    for work in (dead, leased):
        drive(store.put(work))
    ((lease,), _) = drive(store.lease(1, 60 * SECOND))
    assert drive(store.bury(lease, "final", "no"))
    ((lease,), _) = drive(store.lease(1, 60 * SECOND))
    stop = threading.Event()

    def produce(number: int) -> None:
        while not stop.is_set():
            work = make_work(due_ns=now + number * SECOND, priority=number * 3)
            try:
                drive(store.put(work))
            except SeawallError:
                continue
            confirmed[work.id] = "put"

    threads = [threading.Thread(target=produce, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    until(lambda: len(confirmed) > 200, "records were put")
    broker.kill()
    stop.set()
    for thread in threads:
        thread.join()
    broker.start()
    assert again(lambda: [work.id for work in drive(store.page("dead"))]) == [dead.id]
    assert not drive(store.ack(lease)), "its connection is gone, and another may have it"
    found = everything(store)
    assert set(found) >= {*confirmed, leased.id}
    assert found[leased.id] == 2, "the attempt that was under way counts"
