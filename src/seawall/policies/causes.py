"""The errors of earlier attempts, hung on the cause chain of the one that is raised."""

from __future__ import annotations

from typing import Any

__all__ = ["Earlier"]

CAUSE: Any = BaseException.__dict__["__cause__"]
TRACEBACK: Any = BaseException.__dict__["__traceback__"]
CHAIN_LENGTH = 5
"""How many earlier errors stay on the cause chain: a million attempts must not grow without end."""


class Earlier:
    """The latest few errors of earlier attempts."""

    __slots__ = ("_errors",)

    def __init__(self) -> None:
        self._errors: list[BaseException] = []

    def add(self, error: BaseException) -> None:
        """Keep an error that is not raised, since there is another attempt."""
        if any(error is known for known in self._errors):
            # An instance raised again and again would gather the traceback of every attempt.
            TRACEBACK.__set__(error, None)
        else:
            self._errors = [*self._errors[-CHAIN_LENGTH + 1 :], error]

    def chain_to(self, error: BaseException) -> None:
        """Hang them on the end of the cause chain of `error`, newest first.

        The chain closes no circle, and grows to `CHAIN_LENGTH` causes only, however often one instance is raised.
        """
        seen = [error]
        for previous in reversed(self._errors):
            while seen[-1].__cause__ is not None:
                seen.append(seen[-1].__cause__)
                if len(seen) > CHAIN_LENGTH or any(seen[-1] is known for known in seen[:-1]):
                    return
            if any(link is known for link in _causes(previous) for known in seen):
                continue
            # By the slot itself: an error may be a frozen dataclass.
            CAUSE.__set__(seen[-1], previous)


def _causes(error: BaseException) -> list[BaseException]:
    """The error and its causes, each once."""
    links = [error]
    while links[-1].__cause__ is not None and all(links[-1].__cause__ is not known for known in links):
        links.append(links[-1].__cause__)
    return links
