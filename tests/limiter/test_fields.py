"""The fields of an answer name the window that was asked for, and are nothing that a parser would stumble over."""

from __future__ import annotations

from seawall import FixedWindow, Limiter, SlidingLog, SlidingWindow, TokenBucket


def test_a_window_is_shown_as_long_as_it_is() -> None:
    for spec in (SlidingWindow("60/min"), SlidingLog("60/min"), FixedWindow("60/min")):
        assert Limiter({"a": spec}).hit().headers()["RateLimit-Policy"] == '"a";q=60;w=60'
    assert Limiter({"a": TokenBucket("60/min", burst=10)}).hit().headers()["RateLimit-Policy"] == '"a";q=10;w=10'


def test_names_are_strings_of_structured_fields() -> None:
    odd = Limiter({'a"b\\c\r\nSet-Cookie: x\u2014' + "z" * 100: TokenBucket("60/min")})
    shown = odd.hit().headers()["RateLimit"]
    assert shown.startswith('"a\\"b\\\\c??Set-Cookie: x?zzz')
    assert "\n" not in shown and shown.isascii() and len(shown) < 100
