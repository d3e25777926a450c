"""Which requests may be sent twice: those whose method says so, and those that their sender vouches for."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["may_be_sent_twice"]

IDEMPOTENT = frozenset(("GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"))
"""RFC 9110, 9.2.2. Methods are case-sensitive: `get` is another one, of which nothing is known."""


def may_be_sent_twice(
    method: str, keys: Sequence[str] = (), *, idempotent: bool | None = None, replayable: bool = True
) -> bool:
    """Whether a request that may have reached its server may be sent to one again.

    `keys` are the values of its Idempotency-Key headers; two of them identify nothing. `idempotent` is the sender's
    own word, which stands above method and key; `None` if he said nothing. A body that cannot be read a second time
    (`replayable=False`) cannot be sent a second time, whatever anybody says.

    >>> may_be_sent_twice("PUT"), may_be_sent_twice("POST"), may_be_sent_twice("POST", ["order-7"])
    (True, False, True)
    >>> may_be_sent_twice("GET", idempotent=False), may_be_sent_twice("PUT", replayable=False)
    (False, False)
    """
    if not replayable:
        return False
    if idempotent is not None:
        return idempotent
    return method in IDEMPOTENT or (len(keys) == 1 and bool(keys[0].strip()))
