"""The table in the caller's database, and all that is said to it. Each function is one short transaction's worth.

A relay *claims* rows for a time before it takes them to the store, so that no transaction is open meanwhile and a
relay that dies holds up nothing for longer. It walks over the table from its beginning, and passes a row if one before
it with the same order key is somebody else's: several relays keep the order between them. The walk locks nothing, and
the claim is a conditional update, which holds on any database; where a row was lost to a faster relay by then, those
behind it with its order key are given back. Where the database can, rows are locked before (`FOR UPDATE SKIP LOCKED`),
so that relays pass each other instead of waiting.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Collection, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import mysql

from seawall.errors import ConfigError
from seawall.outbox.record import Work, fresh_id
from seawall.record import Record
from seawall.units import given

__all__ = ["MOST_BATCH", "Claimed", "Mailbox", "new_table"]

MOST_BATCH = 500
"""Rows at once: each is a variable of a statement, and databases have few."""
WINDOW = 1_000
"""How many rows a walk looks at in one statement."""
MOST_ROUNDS = 3
MARK = "seawall outbox"
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,49}")
_SEQUENCE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_BYTES = sa.LargeBinary().with_variant(mysql.LONGBLOB(), "mysql", "mariadb")
_KEPT = (
    "id", "operation", "payload", "idempotency_key", "due_ns", "created_ns", "expires_ns", "priority", "order_key",
    "criticality",
)  # fmt: skip
"""The fields of a record; the others have not begun to mean anything yet."""


class Claimed(Record, kw_only=True):
    """A row in the hands of one relay."""

    work: Work
    failures: int
    """How often the store refused it."""


def new_table(metadata: sa.MetaData, name: str, schema: str | None) -> sa.Table:
    """The table on this metadata: made now, or before. Raises `ConfigError` if another has the name."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):  # pyright: ignore[reportUnnecessaryIsInstance]  # callers without a type checker
        raise ConfigError(f"{given('TransactionalOutbox(table)', name)}: expected a name of 1 to 50 letters, digits, _")
    key = name if (schema or metadata.schema) is None else f"{schema or metadata.schema}.{name}"
    found = metadata.tables.get(key)
    if found is not None:
        if found.info.get(MARK) is None:
            raise ConfigError(
                f"{given('TransactionalOutbox(table)', name)}: another table of the metadata has this name"
            )
        return found
    return sa.Table(
        name,
        metadata,
        sa.Column("seq", _SEQUENCE, primary_key=True, autoincrement=True),
        sa.Column("id", sa.String(64), nullable=False),
        sa.Column("operation", sa.String(255), nullable=False),
        sa.Column("payload", _BYTES, nullable=False),
        sa.Column("idempotency_key", sa.String(255), nullable=False),
        sa.Column("due_ns", sa.BigInteger, nullable=False),
        sa.Column("created_ns", sa.BigInteger, nullable=False),
        sa.Column("expires_ns", sa.BigInteger, nullable=False),
        sa.Column("priority", sa.SmallInteger, nullable=False),
        sa.Column("order_key", sa.String(255), nullable=True),
        sa.Column("criticality", sa.SmallInteger, nullable=False),
        # Of the relays: who has it, until when nobody else takes it, and how often the store refused it.
        sa.Column("claim", sa.String(32), nullable=True),
        sa.Column("free_ns", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("failures", sa.Integer, nullable=False, server_default="0"),
        sa.Index(f"ux_{name}_id", "id", unique=True),
        schema=schema,
        # A number is never given twice: the order of rows is that of their numbers.
        sqlite_autoincrement=True,
        info={MARK: True},
    )


class Mailbox:
    """What is said to one table. Its functions take a connection with a transaction and wait as that does."""

    def __init__(self, table: sa.Table) -> None:
        self.table = table
        self._columns = [table.c[name] for name in _KEPT]

    def insertion(self, work: Work) -> sa.Executable:
        """The statement that puts a record in."""
        return sa.insert(self.table).values({name: getattr(work, name) for name in _KEPT})

    def depth(self, connection: sa.Connection) -> int:
        """How many rows there are."""
        return connection.scalar(sa.select(sa.func.count()).select_from(self.table)) or 0

    def is_idle(self, connection: sa.Connection, now_ns: int) -> bool:
        """Whether nothing could be claimed now, as far as can be seen without a lock."""
        return not self._choose(connection, 1, now_ns)

    def claim(self, connection: sa.Connection, n: int, now_ns: int, until_ns: int) -> tuple[str, Sequence[Claimed]]:
        """Up to `n` rows that nobody has, in the order in which they were put, and the token of the claim."""
        table, token = self.table, fresh_id()
        if connection.dialect.name == "sqlite":
            # The lock for writing first, as BEGIN IMMEDIATE would take it: one who has read already may be refused it.
            connection.execute(sa.update(table).where(table.c.seq == -1).values(failures=0))
        chosen = self._choose(connection, n, now_ns)
        if skips_locked(connection):
            chosen = self._lock(connection, n, now_ns, chosen)
        numbers = list(chosen)
        if not numbers:
            return token, ()
        mine = table.c.seq.in_(numbers) & (table.c.claim == token)
        connection.execute(
            sa.update(table)
            .where(table.c.seq.in_(numbers), table.c.free_ns <= now_ns)
            .values(claim=token, free_ns=until_ns)
        )
        rows = connection.execute(sa.select(*self._columns, table.c.seq, table.c.failures).where(mine)).mappings()
        won = {row["seq"]: row for row in rows}
        kept, broken = _whole(chosen, won)
        if broken:
            self.give_back(connection, [won[number]["id"] for number in broken], token)
        return token, [
            Claimed(work=Work(**{name: row[name] for name in _KEPT}), failures=row["failures"])
            for row in (won[number] for number in kept)
        ]

    def _lock(
        self, connection: sa.Connection, n: int, now_ns: int, chosen: dict[int, str | None]
    ) -> dict[int, str | None]:
        """Lock these; in place of those that others have locked choose further ones, as far as that goes quickly."""
        table, passed = self.table, set[int]()
        for _ in range(MOST_ROUNDS):
            free = sa.select(table.c.seq).where(table.c.seq.in_(chosen), table.c.free_ns <= now_ns)
            locked = set(connection.scalars(free.with_for_update(skip_locked=True)).all())
            lost = chosen.keys() - locked
            if not lost:
                break
            passed |= lost
            chosen = self._choose(connection, n, now_ns, passed)
        return chosen

    def _choose(
        self, connection: sa.Connection, n: int, now_ns: int, passed: Collection[int] = ()
    ) -> dict[int, str | None]:
        """Up to `n` rows that nobody has, each with all those before it that have its order key; the keys by number.
        Those in `passed` are somebody's.

        By a walk and not by a condition: there is no plan by which a database could check it a million times over.
        """
        table, last = self.table, -1
        chosen: dict[int, str | None] = {}
        taken: set[str] = set()
        for windows in itertools.count(1):
            rows = connection.execute(
                sa.select(table.c.seq, table.c.order_key, table.c.free_ns)
                .where(table.c.seq > last)
                .order_by(table.c.seq)
                .limit(WINDOW)
            ).all()
            for number, key, free_ns in rows:
                is_free = free_ns <= now_ns and number not in passed
                if key is not None and (not is_free or key in taken):
                    taken.add(key)
                elif is_free:
                    chosen[number] = key
                    if len(chosen) == n:
                        break
            if len(chosen) == n or len(rows) < WINDOW:
                return chosen if windows == 1 else self._seen_again(connection, chosen)
            last = rows[-1].seq
        raise AssertionError  # for type checkers: the count has no end

    def _seen_again(self, connection: sa.Connection, chosen: dict[int, str | None]) -> dict[int, str | None]:
        """Without those before which a row of their order key has appeared since.

        Each statement may see what was committed after the one before it: the end of a transaction's rows, and not
        their beginning, which the walk had passed. One statement sees them all.
        """
        table = self.table
        keys = {key for key in chosen.values() if key is not None}
        if not keys:
            return chosen
        rows = connection.execute(
            sa.select(table.c.seq, table.c.order_key)
            .where(table.c.order_key.in_(keys), table.c.seq <= max(chosen))
            .order_by(table.c.seq)
            .limit(len(chosen) + WINDOW)
        )
        found: set[int] = set()
        broken: set[str] = set()
        for number, key in rows:
            if number not in chosen:
                broken.add(key)
            elif key not in broken:
                found.add(number)
        return {number: key for number, key in chosen.items() if key is None or number in found}

    def delete(self, connection: sa.Connection, ids: Collection[str]) -> None:
        """Forget rows: their records are in the store."""
        # By the id and not by the claim: whoever has claimed it since would only put it again.
        connection.execute(sa.delete(self.table).where(self.table.c.id.in_(ids)))

    def give_back(self, connection: sa.Connection, ids: Collection[str], token: str) -> None:
        """Rows that were claimed and not taken to the store are anybody's again."""
        self._free(connection, ids, token, free_ns=0)

    def postpone(self, connection: sa.Connection, id: str, token: str, free_ns: int) -> None:  # noqa: A002  # as the column is called
        """The store refused this row: nobody takes it before `free_ns`."""
        self._free(connection, [id], token, free_ns=free_ns, failures=self.table.c.failures + 1)

    def _free(self, connection: sa.Connection, ids: Collection[str], token: str, **values: Any) -> None:
        table = self.table
        mine = table.c.id.in_(ids) & (table.c.claim == token)
        connection.execute(sa.update(table).where(mine).values(claim=None, **values))


def _whole(chosen: dict[int, str | None], won: Collection[int]) -> tuple[list[int], list[int]]:
    """Of the rows won those that may be kept, and those before which one of their order key was lost."""
    kept: list[int] = []
    broken: list[int] = []
    lost: set[str | None] = set()
    for number, key in chosen.items():
        if number not in won:
            lost.add(key)
        elif key is not None and key in lost:
            broken.append(number)
        else:
            kept.append(number)
    return kept, broken


def skips_locked(connection: sa.Connection) -> bool:
    """Whether this database passes rows that are locked."""
    dialect = connection.dialect
    if dialect.name == "postgresql":
        return True
    version: Any = dialect.server_version_info or (0,)
    if dialect.name == "mariadb" or getattr(dialect, "is_mariadb", False):
        return bool(tuple(version[:2]) >= (10, 6))
    return dialect.name == "mysql" and bool(version[0] >= 8)
