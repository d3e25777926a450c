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

    It looks at WEB_CONCURRENCY, at GUNICORN_CMD_ARGS, and at the command line of gunicorn, uvicorn, hypercorn, granian
    and Celery's worker. In a worker that was spawned anew the command line is not that of the server, but the variables
    are there.
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
    if server == "celery" and "worker" in words:
        if _option(words, "-P", "--pool") not in ("", "prefork", "processes"):
            return None  # threads, or one process
        given = _option(words, "-c", "--concurrency")
        count = _number(given) if given else os.cpu_count() or 1
    elif server in ("gunicorn", "uvicorn", "hypercorn", "granian"):
        count = _number(_option(words, "-w", "--workers"))
    return f"{server} with {count} workers" if count > 1 else None


def _option(words: Sequence[str], short: str, long: str) -> str:
    """The value of an option of a command line, the last if there are several; empty if there is none."""
    value = ""
    for word, following in zip(words, [*words[1:], ""], strict=True):
        if word in (short, long):
            value = following
        elif word.startswith(f"{long}="):
            value = word.partition("=")[2]
        elif word.startswith(short) and not word.startswith("--"):
            value = word[2:]
    return value


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
