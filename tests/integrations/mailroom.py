"""A database with an application's table and the outbox's, and a store that fails when told to: for tests of the relay."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from seawall.integrations.sqlalchemy import TransactionalOutbox
from seawall.outbox import MemoryStore, Outbox, Work

__all__ = ["Base", "Customer", "Mailroom", "MovingStore", "ship"]


class Base(DeclarativeBase): ...


class Customer(Base):
    __tablename__ = "customers"
    id: Mapped[int] = mapped_column(primary_key=True)


def ship(number: int, customer: str = "") -> None: ...


class MovingStore(MemoryStore):
    """Notes what is put into it, and asks `before` and `after` each time."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.puts: list[Work] = []
        self.before: Callable[[Work], object] = lambda work: None
        self.after: Callable[[Work], object] = lambda work: None

    def open(self, runtime: Any) -> Any:
        inner, store = super().open(runtime), self

        class Open:
            async def put(self, work: Work) -> Any:
                store.before(work)
                dropped = await inner.put(work)
                store.puts.append(work)
                store.after(work)
                return dropped

            def __getattr__(self, name: str) -> Any:
                return getattr(inner, name)

        return Open()


class Mailroom:
    def __init__(self, folder: Path, **settings: Any) -> None:
        self.path = folder / "app.db"
        self.engine = sa.create_engine(f"sqlite:///{self.path}", connect_args={"timeout": 10})
        self.store = MovingStore(**settings)
        self.outbox = Outbox(self.store)
        self.outbox.operation("order.ship")(ship)
        self.mail = TransactionalOutbox(self.outbox)
        Base.metadata.create_all(self.engine)
        self.mail.create(self.engine)

    def session(self) -> Session:
        return Session(self.engine)

    def fill(self, *numbers: int, order: str | None = None) -> list[str]:
        with self.session() as session, session.begin():
            return [self.mail.using(order=order).put(session, ship, number).id for number in numbers]

    @property
    def depth(self) -> int:
        return self.mail.depth(self.engine)

    def numbers(self) -> list[int]:
        """What was put into the store, in order."""
        decode = self.outbox.codec.decode
        parameters = self.outbox.operations.of(ship).parameters
        return [decode(work.payload, parameters)["number"] for work in self.store.puts]

    def free_all(self) -> None:
        """As if the time of every claim and rest had passed."""
        table = sa.Table("seawall_outbox", sa.MetaData(), autoload_with=self.engine)
        with self.engine.begin() as connection:
            connection.execute(sa.update(table).values(free_ns=0))
