"""Work is put with its key, due time, priority and order; everything wrong is found before anything is stored."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from seawall import ConfigError, Criticality, NotQueued, criticality, events
from seawall.outbox import MemoryOutbox, Queued, Store
from seawall.runtime import clock
from seawall.testing import VirtualClock, cancel_everywhere, run
from seawall.testing.cancel import Victim
from tests.outbox.benches import HOUR, SECOND
from tests.policies.worlds import World, heard, in_both_worlds

MINUTE = 60 * SECOND


def registered(outbox: MemoryOutbox, **settings: Any) -> Any:
    @outbox.operation("mail.send", **settings)
    def send(address: str, *, text: str = "") -> None: ...

    return send


async def put(world: World, outbox: Any, function: Any, *args: Any, **kwargs: Any) -> Queued:
    queued = await outbox.aput(function, *args, **kwargs) if world.is_async else outbox.put(function, *args, **kwargs)
    assert isinstance(queued, Queued)
    return queued


@in_both_worlds
async def test_what_is_put_is_due_at_once_with_the_defaults(world: World) -> None:
    outbox = MemoryOutbox(name="mails")
    with heard(events.WorkQueued) as seen:
        queued = await put(world, outbox, registered(outbox), "ann@example.org", text="hello")
    now = clock.wall_ns()
    (work,) = outbox.records("waiting")
    assert work.id == work.idempotency_key == queued.id
    assert work.payload == b'{"address":"ann@example.org","text":"hello"}'
    assert (work.due_ns, work.created_ns, work.expires_ns) == (now, now, now + 24 * HOUR)
    assert (work.priority, work.order_key, work.criticality, work.attempts) == (5, None, 2, 0)
    assert queued == Queued(id=work.id, operation="mail.send", due=now / 1e9, durable=False)
    assert seen == [
        events.WorkQueued(policy="mails", layer="mail.send", id=work.id, due=queued.due, durable=False, error=None)
    ]


@in_both_worlds
async def test_the_settings_of_the_operation_hold_and_those_of_using_go_before_them(world: World) -> None:
    outbox = MemoryOutbox()
    send = registered(
        outbox,
        key=lambda address, text="": f"key:{address}",
        order=lambda address, text="": address.partition("@")[2],
        priority=2,
        max_age="1h",
    )
    now = clock.wall_ns()
    await put(world, outbox, send, "ann@example.org")
    special = outbox.using(delay="5min", key="my-key", order="my order", priority=9, max_age="10min")
    await put(world, special, send, "ann@example.org")
    plain, other = outbox.records("waiting")
    assert (plain.idempotency_key, plain.order_key, plain.priority) == ("key:ann@example.org", "example.org", 2)
    assert (plain.due_ns, plain.expires_ns) == (now, now + HOUR)
    assert (other.idempotency_key, other.order_key, other.priority) == ("my-key", "my order", 9)
    assert (other.due_ns, other.expires_ns) == (now + 5 * MINUTE, now + 10 * MINUTE)
    assert plain.id != plain.idempotency_key


@in_both_worlds
async def test_the_criticality_of_the_caller_is_kept(world: World) -> None:
    outbox = MemoryOutbox()
    send = registered(outbox)
    with criticality(Criticality.SHEDDABLE):
        await put(world, outbox, send, "ann@example.org")
    assert outbox.records("waiting")[0].criticality == Criticality.SHEDDABLE


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"delay": -1}, r"using\(delay=-1\)"),
        ({"delay": float("inf")}, r"using\(delay=inf\)"),
        ({"key": ""}, r"using\(key=''\): expected 1 to 255 visible ASCII"),
        ({"key": "a\nb"}, "using"),
        ({"key": "x" * 256}, "using"),
        ({"order": ""}, r"using\(order=''\): expected 1 to 255 printable"),
        ({"order": "a\0"}, "using"),
        ({"order": 7}, r"using\(order=7\)"),
        ({"priority": 10}, r"using\(priority=10\)"),
        ({"max_age": 0}, r"using\(max_age=0\)"),
    ],
)
def test_wrong_settings_are_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        MemoryOutbox().using(**settings)


def test_what_would_expire_before_it_is_due_is_refused() -> None:
    outbox = MemoryOutbox()
    send = registered(outbox, max_age="1h")
    with pytest.raises(ConfigError, match=r"mail\.send would expire before it is due"):
        outbox.using(delay="1h").put(send, "ann@example.org")
    outbox.using(delay="1h", max_age="2h").put(send, "ann@example.org")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"key": lambda address, text="": 7}, r"what operation\('mail\.send'\) key gave=7"),
        ({"key": lambda address, text="": "a b"}, "key gave='a b'"),
        ({"order": lambda address, text="": 7}, "order gave=7"),
    ],
)
def test_what_key_and_order_give_is_checked(settings: dict[str, Any], message: str) -> None:
    outbox = MemoryOutbox()
    with pytest.raises(ConfigError, match=message):
        outbox.put(registered(outbox, **settings), "ann@example.org")
    assert outbox.stats().waiting == 0


def test_arguments_are_checked_before_anything_is_stored() -> None:
    outbox = MemoryOutbox()
    send = registered(outbox)
    with pytest.raises(TypeError, match=r"mail\.send: missing a required argument: 'address'"):
        outbox.put(send)
    with pytest.raises(TypeError, match=r"mail\.send\(address\): bytes is not JSON"):
        outbox.put(send, b"ann@example.org")
    assert outbox.stats().waiting == 0
    assert outbox.snapshot()["not_queued"] == 0


@in_both_worlds
async def test_a_full_backlog_raises_not_queued_from_the_stores_error(world: World) -> None:
    outbox = MemoryOutbox(backlog=1, name="mails")
    send = registered(outbox)
    await put(world, outbox, send, "ann@example.org")
    with pytest.raises(
        NotQueued, match=r"mails: mail\.send is not queued: the backlog is full \(1 of 1 records"
    ) as caught:
        await put(world, outbox, send, "bob@example.org")
    assert isinstance(caught.value.__cause__, NotQueued)
    assert (outbox.snapshot()["queued"], outbox.snapshot()["not_queued"]) == (1, 1)


class Broken:
    """A store of somebody else's whose disk is full."""

    durable = True

    def open(self, runtime: Any) -> Any:
        return self

    async def put(self, work: Any) -> Any:
        raise OSError(28, "No space left on device")


@in_both_worlds
async def test_an_error_of_the_store_is_the_cause_of_not_queued(world: World) -> None:
    outbox: Any = MemoryOutbox()
    outbox.store = Broken()
    with pytest.raises(NotQueued, match=r"mail\.send is not queued: OSError: .*No space left") as caught:
        await put(world, outbox, registered(outbox), "ann@example.org")
    assert isinstance(caught.value.__cause__, OSError)


def test_dropped_work_is_counted_listed_and_told() -> None:
    with VirtualClock():
        outbox = MemoryOutbox(backlog=2, when_full="drop-oldest", name="mails")
        send = registered(outbox)
        with heard(events.WorkDropped) as seen:
            ids = [outbox.put(send, f"{number}@example.org").id for number in range(4)]
        assert [event.id for event in seen] == ids[:2]
        assert seen[0] == events.WorkDropped(policy="mails", layer="mail.send", id=ids[0], why="backlog")
        assert [work.id for work in outbox.records("dropped")] == ids[:2]
        assert outbox.stats().dropped == outbox.dropped == 2


@in_both_worlds
async def test_an_operator_lists_replays_and_purges(world: World) -> None:
    outbox = MemoryOutbox()

    @outbox.operation("mail.send", final=ValueError)
    def send(address: str) -> None:
        raise ValueError("no such address")

    ids = [(await put(world, outbox, send, "ann@example.org")).id for _ in range(4)]
    worker: Any = outbox.worker()
    if world.is_async:
        outbox.operation("mail.send", final=ValueError)(world.way_of(send))
        assert await worker.adrain() == 0
        assert [work.id for work in await outbox.arecords("dead", limit=2)] == ids[:2]
        assert [work.id for work in await outbox.arecords("dead", after=ids[1])] == ids[2:]
        assert await outbox.areplay(ids[0]) == 1
        assert (await outbox.astats()).dead == 3
        assert await outbox.apurge("dead", ids[1:3]) == 2
        assert await outbox.apurge("dead", []) == 0
        assert await outbox.apurge("dead", "all") == 1
        await outbox.aclose()
    else:
        assert worker.drain() == 0
        assert [work.id for work in outbox.records("dead", limit=2)] == ids[:2]
        assert [work.id for work in outbox.records("dead", after=ids[1])] == ids[2:]
        assert outbox.replay(ids[0]) == 1
        assert outbox.stats().dead == 3
        assert outbox.purge("dead", ids[1:3]) == 2
        assert outbox.purge("dead", []) == 0
        assert outbox.purge("dead", "all") == 1
        outbox.close()
    assert [work.id for work in outbox.records("waiting")] == ids[:1]


@pytest.mark.parametrize("ids", [None, 5, [None], {b"x"}])
def test_only_the_word_all_means_all(ids: Any) -> None:
    """A variable that was never set must not forget everything."""
    box = MemoryOutbox()

    @box.operation("do")
    def do() -> None: ...

    box.put(do)
    with pytest.raises(ConfigError, match="expected ids, or 'all'"):
        box.purge("waiting", ids)
    with pytest.raises(ConfigError, match="expected ids, or 'all'"):
        box.replay(ids)
    assert box.stats().waiting == 1 and box.purge("waiting", "all") == 1


def test_an_outbox_says_what_it_is() -> None:
    outbox = MemoryOutbox(name="mails")
    assert repr(outbox) == "MemoryOutbox(MemoryStore(backlog=100000, when_full='reject'), name='mails')"
    with pytest.raises(ConfigError, match=r"Outbox\(name='my mails'\)"):
        MemoryOutbox(name="my mails")
    store: Store = outbox.store
    assert not store.durable


class SlowStore:
    """Suspends before and after it takes effect, as a store behind a network does."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self.durable = False

    def open(self, runtime: Any) -> Any:
        return self

    async def put(self, work: Any) -> Any:
        await asyncio.sleep(0.01)
        dropped = await self._inner.put(work)
        await asyncio.sleep(0.01)
        return dropped


def test_a_put_cancelled_anywhere_has_stored_the_work_whole_or_not_at_all() -> None:
    async def scenario(victim: Victim) -> None:
        outbox: Any = MemoryOutbox()
        inner = outbox.store
        outbox.store = SlowStore(inner)
        queued = await victim(outbox.aput(registered(outbox), "ann@example.org"))
        stats = await inner.stats()
        assert stats.waiting == 1 if queued is not None else stats.waiting in (0, 1)
        assert stats.waiting == len(await inner.page("waiting"))

    assert cancel_everywhere(scenario, twice=True) > 10


def test_a_name_that_outlives_the_loop_is_put_on_every_loop() -> None:
    outbox = MemoryOutbox()
    send = registered(outbox)
    for _ in range(2):
        run(lambda: outbox.aput(send, "ann@example.org"))
    assert outbox.stats().waiting == 2


def test_arguments_of_more_than_sixteen_megabytes_are_refused_in_the_call() -> None:
    outbox = MemoryOutbox()
    outbox.operation("note")(print)
    with pytest.raises(ValueError, match="keep what is large elsewhere"):
        outbox.put(print, "x" * (16 * 1024 * 1024))
    assert outbox.stats().waiting == 0
