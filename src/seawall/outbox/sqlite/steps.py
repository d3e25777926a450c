"""What the steps of a store do in SQL. Each runs within a transaction, and changes nothing if it raises a refusal.

Tokens of leases are `<arrival>.<number>`: where the record lies, and the number that fences it.
"""

from __future__ import annotations

import heapq
import os
import sqlite3
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any

from seawall.errors import NotQueued
from seawall.outbox.record import Work
from seawall.outbox.sqlite import sql
from seawall.outbox.sqlite.schema import COLUMNS
from seawall.outbox.store import Lease, Stats

__all__ = ["MOST_DROPPED_LISTED", "Steps", "work_of"]

MOST_DROPPED_LISTED = 1_000
SHRINK_EVERY = 16
"""Leases, for each look at how much of the file is empty."""
EMPTY_PAGES = 1_024
"""How many empty pages stay in the file for what comes next: 4 MiB."""
Db = sqlite3.Connection

_FIELDS = (
    "id",
    "operation",
    "payload",
    "idempotency_key",
    "due_ns",
    "created_ns",
    "expires_ns",
    "attempts",
    "priority",
    "order_key",
    "criticality",
    "last_error",
    "ended",
)


_KINDS = (str, str, bytes, str, int, int, int, int, int, str, int, str, str)
_WITHOUT_ORDER = (*_KINDS[:9], type(None), *_KINDS[10:])


def work_of(row: Sequence[Any]) -> Work:
    kinds = tuple(map(type, row))
    if kinds not in (_WITHOUT_ORDER, _KINDS):
        row = [_mended(kind, value) for kind, value in zip(_KINDS, row, strict=True)]
    return Work(**dict(zip(_FIELDS, row, strict=True)))


def _mended(kind: type, value: Any) -> Any:
    """SQLite holds columns to no type: a damaged value must not end whoever reads it. At 0 a record has expired."""
    if type(value) is kind or value is None:
        return value
    if kind is int:
        return 0
    return str(value) if kind is str else str(value).encode()


def _row_of(work: Work) -> tuple[Any, ...]:
    # As `_FIELDS`, written out: this is the put path.
    return (
        work.id,
        work.operation,
        work.payload,
        work.idempotency_key,
        work.due_ns,
        work.created_ns,
        work.expires_ns,
        work.attempts,
        work.priority,
        work.order_key,
        work.criticality,
        work.last_error,
        work.ended,
    )


def _place_of(lease: Lease) -> tuple[int, int]:
    """Where the record of a lease lies, and its number; nowhere for a token that is none of ours."""
    arrival, _, number = lease.token.partition(".")
    try:
        return int(arrival), int(number)
    except ValueError:
        return -1, -1


class Steps:
    """The steps of a store that holds at most `most` records, and if `drops` lets the oldest make room."""

    def __init__(self, most: int, *, drops: bool) -> None:
        self._most = most
        self._drops = drops
        self._held = self._dead = 0
        self._version: int | None = None
        """Of the file when these were counted: of how it was last changed by others. None if they may be wrong."""
        self._leases = 0

    def forget(self) -> None:
        """What was done may have been undone, or the connection may be another."""
        self._version = None

    def _count(self, db: Db) -> tuple[int, int]:
        """How many are held, and dead: counted once, and again when another connection has changed the file."""
        version = db.execute("PRAGMA data_version").fetchone()[0]
        if version != self._version:
            self._held, self._dead = db.execute(sql.COUNT).fetchone()
            self._version = version
        return self._held, self._dead

    def _add(self, db: Db, work: Work, ready_ns: int) -> None:
        key = work.order_key
        blocked = key is not None and db.execute(sql.BEHIND, (key,)).fetchone() is not None
        self._held += db.execute(sql.INSERT, (ready_ns, int(blocked), *_row_of(work), work.id)).rowcount

    def _lose(self, db: Db, arrival: int, order_key: str | None) -> None:
        """Out of `work`; the next of its order key may go."""
        db.execute(sql.FORGET, (arrival,))
        self._held -= 1
        if order_key is not None:
            db.execute(sql.UNBLOCK, (order_key,))

    # -- in --------------------------------------------------------------------------------------------------------

    def put(self, db: Db, work: Work) -> list[Work]:
        dropped: list[Work] = []
        # Not more than their places span are held: while that leaves room nothing need be counted.
        if db.execute(sql.SPAN).fetchone()[0] >= self._most:
            if db.execute(sql.HELD, (work.id, work.id)).fetchone() is not None:
                return []
            dropped = self._make_room(db)
        self._add(db, work, work.due_ns)
        return dropped

    def _make_room(self, db: Db) -> list[Work]:
        held, dead = self._count(db)
        total = held + dead
        excess = total + 1 - self._most
        if excess <= 0:
            return []
        if not self._drops:
            detail = f"; {dead} of them are dead letters" if dead else ""
            raise NotQueued(f"the backlog is full ({total} of {self._most} records{detail})")
        # More than one if the backlog was larger before. They are found first: a refusal must change nothing.
        waiting = db.execute("SELECT count(*) FROM (SELECT 1 FROM work WHERE until IS NULL LIMIT ?)", (excess,))
        if dead + waiting.fetchone()[0] < excess:
            raise NotQueued(f"the backlog is full ({total} of {self._most} records, and nothing may be dropped for it)")
        return [self._drop_oldest(db) for _ in range(excess)]

    def _drop_oldest(self, db: Db) -> Work:
        row = db.execute(sql.OLDEST_DEAD).fetchone()
        if row is not None:
            db.execute("DELETE FROM dead WHERE place = ?", row[:1])
            self._dead -= 1
        else:
            row = db.execute(sql.OLDEST_WAITING).fetchone()
            self._lose(db, row[0], work_of(row[1:]).order_key)
        trace = work_of(row[1:]).replace(payload=b"", ended="backlog")
        place = db.execute(sql.DROP, _row_of(trace)).lastrowid
        db.execute(sql.SHORTEN, ((place or 0) - MOST_DROPPED_LISTED,))
        return trace

    # -- leases ----------------------------------------------------------------------------------------------------

    def lease(
        self, db: Db, n: int, ttl_ns: int, skip: Collection[str], wall_ns: Callable[[], int]
    ) -> tuple[list[Lease], int | None]:
        # The instant is read with the file in hand: a lease must not have begun before the wait for it.
        now = wall_ns()
        if db.execute(sql.EXPIRED, (now,)).fetchone() is not None:
            db.execute(sql.EXPIRE, (now, now))
        found: list[tuple[int, int, int]] = []
        instants: list[int] = []
        for operation, priority in _lanes(db):
            if operation in skip:
                continue
            for ready, arrival in db.execute(sql.NEXT, (operation, priority, n + 1)):
                if ready > now:
                    instants.append(ready)
                    break
                found.append((-priority, ready, arrival))
        chosen = heapq.nsmallest(n, found)
        instants += [ready for _, ready, _ in found if len(found) > n]
        number = int.from_bytes(os.urandom(8), "big") >> 2
        until = now + ttl_ns
        leases: list[Lease] = []
        for _, _, arrival in chosen:
            db.execute(sql.GIVE, (until, number, arrival))
            work = work_of(db.execute(sql.READ, (arrival,)).fetchone())
            leases.append(Lease(work=work, token=f"{arrival}.{number}", until_ns=until))
        end = db.execute(sql.FIRST_END).fetchone()[0]
        if end is not None:
            instants.append(end)
        self._leases += 1
        if not leases or not self._leases % SHRINK_EVERY:
            _shrink(db)
        return leases, max(0, min(instants) - now) if instants else None

    def renew(self, db: Db, lease: Lease, ttl_ns: int, wall_ns: Callable[[], int]) -> bool:
        return db.execute(sql.RENEW, (wall_ns() + ttl_ns, *_place_of(lease))).rowcount == 1

    def ack(self, db: Db, lease: Lease) -> bool:
        place = _place_of(lease)
        row = db.execute(sql.ORDER, place).fetchone()
        if row is None:
            return False
        self._lose(db, place[0], row[0])
        return True

    def retry(self, db: Db, lease: Lease, at_ns: int, error: str | None, *, attempted: bool) -> bool:
        values = (at_ns, at_ns, error, int(not attempted), *_place_of(lease))
        return db.execute(sql.RETRY, values).rowcount == 1

    def bury(self, db: Db, lease: Lease, why: str, error: str) -> bool:
        place = _place_of(lease)
        row = db.execute(sql.ORDER, place).fetchone()
        if row is None:
            return False
        grave = db.execute(sql.BURY, place[:1]).lastrowid
        db.execute(sql.CAUSE, (why, error, grave))
        self._dead += 1
        self._lose(db, place[0], row[0])
        return True

    # -- by hand ---------------------------------------------------------------------------------------------------

    def stats(self, db: Db) -> Stats:
        held, dead = self._count(db)
        leased = db.execute("SELECT count(*) FROM work WHERE until IS NOT NULL").fetchone()[0]
        dropped = db.execute(sql.DROPPED).fetchone()
        oldest = db.execute("SELECT created FROM work ORDER BY arrival LIMIT 1").fetchone()
        return Stats(
            waiting=held - leased,
            leased=leased,
            dead=dead,
            dropped=0 if dropped is None else dropped[0],
            oldest_ns=None if oldest is None else oldest[0],
        )

    def page(self, db: Db, state: str, limit: int, after: str | None) -> list[Work]:
        table, place = ("work", "arrival") if state in ("waiting", "leased") else (state, "place")
        which = {"waiting": "until IS NULL AND ", "leased": "until IS NOT NULL AND "}.get(state, "")
        start = -1
        if after is not None:
            row = db.execute(f"SELECT {place} FROM {table} WHERE id = ?", (after,)).fetchone()
            if row is None:
                # It has gone since. Ids sort by the time at which they were made, so this is near where it was.
                query = f"SELECT {place} - 1 FROM {table} WHERE id > ? ORDER BY id LIMIT 1"
                row = db.execute(query, (after,)).fetchone()
            if row is None:
                return []
            start = row[0]
        query = f"SELECT {COLUMNS} FROM {table} WHERE {which}{place} > ? ORDER BY {place} LIMIT ?"
        return [work_of(row) for row in db.execute(query, (start, limit))]

    def find(self, db: Db, key: str) -> Work | None:
        for table in ("work", "dead"):
            row = db.execute(f"SELECT {COLUMNS} FROM {table} WHERE id = ?", (key,)).fetchone()
            if row is not None:
                return work_of(row)
        return None

    def replay(self, db: Db, ids: Collection[str] | None, wall_ns: Callable[[], int]) -> int:
        count, now = 0, wall_ns()
        for place in _places(db, "dead", "place", ids):
            row = db.execute(f"SELECT {COLUMNS} FROM dead WHERE place = ?", (place,)).fetchone()
            db.execute("DELETE FROM dead WHERE place = ?", (place,))
            self._dead -= 1
            work = work_of(row)
            life = work.expires_ns - work.created_ns
            work = work.replace(attempts=0, ended="", created_ns=now, due_ns=now, expires_ns=now + life)
            self._add(db, work, now)
            count += 1
        return count

    def purge(self, db: Db, state: str, ids: Collection[str] | None) -> int:
        if state != "waiting":
            self.forget()
            if ids is None:
                return db.execute(f"DELETE FROM {state} WHERE true").rowcount
            places = [(place,) for place in _places(db, state, "place", ids)]
            db.executemany(f"DELETE FROM {state} WHERE place = ?", places)
            return len(places)
        if ids is None:
            count = db.execute("DELETE FROM work WHERE until IS NULL").rowcount
            self.forget()
            db.execute(sql.UNBLOCK_ALL)
            return count
        count = 0
        for arrival in _places(db, "work", "arrival", ids):
            query = "SELECT order_key FROM work WHERE arrival = ? AND until IS NULL"
            row = db.execute(query, (arrival,)).fetchone()
            if row is not None:
                self._lose(db, arrival, row[0])
                count += 1
        return count


def _lanes(db: Db) -> list[tuple[str, int]]:
    """The operations and priorities of which something is in line: two looks at the index for each."""
    lanes: list[tuple[str, int]] = []
    last = db.execute(sql.NEXT_OPERATION, ("",)).fetchone()
    while last is not None:
        lanes.append(last)
        last = db.execute(sql.NEXT_PRIORITY, last).fetchone() or db.execute(sql.NEXT_OPERATION, last[:1]).fetchone()
    return lanes


def _shrink(db: Db) -> None:
    """Give empty pages back to the file system, an eighth at a time, if they are the greater part of the file."""
    empty = db.execute("PRAGMA freelist_count").fetchone()[0]
    if empty > EMPTY_PAGES and 2 * empty > db.execute("PRAGMA page_count").fetchone()[0]:
        for _ in range(min(EMPTY_PAGES, empty // 8)):
            # However many are asked for: the module asks SQLite for one row, and that is one page.
            db.execute("PRAGMA incremental_vacuum(1)")


def _places(db: Db, table: str, place: str, ids: Iterable[str] | None) -> list[int]:
    """Where the records with these ids lie (None: all), longest there first."""
    if ids is None:
        return [row[0] for row in db.execute(f"SELECT {place} FROM {table} ORDER BY {place}")]
    query = f"SELECT {place} FROM {table} WHERE id = ?"
    rows = (db.execute(query, (key,)).fetchone() for key in set(ids))
    return sorted(row[0] for row in rows if row is not None)
