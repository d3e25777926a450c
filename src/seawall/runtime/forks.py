"""A forked child starts with its own locks and with nobody else's permits."""

from __future__ import annotations

import os
import weakref
from typing import Protocol

__all__ = ["renew_after_fork"]


class _Renewable(Protocol):
    def renew_after_fork(self) -> None: ...


_known: weakref.WeakSet[_Renewable] = weakref.WeakSet()


def renew_after_fork(thing: _Renewable) -> None:
    """Call `thing.renew_after_fork()` in every forked child, for as long as `thing` lives.

    Threads of the parent do not exist in the child: a lock one of them held would stay locked, a permit one of them
    held would never come back.
    """
    _known.add(thing)


def _renew_all() -> None:
    failure: Exception | None = None
    for thing in list(_known):
        try:
            thing.renew_after_fork()
        except Exception as error:  # noqa: BLE001  # the others must not be left with locks that nobody holds
            failure = error
    if failure is not None:
        raise failure  # the interpreter reports it


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_all)
