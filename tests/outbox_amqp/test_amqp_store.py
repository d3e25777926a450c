"""The store on a broker that is well: order, delays, leases of several, and what is in queues that is no record."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest

from seawall.errors import BackendUnavailable, ConfigError, NotQueued
from seawall.outbox import Outbox
from seawall.outbox.amqp import AmqpStore
from seawall.outbox.store import Lease, OpenStore
from seawall.runtime import clock
from seawall.runtime.aio import ASYNCIO
from seawall.runtime.blocking import BLOCKING, drive
from tests.outbox.benches import HOUR, SECOND, make_work
from tests.outbox_amqp.brokers import until
from tests.outbox_amqp.conftest import Make


def take(store: OpenStore, seconds: float = 3, ttl: float = 60) -> Lease:
    """The one that goes next, soon."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        leases, _ = drive(store.lease(1, round(ttl * SECOND)))
        if leases:
            return leases[0]
        time.sleep(0.005)
    raise AssertionError("nothing is due")


def publish(store: AmqpStore, queue: str, body: bytes, **properties: Any) -> None:
    """A message that somebody else put there."""
    from aiormq import spec

    async def go() -> None:
        link = await store.broker._link(store.broker._publishes)
        await link.channels[0].basic_publish(body, routing_key=queue, properties=spec.Basic.Properties(**properties))

    on_the_side(store, go)


def on_the_side(store: AmqpStore, go: Callable[[], Any]) -> Any:
    """Something done in the store's own loop."""
    return asyncio.run_coroutine_threadsafe(go(), store.home._running()).result(10)


def test_every_field_comes_back_and_one_attempt_is_counted(make: Make) -> None:
    store = make().open(BLOCKING)
    work = make_work(
        payload=bytes(range(256)),
        idempotency_key="order-17",
        priority=9,
        criticality=3,
        attempts=4,
        last_error="ConnectionError: refused ☂",
    )
    drive(store.put(work))
    assert take(store).work == work.replace(attempts=5)


def test_a_higher_band_goes_first_and_within_one_those_put_earlier(make: Make) -> None:
    store = make().open(BLOCKING)
    works = {priority: make_work(priority=priority) for priority in (0, 6, 4, 9, 7, 5)}
    for work in works.values():
        drive(store.put(work))
    taken = []
    for _ in works:
        lease = take(store)
        taken.append(lease.work.priority)
        assert drive(store.ack(lease))
    assert taken == [9, 7, 6, 4, 5, 0]


def test_no_long_delay_blocks_a_short_one_and_none_is_early_or_much_too_late(make: Make) -> None:
    store = make().open(BLOCKING)
    now = clock.wall_ns()
    delays = (HOUR, 3 * SECOND, SECOND * 7 // 10, SECOND // 10, 40 * SECOND, SECOND)
    works = {delay: make_work(due_ns=now + delay) for delay in delays}
    for work in works.values():
        drive(store.put(work))
    for delay in (SECOND // 10, SECOND * 7 // 10, SECOND):
        lease = take(store)
        late_ns = clock.wall_ns() - lease.work.due_ns
        assert lease.work.id == works[delay].id and 0 <= late_ns < SECOND // 2
        assert lease.work.attempts == 1, "no step on the way counts"
    assert drive(store.stats()).waiting == 3


def test_the_civil_clock_may_jump_ahead_and_nothing_is_lost_or_late(make: Make) -> None:
    store = make().open(BLOCKING)
    drive(store.put(make_work(due_ns=clock.wall_ns() + SECOND)))
    drive(store.put(make_work()))
    lease = take(store, ttl=10)
    ahead = [0]
    real = clock.wall_ns
    restore = clock.install(clock.now_ns, lambda ns: time.sleep(ns / 1e9), lambda: real() + ahead[0])
    try:
        ahead[0] = HOUR
        begun = time.monotonic()
        take(store)
        assert time.monotonic() - begun < 2
        assert drive(store.renew(lease, SECOND)), "a lease is of the clock that does not jump"
        assert drive(store.ack(lease))
        ahead[0] = 0
        work = make_work(due_ns=clock.wall_ns() + SECOND)
        drive(store.put(work))
        assert take(store).work.id == work.id
    finally:
        restore()


def test_an_id_that_is_put_twice_is_there_twice_with_one_key(make: Make) -> None:
    store = make().open(BLOCKING)
    work = make_work(idempotency_key="order-17")
    drive(store.put(work))
    drive(store.put(work))
    assert [take(store).work.idempotency_key for _ in range(2)] == ["order-17"] * 2


def test_listeners_of_this_process_hear_and_of_others_the_hint_says_when_to_ask(make: Make) -> None:
    here = make(poll="200ms")
    store = here.open(BLOCKING)
    heard: list[str] = []
    deaf = here.listen(lambda: heard.append("news"))
    assert drive(store.lease(1, SECOND)) == ([], SECOND // 5)
    drive(store.put(make_work()))
    assert drive(store.retry(take(store), clock.wall_ns(), ""))
    assert drive(store.release(take(store), clock.wall_ns()))
    assert drive(store.bury(take(store), "final", ""))
    assert drive(store.replay()) == 1
    assert len(heard) == 5
    deaf()
    drive(store.put(make_work()))
    assert len(heard) == 5


# -- several at once ---------------------------------------------------------------------------------------------------


def test_two_that_consume_never_have_the_same_record(make: Make) -> None:
    stores = [make(), make()]

    async def main() -> list[str]:
        opened = [store.open(ASYNCIO) for store in stores]
        await asyncio.gather(*(opened[0].put(make_work()) for _ in range(60)))

        async def consume(store: OpenStore) -> list[str]:
            seen: list[str] = []
            while leases := (await store.lease(4, 60 * SECOND))[0]:
                seen += [lease.work.id for lease in leases]
                assert all(await asyncio.gather(*(store.ack(lease) for lease in leases)))
            return seen

        first, second = await asyncio.gather(*map(consume, opened))
        assert first and second
        return first + second

    seen = asyncio.run(main())
    assert len(seen) == len(set(seen)) == 60


def test_a_lease_of_one_connection_means_nothing_to_another(make: Make) -> None:
    one, other = make().open(BLOCKING), make().open(BLOCKING)
    drive(one.put(make_work()))
    lease = take(one)
    assert not drive(other.ack(lease)) and not drive(other.renew(lease, SECOND))
    assert drive(one.ack(lease))


def test_when_the_connection_ends_its_leases_are_void_and_their_attempts_counted(make: Make) -> None:
    here = make()
    store, other = here.open(BLOCKING), make().open(BLOCKING)
    drive(store.put(make_work(attempts=2)))
    lease = take(store)
    on_the_side(here, lambda: _cut(here))
    again = take(other)
    assert (again.work.id, again.work.attempts) == (lease.work.id, 4)
    assert not drive(store.ack(lease)) and not drive(store.renew(lease, SECOND))
    assert not drive(store.retry(lease, clock.wall_ns(), "late"))
    assert drive(other.ack(again))
    assert drive(store.stats()).waiting == 0


def test_what_ends_its_workers_again_and_again_becomes_a_dead_letter(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("seawall.outbox.amqp.topology.MOST_DEATHS", 2)
    here = make(name="deadly")
    store = here.open(BLOCKING)
    work, other = make_work(last_error="first"), make_work()
    drive(store.put(work))
    for attempt in (1, 2, 3):
        assert take(store).work.attempts == attempt
        on_the_side(here, lambda: _cut(here))
    drive(store.put(other))
    assert take(store).work.id == other.id
    (letter,) = until(lambda: drive(store.page("dead")), "it is a dead letter")
    assert (letter.id, letter.ended) == (work.id, "attempts")
    assert letter.last_error.endswith("before: first")
    assert drive(store.replay()) == 1
    assert take(store).work.attempts == 1


async def _cut(store: AmqpStore) -> None:
    link = store.broker.reading()
    assert link is not None
    link.drop()


def test_a_lease_that_ran_out_goes_to_another_process_in_the_end(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("seawall.outbox.amqp.desk.LINGER_NS", 0)
    store, other = make().open(BLOCKING), make().open(BLOCKING)
    drive(store.put(make_work()))
    lease = take(store, ttl=0.2)
    again = take(other, seconds=5)
    assert again.work.attempts == 2
    assert not drive(store.ack(lease))


def test_a_lease_whose_caller_is_cancelled_leaves_the_record_uncounted(make: Make) -> None:
    here = make()

    async def main() -> None:
        store = here.open(ASYNCIO)
        for _ in range(30):
            await store.put(make_work())
        for number in range(20):
            asking = asyncio.create_task(store.lease(2, 60 * SECOND))
            await asyncio.sleep(number / 5_000)
            asking.cancel()
            await asyncio.wait([asking])
            if not asking.cancelled():
                assert all([await store.release(lease, clock.wall_ns()) for lease in asking.result()[0]])
        seen: set[str] = set()
        while leases := (await store.lease(8, 60 * SECOND))[0]:
            for lease in leases:
                assert lease.work.attempts == 1
                seen.add(lease.work.id)
        assert len(seen) == 30
        assert await store.stats() == (await store.stats()).replace(waiting=0, leased=30)

    asyncio.run(main())


def test_many_puts_in_flight_all_arrive(make: Make) -> None:
    async def main() -> int:
        store = make().open(ASYNCIO)
        await asyncio.gather(*(store.put(make_work()) for _ in range(300)))
        return (await store.stats()).waiting

    assert asyncio.run(main()) == 300


def test_a_backlog_is_kept_by_what_several_put_together_within_what_they_put_between_counts(make: Make) -> None:
    stores = [make(backlog=20).open(BLOCKING) for _ in range(2)]
    put = refused = 0
    for number in range(80):
        try:
            drive(stores[number % 2].put(make_work()))
            put += 1
        except NotQueued:
            refused += 1
    assert 20 <= put <= 60 and put + refused == 80
    assert drive(stores[0].stats()).waiting == put
    with pytest.raises(NotQueued, match="full"):
        drive(stores[0].put(make_work()))


# -- what is no record -------------------------------------------------------------------------------------------------


def test_a_message_that_is_no_record_becomes_a_dead_letter_and_stops_nobody(make: Make) -> None:
    here = make()
    store = here.open(BLOCKING)
    drive(store.put(make_work()))
    assert drive(store.ack(take(store)))
    ready = here.topology.ready("normal")
    publish(here, ready, b"hello")
    publish(here, ready, b"", message_id="x" * 200, headers={"seawall-version": 1, "seawall-due-ns": -1})
    publish(here, ready, b"", message_id="abc", message_type="do", headers={"seawall-version": 2})
    work = make_work()
    drive(store.put(work))
    assert take(store).work.id == work.id
    dead = drive(store.page("dead"))
    assert [letter.operation for letter in dead] == ["foreign"] * 3
    assert {letter.payload for letter in dead} == {b"hello", b""}
    assert all(letter.last_error.startswith("no record") and letter.ended == "final" for letter in dead)


def test_a_queue_of_another_kind_under_our_name_is_refused(make: Make) -> None:
    one, other = make(), make(name="taken")
    drive(one.open(BLOCKING).stats())

    async def take_name() -> None:
        link = await one.broker.reader()
        channel = await link.spare_channel()
        await channel.queue_declare(other.topology.ready("low"), durable=True)
        await channel.close()

    on_the_side(one, take_name)
    with pytest.raises(ConfigError, match="has another"):
        drive(other.open(BLOCKING).put(make_work()))


def test_another_backlog_in_a_later_release_is_no_obstacle(make: Make) -> None:
    drive(make(backlog=1_000).open(BLOCKING).put(make_work()))
    store = make(backlog=2).open(BLOCKING)
    drive(store.put(make_work()))
    with pytest.raises(NotQueued, match="full"):
        drive(store.put(make_work()))


def test_a_queue_that_was_deleted_is_an_error_once_and_then_there_again(make: Make) -> None:
    here = make()
    store = here.open(BLOCKING)
    drive(store.put(make_work()))

    async def delete() -> None:
        link = await here.broker.reader()
        channel = await link.spare_channel()
        await channel.queue_delete(here.topology.ready("normal"))
        await channel.close()

    on_the_side(here, delete)
    with pytest.raises(BackendUnavailable, match="was it deleted"):
        drive(store.put(make_work()))
    drive(store.put(make_work()))
    assert drive(store.stats()).waiting == 1


# -- with a worker -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_a_poison_message_holds_up_nothing_and_ends_as_a_dead_letter(make: Make, is_async: bool) -> None:
    outbox = Outbox(make())
    done: list[str] = []
    tries: list[str] = []

    @outbox.operation("do", attempts=2, base="50ms", cap="50ms")
    def do(name: str) -> None:
        tries.append(name)
        if name == "poison":
            raise ValueError("no")
        done.append(name)

    names = ["poison", *(f"good {number}" for number in range(8))]
    for name in names:
        outbox.put(do, name)

    def over() -> bool:
        stats = outbox.stats()
        return (stats.waiting, stats.leased, stats.dead) == (0, 0, 1)

    async def work() -> None:
        async with outbox.worker():
            end = time.monotonic() + 15
            while not await asyncio.to_thread(over) and time.monotonic() < end:
                await asyncio.sleep(0.05)

    if is_async:
        asyncio.run(work())
    else:
        with outbox.worker():
            end = time.monotonic() + 15
            while not over() and time.monotonic() < end:
                time.sleep(0.05)
    assert sorted(done) == names[1:]
    assert tries.count("poison") == 2
    (letter,) = outbox.records("dead")
    assert (letter.attempts, letter.ended, letter.last_error) == (2, "attempts", "ValueError: no")


def test_a_store_can_be_closed_and_used_again_and_leaves_no_thread(make: Make) -> None:
    import threading

    here = make()
    store = here.open(BLOCKING)
    for _ in range(2):
        drive(store.put(make_work()))
        drive(store.close())
        assert not [thread for thread in threading.enumerate() if here.name in thread.name]
    assert drive(store.stats()).waiting == 2
