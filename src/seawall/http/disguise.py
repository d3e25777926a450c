"""Errors that are of two kinds: Seawall's own, and the client's, so that code written for the client catches them."""

from __future__ import annotations

from typing import Any

from seawall.machines.verdict import Verdict
from seawall.policies.classify import Judged

__all__ = ["Blameless", "disguised"]


class Blameless(Judged):
    """An error of this side, such as a full pool of connections: it says nothing about the endpoint."""

    verdict = Verdict.IGNORE


_known: dict[tuple[type, type], type[BaseException]] = {}


def _both(own: type[BaseException], foreign: type[BaseException]) -> type[BaseException]:
    """The class of errors of both kinds; there are as many as there are classes of errors."""
    known = _known.get((own, foreign))
    if known is not None:
        return known

    def plain(error: BaseException) -> tuple[Any, ...]:
        return own, error.args  # a class made here cannot be found again by its name

    made = type(own.__name__, (own, foreign), {"__module__": own.__module__, "__reduce__": plain})
    return _known.setdefault((own, foreign), made)


def disguised(
    error: BaseException, own: type[BaseException], foreign: type[BaseException], **more: Any
) -> BaseException:
    """A copy of `error`, of both kinds: text, facts, cause and traceback are the same. `more` are facts it needs."""
    kind = _both(own, foreign)
    copy = kind.__new__(kind)
    copy.args = error.args
    copy.__dict__.update({**more, **error.__dict__})
    copy.__cause__, copy.__context__ = error.__cause__, error.__context__
    copy.__suppress_context__ = error.__suppress_context__
    return copy.with_traceback(error.__traceback__)
