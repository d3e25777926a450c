"""What a simulated run reports when the code under test is at fault; all are `AssertionError`s."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["Deadlock", "RunFailure", "SwallowedCancellation", "TasksLeft", "TooManySteps", "Unhandled"]


class RunFailure(AssertionError):
    """The base of every fault that `seawall.testing` finds by itself; catch it to catch them all."""


class Deadlock(RunFailure):
    """Nothing is ready and no timer is set: nothing can ever happen again. The message lists who waits, and where."""


class TooManySteps(RunFailure):
    """The run took more than `max_steps` callbacks; something runs away without letting time pass, or never ends."""


class TasksLeft(RunFailure):
    """`main` returned while tasks that it or its callees had started were still waiting. `tasks` names them."""

    def __init__(self, message: str, tasks: Sequence[str]) -> None:
        super().__init__(message)
        self.tasks = tuple(tasks)


class Unhandled(RunFailure):
    """Something reached the loop's exception handler, such as the error of a task that nobody looked at.

    `contexts` holds the dictionaries that `loop.call_exception_handler` was given, in order; the first exception
    among them is the `__cause__`.
    """

    def __init__(self, message: str, contexts: Sequence[Mapping[str, Any]]) -> None:
        super().__init__(message)
        self.contexts = tuple(contexts)


class SwallowedCancellation(RunFailure):
    """The victim of `cancel_everywhere` was cancelled and yet ended as if it had not been."""
