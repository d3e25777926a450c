"""What an error of an attempt means to a call through a cluster: whether to try again, and whether to wait first.

For plain functions the user chose the cluster, so whatever fails may be tried elsewhere. An HTTP edge knows more: what
may be sent twice, and what certainly never left. It brings `Terms` of its own.
"""

from __future__ import annotations

from typing import Protocol, cast

from seawall.errors import DeadlineExceeded, Rejected
from seawall.machines.verdict import Verdict
from seawall.policies.classify import PROGRAMMING, Matcher

__all__ = [
    "ANSWER",
    "AT_ONCE",
    "ELSEWHERE",
    "FAILED",
    "FINAL",
    "NOTHING",
    "PlainTerms",
    "Reading",
    "Terms",
    "is_final",
    "is_programming",
]

MOST_LINKS = 6
"""How far causes are followed."""


class Reading:
    """What an error means: its `verdict` on the endpoint; whether the call may be made `again`; and whether `at_once`,
    without a pause, for the attempt cost the endpoint nothing."""

    __slots__ = ("again", "at_once", "verdict")

    def __init__(self, verdict: Verdict, *, again: bool, at_once: bool = False) -> None:
        self.verdict = verdict
        self.again = again
        self.at_once = at_once

    def __repr__(self) -> str:
        return f"Reading({self.verdict}, again={self.again}, at_once={self.at_once})"


FAILED = Reading(Verdict.FAIL, again=True)
"""The endpoint failed: try elsewhere, after a pause."""
AT_ONCE = Reading(Verdict.FAIL, again=True, at_once=True)
"""The endpoint could not be reached: try elsewhere at once."""
FINAL = Reading(Verdict.FAIL, again=False)
"""The endpoint failed, and the call must not be made twice."""
ANSWER = Reading(Verdict.OK, again=False)
"""An error that is an answer: the endpoint is well."""
NOTHING = Reading(Verdict.IGNORE, again=False)
"""Says nothing about the endpoint, and is not tried again: a cancellation, an error of the program, an impatient
caller."""

ELSEWHERE = Reading(Verdict.IGNORE, again=True)
"""Says nothing about the endpoint, but may be tried again: a refusal that the user named."""


class Terms(Protocol):
    """Reads the errors of one call."""

    def read(self, error: BaseException) -> Reading: ...


def is_programming(error: BaseException) -> bool:
    """Whether it is an error of the program, or a group with one in it."""
    if isinstance(error, BaseExceptionGroup):
        return any(is_programming(part) for part in cast("BaseExceptionGroup[BaseException]", error).exceptions)
    return isinstance(error, PROGRAMMING)


def is_final(error: BaseException) -> bool:
    """Whether it is nobody's failure: an exit, a cancellation, an error of the program, the caller's deadline."""
    if not isinstance(error, Exception) or is_programming(error):
        return True
    return isinstance(error, DeadlineExceeded) and error.inherited


class PlainTerms:
    """The terms of plain functions. `means`: which errors are failures; the others are answers."""

    def __init__(self, means: Matcher | None = None) -> None:
        self._means = means

    def read(self, error: BaseException) -> Reading:
        named = self._means is not None and isinstance(error, Exception) and self._means(error)
        if isinstance(error, Rejected):
            # From further inside: whatever refused there is not this endpoint, and would refuse again.
            return ELSEWHERE if named else NOTHING
        if is_final(error) and not (named and is_programming(error)):
            return NOTHING
        if self._means is not None and not named:
            return ANSWER
        return AT_ONCE if _was_refused(error) else FAILED


def _was_refused(error: BaseException) -> bool:
    """Whether the connection was refused, as clients tell it: by the error itself, its cause, or an attribute of it."""
    seen: object = error
    for _ in range(MOST_LINKS):
        if isinstance(seen, ConnectionRefusedError):
            return True
        if not isinstance(seen, BaseException):
            return False
        seen = seen.__cause__ or getattr(seen, "os_error", None) or getattr(seen, "reason", None)
    return False
