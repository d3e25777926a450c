"""The same with AsyncSession and tasks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import (
    AsyncEngine,
    AsyncSession,
    async_scoped_session,
    async_sessionmaker,
    create_async_engine,
)

from seawall.errors import ConfigError
from tests.integrations.mailroom import Customer, Mailroom, ship


@asynccontextmanager
async def opened(folder: Path) -> AsyncIterator[tuple[Mailroom, AsyncEngine]]:
    room = Mailroom(folder)
    engine = create_async_engine(f"sqlite+aiosqlite:///{room.path}", connect_args={"timeout": 10})
    try:
        yield room, engine
    finally:
        await engine.dispose()
        room.engine.dispose()


async def until_moved(room: Mailroom, count: int) -> None:
    async with asyncio.timeout(20):
        while len(room.store.puts) < count or room.depth:
            await asyncio.sleep(0.005)


def test_a_commit_queues_and_a_rollback_leaves_nothing(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(tmp_path) as (room, engine):
            async with AsyncSession(engine) as session, session.begin():
                session.add(Customer(id=1))
                queued = await room.mail.aput(session, ship, 1)
                with pytest.raises(ZeroDivisionError):
                    async with session.begin_nested():
                        await room.mail.aput(session, ship, 2)
                        _ = 1 / 0
                async with session.begin_nested():
                    await room.mail.using(order="ann").aput(session, ship, 3)
            with pytest.raises(ZeroDivisionError):
                async with AsyncSession(engine) as session, session.begin():
                    await room.mail.aput(session, ship, 4)
                    _ = 1 / 0
            assert await room.mail.adepth(engine) == 2
            assert await room.mail.arelay_once(engine) == 2
            assert room.numbers() == [1, 3] and room.store.puts[0].id == queued.id
            assert room.store.puts[1].order_key == "ann"

    asyncio.run(main())


def test_a_commit_wakes_the_relay_in_its_task(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(tmp_path) as (room, engine):
            async with room.mail.relay(engine, poll="1h") as relay:
                for number in range(5):
                    async with AsyncSession(engine) as session, session.begin():
                        await room.mail.aput(session, ship, number)
                await until_moved(room, 5)
                assert relay.snapshot()["state"] == "working"
            assert room.numbers() == list(range(5)) and relay.snapshot()["relayed"] == 5

    asyncio.run(main())


def test_a_thousand_rows_through_two_relays_arrive_once(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(tmp_path) as (room, engine):
            async with AsyncSession(engine) as session, session.begin():
                for number in range(1_000):
                    await room.mail.using(order=f"key-{number % 3}").aput(session, ship, number)
            async with room.mail.relay(engine, poll="20ms", batch=50), room.mail.relay(engine, poll="20ms", batch=50):
                await until_moved(room, 1_000)
            numbers = room.numbers()
            assert sorted(numbers) == list(range(1_000))
            for rest in range(3):
                found = [number for number in numbers if number % 3 == rest]
                assert found == sorted(found)

    asyncio.run(main())


def test_cancelling_a_relay_gives_back_what_it_has_claimed(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(tmp_path) as (room, engine):
            room.fill(*range(20))
            stuck = asyncio.Event()

            async def put(work: object) -> object:
                stuck.set()
                await asyncio.sleep(3600)

            inner = room.store.open

            def open_stuck(runtime: object) -> object:
                store = inner(runtime)
                store.put = put
                return store

            room.store.open = open_stuck  # type: ignore[method-assign]
            task = asyncio.create_task(room.mail.relay(engine).arun())
            await stuck.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            room.store.open = inner  # type: ignore[method-assign]
            assert await room.mail.arelay_once(engine) == 20

    asyncio.run(main())


def test_a_synchronous_engine_or_session_is_refused_with_the_remedy_and_the_other_way_round(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(tmp_path) as (room, engine):
            with pytest.raises(ConfigError, match="would block the loop: give an AsyncEngine"):
                await room.mail.arelay_once(room.engine)  # type: ignore[arg-type]
            with pytest.raises(ConfigError, match="needs a loop: give an Engine"):
                room.mail.relay_once(engine)  # type: ignore[arg-type]
            with pytest.raises(ConfigError, match="would block the loop"):
                async with room.mail.relay(room.engine):
                    pass
            async with AsyncSession(engine) as session:
                with pytest.raises(ConfigError, match=r"an AsyncSession needs `await aput"):
                    room.mail.put(session, ship, 1)  # type: ignore[arg-type]
            with room.session() as plain, pytest.raises(ConfigError, match=r"a Session needs `put"):
                await room.mail.aput(plain, ship, 1)  # type: ignore[arg-type]
            with pytest.raises(ConfigError, match="expected an AsyncSession"):
                await room.mail.aput(None, ship, 1)  # type: ignore[arg-type]

    asyncio.run(main())


def test_a_scoped_async_session_and_run_sync_will_do(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(tmp_path) as (room, engine):
            scoped = async_scoped_session(async_sessionmaker(engine), scopefunc=asyncio.current_task)
            await room.mail.aput(scoped, ship, 1)
            await scoped.commit()
            await scoped.remove()
            async with AsyncSession(engine) as session, session.begin():
                await session.run_sync(lambda inner: room.mail.put(inner, ship, 2))
            await room.mail.arelay_once(engine)
            assert room.numbers() == [1, 2]

    asyncio.run(main())


def test_the_table_can_be_made_by_async_code(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(tmp_path) as (room, engine):
            async with engine.begin() as connection:
                await connection.execute(sa.text("drop table seawall_outbox"))
            await room.mail.acreate(engine)
            assert await room.mail.adepth(engine) == 0

    asyncio.run(main())
