"""What becomes of a record after an attempt: done, tried again later, given back, or a dead letter.

Rules
    no error                     done.
    an error that is `final`     dead, "final".
    a refusal (`Rejected`)       given back, uncounted: no attempt was made. Due when it says, or else after the pause.
    the last attempt             dead, "attempts".
    anything else                due again after a pause: drawn evenly from 0 to min(cap, base * 2**(n-1)), or longer if
                                 the error asks for it, up to cap.
    due only after it expires    dead, "age".

Errors of the program (`TypeError` and the like) are tried again like any other: nobody is there to hear them, and the
program that tries next may be a mended one. To bury them at once would turn one bad release into thousands of dead
letters in a minute. They are recorded, counted and told at the first attempt.
"""

from __future__ import annotations

from seawall.errors import Rejected
from seawall.machines.verdict import Verdict
from seawall.outbox.operations import ATTEMPTS, SCHEDULE, Operation
from seawall.outbox.record import Work, bounded, error_text
from seawall.outbox.worker.attempt import Unreadable
from seawall.policies.classify import PROGRAMMING, retry_after_of
from seawall.record import Record

__all__ = ["Step", "judge", "judge_before", "verdict_on"]

NEVER_CAME_BACK = "the last attempt never came back: its worker died of it, or lost its lease"


class Step(Record, kw_only=True):
    """What to tell the store."""

    what: str
    """`"ack"`, `"retry"`, `"release"` or `"bury"`."""
    pause_ns: int = 0
    why: str = ""
    text: str = ""
    keeps_place: bool = False
    """Released as if it had not been touched: what it waits for is waited for by the worker."""


def judge_before(work: Work, operation: Operation | None, wall_ns: int) -> Step | None:
    """What becomes of a record without another attempt; None if one is to be made."""
    if work.expires_ns <= wall_ns:
        return Step(what="bury", why="age", text=work.last_error or "it expired before any attempt was made")
    if work.attempts > _most(operation):
        return Step(what="bury", why="attempts", text=bounded(f"{NEVER_CAME_BACK}; before: {work.last_error}"))
    return None


def judge(work: Work, operation: Operation | None, error: Exception | None, wall_ns: int, rand: float) -> Step:
    """What becomes of a record after an attempt that ended with `error`; `rand` is in [0, 1)."""
    if error is None:
        return Step(what="ack")
    text = error_text(error)
    if _is_final(operation, error):
        return Step(what="bury", why="final", text=text)
    refused = isinstance(error, Rejected)
    if not refused and work.attempts >= _most(operation):
        return Step(what="bury", why="attempts", text=text)
    schedule = SCHEDULE if operation is None else operation.schedule
    wish = min(retry_after_of(error) or 0, schedule.cap_ns)
    # A refusal that says when to come back is as good as an appointment; any other error may be a long one.
    pause = wish if refused and wish else max(schedule.pause_ns(work.attempts, rand), wish)
    if wall_ns + pause >= work.expires_ns:
        return Step(what="bury", why="age", text=text)
    return Step(what="release" if refused else "retry", pause_ns=pause, text=text)


def verdict_on(operation: Operation | None, error: Exception | None) -> Verdict:
    """What an attempt says about the target."""
    if error is None or _is_final(operation, error):
        return Verdict.OK
    if isinstance(error, (Unreadable, *PROGRAMMING)):
        return Verdict.IGNORE
    return Verdict.OK if _is_answer(operation, error) else Verdict.FAIL


def _is_answer(operation: Operation | None, error: Exception) -> bool:
    """Whether the cluster's `on` makes it an answer. It is tried again all the same: only `final` buries at once."""
    # Of a cluster only: a policy has no terms.
    core = None if operation is None else getattr(operation.through, "_core", None)
    terms = getattr(core, "terms", None)
    try:
        return terms is not None and terms.read(error).verdict is Verdict.OK
    except Exception:  # noqa: BLE001  # a broken predicate is no good news
        return False


def _most(operation: Operation | None) -> int:
    return ATTEMPTS if operation is None else operation.attempts


def _is_final(operation: Operation | None, error: Exception) -> bool:
    try:
        return operation is not None and operation.is_final(error)
    except Exception:  # noqa: BLE001  # a broken predicate must not bury anything
        return False
