"""Retry-After in both forms becomes seconds from 0 to 100 years; what is neither becomes None, at little cost."""

from __future__ import annotations

import math
import time
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seawall.http import retry_after
from seawall.http.retry_after import http_date
from seawall.runtime import clock

HUNDRED_YEARS = 100 * 365 * 86_400
NOW = datetime(2026, 3, 14, 15, 9, 26, tzinfo=UTC)


@pytest.fixture
def at_noon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "wall_time", NOW.timestamp)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0),
        ("120", 120),
        ("86400", 86_400),
        ("3153599999", HUNDRED_YEARS - 1),
        (" \t120 ", 120),
        ("007", 7),
        ("0" * 5_000, 0),
        ("0" * 5_000 + "9", 9),
        ("3153600000", HUNDRED_YEARS),
        ("3153600001", HUNDRED_YEARS),
        ("9" * 12, HUNDRED_YEARS),
        ("9" * 13, HUNDRED_YEARS),
        ("9" * 100_000, HUNDRED_YEARS),
    ],
)
def test_a_number_of_seconds_is_read_and_bounded(value: str, seconds: float) -> None:
    assert retry_after(value) == seconds


@pytest.mark.parametrize(
    "garbage",
    [
        *(
            "",
            " ",
            "-1",
            "+1",
            "1.5",
            "1,5",
            "1_000",
            "1 000",
            "0x10",
            "1e3",
            "inf",
            "nan",
            "soon",
            "None",
            "\n5",
            "5\n",
        ),
        *("٥", "５", "²", "1\u00a0", "\u00a01", "5\x00", "\ud800", "[5]", "1, 2", "1;2", "9" * 30 + "x", "-" * 10_000),
    ],
)
def test_garbage_is_no_wish(garbage: str) -> None:
    assert retry_after(garbage) is None
    assert retry_after(None) is None


def test_thousands_of_digits_cost_nothing() -> None:
    begun = time.perf_counter()
    assert retry_after("9" * 2_000_000) == HUNDRED_YEARS
    assert time.perf_counter() - begun < 1, "int() would take minutes over them, or refuse them"


@pytest.mark.usefixtures("at_noon")
@pytest.mark.parametrize(
    "date", ["Sat, 14 Mar 2026 15:10:26 GMT", "Saturday, 14-Mar-26 15:10:26 GMT", "Sat Mar 14 15:10:26 2026"]
)
def test_a_date_in_each_of_the_three_forms_counts_from_now(date: str) -> None:
    assert retry_after(date) == 60


@pytest.mark.usefixtures("at_noon")
def test_a_date_counts_from_the_servers_own_clock_if_it_shows_it() -> None:
    due = "Sun, 06 Nov 1994 08:50:37 GMT"
    assert retry_after(due, date="Sun, 06 Nov 1994 08:49:37 GMT") == 60
    assert retry_after(due, date="Sun Nov  6 08:49:37 1994") == 60
    assert retry_after(due) == retry_after(due, date="garbage") == 0, "by this host's calendar it is long past"
    assert retry_after("5", date="garbage") == 5


@pytest.mark.usefixtures("at_noon")
@pytest.mark.parametrize(
    "past", ["Sat, 14 Mar 2026 15:09:26 GMT", "Fri, 13 Mar 2026 15:09:26 GMT", "Mon Jan  1 00:00:00 0001"]
)
def test_a_date_that_is_not_ahead_means_now(past: str) -> None:
    assert retry_after(past) == 0


@pytest.mark.usefixtures("at_noon")
def test_a_date_beyond_all_patience_is_bounded() -> None:
    assert retry_after("Fri, 31 Dec 9999 23:59:59 GMT") == HUNDRED_YEARS


@pytest.mark.usefixtures("at_noon")
@pytest.mark.parametrize(
    "date",
    [
        "Sat, 30 Feb 2026 15:10:26 GMT",
        "Sat, 00 Mar 2026 15:10:26 GMT",
        "Sat, 14 Mar 2026 24:10:26 GMT",
        "Sat, 14 Mar 2026 15:60:26 GMT",
        "Sat, 14 Mar 2026 15:10:61 GMT",
        "Sat, 14 Mar 2026 15:10:26 CET",
        "Sat, 14 Mar 2026 15:10:26 +0000",
        "sat, 14 mar 2026 15:10:26 gmt",
        "Sat, 14 Mar 2026 15:10:26",
        "Sat, 14 Mar 0000 15:10:26 GMT",
        "Sat, 1٤ Mar 2026 15:10:26 GMT",
        "14 Mar 2026 15:10:26 GMT",
        "Sat Mar 1 15:10:26 2026",
        "Sat, 14 Mar 2026 15:10:26 GMT\n",
        "2026-03-14T15:10:26Z",
        "Sat, " * 100_000,
    ],
)
def test_a_date_in_another_form_or_of_no_calendar_is_no_wish(date: str) -> None:
    assert retry_after(date) is None


@pytest.mark.usefixtures("at_noon")
def test_a_leap_second_is_read() -> None:
    assert retry_after("Sat, 14 Mar 2026 15:09:60 GMT") == 33


@pytest.mark.usefixtures("at_noon")
@pytest.mark.parametrize(("digits", "year"), [("26", 2026), ("76", 2076), ("77", 1977), ("99", 1999), ("00", 2000)])
def test_two_digits_are_a_year_at_most_fifty_ahead(digits: str, year: int) -> None:
    read = http_date(f"Saturday, 14-Mar-{digits} 00:00:00 GMT")
    assert read == datetime(year, 3, 14, tzinfo=UTC).timestamp()


@given(st.integers(-62_135_596_800, 253_402_300_799))
def test_every_date_that_a_server_can_write_is_read(seconds: int) -> None:
    instant = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)
    days = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
    months = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
    day, month = days[instant.weekday()], months[instant.month - 1]
    clock_time = f"{instant.hour:02}:{instant.minute:02}:{instant.second:02}"
    fixed = f"{day}, {instant.day:02} {month} {instant.year:04} {clock_time} GMT"
    ascii_time = f"{day} {month} {instant.day:2} {clock_time} {instant.year:04}"
    assert http_date(fixed) == http_date(ascii_time) == seconds


@given(st.text() | st.from_regex(r"[0-9A-Za-z,: -]{0,40}") | st.text("0123456789_+-.eE \t٣"))
def test_whatever_comes_the_answer_is_sound(value: str) -> None:
    seconds = retry_after(value, date=value)
    assert seconds is None or (0 <= seconds <= HUNDRED_YEARS and math.isfinite(seconds))
