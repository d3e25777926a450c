"""`Work`: one piece of work as it lies in a store; `Queued`: what the caller of a failed call gets instead of an error.

Both are plain values. Times in them are nanoseconds of the civil calendar, since they must survive a restart.
"""

from __future__ import annotations

import os

from seawall.record import Record
from seawall.runtime import clock

__all__ = ["MOST_ERROR_TEXT", "Queued", "Work", "error_text", "fresh_id"]

MOST_ERROR_TEXT = 500
"""Characters kept of an error's text: 100,000 records must not carry 100,000 tracebacks."""


class Work(Record, kw_only=True):
    """One piece of work: a name, and bytes that the operation of this name can read. Never pickled code."""

    id: str
    operation: str
    payload: bytes
    idempotency_key: str
    """The same in every attempt, those of the first call included: whoever is called can tell repeats by it."""
    due_ns: int
    created_ns: int
    expires_ns: int
    """After this instant no attempt is made."""
    attempts: int = 0
    """How many attempts workers have begun; one that is under way is counted."""
    priority: int = 5
    """From 0 to 9; higher goes first."""
    order_key: str | None = None
    """Work with the same key is done one after another, in the order in which it was stored."""
    criticality: int = 2
    """The `Criticality` of the call that this work comes from; attempts are made under it."""
    last_error: str = ""
    ended: str = ""
    """Why it is dead or dropped: `"attempts"`, `"age"`, `"final"`, `"backlog"`; empty while it is neither."""


class Queued(Record, kw_only=True):
    """The work of a call that failed was stored, and will be done later. It is true: `if result: ...`."""

    id: str
    operation: str
    due: float
    """When the first attempt is due: seconds of the civil calendar, as `time.time()` counts them."""
    durable: bool
    """Whether it survives the end of this process."""


def fresh_id() -> str:
    """A new id: 32 hexadecimal digits that sort by the time they were made, in the form of UUID version 7."""
    milliseconds = clock.wall_ns() // 1_000_000 % (1 << 48)
    noise = int.from_bytes(os.urandom(10), "big")
    # 48 bits of time; the version; 12 bits of noise; the variant; 62 bits of noise.
    bits = milliseconds << 80 | 0x7 << 76 | (noise >> 62 & 0xFFF) << 64 | 0b10 << 62 | noise & (1 << 62) - 1
    return f"{bits:032x}"


def error_text(error: BaseException) -> str:
    """The kind and message of an error, at most `MOST_ERROR_TEXT` characters, safe to store and print."""
    try:
        text = f"{type(error).__name__}: {error}"
    except Exception:  # noqa: BLE001  # an error whose text raises; its kind must do
        text = f"{type(error).__name__} (its text cannot be read)"
    return bounded(text)


def bounded(text: str) -> str:
    """`text` cut to `MOST_ERROR_TEXT` characters, without lone surrogates and NUL, which many stores refuse."""
    if len(text) > MOST_ERROR_TEXT:
        text = text[: MOST_ERROR_TEXT - 3] + "..."
    return text.encode("utf-8", "replace").decode("utf-8").replace("\0", "?")
