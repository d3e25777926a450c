"""The one policy that the demo shows, with a reason for every setting that is not Seawall's default."""

from typing import Final, NamedTuple

from seawall import Bulkhead, CircuitBreaker, Fallback, Policy, Retry, Timeout
from seawall.demo.shop import FAILURES, USER_TIMEOUT_SECONDS, Answer

NAME: Final = "recommendations"

POPULAR: Final[Answer] = {"user": None, "items": ["popular-1", "popular-2", "popular-3"]}
"""The lesser answer: the same for everybody, but an answer."""


def recommendations() -> Policy:
    """A live policy, outermost layer first."""
    return Policy(
        Fallback(POPULAR),
        Timeout(USER_TIMEOUT_SECONDS),
        Retry(on=FAILURES),
        CircuitBreaker(consecutive=10, open_for="100ms"),
        Bulkhead(12),
        Timeout("300ms"),
        name=NAME,
    )


class Setting(NamedTuple):
    """One argument given above, and why."""

    layer: str
    argument: str
    reason: str


SETTINGS: Final = (
    Setting("Fallback", "popular items", "the same for everybody, in place of a personal answer"),
    Setting("Timeout", "1.0", "the whole call, in seconds: what the plain client allows, too"),
    Setting("Retry", "on=FAILURES", "transport errors, timeouts, 5xx answers; the rest is default"),
    Setting("CircuitBreaker", "consecutive=10", "also opens after 10 in a row: a phase is short for a rate"),
    Setting("CircuitBreaker", 'open_for="100ms"', "the default, 30 s, suits outages of minutes; these last seconds"),
    Setting("Bulkhead", "12", "three times what the service works on at once"),
    Setting("Timeout", '"300ms"', "one attempt: seven times what a healthy answer takes"),
)
