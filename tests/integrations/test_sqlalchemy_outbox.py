"""Work and data are committed together or not at all, and what was committed reaches the store."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from seawall import events
from seawall.errors import ConfigError
from seawall.integrations.sqlalchemy import TransactionalOutbox
from seawall.outbox import MemoryOutbox
from tests.integrations.mailroom import Base, Customer, Mailroom, ship


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Mailroom]:
    room = Mailroom(tmp_path)
    yield room
    room.engine.dispose()


def customers(room: Mailroom) -> int:
    with room.session() as session:
        return session.scalar(sa.select(sa.func.count(Customer.id))) or 0


def test_a_commit_queues_the_work_with_the_data(room: Mailroom) -> None:
    with room.session() as session, session.begin():
        session.add(Customer(id=1))
        queued = room.mail.put(session, ship, 7, customer="ann")
        assert queued.operation == "order.ship" and queued and not queued.durable
    assert customers(room) == room.depth == 1
    assert room.mail.relay_once(room.engine) == 1
    assert room.depth == 0
    (record,) = room.outbox.records("waiting")
    assert record.id == queued.id and record.payload == b'{"number":7,"customer":"ann"}'


def test_a_rollback_leaves_nothing(room: Mailroom) -> None:
    with pytest.raises(ZeroDivisionError), room.session() as session, session.begin():
        session.add(Customer(id=1))
        room.mail.put(session, ship, 7)
        session.flush()
        _ = 1 / 0
    assert customers(room) == room.depth == room.mail.relay_once(room.engine) == 0
    with room.session() as session:
        room.mail.put(session, ship, 7)  # closed without a commit
    assert room.depth == 0


def test_a_rollback_to_a_savepoint_leaves_nothing_of_what_came_after_it(room: Mailroom) -> None:
    with room.session() as session, session.begin():
        room.mail.put(session, ship, 1)
        with pytest.raises(ZeroDivisionError), session.begin_nested():
            room.mail.put(session, ship, 2)
            with session.begin_nested():
                room.mail.put(session, ship, 3)
            _ = 1 / 0
        with session.begin_nested():
            room.mail.put(session, ship, 4)
    room.mail.relay_once(room.engine)
    assert room.numbers() == [1, 4]


def test_nothing_reaches_the_store_before_the_commit(room: Mailroom) -> None:
    with room.session() as session, session.begin():
        room.mail.put(session, ship, 1)
        session.flush()
        with Mailroom.session(room) as other:
            assert not other.execute(sa.text("select * from seawall_outbox")).all()
    assert not room.store.puts


def test_all_that_an_operation_says_about_a_record_is_kept(room: Mailroom) -> None:
    @room.outbox.operation("order.bill", key=lambda n: f"bill-{n}", order=lambda n: "ann", priority=7, max_age="2h")
    def bill(n: int) -> None: ...

    with room.session() as session, session.begin():
        room.mail.put(session, bill, 1)
        late = room.mail.using(delay="1h", key="k", order="bob", priority=1, max_age="3h").put(session, bill, 2)
    room.mail.relay_once(room.engine)
    first, second = room.store.puts
    assert (first.idempotency_key, first.order_key, first.priority) == ("bill-1", "ann", 7)
    assert first.expires_ns - first.created_ns == 2 * 3600 * 10**9
    assert (second.idempotency_key, second.order_key, second.priority) == ("k", "bob", 1)
    assert second.due_ns / 1e9 == late.due and second.due_ns - second.created_ns == 3600 * 10**9


def test_typed_arguments_travel_through_the_table(room: Mailroom) -> None:
    seen = []

    @room.outbox.operation("order.note")
    def note(at: datetime, tags: set[str], raw: bytes) -> None:
        seen.append((at, tags, raw))

    at = datetime(2026, 1, 1, tzinfo=UTC)
    with room.session() as session, session.begin():
        room.mail.put(session, note, at, {"a", "ü"}, b"\x00\xff")
    room.mail.relay_once(room.engine)
    assert room.outbox.worker().drain() == 1 and seen == [(at, {"a", "ü"}, b"\x00\xff")]


def test_a_thousand_rows_arrive_once_and_in_order(room: Mailroom) -> None:
    room.fill(*range(1_000))
    assert room.mail.relay(room.engine, batch=64).once() == 1_000
    assert room.numbers() == list(range(1_000)) and room.depth == 0


def test_a_commit_wakes_the_relay_of_this_process_at_once(room: Mailroom) -> None:
    arrived = threading.Event()
    room.store.after = lambda work: arrived.set()
    with room.mail.relay(room.engine, poll="1h") as relay:
        room.fill(1)
        assert arrived.wait(10)
        arrived.clear()
        with room.session() as session:
            room.mail.put(session, ship, 2)
            session.rollback()
            room.mail.put(session, ship, 3)
            session.commit()
            assert arrived.wait(10)
            arrived.clear()
            room.mail.put(session, ship, 4)
            session.commit()
        assert arrived.wait(10)
        assert relay.snapshot()["state"] == "working"
    assert room.numbers() == [1, 3, 4]
    assert relay.snapshot() | {"last_error": ""} == {
        "outbox": "outbox",
        "table": "seawall_outbox",
        "state": "idle",
        "relayed": 3,
        "failures": 0,
        "last_error": "",
    }


def test_what_another_process_committed_is_found_by_looking(room: Mailroom) -> None:
    arrived = threading.Event()
    room.store.after = lambda work: arrived.set()
    other = TransactionalOutbox(room.outbox)  # it wakes nobody here
    with room.mail.relay(room.engine, poll="50ms"):
        with room.session() as session, session.begin():
            other.put(session, ship, 1)
        assert arrived.wait(10)


def test_a_stop_ends_a_relay_that_waits_and_one_that_moves(room: Mailroom) -> None:
    with room.mail.relay(room.engine, poll="1h"):
        pass
    room.fill(*range(50))
    relay = room.mail.relay(room.engine, poll="1h")
    room.store.after = lambda work: relay.stop()
    relay.run()
    assert room.numbers() == [0] and room.depth == 49
    room.store.after = lambda work: None
    assert room.mail.relay_once(room.engine) == 49  # those it had claimed were given back
    assert room.numbers() == list(range(50))


def test_that_work_was_queued_is_told_when_the_store_has_it(room: Mailroom) -> None:
    seen: list[events.WorkQueued] = []
    stop = events.subscribe(seen.append, events.WorkQueued)
    try:
        (queued,) = room.fill(1)
        assert not seen
        room.mail.relay_once(room.engine)
        assert [event.id for event in seen] == [queued] and room.outbox.queued == 1
    finally:
        stop()


# -- the table ---------------------------------------------------------------------------------------------------------


def test_the_table_is_a_plain_one_of_the_users_metadata_that_migrations_see(tmp_path: Path) -> None:
    metadata, mail = sa.MetaData(), TransactionalOutbox(MemoryOutbox(), table="mailbox")
    table = mail.table(metadata)
    assert metadata.tables["mailbox"] is table and mail.table(metadata) is table
    engine = sa.create_engine(f"sqlite:///{tmp_path}/a.db")
    metadata.create_all(engine)
    found = sa.inspect(engine)
    assert {column["name"] for column in found.get_columns("mailbox")} == {column.name for column in table.columns}
    assert {index["name"] for index in found.get_indexes("mailbox")} == {"ux_mailbox_id"}
    mail.create(engine)  # it is there already
    engine.dispose()


@pytest.mark.parametrize("dialect", ["postgresql", "mysql", "mariadb", "oracle", "mssql", "sqlite"])
def test_the_table_can_be_made_in_every_dialect(dialect: str) -> None:
    table = TransactionalOutbox(MemoryOutbox()).table(sa.MetaData())
    text = str(sa.schema.CreateTable(table).compile(dialect=sa.make_url(f"{dialect}://x").get_dialect()()))
    assert "seawall_outbox" in text
    assert ("LONGBLOB" in text) == (dialect in ("mysql", "mariadb"))


def test_another_table_of_the_name_is_refused() -> None:
    metadata = sa.MetaData()
    sa.Table("seawall_outbox", metadata, sa.Column("id", sa.Integer))
    with pytest.raises(ConfigError, match="another table of the metadata has this name"):
        TransactionalOutbox(MemoryOutbox()).table(metadata)


@pytest.mark.parametrize("name", ["", "a b", "1a", "x" * 51, "a;drop", 5])
def test_a_name_that_is_none_is_refused(name: Any) -> None:
    with pytest.raises(ConfigError, match=r"TransactionalOutbox\(table="):
        TransactionalOutbox(MemoryOutbox(), table=name)


def test_a_table_with_a_schema_is_spoken_of_with_it() -> None:
    mail = TransactionalOutbox(MemoryOutbox(), schema="jobs")
    assert mail.table(Base.metadata).fullname == "jobs.seawall_outbox"
    Base.metadata.remove(mail.table(Base.metadata))


# -- wrong usage -------------------------------------------------------------------------------------------------------


def test_wrong_calls_are_refused_before_anything_is_written(room: Mailroom) -> None:
    def stranger() -> None: ...

    with room.session() as session, session.begin():
        with pytest.raises(ConfigError, match="stranger is no operation"):
            room.mail.put(session, stranger)
        with pytest.raises(TypeError, match="order.ship: missing"):
            room.mail.put(session, ship)
        with pytest.raises(TypeError, match="is not JSON"):
            room.mail.put(session, ship, {1})
        with pytest.raises(ConfigError, match="would expire before it is due"):
            room.mail.using(delay="2d").put(session, ship, 1)
    assert room.depth == 0


def test_what_is_no_session_is_refused_with_the_remedy(room: Mailroom) -> None:
    for wrong in (room.engine, None, "session"):
        with pytest.raises(ConfigError, match=r"put\(session=.*expected a Session"):
            room.mail.put(wrong, ship, 1)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="expected an Outbox"):
        TransactionalOutbox("sqlite://")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="expected an Engine"):
        room.mail.relay_once("sqlite://")  # type: ignore[arg-type]


@pytest.mark.parametrize("where", ["engine", "option", "connection"])
def test_a_session_without_transactions_is_refused(room: Mailroom, where: str) -> None:
    engine = room.engine
    if where == "engine":
        engine = sa.create_engine(f"sqlite:///{room.path}", isolation_level="AUTOCOMMIT")
    elif where == "option":
        engine = room.engine.execution_options(isolation_level="AUTOCOMMIT")
    with Session(engine) as session:
        if where == "connection":
            session.connection(execution_options={"isolation_level": "AUTOCOMMIT"})
        with pytest.raises(ConfigError, match="AUTOCOMMIT"):
            room.mail.put(session, ship, 1)
    engine.dispose()
    assert room.depth == 0


def test_settings_of_a_relay_are_checked(room: Mailroom) -> None:
    for setting in ({"batch": 0}, {"batch": 501}, {"poll": 0}, {"claim": 0}):
        with pytest.raises(ConfigError, match=f"relay\\({next(iter(setting))}="):
            room.mail.relay(room.engine, **setting)  # type: ignore[arg-type]


def test_a_relay_that_works_is_not_begun_again(room: Mailroom) -> None:
    with room.mail.relay(room.engine, poll="1h") as relay, pytest.raises(RuntimeError, match="works already"):
        relay.run()


def test_a_scoped_session_will_do(room: Mailroom) -> None:
    session = scoped_session(sessionmaker(room.engine))
    room.mail.put(session, ship, 1)
    session.commit()
    session.remove()
    assert room.depth == 1


def test_a_session_bound_table_by_table_knows_the_table(tmp_path: Path) -> None:
    mail, metadata = TransactionalOutbox(MemoryOutbox()), sa.MetaData()
    mail.outbox.operation("order.ship")(ship)
    table, engine = mail.table(metadata), sa.create_engine(f"sqlite:///{tmp_path}/a.db")
    metadata.create_all(engine)
    with Session(binds={table: engine}) as session, session.begin():
        mail.put(session, ship, 1)
    assert mail.depth(engine) == 1
    engine.dispose()


def test_without_sqlalchemy_the_extra_is_named() -> None:
    code = "import sys; sys.modules['sqlalchemy'] = None; import seawall.integrations.sqlalchemy"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=50)
    assert 'pip install "seawall[sqlalchemy]"' in done.stderr


def test_a_synchronous_program_needs_no_greenlet_and_no_asyncio() -> None:
    code = """
import sys
sys.modules["greenlet"] = None
import seawall.integrations.sqlalchemy
print("asyncio" in sys.modules, "sqlalchemy.ext.asyncio" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=50)
    assert done.stdout.split()[1] == "False"
