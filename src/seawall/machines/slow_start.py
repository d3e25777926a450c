"""A replica that is new or comes back gets a growing share of its traffic: caches are cold, pools are empty.

Rules
    share(since)   from a tenth to all of its weight, in a straight line over `ramp_ns`, in parts per thousand.
    A replica that was there from the beginning has no ramp: all of its kind are equally cold.

After Envoy's slow start mode.
"""

from __future__ import annotations

__all__ = ["WHOLE", "share"]

WHOLE = 1000
LEAST = 100


def share(now_ns: int, since_ns: int | None, ramp_ns: int) -> int:
    """The part of its weight, of `WHOLE`, that a replica has which began at `since_ns`; None means long ago."""
    if since_ns is None:
        return WHOLE
    elapsed = max(0, now_ns - since_ns)
    if elapsed >= ramp_ns:
        return WHOLE
    return max(LEAST, WHOLE * elapsed // ramp_ns)
