"""The one source of random numbers for jitter; reseeded in a forked child, replaced by tests."""

from __future__ import annotations

import os
from _random import Random  # the generator of `random` without its module, which imports hashlib: 8 ms of start-up
from collections.abc import Callable

__all__ = ["install", "random"]

_generator = Random()
random: Callable[[], float] = _generator.random
"""A float in [0, 1). Read it through the module, at each use."""


def install(source: Callable[[], float]) -> Callable[[], None]:
    """Put another source in place for the whole process; return the function that puts the old one back. For tests."""
    global random
    before = random
    random = source

    def restore() -> None:
        global random
        random = before

    return restore


if hasattr(os, "register_at_fork"):
    # Forked workers would otherwise draw the same "random" delays and retry in step.
    os.register_at_fork(after_in_child=lambda: _generator.seed(os.urandom(16)))
