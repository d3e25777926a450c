"""What the status of an answer says about the server: well, failing, or nothing."""

from __future__ import annotations

import json
import zlib
from typing import cast

from seawall.http.problem import MEDIA_TYPE
from seawall.machines.verdict import Verdict

__all__ = ["MOST_PROBLEM_BYTES", "is_quota_exceeded", "may_be_quota", "verdict_of_status"]

MOST_PROBLEM_BYTES = 65_536
"""A problem that is longer than this is not read."""


def verdict_of_status(status: int) -> Verdict:
    """`FAIL` for 5xx and 408; `IGNORE` for 429, since a server that keeps order is well; else `OK`.

    >>> [verdict_of_status(status).name for status in (200, 404, 408, 429, 503)]
    ['OK', 'OK', 'FAIL', 'IGNORE', 'FAIL']
    """
    if status >= 500 or status == 408:
        return Verdict.FAIL
    return Verdict.IGNORE if status == 429 else Verdict.OK


def may_be_quota(status: int, content_type: str | None) -> bool:
    """Whether the body has to be read to tell if this refusal is final."""
    if status != 429 or content_type is None:
        return False
    return content_type.partition(";")[0].strip(" \t").lower() == MEDIA_TYPE


def is_quota_exceeded(body: bytes, encoding: str | None = None) -> bool:
    """Whether a problem+json body is of type `quota-exceeded`: by the IETF's URI, or any other that ends so.

    `encoding` is the Content-Encoding; at most `MOST_PROBLEM_BYTES` are unpacked. What cannot be read is not.

    >>> is_quota_exceeded(b'{"type": "urn:example:quota-exceeded"}'), is_quota_exceeded(b"[" * 60_000)
    (True, False)
    """
    try:
        plain = _unpacked(body, (encoding or "").strip(" \t").lower())
        problem = json.loads(plain)
    except (ValueError, RecursionError, zlib.error):
        return False
    kind = cast("dict[str, object]", problem).get("type") if isinstance(problem, dict) else None
    if not isinstance(kind, str):
        return False
    return kind.replace("#", "/").replace(":", "/").rpartition("/")[2] == "quota-exceeded"


def _unpacked(body: bytes, encoding: str) -> bytes:
    if encoding in ("gzip", "x-gzip", "deflate"):
        unpacker = zlib.decompressobj(wbits=47)  # either format, told by its first bytes
        plain = unpacker.decompress(body, MOST_PROBLEM_BYTES)
        if not unpacker.eof:
            raise ValueError("cut off, or too long")
        return plain
    if encoding not in ("", "identity") or len(body) > MOST_PROBLEM_BYTES:
        raise ValueError("cannot be read here")
    return body
