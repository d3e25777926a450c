"""Which errors a layer means: types or a predicate, made into one function, with what no layer may touch left out."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from seawall.errors import ConfigError, DeadlineExceeded, Rejected
from seawall.machines.verdict import Verdict
from seawall.policies.functions import check_predicate
from seawall.units import LONGEST, SECOND, given

__all__ = ["PROGRAMMING", "Errors", "Judged", "Matcher", "add_note", "matcher", "retry_after_of", "verdict_of"]

Errors = type[Exception] | tuple[type[Exception], ...] | Callable[[Exception], object]
"""Exception types, or a predicate of the exception."""
Matcher = Callable[[BaseException], bool]

PROGRAMMING = (TypeError, NameError, AttributeError, AssertionError, SyntaxError)
"""Errors of the program, not of the world: calling again or hiding them helps nobody, unless they are named."""


class Judged(Exception):
    """An error that brings its verdict along: an edge knows what an answer of its protocol says of the target."""

    verdict = Verdict.FAIL


def matcher(on: Errors, field: str, *, refusals: bool) -> Matcher:
    """A function that tells whether an error is meant by `on`.

    Cancellation, `KeyboardInterrupt`, `SystemExit` and `GeneratorExit` are never meant. Named types mean their
    subclasses; but programming errors, and with `refusals=False` Seawall's own refusals, only when they are named
    themselves. A group of errors is meant if all that is in it is. A predicate decides alone. Raises `ConfigError` for
    anything else.
    """
    shown = given(field, cast("object", on))
    if isinstance(on, (type, tuple)):
        types = cast("tuple[type[Exception], ...]", on if isinstance(on, tuple) else (on,))
        if not types:
            raise ConfigError(f"{shown}: expected at least one exception type")
        if not all(isinstance(kind, type) and issubclass(kind, Exception) for kind in types):  # pyright: ignore[reportUnnecessaryIsInstance]  # callers without a type checker
            raise ConfigError(f"{shown}: expected subclasses of Exception (cancellation and exit are never caught)")
        special = PROGRAMMING if refusals else (*PROGRAMMING, Rejected)
        named = tuple(kind for kind in types if issubclass(kind, special))

        def by_type(error: BaseException) -> bool:
            if not isinstance(error, types) and not _all_are(error, types):
                return False
            return not any(_hidden(part, special, named) for part in _parts(error))

        return by_type
    if on is None:
        raise ConfigError(f"{shown}: expected exception types or a predicate")
    check_predicate(on, field, "exception types (several as a tuple) or a predicate")
    predicate = on

    def by_predicate(error: BaseException) -> bool:
        return isinstance(error, Exception) and bool(predicate(error))

    return by_predicate


def _parts(error: BaseException) -> list[BaseException]:
    """The error, and if it is a group what is in it."""
    if not isinstance(error, BaseExceptionGroup):
        return [error]
    group = cast("BaseExceptionGroup[BaseException]", error)
    return [error, *(part for inner in group.exceptions for part in _parts(inner))]


def _all_are(error: BaseException, types: tuple[type[Exception], ...]) -> bool:
    """Whether it is a group, as forking and task groups raise, of nothing but these."""
    if not isinstance(error, BaseExceptionGroup):
        return False
    parts = _parts(cast("BaseException", error))
    return all(isinstance(part, types) for part in parts if not isinstance(part, BaseExceptionGroup))


def _hidden(error: BaseException, special: tuple[type, ...], named: tuple[type, ...]) -> bool:
    """Whether it is of a kind that has to be named, and is not."""
    return isinstance(error, special) and not isinstance(error, named)


def verdict_of(error: BaseException, means_failure: Matcher, means_nothing: Matcher | None) -> Verdict:
    """What an error says about the target, to a guard.

    Nothing, if it is a cancellation, a refusal from further inside, or the impatience of the caller. An error that is
    not meant by `means_failure` is an answer: the target is well.
    """
    if not isinstance(error, Exception) or isinstance(error, Rejected):
        return Verdict.IGNORE
    if isinstance(error, DeadlineExceeded) and error.inherited:
        return Verdict.IGNORE
    if means_nothing is not None and means_nothing(error):
        return Verdict.IGNORE
    if isinstance(error, Judged) and error.verdict is not Verdict.FAIL:
        return error.verdict
    return Verdict.FAIL if means_failure(error) else Verdict.OK


def retry_after_of(error: object) -> int | None:
    """The target's wish in nanoseconds, from an attribute `retry_after` in seconds; None if there is no sound one."""
    try:
        value = getattr(error, "retry_after", None)
    except Exception:  # noqa: BLE001  # a property of somebody else's; the error itself matters more
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value >= 0:  # NaN is not
        return None
    # A wish beyond any patience is still a wish: to take it for none would be to call again at once.
    return round(min(value, LONGEST / SECOND) * 1e9)


def add_note(error: BaseException, start: str, rest: str) -> None:
    """Add a note to an error, once for each `start`; errors that take no notes stay as they are."""
    try:
        if not any(note.startswith(start) for note in getattr(error, "__notes__", ())):
            error.add_note(start + rest)
    except Exception:  # noqa: BLE001  # a frozen error, or odd notes: the error itself matters more
        return
