"""Refusals as HTTP answers: status, Retry-After and a problem+json body (RFC 9457) that tells a stranger no secrets.

What is shown is the kind of refusal and when to come back. Names of policies, figures and the words of `detail` stay
inside: they tell what a service depends on, how large it is, and how far it is from falling over.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import cast

from seawall.errors import BudgetSpent, DeadlineExceeded, Rejected
from seawall.policies.classify import retry_after_of
from seawall.record import Record
from seawall.units import SECOND

__all__ = ["MEDIA_TYPE", "QUOTA_EXCEEDED", "Problem", "problem_for"]

MEDIA_TYPE = "application/problem+json"
QUOTA_EXCEEDED = "https://iana.org/assignments/http-problem-types#quota-exceeded"
"""As the IETF's draft on RateLimit fields names it. The caller's quota is spent: sending it again is in vain."""
OWN_TYPES = "urn:seawall:"

_REASON = re.compile("[a-z0-9]+(?:-[a-z0-9]+)*")
_NAME = re.compile("[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}")
_VALUE = re.compile("[\t -~]{0,1024}")
_OURS = frozenset(("cache-control", "connection", "content-length", "content-type", "retry-after", "transfer-encoding"))
"""Headers of an answer that are not the error's to set."""


class Problem(Record):
    """An answer, ready to be sent: `status`, `headers` as pairs in order, `body` as bytes of JSON."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes


def problem_for(error: BaseException) -> Problem | None:
    """The answer to an error of Seawall's own: 429 or 503 for a `Rejected`, 504 for a `DeadlineExceeded`.

    `None` for all others, which are not Seawall's to answer. A group of errors (as forking raises) is answered if it
    holds nothing else: as late, if one of them was; else as the refusal that ends first.

    >>> from seawall import CircuitOpen
    >>> answer = problem_for(CircuitOpen("breaker open (14 of 20 calls failed)", policy="payments", retry_after=1.2))
    >>> answer.status, dict(answer.headers)["Retry-After"]
    (503, '2')
    >>> print(answer.body.decode())
    {"type": "urn:seawall:circuit-open", "title": "Cannot be served now", "status": 503, "retry_after": 2}
    """
    own = _own_error_in(error)
    if own is None:
        return None
    if isinstance(own, DeadlineExceeded):
        return _answer(504, f"{OWN_TYPES}deadline-exceeded", "No answer in time", None, {})
    status = _status_of(own)
    if isinstance(own, BudgetSpent):
        kind, title = QUOTA_EXCEEDED, "Quota exceeded"
    else:
        kind, title = _type_of(own), "Too many requests" if status == 429 else "Cannot be served now"
    wish = retry_after_of(own)
    # Rounded up: who comes back a moment early is refused again.
    seconds = None if wish is None else max(1, -(-wish // SECOND))
    return _answer(status, kind, title, seconds, _headers_of(own))


def _answer(status: int, kind: str, title: str, seconds: int | None, others: dict[str, str]) -> Problem:
    members: dict[str, str | int] = {"type": kind, "title": title, "status": status}
    headers = [("Content-Type", MEDIA_TYPE), ("Cache-Control", "no-store")]
    if seconds is not None:
        members["retry_after"] = seconds
        headers.append(("Retry-After", str(seconds)))
    body = json.dumps(members).encode()
    return Problem(status, (*headers, ("Content-Length", str(len(body))), *others.items()), body)


def _own_error_in(error: BaseException) -> Rejected | DeadlineExceeded | None:
    """The error to answer for; `None` if anything in it is not Seawall's own."""
    refusals: list[Rejected] = []
    late: DeadlineExceeded | None = None
    for part in _parts(error):
        if isinstance(part, DeadlineExceeded):
            late = part
        elif isinstance(part, Rejected):
            refusals.append(part)
        else:
            return None
    if late is not None or not refusals:
        return late
    return min(refusals, key=_ends_after)


def _ends_after(refusal: Rejected) -> float:
    wish = retry_after_of(refusal)
    return float("inf") if wish is None else wish


def _parts(error: BaseException) -> Iterator[BaseException]:
    """The errors that are no groups, in order; without recursion, since groups may be nested as deep as they like."""
    waiting = [error]
    while waiting:
        part = waiting.pop()
        if isinstance(part, BaseExceptionGroup):
            waiting.extend(reversed(cast("BaseExceptionGroup[BaseException]", part).exceptions))
        else:
            yield part


def _status_of(refusal: Rejected) -> int:
    status: object = refusal.status
    return status if type(status) is int and 400 <= status <= 599 else 503


def _type_of(refusal: Rejected) -> str:
    reason = str(refusal.reason).replace("_", "-")
    good = len(reason) <= 64 and _REASON.fullmatch(reason)
    return OWN_TYPES + (reason if good else "rejected")


def _headers_of(refusal: Rejected) -> dict[str, str]:
    """What the error wants sent besides: nothing that would begin another header, or contradict ours."""
    try:
        wanted = dict(refusal.headers())
    except Exception:  # noqa: BLE001  # a subclass of somebody else's; the answer matters more
        return {}
    return {
        name: value
        for name, value in wanted.items()
        if _NAME.fullmatch(name) and name.lower() not in _OURS and _VALUE.fullmatch(value)
    }
