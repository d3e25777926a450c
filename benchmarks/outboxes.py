"""What the outbox sections have in common: a record, and its way through an open store."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from .settings import ANSWER

__all__ = ["PAYLOAD", "TOGETHER", "put", "put_together", "way", "way_together"]

TOGETHER = 50
LEASED = 8
PAYLOAD = b'{"user":7,"text":"' + b"x" * 200 + b'"}'
HOUR = 3_600_000_000_000


def _work() -> Any:
    from seawall.outbox.record import Work, fresh_id

    id_, now = fresh_id(), time.time_ns()
    return Work(
        id=id_,
        operation="audit.write",
        payload=PAYLOAD,
        idempotency_key=id_,
        due_ns=now,
        created_ns=now,
        expires_ns=now + HOUR,
    )


def put(opened: Any) -> Callable[[], int]:
    """One record after another is stored."""
    from seawall.runtime.blocking import drive

    def call() -> int:
        drive(opened.put(_work()))
        return ANSWER

    return call


def way(opened: Any) -> Callable[[], int]:
    """One record after another is stored, leased and done."""
    from seawall.runtime.blocking import drive

    def call() -> int:
        drive(opened.put(_work()))
        (lease,), _ = drive(opened.lease(1, HOUR))
        assert drive(opened.ack(lease))
        return ANSWER

    return call


def put_together(opened: Callable[[], Any]) -> Callable[[], Any]:
    """Fifty at once are stored."""

    async def call() -> int:
        store = opened()
        await asyncio.gather(*(store.put(_work()) for _ in range(TOGETHER)))
        return ANSWER

    return call


def way_together(opened: Callable[[], Any]) -> Callable[[], Any]:
    """Fifty at once are stored; then they are leased, some at a time, and done."""

    async def call() -> int:
        store = opened()
        await asyncio.gather(*(store.put(_work()) for _ in range(TOGETHER)))
        done = 0
        while done < TOGETHER:
            leases, _ = await store.lease(LEASED, HOUR)
            await asyncio.gather(*(store.ack(lease) for lease in leases))
            done += len(leases)
        return ANSWER

    return call
