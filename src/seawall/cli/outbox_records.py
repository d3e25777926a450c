"""The records of a store as commands see them: page by page and batch by batch, so that no store is held for long."""

import base64
from collections.abc import Callable, Collection, Iterator, Sequence
from itertools import islice
from typing import Any

from seawall.cli.outbox_print import age, instant
from seawall.cli.outbox_progress import Progress
from seawall.outbox.record import Work
from seawall.outbox.store import Store
from seawall.runtime import clock
from seawall.runtime.blocking import BLOCKING, drive

__all__ = ["Records", "brief", "row_head"]

PAGE = 500
BATCH = 500


class Records:
    """What lies in a store."""

    def __init__(self, store: Store) -> None:
        self._open = store.open(BLOCKING)

    def close(self) -> None:
        """Let its connections go."""
        drive(self._open.close())

    def stats(self) -> dict[str, Any]:
        """The counts, and the age of the oldest in seconds."""
        stats = drive(self._open.stats())
        oldest = stats.oldest_ns
        return {
            "waiting": stats.waiting,
            "leased": stats.leased,
            "dead": stats.dead,
            "dropped": stats.dropped,
            "oldest": None if oldest is None else instant(oldest),
            "oldest_age": None if oldest is None else max(0, clock.wall_ns() - oldest) / 1e9,
        }

    def each(self, state: str, operation: str | None = None, limit: int | None = None) -> Iterator[Work]:
        """The records of a state, oldest first."""
        found = (work for work in self._pages(state) if operation is None or work.operation == operation)
        return islice(found, limit)

    def _pages(self, state: str) -> Iterator[Work]:
        after: str | None = None
        while page := drive(self._open.page(state, limit=PAGE, after=after)):
            yield from page
            if page[-1].id == after:
                return  # a damaged id, which cannot be found again
            after = page[-1].id

    def ids(self, state: str, operation: str | None) -> list[str]:
        """The ids of all records of a state."""
        with Progress("looking", None) as progress:
            found: list[str] = []
            for work in self.each(state, operation):
                found.append(work.id)
                progress.at(len(found))
            return found

    def find(self, key: str) -> tuple[Work, str] | None:
        """A record, and the state that it is in."""
        work = drive(self._open.find(key))
        if work is None:
            dropped = next((work for work in self.each("dropped") if work.id == key), None)
            return None if dropped is None else (dropped, "dropped")
        if work.ended:
            return work, "dead"
        leased = any(other.id == key for other in self.each("leased"))
        return work, "leased" if leased else "waiting"

    def replay(self, ids: Collection[str]) -> int:
        """Dead letters are due again; how many."""
        return drive(self._open.replay(ids))

    def purge(self, state: str, ids: Collection[str] | None) -> int:
        """Forget records, or with None all of a state; how many."""
        return drive(self._open.purge(state, ids))

    @staticmethod
    def in_batches(ids: Sequence[str], act: Callable[[Collection[str]], int], doing: str) -> int:
        """Do it to all, so many at a time; how many it was done to."""
        done = 0
        with Progress(doing, len(ids)) as progress:
            for start in range(0, len(ids), BATCH):
                done += act(ids[start : start + BATCH])
                progress.at(start + BATCH)
        return done

    @staticmethod
    def told(work: Work, state: str, *, payload: bool) -> dict[str, Any]:
        """A record as JSON-ready values."""
        told: dict[str, Any] = {
            "id": work.id,
            "operation": work.operation,
            "state": state,
            "attempts": work.attempts,
            "priority": work.priority,
            "idempotency_key": work.idempotency_key,
            "order_key": work.order_key,
            "criticality": work.criticality,
            "created": instant(work.created_ns),
            "due": instant(work.due_ns),
            "expires": instant(work.expires_ns),
            "created_ns": work.created_ns,
            "due_ns": work.due_ns,
            "expires_ns": work.expires_ns,
            "ended": work.ended,
            "last_error": work.last_error,
            "bytes": len(work.payload),
        }
        return {**told, **_payload(work.payload)} if payload else told


def _payload(payload: bytes) -> dict[str, str]:
    try:
        return {"payload": payload.decode("utf-8")}
    except UnicodeDecodeError:
        return {"payload_base64": base64.b64encode(payload).decode("ascii")}


def row_head(state: str) -> list[str]:
    """The heads of the columns in which records of this state are listed."""
    return ["ID", "OPERATION", "TRIES", "AGE", *_MORE_HEADS[state]]


_MORE_HEADS = {
    "waiting": ["DUE IN", "LAST ERROR"],
    "leased": ["LAST ERROR"],
    "dead": ["WHY", "LAST ERROR"],
    "dropped": ["WHY"],
}


def brief(work: Work, state: str) -> list[str]:
    """The columns of one record."""
    now = clock.wall_ns()
    due = "now" if work.due_ns <= now else age((work.due_ns - now) / 1e9)
    more = {
        "waiting": [due, work.last_error],
        "leased": [work.last_error],
        "dead": [work.ended, work.last_error],
        "dropped": [work.ended],
    }
    return [work.id, work.operation, str(work.attempts), age(max(0, now - work.created_ns) / 1e9), *more[state]]
