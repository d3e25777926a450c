"""The table in the caller's database, and all that is said to it. Each function is one short transaction's worth.

A relay *claims* rows for a time before it takes them to the store, so that no transaction is open meanwhile and a relay
that dies holds up nothing for longer. Of the rows of one order key only the first may be claimed by itself, those
behind it only together with it: several relays keep the order between them. Claims are conditional updates, which hold
on any database; where it can, the rows are locked before (`FOR UPDATE SKIP LOCKED`), so that relays pass each other.
"""

from __future__ import annotations

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
        sa.Index(f"ix_{name}_order", "order_key", "seq"),
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
        earlier = table.alias("earlier")
        self._is_first = ~sa.exists().where(earlier.c.order_key == table.c.order_key, earlier.c.seq < table.c.seq)

    def insertion(self, work: Work) -> sa.Executable:
        """The statement that puts a record in."""
        return sa.insert(self.table).values({name: getattr(work, name) for name in _KEPT})

    def depth(self, connection: sa.Connection) -> int:
        """How many rows there are."""
        return connection.scalar(sa.select(sa.func.count()).select_from(self.table)) or 0

    def is_idle(self, connection: sa.Connection, now_ns: int) -> bool:
        """Whether nothing could be claimed now, as far as can be seen without a lock."""
        return connection.execute(self._firsts(now_ns, 1)).first() is None

    def claim(self, connection: sa.Connection, n: int, now_ns: int, until_ns: int) -> tuple[str, Sequence[Claimed]]:
        """Up to `n` rows that nobody has, in the order in which they were put, and the token of the claim."""
        table, token = self.table, fresh_id()
        if connection.dialect.name == "sqlite":
            # The lock for writing first, as BEGIN IMMEDIATE would take it: one who has read already may be refused it.
            connection.execute(sa.update(table).where(table.c.seq == -1).values(failures=0))
        firsts = self._firsts(now_ns, n)
        if _skips_locked(connection):
            firsts = firsts.with_for_update(skip_locked=True)
        numbers = [row.seq for row in connection.execute(firsts)]
        won = self._take(connection, numbers, token, now_ns, until_ns)
        keys = {row.order_key for row in won if row.order_key is not None}
        if keys and len(won) < n:
            behind = self._behind(connection, keys, [row.seq for row in won], n - len(won), now_ns)
            won = [*won, *self._take(connection, behind, token, now_ns, until_ns)]
        if not won:
            return token, ()
        rows = connection.execute(
            sa.select(*self._columns, table.c.failures)
            .where(table.c.seq.in_([row.seq for row in won]), table.c.claim == token)
            .order_by(table.c.seq)
        ).mappings()
        return token, [
            Claimed(work=Work(**{name: row[name] for name in _KEPT}), failures=row["failures"]) for row in rows
        ]

    def _firsts(self, now_ns: int, n: int) -> sa.Select[Any]:
        """Rows that nobody has, and that are the first of their order key if they have one."""
        table = self.table
        rows = sa.select(table.c.seq).where(table.c.free_ns <= now_ns, self._is_first)
        return rows.order_by(table.c.seq).limit(n)

    def _take(
        self, connection: sa.Connection, numbers: Collection[int], token: str, now_ns: int, until_ns: int
    ) -> Sequence[Any]:
        """Claim these, as far as nobody was faster; the rows that were claimed."""
        if not numbers:
            return ()
        table = self.table
        chosen = table.c.seq.in_(numbers)
        connection.execute(
            sa.update(table).where(chosen, table.c.free_ns <= now_ns).values(claim=token, free_ns=until_ns)
        )
        mine = sa.select(table.c.seq, table.c.order_key).where(chosen, table.c.claim == token)
        return connection.execute(mine.order_by(table.c.seq)).all()

    def _behind(
        self, connection: sa.Connection, keys: set[str], firsts: Collection[int], n: int, now_ns: int
    ) -> list[int]:
        """Up to `n` rows behind the first ones of these order keys, as far as none between them is somebody else's."""
        table, free = self.table, set(keys)
        rows = connection.execute(
            sa.select(table.c.seq, table.c.order_key, table.c.free_ns)
            .where(table.c.order_key.in_(keys), table.c.seq.not_in(firsts))
            .order_by(table.c.seq)
            .limit(n)
        )
        found: list[int] = []
        for row in rows:
            if row.free_ns > now_ns:
                free.discard(row.order_key)
            elif row.order_key in free:
                found.append(row.seq)
        return found

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


def _skips_locked(connection: sa.Connection) -> bool:
    dialect = connection.dialect
    if dialect.name == "postgresql":
        return True
    version: Any = dialect.server_version_info or (0,)
    if dialect.name == "mariadb" or getattr(dialect, "is_mariadb", False):
        return bool(tuple(version[:2]) >= (10, 6))
    return dialect.name == "mysql" and bool(version[0] >= 8)
