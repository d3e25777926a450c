"""How an attempt ended, as a machine sees it."""

from __future__ import annotations

from enum import Enum

from seawall.record import Record

__all__ = ["Ended", "Verdict"]


class Verdict(Enum):
    """What an attempt means to a guard."""

    OK = "ok"
    FAIL = "fail"
    IGNORE = "ignore"
    """Cancelled, refused further inside, or excluded by the user: it says nothing about the target."""


class Ended(Record):
    """The end of an attempt."""

    verdict: Verdict
    duration_ns: int = 0
    retry_after_ns: int = 0
    """What the target asked for in its Retry-After; 0 if nothing."""
