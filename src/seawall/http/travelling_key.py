"""The idempotency key of an operation of an outbox, as it goes out with the requests of its handler."""

from __future__ import annotations

import hashlib
import hmac

from seawall.outbox.running import current

__all__ = ["IDEMPOTENCY_KEY", "travelling_key"]

IDEMPOTENCY_KEY = "Idempotency-Key"
SAFE = frozenset(("GET", "HEAD", "OPTIONS", "TRACE"))


def travelling_key(method: str, url: object, body: bytes | None) -> str | None:
    """A key for a request that has none; None outside of an operation, or if there is nothing to tell it by.

    It is the same in all attempts of the operation, and another for another request: a handler that sent one key with
    two requests would have the second taken for the first. So nothing is sent for a body that is not in memory
    (`None`), of which nobody knows whether it is the same.

    >>> travelling_key("POST", "http://payments/charges", b"{}") is None
    True
    """
    run = current()
    if run is None or body is None or method in SAFE:
        return None
    request = hashlib.sha256(repr((run.operation, method, str(url))).encode())
    request.update(body)
    return hmac.digest(run.idempotency_key.encode("utf-8", "surrogatepass"), request.digest(), "sha256").hex()[:32]
