"""A record as a message: the payload is its body, all else stands in its properties and headers.

Nothing that comes from the broker is trusted: what is not of this form is `Foreign`, and becomes a dead letter.
"""

from __future__ import annotations

import json
from typing import Any, cast

from seawall.outbox.record import Work, bounded
from seawall.runtime import clock

__all__ = ["Foreign", "foreign", "packed", "read", "unpacked"]

VERSION = "seawall-version"
RECORD = "seawall-record"
NEVER_ANSWERED = "too often its worker died of it, or lost its connection"
MOST_TEXT = 10_000
NUMBERS = ("due_ns", "created_ns", "expires_ns", "attempts", "priority", "criticality")
TEXTS = ("idempotency_key", "last_error", "ended")


class Foreign(Exception):
    """A message that is no record."""


def packed(work: Work) -> dict[str, Any]:
    """The properties of the message of a record."""
    fields = {field: getattr(work, field) for field in (*NUMBERS, *TEXTS)}
    return {
        "message_id": work.id,
        "message_type": work.operation,
        "content_type": "application/octet-stream",
        "delivery_mode": 2,
        # One header for all: a header for each takes the client library longer than everything else.
        "headers": {VERSION: 1, RECORD: json.dumps(fields, separators=(",", ":"))},
    }


def unpacked(message: Any, *, deliveries: bool = True) -> Work:
    """The record of a message as it lies there: attempts that ended without an answer are counted. Raises `Foreign`."""
    properties = message.header.properties
    headers = _headers(properties)
    if headers.get(VERSION) != 1:
        raise Foreign("no record of an outbox, or of a later version")
    told = _told(headers.get(RECORD))
    fields: dict[str, Any] = {field: _number(told.get(field), field) for field in NUMBERS}
    fields |= {field: _text(told.get(field), field) for field in TEXTS}
    fields["id"] = _label(properties.message_id, "id")
    fields["operation"] = _label(properties.message_type, "operation")
    if not 0 <= fields["priority"] <= 9:
        raise Foreign("priority")
    if deliveries:
        fields["attempts"] += _deliveries(headers)
    return Work(payload=bytes(message.body), **fields)


def read(message: Any) -> Work:
    """The record of a message that was only looked at, so that no delivery counts; a stand-in for one that is none."""
    try:
        work = unpacked(message, deliveries=False)
        if not work.ended and _headers(message.header.properties).get("x-first-death-reason") == "delivery_limit":
            return work.replace(ended="attempts", last_error=bounded(f"{NEVER_ANSWERED}; before: {work.last_error}"))
        return work
    except Foreign as error:
        return foreign(message, error)


def foreign(message: Any, error: Foreign) -> Work:
    """A record in place of a message that is none, so that it can be seen among the dead letters, and purged."""
    properties, now = message.header.properties, clock.wall_ns()
    digits = str(properties.message_id or "")
    id = digits if 1 <= len(digits) <= 64 and digits.isalnum() and digits.isascii() else "foreign"  # noqa: A001
    return Work(
        id=id,
        operation="foreign",
        payload=bytes(message.body),
        idempotency_key=id,
        due_ns=now,
        created_ns=now,
        expires_ns=now,
        last_error=bounded(f"no record: {error}"),
        ended="final",
    )


def _headers(properties: Any) -> dict[str, Any]:
    found: object = properties.headers
    return cast("dict[str, Any]", found) if isinstance(found, dict) else {}


def _told(found: object) -> dict[str, Any]:
    try:
        told: object = json.loads(found) if isinstance(found, str) else None
    except (ValueError, RecursionError):
        told = None
    if not isinstance(told, dict):
        raise Foreign("header")
    return cast("dict[str, Any]", told)


def _number(found: object, field: str) -> int:
    if type(found) is not int or not 0 <= found < 1 << 63:
        raise Foreign(field)
    return found


def _text(found: object, field: str) -> str:
    if not isinstance(found, str) or len(found) > MOST_TEXT:
        raise Foreign(field)
    return found


def _label(found: object, field: str) -> str:
    text = _text(found, field)
    if not 1 <= len(text) <= 255:
        raise Foreign(field)
    return text


def _deliveries(headers: dict[str, Any]) -> int:
    found = headers.get("x-delivery-count")
    return found if type(found) is int and 0 <= found < 1 << 31 else 0
