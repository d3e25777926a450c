"""The headers that carry a call's deadline, criticality and attempt from one service to the next.

`Seawall-Deadline` holds the milliseconds that are left, not an instant: the clocks of two hosts need not agree.
`Seawall-Criticality` holds the name of a level, `Seawall-Attempt` a number from 1. On the way in they are read
strictly, and whatever is not exactly so, or stands there twice, counts as not there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from seawall.context import CURRENT, Criticality
from seawall.record import Record
from seawall.runtime import clock

__all__ = ["ATTEMPT", "CRITICALITY", "DEADLINE", "HEADERS", "Arrived", "inward", "outward_headers"]

DEADLINE = "Seawall-Deadline"
CRITICALITY = "Seawall-Criticality"
ATTEMPT = "Seawall-Attempt"
HEADERS = (DEADLINE, CRITICALITY, ATTEMPT)

MILLISECOND = 1_000_000
# Ten digits are 115 days: who has more time than that has no deadline. Not \d, which takes the digits of any script.
_MILLISECONDS = re.compile("[0-9]{1,10}")
_ATTEMPT = re.compile("[1-9][0-9]{0,5}")


class Arrived(Record):
    """What the headers of a request say; `None` for what they do not, or not readably. `malformed` counts those."""

    left_ns: int | None = None
    criticality: Criticality | None = None
    attempt: int | None = None
    malformed: int = 0


def outward_headers(*, attempt: int | None = None) -> dict[str, str]:
    """The headers to send with a request, from the context of the running call.

    They take the place of any that the request has already: those may come from somebody else. `attempt` stands in
    for the context's own. A deadline that has passed is sent as 0.

    >>> from seawall import deadline
    >>> outward_headers()
    {'Seawall-Criticality': 'CRITICAL', 'Seawall-Attempt': '1'}
    >>> with deadline("2s"):
    ...     int(outward_headers()["Seawall-Deadline"]) > 1900
    True
    """
    context = CURRENT.get()
    headers: dict[str, str] = {}
    if context.deadline_ns is not None:
        left = max(0, context.deadline_ns - clock.now_ns()) // MILLISECOND
        headers[DEADLINE] = str(min(left, 9_999_999_999))
    headers[CRITICALITY] = context.criticality.name
    headers[ATTEMPT] = str(min(context.attempt if attempt is None else attempt, 999_999))
    return headers


def inward(found: Mapping[str, Sequence[str]]) -> Arrived:
    """Read the headers of a request: under each name (as written here) the values that came with it."""
    left_ns = criticality = attempt = None
    read = 0
    value = _only(found.get(DEADLINE, ()))
    if value is not None and _MILLISECONDS.fullmatch(value):
        left_ns = int(value) * MILLISECOND
        read += 1
    value = _only(found.get(CRITICALITY, ()))
    if value is not None and value in Criticality.__members__:
        criticality = Criticality[value]
        read += 1
    value = _only(found.get(ATTEMPT, ()))
    if value is not None and _ATTEMPT.fullmatch(value):
        attempt = int(value)
        read += 1
    given = sum(1 for name in HEADERS if found.get(name))
    return Arrived(left_ns, criticality, attempt, given - read)


def _only(values: Sequence[str]) -> str | None:
    """The value, if there is exactly one: of two nobody can tell which the peer meant."""
    return values[0] if len(values) == 1 else None
