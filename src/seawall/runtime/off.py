"""The switches that turn Seawall off, or only its waiting, for the whole process."""

from __future__ import annotations

__all__ = ["disable", "enable"]

everything: bool = False
"""Policies call the function and do nothing else."""
waiting: bool = False
"""Policies work, but retries do not wait."""


def disable(*, waiting_only: bool = False) -> None:
    """Switch every policy of this process off, or with `waiting_only=True` only the pauses between retries.

    For tests and emergencies. `enable()` ends both. Calls that are under way finish as they began.
    """
    global everything, waiting
    if waiting_only:
        waiting = True
    else:
        everything = True


def enable() -> None:
    """Undo `disable()`, in both of its forms."""
    global everything, waiting
    everything = waiting = False
