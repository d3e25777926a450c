"""The one set of settings and the one payload that every subject of the benchmarks is measured with."""

from __future__ import annotations

ATTEMPTS = 3  # attempts in all, the first included
LIMIT = 20  # calls in flight at once
FAILURES = 5  # failures in a row that open a breaker that counts them (the default of every peer)
OPEN_FOR = 30  # seconds an open breaker refuses
SECONDS = 5  # a timeout that never fires here: its bookkeeping is what is measured
ANSWER = 1

# One exception type everywhere: a peer that is told `Exception` does the same work, but a reader need not wonder.
FAILURE = ConnectionError


def plain() -> int:
    """The payload: as cheap as a Python function gets, so that what surrounds it is what is seen."""
    return ANSWER


async def aplain() -> int:
    """The payload of the async tables. It never suspends: a suspension would cost more than what is measured."""
    return ANSWER
