"""On a real PostgreSQL, where transactions run beside each other and rows are locked one by one."""

from __future__ import annotations

import asyncio
import glob
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from seawall.integrations.sqlalchemy import TransactionalOutbox, _mailbox, _relay
from seawall.integrations.sqlalchemy._mailbox import Mailbox
from seawall.machines.backoff import Backoff
from seawall.outbox import Outbox
from seawall.runtime import clock
from tests.integrations.mailroom import MovingStore, ship

pytest.importorskip("psycopg", reason="psycopg is not installed")
BINARIES = sorted(glob.glob("/usr/lib/postgresql/*/bin/postgres"))
SERVER = Path(BINARIES[-1] if BINARIES else shutil.which("postgres") or "")
if os.environ.get("SEAWALL_REQUIRE_SERVERS"):
    assert SERVER.name, "PostgreSQL is not installed, and SEAWALL_REQUIRE_SERVERS says that it must be"
MISSING = "PostgreSQL is not installed (Debian: apt-get install postgresql)"
pytestmark = [pytest.mark.once, pytest.mark.skipif(not SERVER.name, reason=MISSING)]


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """A server of its own, reached by a socket in its folder; as root it runs as somebody else, as it must."""
    folder = Path(mkdtemp(prefix="seawall-pg-"))
    user = "nobody" if os.geteuid() == 0 else None
    if user is not None:
        shutil.chown(folder, user)
    data, bin = folder / "data", SERVER.resolve().parent  # noqa: A001  # as the folder is called
    make = [bin / "initdb", "-D", data, "-A", "trust", "-U", "postgres", "--no-sync"]
    subprocess.run(make, check=True, capture_output=True, user=user, cwd=folder, timeout=50)
    start = [bin / "postgres", "-D", data, "-k", folder, "-c", "listen_addresses=", "-c", "fsync=off"]
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(start, stdout=log, stderr=log, user=user, cwd=folder)
    try:
        for _ in range(200):
            if subprocess.run([bin / "pg_isready", "-h", folder, "-q"], check=False, timeout=10).returncode == 0:
                break
            time.sleep(0.05)
        yield f"postgresql+psycopg://postgres@/postgres?host={folder}"
    finally:
        server.send_signal(signal.SIGINT)  # without waiting for clients
        server.wait(20)
        shutil.rmtree(folder, ignore_errors=True)


class Post:
    """A mailbox in that database, emptied before."""

    def __init__(self, url: str, **settings: str) -> None:
        self.engine = sa.create_engine(url, **settings)
        self.store = MovingStore()
        self.outbox = Outbox(self.store)
        self.outbox.operation("order.ship")(ship)
        self.mail = TransactionalOutbox(self.outbox)
        table = self.mail.table(sa.MetaData())
        self.mailbox = Mailbox(table)
        table.drop(self.engine, checkfirst=True)
        self.mail.create(self.engine)

    def numbers(self, order: str | None) -> list[int]:
        parameters = self.outbox.operations.of(ship).parameters
        puts = [work for work in self.store.puts if work.order_key == order]
        return [self.outbox.codec.decode(work.payload, parameters)["number"] for work in puts]


def again(transaction: Callable[[], Any]) -> Any:
    """Until it is not refused for others beside it, as whoever chose SERIALIZABLE must do."""
    for _ in range(50):
        try:
            return transaction()
        except sa.exc.OperationalError as error:
            if "could not serialize" not in str(error):
                raise
    raise AssertionError("refused again and again")


@pytest.mark.parametrize("passes", [True, False], ids=["skip locked", "no locks"])
@pytest.mark.parametrize(("level", "window"), [("READ COMMITTED", 7), ("READ COMMITTED", 1_000), ("SERIALIZABLE", 7)])
def test_several_relays_lose_nothing_repeat_nothing_and_keep_the_order_of_each_key(
    url: str, level: str, passes: bool, window: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_mailbox, "skips_locked", lambda connection: passes)
    monkeypatch.setattr(_mailbox, "WINDOW", window)
    monkeypatch.setattr(_relay, "PAUSES", Backoff(10_000_000, 2.0, 50_000_000))
    post = Post(url, isolation_level=level)

    def produce(order: str | None) -> None:
        for begin in range(0, 150, 10):
            again(lambda begin=begin: write(begin, order))  # type: ignore[misc]

    def write(begin: int, order: str | None) -> None:
        with Session(post.engine) as session, session.begin():
            for number in range(begin, begin + 10):
                post.mail.using(order=order).put(session, ship, number)

    orders = [None, "ann", "bob", "eve"]
    producers = [threading.Thread(target=produce, args=(order,)) for order in orders]
    one, two, three = (post.mail.relay(post.engine, batch=13, poll="20ms") for _ in range(3))
    with one, two, three:
        for producer in producers:
            producer.start()
        for producer in producers:
            producer.join()
        end = time.monotonic() + 30
        while again(lambda: post.mail.depth(post.engine)) and time.monotonic() < end:
            time.sleep(0.02)
    assert len(post.store.puts) == len({work.id for work in post.store.puts}) == 600
    for order in orders[1:]:
        assert post.numbers(order) == list(range(150))
    post.engine.dispose()


def test_a_relay_passes_rows_that_another_is_about_to_claim(url: str) -> None:
    post = Post(url)
    with Session(post.engine) as session, session.begin():
        for number in range(4):
            post.mail.using(order="ann" if number % 2 else None).put(session, ship, number)
    now = clock.wall_ns()
    with post.engine.begin() as first, post.engine.begin() as second:
        _, mine = post.mailbox.claim(first, 2, now, now + 10**12)
        _, others = post.mailbox.claim(second, 2, now, now + 10**12)
        assert [row.work.payload for row in mine] == [b'{"number":0}', b'{"number":1}']
        # Not the one behind an order key that is taken, though its claim is not committed yet.
        assert [row.work.payload for row in others] == [b'{"number":2}']
    post.engine.dispose()


def test_async_sessions_and_relays_work_as_well(url: str) -> None:
    post = Post(url)

    async def main() -> None:
        engine = create_async_engine(url)
        async with post.mail.relay(engine, poll="1h"):
            async with AsyncSession(engine) as session, session.begin():
                for number in range(20):
                    await post.mail.using(order="ann").aput(session, ship, number)
            async with asyncio.timeout(20):
                while await post.mail.adepth(engine):
                    await asyncio.sleep(0.01)
        await engine.dispose()

    asyncio.run(main())
    assert post.numbers("ann") == list(range(20))
    post.engine.dispose()


def test_the_table_comes_back_from_the_database_as_it_was_described(url: str) -> None:
    post = Post(url)
    found = sa.inspect(post.engine)
    table = post.mailbox.table
    assert [column["name"] for column in found.get_columns(table.name)] == [column.name for column in table.columns]
    assert {index["name"]: index["unique"] for index in found.get_indexes(table.name)} == {
        "ux_seawall_outbox_id": True,
    }
    post.engine.dispose()
