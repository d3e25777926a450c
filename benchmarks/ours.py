"""Seawall's own subjects: policies with the settings that the peers get, everything else at its default."""

from __future__ import annotations

import importlib
import itertools
from typing import TYPE_CHECKING, Any

from .settings import ATTEMPTS, FAILURE, LIMIT, SECONDS

if TYPE_CHECKING:
    from seawall import Policy

_NEEDED = ("Policy", "Retry", "CircuitBreaker", "Bulkhead", "Timeout")
_names = itertools.count()


def unavailable() -> str | None:
    """Why Seawall cannot be measured, or None."""
    try:
        module = importlib.import_module("seawall")
    except Exception as error:  # a package that is being worked on may fail in any way
        return f"seawall cannot be imported ({error}); install it, or run with PYTHONPATH=src. Only peers are measured."
    lacking = [name for name in _NEEDED if not hasattr(module, name)]
    if lacking:
        return f"seawall at hand has no {', '.join(lacking)}; only peers are measured."
    return None


def retry() -> Policy:
    from seawall import Policy, Retry

    return Policy(Retry(on=FAILURE, attempts=ATTEMPTS))


def retry_at_once() -> Policy:
    """Retries without waiting, and without the retry budget, which would rightly end a run where every call fails."""
    from seawall import Policy, Retry

    return Policy(Retry(on=FAILURE, attempts=ATTEMPTS, delay=0, budget=None))


def breaker() -> Policy:
    from seawall import CircuitBreaker, Policy

    return Policy(CircuitBreaker())


def bulkhead() -> Policy:
    from seawall import Bulkhead, Policy

    return Policy(Bulkhead(LIMIT))


def timeout() -> Policy:
    from seawall import Policy, Timeout

    return Policy(Timeout(SECONDS))


def fused(*, timeout: bool = False) -> Policy:
    """Retry, breaker and bulkhead in one policy, and a timeout of each attempt if asked for."""
    from seawall import Bulkhead, CircuitBreaker, Policy, Retry, Timeout

    specs: list[Any] = [Retry(on=FAILURE, attempts=ATTEMPTS), CircuitBreaker(), Bulkhead(LIMIT)]
    if timeout:
        specs.append(Timeout(SECONDS))
    return Policy(*specs, name=f"benchmark-{next(_names)}")
