"""SQLite's connections cannot be carried across a fork, not even to close them: so none is open when one happens.

A child that inherits one believes that it holds the parent's locks, also for connections of its own to the same file;
then another process may take it for absent, and throw away the log that it writes to.
"""

from __future__ import annotations

import os
import weakref
from typing import Protocol

__all__ = ["join"]


class _Forking(Protocol):
    def before_fork(self) -> None: ...
    def after_fork_in_parent(self) -> None: ...
    def after_fork_in_child(self) -> None: ...


_known: weakref.WeakSet[_Forking] = weakref.WeakSet()
_forking: list[_Forking] = []


def join(thing: _Forking) -> None:
    """Call the three methods of `thing` around every fork, for as long as it lives."""
    _known.add(thing)


def _before() -> None:
    for thing in list(_known):
        thing.before_fork()
        _forking.append(thing)


def _in_parent() -> None:
    while _forking:
        _forking.pop().after_fork_in_parent()


def _in_child() -> None:
    # Those that were made while others were being waited for have no connection yet, but locks.
    for thing in list(_known):
        thing.after_fork_in_child()
    _forking.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before, after_in_parent=_in_parent, after_in_child=_in_child)
