"""Whether this process is one of several workers, each with limits of its own; said once, with the remedy."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Sequence

__all__ = ["signs_of_several_workers", "warn_of_several_workers"]

_warned = False


def signs_of_several_workers(argv: Sequence[str] | None = None) -> str | None:
    """What shows that this service runs in several processes, in words; None if nothing does.

    It looks at WEB_CONCURRENCY, at GUNICORN_CMD_ARGS, and at the command line of gunicorn, uvicorn, hypercorn and
    granian. In a worker that was spawned anew the command line is not that of the server, but the variables are there.
    """
    count = _number(os.environ.get("WEB_CONCURRENCY", ""))
    if count > 1:
        return f"WEB_CONCURRENCY={count}"
    words = list(sys.argv if argv is None else argv)
    server = os.path.basename(words[0]) if words else ""
    if words and server == "__main__.py":
        server = os.path.basename(os.path.dirname(words[0]))
    if server == "gunicorn":
        words += os.environ.get("GUNICORN_CMD_ARGS", "").split()
    if server not in ("gunicorn", "uvicorn", "hypercorn", "granian"):
        return None
    count = _workers_in(words)
    return f"{server} with {count} workers" if count > 1 else None


def _workers_in(words: Sequence[str]) -> int:
    count = 0
    for word, following in zip(words, [*words[1:], ""], strict=True):
        if word in ("-w", "--workers"):
            count = _number(following)
        elif word.startswith("--workers="):
            count = _number(word.partition("=")[2])
        elif word.startswith("-w") and not word.startswith("--"):
            count = _number(word[2:]) or count
    return count


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 6 else 0


def warn_of_several_workers(limiter: str) -> None:
    """Warn, once in this process, if there are signs of several workers."""
    global _warned  # noqa: PLW0603  # once a process
    if _warned:
        return
    sign = signs_of_several_workers()
    if sign is None:
        return
    _warned = True
    warnings.warn(
        f"limiter {limiter!r} keeps its state in this process, and the service runs in several ({sign}): each worker "
        "admits the whole limit. Give it a store that they share, store=Valkey(url); or say store=Memory() if a limit "
        "for each process is what you want.",
        RuntimeWarning,
        stacklevel=3,
    )
