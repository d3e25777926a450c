"""How an attempt ended, as a machine sees it."""

from __future__ import annotations

from enum import Enum

__all__ = ["Ended", "Verdict"]


class Verdict(Enum):
    """What an attempt means to a guard."""

    OK = "ok"
    FAIL = "fail"
    IGNORE = "ignore"
    """Cancelled, refused further inside, or excluded by the user: it says nothing about the target."""


class Ended:
    """The end of an attempt. `retry_after_ns` is what the target asked for in its Retry-After; 0 if nothing."""

    __slots__ = ("duration_ns", "retry_after_ns", "verdict")

    def __init__(self, verdict: Verdict, duration_ns: int = 0, retry_after_ns: int = 0) -> None:
        self.verdict = verdict
        self.duration_ns = duration_ns
        self.retry_after_ns = retry_after_ns

    def __repr__(self) -> str:
        return f"Ended({self.verdict}, {self.duration_ns}, {self.retry_after_ns})"
