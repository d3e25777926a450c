"""What the status of an answer says: 5xx and 408 fail, 429 says nothing, the rest is well; a spent quota is final."""

from __future__ import annotations

import gzip
import json
import zlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seawall.http.verdicts import MOST_PROBLEM_BYTES, is_quota_exceeded, may_be_quota, verdict_of_status
from seawall.machines.verdict import Verdict


@pytest.mark.parametrize(
    ("verdict", "statuses"),
    [
        (Verdict.FAIL, [500, 501, 502, 503, 504, 507, 599, 408, 999]),
        (Verdict.IGNORE, [429]),
        (Verdict.OK, [100, 200, 204, 301, 304, 400, 401, 403, 404, 409, 410, 418, 422, 425, 451, 499]),
    ],
)
def test_each_status_has_its_verdict(verdict: Verdict, statuses: list[int]) -> None:
    assert {verdict_of_status(status) for status in statuses} == {verdict}


@pytest.mark.parametrize(
    "content_type",
    ["application/problem+json", "Application/Problem+JSON; charset=utf-8", " application/problem+json "],
)
def test_only_the_problem_of_a_429_has_to_be_read(content_type: str) -> None:
    assert may_be_quota(429, content_type)
    assert not may_be_quota(503, content_type)
    assert not any(
        may_be_quota(429, other) for other in (None, "", "application/json", "text/html", "application/problem+jsonx")
    )


def problem(kind: Any) -> bytes:
    return json.dumps({"type": kind, "title": "x"}).encode()


@pytest.mark.parametrize(
    "kind",
    [
        "https://iana.org/assignments/http-problem-types#quota-exceeded",
        "https://example.org/problems/quota-exceeded",
        "urn:seawall:quota-exceeded",
        "quota-exceeded",
    ],
)
def test_a_spent_quota_is_told_by_the_end_of_its_type(kind: str) -> None:
    assert is_quota_exceeded(problem(kind))


@pytest.mark.parametrize(
    "body",
    [
        *(
            problem(kind)
            for kind in (
                "about:blank",
                "urn:x:not-quota-exceeded",
                "urn:x:quota-exceeded/",
                "QUOTA-EXCEEDED",
                None,
                7,
                ["quota-exceeded"],
            )
        ),
        *(
            b"",
            b"null",
            b"[]",
            b'"quota-exceeded"',
            b"{",
            b"\xff\xfe",
            b'{"title": "quota-exceeded"}',
            b"[" * 60_000,
            b'{"type": NaN}',
        ),
        b'{"type": ' + b"9" * 5_000 + b"}",
        b'{"type": "quota-exceeded", "pad": "' + b"x" * MOST_PROBLEM_BYTES + b'"}',
    ],
)
def test_anything_else_is_not(body: bytes) -> None:
    assert not is_quota_exceeded(body)


def test_a_packed_body_is_unpacked_within_bounds() -> None:
    body = problem("urn:x:quota-exceeded")
    assert is_quota_exceeded(gzip.compress(body), "gzip")
    assert is_quota_exceeded(zlib.compress(body), " Deflate ")
    assert is_quota_exceeded(body, "identity")
    assert not is_quota_exceeded(gzip.compress(body)[:-12], "gzip"), "cut off"
    assert not is_quota_exceeded(body, "br"), "cannot be read here"
    assert not is_quota_exceeded(body, "gzip"), "is not what it says"
    bomb = gzip.compress(b" " * 100_000_000 + body)
    assert not is_quota_exceeded(bomb, "gzip")


@given(st.binary(), st.sampled_from(["", "gzip", "deflate", "br", "\x00"]))
def test_whatever_comes_it_is_read_or_not(body: bytes, encoding: str) -> None:
    assert is_quota_exceeded(body, encoding) in (True, False)
