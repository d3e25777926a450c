"""A decision as HTTP fields: `RateLimit-Policy` and `RateLimit` of the IETF's draft, and the older `X-RateLimit-*`.

draft-ietf-httpapi-ratelimit-headers-10: structured fields (RFC 9651), one item for each limit,

    RateLimit-Policy: "search";q=100;w=60       at most 100 in 60 seconds
    RateLimit: "search";r=42;t=7                42 are left, and in 7 seconds there are more

For a bucket `q` is what it holds and `w` the time in which it fills; windows below a second are not shown.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from seawall.stores.decision import Decision

__all__ = ["fields_of", "legacy_fields_of"]

SECOND = 1_000_000_000
LARGEST = 999_999_999_999_999
"""What an integer of a structured field can hold."""


def fields_of(decision: Decision) -> dict[str, str]:
    """The fields of the draft; `Retry-After` as well if it is a refusal."""
    parts = list(decision.parts.values()) or [decision]
    fields = {
        "RateLimit-Policy": ", ".join(map(_policy, parts)),
        "RateLimit": ", ".join(map(_state, parts)),
    }
    if not decision.allowed:
        fields["Retry-After"] = str(_seconds(decision.retry_after_ns))
    return fields


def legacy_fields_of(decision: Decision) -> dict[str, str]:
    """`X-RateLimit-Limit`, `-Remaining` and `-Reset` (seconds from now), of the tightest limit."""
    fields = {
        "X-RateLimit-Limit": str(decision.capacity),
        "X-RateLimit-Remaining": str(decision.remaining),
        "X-RateLimit-Reset": str(_seconds(_more_in(decision), least=0)),
    }
    if not decision.allowed:
        fields["Retry-After"] = str(_seconds(decision.retry_after_ns))
    return fields


def _policy(part: Decision) -> str:
    window = part.limit.forget_ns // SECOND
    length = f";w={min(window, LARGEST)}" if window else ""
    return f"{_name(part)};q={min(part.capacity, LARGEST)}{length}"


def _state(part: Decision) -> str:
    return f"{_name(part)};r={min(part.remaining, LARGEST)};t={_seconds(_more_in(part), least=0)}"


def _more_in(part: Decision) -> int:
    """Nanoseconds until there is more: the wait of a refusal, else until nothing is used."""
    return part.retry_after_ns if not part.allowed else round(part.reset_after * SECOND)


def _seconds(nanoseconds: int, least: int = 1) -> int:
    """Rounded up: who comes back a moment early is refused again."""
    return min(max(least, -(-nanoseconds // SECOND)), LARGEST)


def _name(part: Decision) -> str:
    """The name of the limit as a string of structured fields: printable ASCII, with two characters escaped."""
    plain = "".join(letter if " " <= letter <= "~" else "?" for letter in part.name[:64])
    return '"' + plain.replace("\\", "\\\\").replace('"', '\\"') + '"'
