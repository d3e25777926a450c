"""A decision as HTTP fields: `RateLimit-Policy` and `RateLimit` of the IETF's draft, and the older `X-RateLimit-*`.

draft-ietf-httpapi-ratelimit-headers-10: structured fields (RFC 9651), one item for each limit,

    RateLimit-Policy: "search";q=100;w=60       at most 100 in 60 seconds
    RateLimit: "search";r=42;t=7                42 are left, and in 7 seconds there are more

For a bucket `q` is what it holds and `w` the time in which it fills; windows below a second are not shown. A limit of
how many run at a time has no window, and says so by its unit, `qu="concurrent-requests"`.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from seawall.machines.leases import LeaseRules

if TYPE_CHECKING:
    from seawall.stores.decision import Decision, Origin

__all__ = ["fields_of", "legacy_fields_of", "wire_fields_of"]

SECOND = 1_000_000_000
LARGEST = 999_999_999_999_999
"""What an integer of a structured field can hold."""


def fields_of(decision: Decision) -> dict[str, str]:
    """The fields of the draft; `Retry-After` as well if it is a refusal."""
    parts = list(decision.parts.values()) or [decision]
    fields = {
        "RateLimit-Policy": ", ".join([_labels(part.origin)[0] for part in parts]),
        "RateLimit": ", ".join(map(_state, parts)),
    }
    if not decision.allowed:
        fields["Retry-After"] = str(_seconds(decision.retry_after_ns))
    return fields


def wire_fields_of(decision: Decision) -> list[tuple[bytes, bytes]]:
    """The fields of the draft for an admission, as a server sends them."""
    if decision.parts:
        return [(name.lower().encode(), value.encode()) for name, value in fields_of(decision).items()]
    return [(b"ratelimit-policy", _labels(decision.origin)[2]), (b"ratelimit", _state(decision).encode())]


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


@lru_cache(maxsize=1_024)
def _labels(origin: Origin) -> tuple[str, str, bytes]:
    """What is the same in all answers of a limit: its policy, its name, and its policy as bytes."""
    # A window says how long it is; a bucket is described by the time in which it fills.
    window = getattr(origin.limit, "period_ns", origin.limit.forget_ns) // SECOND
    length = f";w={min(window, LARGEST)}" if window else ""
    name = _name(origin.name)
    unit = f';qu="{origin.limit.quota_unit}"' if isinstance(origin.limit, LeaseRules) else ""
    policy = f"{name};q={min(origin.limit.capacity, LARGEST)}{unit}{length}"
    return policy, name, policy.encode()


def _state(part: Decision) -> str:
    return f"{_labels(part.origin)[1]};r={min(part.remaining, LARGEST)};t={_seconds(_more_in(part), least=0)}"


def _more_in(part: Decision) -> int:
    """Nanoseconds until there is more: the wait of a refusal, else until nothing is used."""
    return round(part.reset_after * SECOND) if part.allowed else part.retry_after_ns


def _seconds(nanoseconds: int, least: int = 1) -> int:
    """Rounded up: who comes back a moment early is refused again."""
    return min(max(least, -(-nanoseconds // SECOND)), LARGEST)


def _name(name: str) -> str:
    """The name of a limit as a string of structured fields: printable ASCII, with two characters escaped."""
    plain = "".join(letter if " " <= letter <= "~" else "?" for letter in name[:64])
    return '"' + plain.replace("\\", "\\\\").replace('"', '\\"') + '"'
