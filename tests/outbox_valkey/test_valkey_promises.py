"""What is said to be safe is safe; a full server is worked off; a long backlog costs no more; clocks that differ."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from seawall.errors import BackendUnavailable
from seawall.outbox.store import OpenStore
from seawall.outbox.valkey.store import RIGHTS
from seawall.runtime import clock
from seawall.runtime.blocking import BLOCKING, drive
from tests.outbox.benches import HOUR, SECOND
from tests.outbox.benches import make_work as work
from tests.outbox_valkey.conftest import Make
from tests.valkey.servers import Server

pytestmark = [pytest.mark.once, pytest.mark.filterwarnings("ignore:.*keeps no log:RuntimeWarning")]


def test_a_record_is_not_called_safe_while_the_replica_has_not_got_it(make: Make, start: Callable[..., Server]) -> None:
    server = start()
    replica = start("--replicaof", "127.0.0.1", str(server.port))
    server.wait_for(replica)
    settings = {"replicas": 1, "timeout": "600ms", "name": "safe"}
    record = work()
    replica.freeze()
    try:
        for again in range(3):  # each time on a connection that has written nothing yet
            with pytest.raises(BackendUnavailable, match="WAIT was not reached"):
                drive(make(server.url, **settings).open(BLOCKING).put(record))
            assert drive(make(server.url, name="safe").open(BLOCKING).stats()).waiting == 1, again
    finally:
        replica.thaw()
    patient = make(server.url, replicas=1, name="safe").open(BLOCKING)
    drive(patient.put(record))
    assert drive(patient.stats()).waiting == 1


def test_a_full_server_is_worked_off(make: Make, start: Callable[..., Server]) -> None:
    server = start("--maxmemory-policy", "noeviction")
    opened = make(server.url).open(BLOCKING)
    for number in range(20):
        drive(opened.put(work(order_key="k" if number % 2 else None)))
    server.do("CONFIG", "SET", "maxmemory", "1")
    with pytest.raises(BackendUnavailable, match="maxmemory|OOM"):
        drive(opened.put(work()))
    (first, second), _ = drive(opened.lease(2, HOUR))
    assert drive(opened.renew(first, HOUR))
    assert drive(opened.retry(first, 0, "failed"))
    assert drive(opened.bury(second, "attempts", "failed"))
    assert drive(opened.replay()) == 1
    done = 0
    while leases := drive(opened.lease(5, HOUR))[0]:
        for lease in leases:
            assert drive(opened.ack(lease))
            done += 1
    assert done == 20


def test_ten_thousand_records_make_no_step_slower_than_a_hundred(make: Make) -> None:
    def seconds(opened: OpenStore) -> float:
        took: list[float] = []
        for number in range(60):
            began = time.perf_counter()
            drive(opened.put(work(order_key=f"k{number % 3}", priority=number % 10)))
            leases, _ = drive(opened.lease(1, HOUR))
            drive(opened.ack(leases[0]) if number % 2 else opened.retry(leases[0], clock.wall_ns(), "failed"))
            drive(opened.stats())
            took.append(time.perf_counter() - began)
        return sorted(took)[10]

    store = make()
    opened = store.open(BLOCKING)

    def fill(until: int) -> None:
        from asyncio import gather, run

        from seawall.runtime.which import asyncio_runtime

        async def main() -> None:
            other = store.open(asyncio_runtime())
            have = (await other.stats()).waiting
            for first in range(have, until, 500):
                count = min(500, until - first)
                await gather(*(other.put(work(order_key=f"k{n % 700}", priority=n % 10)) for n in range(count)))

        run(main())

    fill(100)
    few = seconds(opened)
    fill(10_000)
    assert seconds(opened) < 2 * few + 0.001


def test_what_is_due_now_is_due_now_however_far_ahead_the_clock_of_the_host_is(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = make().open(BLOCKING)
    real = clock.wall_ns
    monkeypatch.setattr(clock, "wall_ns", lambda: real() + HOUR)
    drive(opened.put(work()))
    (lease,), _ = drive(opened.lease(1, SECOND))
    assert drive(opened.retry(lease, clock.wall_ns(), "failed"))
    assert len(drive(opened.lease(1, SECOND))[0]) == 1
    drive(opened.put(work(due_ns=clock.wall_ns() + SECOND)))
    assert drive(opened.lease(1, SECOND))[0] == []


def test_a_user_with_the_rights_that_are_named_may_take_every_step(make: Make, start: Callable[..., Server]) -> None:
    server = start("--appendonly", "yes")
    server.do("ACL", "SETUSER", "clerk", "on", ">secret", "~seawall:outbox:*", *RIGHTS.split())
    url = f"valkey://clerk:secret@127.0.0.1:{server.port}"
    store = make(url, backlog=4, when_full="drop-oldest", aof=True)
    opened = store.open(BLOCKING)
    for _ in range(6):
        drive(opened.put(work(order_key="k")))
    drive(opened.put(work()))
    first, second = drive(opened.lease(2, HOUR))[0]
    assert drive(opened.renew(first, HOUR))
    assert drive(opened.retry(first, 0, "failed"))
    assert drive(opened.bury(second, "attempts", "failed"))
    assert drive(opened.find(second.work.id)) is not None
    assert drive(opened.replay()) == 1
    (third,), _ = drive(opened.lease(1, HOUR))
    assert drive(opened.release(third, 0))
    (third,), _ = drive(opened.lease(1, HOUR))
    assert drive(opened.ack(third))
    for state in ("waiting", "leased", "dead", "dropped"):
        drive(opened.page(state, limit=2))
    assert drive(opened.purge("dropped")) == drive(opened.stats()).dropped == 3
    assert drive(opened.purge("waiting")) == 3
    assert store.looked
