"""Whatever breaks between the table and the store: nothing is lost, and order keys keep their order."""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from seawall import events
from seawall.errors import NotQueued
from seawall.integrations.sqlalchemy import _doors, _relay
from seawall.integrations.sqlalchemy._mailbox import Mailbox
from seawall.runtime import clock
from seawall.testing import VirtualClock
from tests.integrations.mailroom import Mailroom, ship


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Mailroom]:
    room = Mailroom(tmp_path)
    yield room
    room.engine.dispose()


@pytest.fixture
def time(room: Mailroom) -> Iterator[VirtualClock]:
    with VirtualClock() as time:
        yield time


class Killed(BaseException):
    """The process is gone: nothing of it runs any more."""


class Fuse:
    """Counts the steps of a relay, in the database and in the store, and ends the process before or after one."""

    def __init__(self, at: int, *, after: bool) -> None:
        self.at, self.after, self.steps, self.dead = at, after, 0, False

    def before_step(self) -> None:
        if self.dead:
            raise Killed
        self.steps += 1
        if self.steps == self.at and not self.after:
            self.dead = True
            raise Killed

    def after_step(self) -> None:
        if self.steps == self.at and self.after:
            self.dead = True
        if self.dead:
            raise Killed


class FusedDoor:
    def __init__(self, inner: Any, fuse: Fuse) -> None:
        self.inner, self.fuse, self.dialect = inner, fuse, inner.dialect

    async def run(self, step: Any) -> Any:
        self.fuse.before_step()
        found = await self.inner.run(step)
        self.fuse.after_step()
        return found


@pytest.mark.parametrize("after", [False, True])
def test_a_crash_at_any_step_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: bool) -> None:
    at = 0
    while True:
        at += 1
        folder = tmp_path / str(at)
        folder.mkdir()
        room, fuse = Mailroom(folder), Fuse(at, after=after)
        room.fill(1, 2, 3, order="ann")
        room.fill(4, 5)
        room.store.before = lambda work, fuse=fuse: fuse.before_step()  # type: ignore[misc]
        room.store.after = lambda work, fuse=fuse: fuse.after_step()  # type: ignore[misc]
        with monkeypatch.context() as patch:
            patch.setattr(
                _relay,
                "door_to",
                lambda engine, is_async, f=fuse: FusedDoor(_doors.door_to(engine, is_async=is_async), f),
            )
            try:
                room.mail.relay(room.engine, batch=2).once()
            except Killed:
                pass
        crashed = fuse.dead
        room.store.before = room.store.after = lambda work: None
        room.free_all()  # the claims of the dead one ran out
        room.mail.relay_once(room.engine)
        assert room.depth == 0
        assert sorted(set(room.numbers())) == [1, 2, 3, 4, 5]
        # What was put again was put by the same id, which a store that holds it still can tell.
        assert room.outbox.stats().waiting == 5
        once = list(dict.fromkeys(room.numbers()))
        assert [n for n in once if n <= 3] == [1, 2, 3]
        room.engine.dispose()
        if not crashed:
            assert at > 10
            return


def test_a_claim_of_one_who_died_is_anothers_when_it_runs_out(room: Mailroom, time: VirtualClock) -> None:
    room.fill(1, 2)
    mailbox = Mailbox(sa.Table("seawall_outbox", sa.MetaData(), autoload_with=room.engine))
    now = clock.wall_ns()
    with room.engine.begin() as connection:
        _, mine = mailbox.claim(connection, 10, now, now + 1_000_000_000)
        assert len(mine) == 2
    assert room.mail.relay_once(room.engine) == 0
    time.advance("1s")
    assert room.mail.relay_once(room.engine) == 2


def claim(room: Mailroom, n: int) -> list[int]:
    mailbox = Mailbox(sa.Table("seawall_outbox", sa.MetaData(), autoload_with=room.engine))
    parameters = room.outbox.operations.of(ship).parameters
    with room.engine.begin() as connection:
        now = clock.wall_ns()
        _, claimed = mailbox.claim(connection, n, now, now + 60 * 10**9)
    return [room.outbox.codec.decode(row.work.payload, parameters)["number"] for row in claimed]


def test_rows_behind_one_that_another_relay_has_are_not_taken(room: Mailroom) -> None:
    room.fill(1, 2, 3, order="ann")
    room.fill(4, 5, order="bob")
    room.fill(6)
    assert claim(room, 2) == [1, 2]
    assert claim(room, 1) == [4]
    assert claim(room, 10) == [6]
    room.free_all()
    assert claim(room, 10) == [1, 2, 3, 4, 5, 6]


def test_rows_behind_one_that_rests_wait_for_it(room: Mailroom) -> None:
    ids = room.fill(1, 2, 3, order="ann")
    table = sa.Table("seawall_outbox", sa.MetaData(), autoload_with=room.engine)
    with room.engine.begin() as connection:
        resting = sa.update(table).where(table.c.id == ids[1])
        connection.execute(resting.values(free_ns=clock.wall_ns() + 10**12))
    assert claim(room, 10) == [1]


def test_what_was_lost_to_a_faster_relay_takes_what_is_behind_it_along(
    room: Mailroom, monkeypatch: pytest.MonkeyPatch
) -> None:
    room.fill(1, 2, 3, order="ann")
    room.fill(4)
    assert claim(room, 1) == [1]
    monkeypatch.setattr(
        Mailbox, "_choose", lambda self, *args: {1: "ann", 2: "ann", 3: "ann", 4: None}
    )  # as it stood before
    assert claim(room, 10) == [4]
    monkeypatch.undo()
    with room.engine.connect() as connection:
        rows = connection.execute(sa.text("select claim is null, free_ns from seawall_outbox where seq in (2, 3)"))
        assert rows.all() == [(1, 0), (1, 0)]  # given back at once


def test_a_walk_of_several_statements_does_not_miss_what_was_committed_between_them(
    room: Mailroom, monkeypatch: pytest.MonkeyPatch
) -> None:
    from seawall.integrations.sqlalchemy import _mailbox

    monkeypatch.setattr(_mailbox, "WINDOW", 2)
    room.fill(1, 2)
    room.fill(3, 4, order="ann")
    room.fill(5, 6, order="bob")
    table = sa.Table("seawall_outbox", sa.MetaData(), autoload_with=room.engine)
    mailbox = Mailbox(table)
    with room.engine.begin() as connection:
        late: dict[int, str | None] = {
            1: None,
            2: None,
            4: "ann",
            5: "bob",
            6: "bob",
        }  # without the third, as if not seen
        assert mailbox._seen_again(connection, late) == {1: None, 2: None, 5: "bob", 6: "bob"}
    assert claim(room, 10) == [1, 2, 3, 4, 5, 6]


def test_a_table_of_one_order_key_that_rests_is_walked_over_to_what_is_behind_it(room: Mailroom) -> None:
    room.fill(*range(3_000), order="ann")
    room.fill(9_999)
    assert claim(room, 1) == [0]
    assert claim(room, 10) == [9_999]


def test_a_batch_holds_a_whole_order_key_if_it_may(room: Mailroom) -> None:
    room.fill(*range(100), order="ann")
    assert claim(room, 50) == list(range(50))


def test_two_relays_share_the_rows_and_keep_the_order_of_each_key(room: Mailroom) -> None:
    total, keys = 400, ["ann", "bob", "eve", None]
    arrived, lock = threading.Event(), threading.Lock()
    by_thread: Counter[str] = Counter()

    def after(work: Any) -> None:
        with lock:
            by_thread[threading.current_thread().name] += 1
            if len(room.store.puts) >= total:
                arrived.set()
        clock.sleep_ns(random.randrange(500_000))

    room.store.after = after
    one, two = (room.mail.relay(room.engine, batch=7, poll="20ms") for _ in range(2))
    with one, two:
        number = 0
        while number < total:
            room.fill(*range(number, number + 20), order=keys[number // 20 % 4])
            number += 20
        assert arrived.wait(30)
    assert room.depth == 0
    assert one.snapshot()["relayed"] + two.snapshot()["relayed"] == total == len(room.store.puts)
    for key in keys[:3]:
        found = [n for n, work in zip(room.numbers(), room.store.puts, strict=True) if work.order_key == key]
        assert found == sorted(found) and len(found) == total // 4


def test_a_store_that_is_down_is_told_and_tried_again_and_the_rows_stay(room: Mailroom) -> None:
    seen: list[events.OutboxFailed] = []
    stop = events.subscribe(seen.append, events.OutboxFailed)
    room.fill(*range(10))
    room.store.before = lambda work: (_ for _ in ()).throw(ConnectionError("the store is down"))
    try:
        with pytest.raises(ConnectionError, match="the store is down"):
            room.mail.relay_once(room.engine)
    finally:
        stop()
    assert [(event.layer, event.step) for event in seen] == [("relay", "put")] * 3  # then it is the store
    assert room.depth == 10 and not room.store.puts
    room.store.before = lambda work: None
    room.free_all()
    assert room.mail.relay_once(room.engine) == 10


def test_a_relay_goes_on_when_the_store_is_back(room: Mailroom, monkeypatch: pytest.MonkeyPatch) -> None:
    from seawall.integrations.sqlalchemy import _moving
    from seawall.machines.backoff import Backoff

    for module in (_moving, _relay):
        monkeypatch.setattr(module, "PAUSES", Backoff(10_000_000, 2.0, 50_000_000))
    arrived, failures = threading.Event(), []

    def before(work: Any) -> None:
        if len(failures) < 5:
            failures.append(work)
            raise ConnectionError("down")

    room.store.before = before
    room.store.after = lambda work: arrived.set() if len(room.store.puts) == 3 else None
    with room.mail.relay(room.engine, poll="10ms") as relay:
        room.fill(1, 2, 3, order="ann")
        assert arrived.wait(20)
    assert room.numbers() == [1, 2, 3] and relay.snapshot()["failures"] == 5


def test_a_full_backlog_leaves_the_rows_in_the_table(tmp_path: Path) -> None:
    room = Mailroom(tmp_path, backlog=2)
    room.fill(1, 2, 3, 4)
    with pytest.raises(NotQueued, match="the backlog is full"):
        room.mail.relay_once(room.engine)
    assert room.depth == 2 and room.numbers() == [1, 2]
    assert room.outbox.worker().drain() == 2
    room.free_all()
    assert room.mail.relay_once(room.engine) == 2
    room.engine.dispose()


def test_a_record_that_the_store_always_refuses_holds_up_nothing_but_its_order_key(room: Mailroom) -> None:
    room.fill(1, 2, order="ann")
    room.fill(*range(10, 300))

    def before(work: Any) -> None:
        if b":1}" in work.payload:
            raise ValueError("never")

    room.store.before = before
    with pytest.raises(ValueError, match="never"):
        room.mail.relay(room.engine, batch=50).once()
    assert room.numbers() == list(range(10, 300)) and room.depth == 2


def test_a_row_that_could_not_be_deleted_is_deleted_later_and_not_put_again(
    room: Mailroom, monkeypatch: pytest.MonkeyPatch
) -> None:
    from seawall.integrations.sqlalchemy import _moving
    from seawall.machines.backoff import Backoff

    for module in (_moving, _relay):
        monkeypatch.setattr(module, "PAUSES", Backoff(10_000_000, 2.0, 50_000_000))
    delete, failures, gone = Mailbox.delete, [], threading.Event()

    def fragile(self: Mailbox, connection: sa.Connection, ids: Any) -> None:
        if len(failures) < 3:
            failures.append(ids)
            raise sa.exc.OperationalError("delete", {}, Exception("database is locked"))
        delete(self, connection, ids)
        gone.set()

    monkeypatch.setattr(Mailbox, "delete", fragile)
    with room.mail.relay(room.engine, poll="10ms"):
        room.fill(1, 2)
        assert gone.wait(20)
    assert room.numbers() == [1, 2] and room.depth == 0


def test_a_database_that_is_down_does_not_end_the_relay(room: Mailroom, monkeypatch: pytest.MonkeyPatch) -> None:
    from seawall.machines.backoff import Backoff

    monkeypatch.setattr(_relay, "PAUSES", Backoff(10_000_000, 2.0, 50_000_000))
    claim, failures, arrived = Mailbox.claim, [], threading.Event()

    def fragile(self: Mailbox, *args: Any) -> Any:
        if len(failures) < 4:
            failures.append(args)
            raise sa.exc.OperationalError("select", {}, Exception("gone away"))
        return claim(self, *args)

    monkeypatch.setattr(Mailbox, "claim", fragile)
    room.store.after = lambda work: arrived.set()
    seen: list[events.OutboxFailed] = []
    stop = events.subscribe(seen.append, events.OutboxFailed)
    try:
        with room.mail.relay(room.engine, poll="10ms"):
            room.fill(1)
            assert arrived.wait(20)
    finally:
        stop()
    assert [(event.layer, event.step) for event in seen] == [("relay", "claim")] * 4


def test_a_slow_store_does_not_put_what_is_no_longer_claimed(
    room: Mailroom, time: VirtualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    room.fill(1, 2, 3)
    room.store.after = lambda work: time.advance("60ms")
    relay = room.mail.relay(room.engine, claim="100ms")
    claims: list[int] = []
    claim_as_it_is = Mailbox.claim

    def counted(self: Mailbox, *args: Any) -> Any:
        found = claim_as_it_is(self, *args)
        claims.append(len(found[1]))
        return found

    monkeypatch.setattr(Mailbox, "claim", counted)
    relay.once()
    assert room.numbers() == [1, 2, 3] and claims == [3, 1]  # nothing is begun after three quarters of a claim
    assert relay.snapshot()["relayed"] == 3
