"""A refusal becomes an answer that says what kind it is and when to come back, and nothing of what is inside."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seawall import (
    BackendUnavailable,
    BroadcastError,
    BudgetSpent,
    BulkheadFull,
    CircuitOpen,
    ConfigError,
    DeadlineExceeded,
    Degraded,
    NoEndpoints,
    RateLimited,
    Rejected,
)
from seawall.http import problem_for
from seawall.http.verdicts import is_quota_exceeded

QUOTA = "https://iana.org/assignments/http-problem-types#quota-exceeded"


def answer(error: BaseException) -> tuple[int, dict[str, str], dict[str, Any]]:
    problem = problem_for(error)
    assert problem is not None
    names = [name.lower() for name, _ in problem.headers]
    assert len(names) == len(set(names)), "no header twice"
    headers = dict(problem.headers)
    assert headers["Content-Type"] == "application/problem+json"
    assert int(headers["Content-Length"]) == len(problem.body)
    body = json.loads(problem.body)
    assert body["status"] == problem.status
    return problem.status, headers, body


@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [
        (CircuitOpen(), 503, "urn:seawall:circuit-open"),
        (BulkheadFull(), 503, "urn:seawall:bulkhead-full"),
        (NoEndpoints(), 503, "urn:seawall:no-endpoints"),
        (Degraded(), 503, "urn:seawall:degraded"),
        (Rejected(), 503, "urn:seawall:rejected"),
        (RateLimited(), 429, "urn:seawall:rate-limited"),
        (BudgetSpent(), 429, QUOTA),
        (DeadlineExceeded(), 504, "urn:seawall:deadline-exceeded"),
    ],
)
def test_each_kind_has_its_status_and_type(error: Exception, status: int, kind: str) -> None:
    got, headers, body = answer(error)
    assert (got, body["type"]) == (status, kind)
    assert set(body) == {"type", "title", "status"}
    assert "Retry-After" not in headers
    assert headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize(
    "error",
    [ValueError("x"), TimeoutError(), ConfigError("x"), BackendUnavailable(), BroadcastError(), KeyboardInterrupt()],
)
def test_what_is_not_a_refusal_is_not_answered(error: BaseException) -> None:
    assert problem_for(error) is None


@pytest.mark.parametrize(
    ("wish", "seconds"),
    [
        (0, 1),
        (0.001, 1),
        (1, 1),
        (1.000001, 2),
        (12.4, 13),
        (1e30, 3_153_600_000),
        (math.inf, 3_153_600_000),
        (10**40, 3_153_600_000),
    ],
)
def test_retry_after_is_rounded_up_and_bounded(wish: float, seconds: int) -> None:
    _, headers, body = answer(CircuitOpen(retry_after=wish))
    assert (headers["Retry-After"], body["retry_after"]) == (str(seconds), seconds)


@pytest.mark.parametrize("nonsense", [math.nan, -1, -math.inf, True, "5", "5\r\nSet-Cookie: a=b", None])
def test_a_wish_that_is_none_is_not_sent(nonsense: Any) -> None:
    _, headers, body = answer(CircuitOpen(retry_after=nonsense))
    assert "Retry-After" not in headers and "retry_after" not in body


def test_a_stranger_learns_nothing_of_what_is_inside() -> None:
    error = CircuitOpen(
        "breaker open (14 of 20 calls failed in 30 s)", policy="payments-eu", measured=0.7, threshold=0.5, retry_after=3
    )
    error.add_note("seawall: secret note")
    error.__cause__ = OSError("10.0.0.7:5432 refused")
    problem = problem_for(error)
    assert problem is not None
    wire = repr(problem.headers).encode() + problem.body
    for secret in (b"payments", b"14 of 20", b"0.7", b"0.5", b"secret", b"10.0.0.7"):
        assert secret not in wire


def test_a_spent_quota_can_be_told_from_a_rate_limit() -> None:
    spent, limited = problem_for(BudgetSpent()), problem_for(RateLimited())
    assert spent is not None and limited is not None
    assert is_quota_exceeded(spent.body) and not is_quota_exceeded(limited.body)


class Custom(Rejected):
    def __init__(self, reason: Any, status: Any = 503, headers: Any = None) -> None:
        super().__init__("x", retry_after=5)
        self.reason = reason
        self.status = status
        self._headers = headers

    def headers(self) -> Mapping[str, str]:
        if isinstance(self._headers, Exception):
            raise self._headers
        return {**super().headers(), **(self._headers or {})}


@pytest.mark.parametrize(
    "reason", ["", "a\r\nb", "a b", "A", "x" * 65, "é", "../..", "#quota-exceeded", "a__b", "-", None, 7.5]
)
def test_a_reason_that_is_no_code_is_not_shown(reason: Any) -> None:
    assert answer(Custom(reason))[2]["type"] == "urn:seawall:rejected"
    assert answer(Custom("tenant_paused"))[2]["type"] == "urn:seawall:tenant-paused"


@pytest.mark.parametrize("status", [200, 302, 399, 600, 0, -503, "503", 503.0, None, True])
def test_a_status_that_is_no_error_becomes_503(status: Any) -> None:
    assert answer(Custom("paused", status))[0] == 503
    assert answer(Custom("paused", 451))[0] == 451


def test_headers_of_the_error_go_along() -> None:
    _, headers, _ = answer(Custom("limited", 429, {"RateLimit": '"default";r=0;t=5'}))
    assert (headers["RateLimit"], headers["Retry-After"]) == ('"default";r=0;t=5', "5")


@pytest.mark.parametrize(
    "bad",
    [
        {"X": "a\r\nSet-Cookie: b"},
        {"X": "a\nb"},
        {"X": "a\x00"},
        {"X": "é"},
        {"X": "v" * 5_000},
        {"X\r\nY": "a"},
        {"": "a"},
        {"X:": "a"},
        {"content-length": "0"},
        {"Transfer-Encoding": "chunked"},
        {"content-type": "text/html"},
        {"RETRY-AFTER": "0"},
    ],
)
def test_headers_that_would_break_the_answer_do_not(bad: dict[str, str]) -> None:
    _, headers, _ = answer(Custom("limited", 429, {**bad, "X-Good": "1"}))
    assert set(headers) == {"Content-Type", "Cache-Control", "Retry-After", "Content-Length", "X-Good"}


def test_an_error_whose_headers_fail_is_answered_all_the_same() -> None:
    assert answer(Custom("limited", 429, OSError("x")))[0] == 429


def test_a_group_of_refusals_is_the_one_that_ends_first() -> None:
    group = ExceptionGroup(
        "all failed", [CircuitOpen(retry_after=9), ExceptionGroup("", [BulkheadFull(retry_after=2), RateLimited()])]
    )
    status, headers, body = answer(group)
    assert (status, headers["Retry-After"], body["type"]) == (503, "2", "urn:seawall:bulkhead-full")


def test_of_refusals_that_end_at_the_same_time_it_is_the_first() -> None:
    group = ExceptionGroup("all failed", [ExceptionGroup("", [CircuitOpen()]), RateLimited(), BulkheadFull()])
    assert answer(group)[2]["type"] == "urn:seawall:circuit-open"


def test_a_group_in_which_one_was_late_is_late() -> None:
    assert answer(ExceptionGroup("all failed", [CircuitOpen(retry_after=9), DeadlineExceeded()]))[0] == 504


@pytest.mark.parametrize("other", [OSError("x"), KeyboardInterrupt(), TimeoutError()])
def test_a_group_with_anything_else_in_it_is_not_ours(other: BaseException) -> None:
    assert problem_for(BaseExceptionGroup("", [CircuitOpen(), other])) is None
    assert problem_for(BaseExceptionGroup("", [BaseExceptionGroup("", [other]), DeadlineExceeded()])) is None


def test_a_group_may_be_nested_as_deep_as_it_likes() -> None:
    error: Exception = CircuitOpen()
    for _ in range(100_000):
        error = ExceptionGroup("", [error])
    try:
        assert answer(error)[0] == 503
    finally:
        while isinstance(error, ExceptionGroup):  # freed level by level: the interpreter would recurse
            error = error.exceptions[0]


@given(
    st.text(),
    st.text(),
    st.integers() | st.floats() | st.none() | st.text(),
    st.dictionaries(st.text(), st.text(), max_size=3),
)
def test_whatever_the_error_holds_the_answer_is_sound(
    reason: str, detail: str, wish: Any, headers: dict[str, str]
) -> None:
    error = Custom(reason, 503, headers)
    error.detail = detail
    error.retry_after = wish
    _, sent, body = answer(error)
    for name, value in sent.items():
        assert name.isascii() and value.isascii() and not set(name + value) & {"\r", "\n", "\0"}
    assert body["type"].startswith("urn:seawall:")
