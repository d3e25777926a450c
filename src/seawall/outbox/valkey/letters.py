"""A record as the script keeps it: fields and values, and back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from seawall.outbox.record import Work

__all__ = ["fields_of", "split", "work_of"]

NAMES = {
    b"i": "id",
    b"o": "operation",
    b"p": "payload",
    b"k": "idempotency_key",
    b"d": "due_ns",
    b"c": "created_ns",
    b"x": "expires_ns",
    b"a": "attempts",
    b"q": "priority",
    b"y": "order_key",
    b"z": "criticality",
    b"e": "last_error",
    b"f": "ended",
}
NUMBERS = frozenset({"due_ns", "created_ns", "expires_ns", "attempts", "priority", "criticality"})


def fields_of(work: Work) -> list[bytes]:
    """What `put` is given: the id, then fields and values."""
    life = max(0, work.expires_ns - work.created_ns)
    found = [work.id.encode(), b"l", b"%d" % life, b"p", work.payload]
    for letter, name in NAMES.items():
        value: Any = getattr(work, name)
        if name in ("id", "payload") or value is None or value == "":
            continue
        found += [letter, b"%d" % value if name in NUMBERS else str(value).encode()]
    return found


def work_of(found: Sequence[bytes]) -> Work:
    """A record from what the script tells of it."""
    values: dict[str, Any] = {"last_error": "", "ended": ""}
    for letter, value in zip(found[::2], found[1::2], strict=True):
        name = NAMES.get(letter)
        if name is not None:
            values[name] = value if name == "payload" else int(value) if name in NUMBERS else value.decode()
    return Work(**values)


def split(duration_ns: int) -> tuple[bytes, bytes]:
    """Whole microseconds and the rest: a double does not hold the nanoseconds of a date."""
    return b"%d" % (duration_ns // 1_000), b"%d" % (duration_ns % 1_000)
