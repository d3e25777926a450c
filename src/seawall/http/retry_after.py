"""Retry-After: how long a server asks to be left alone, from either form of the header; `None` if it asks nonsense."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from seawall.runtime import clock
from seawall.units import LONGEST, SECOND

__all__ = ["http_date", "retry_after"]

LONGEST_VALUE = 64
"""Characters; the longest date has 33. Beyond it only a number makes sense: a wish beyond any patience."""
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_DAY = "(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)"
_WHOLE_DAY = "(?:Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)day"
_MONTH = f"(?P<month>{'|'.join(_MONTHS)})"
_TIME = "(?P<hour>[0-9]{2}):(?P<minute>[0-9]{2}):(?P<second>[0-9]{2})"
# RFC 9110, 5.6.7: the form of today, that of RFC 850, and that of C's asctime. A recipient has to read all three.
_FORMS = tuple(
    re.compile(form)
    for form in (
        f"{_DAY}, (?P<day>[0-9]{{2}}) {_MONTH} (?P<year>[0-9]{{4}}) {_TIME} GMT",
        f"{_WHOLE_DAY}, (?P<day>[0-9]{{2}})-{_MONTH}-(?P<year>[0-9]{{2}}) {_TIME} GMT",
        f"{_DAY} {_MONTH} (?P<day>[0-9 ][0-9]) {_TIME} (?P<year>[0-9]{{4}})",
    )
)


def retry_after(value: str | None, *, date: str | None = None) -> float | None:
    """The seconds to wait, from 0 to 100 years: `None` if there is no header, or none that can be read.

    `value` is the header, a number of seconds or a date. `date` is the Date header of the same answer: the server's
    own clock, from which its dates are counted, so that a clock set wrong on either side does no harm. Without it
    this host's calendar has to do. A date that has passed means 0.

    >>> retry_after("120"), retry_after("soon"), retry_after("-1")
    (120.0, None, None)
    >>> retry_after("Sun, 06 Nov 1994 08:49:37 GMT", date="Sun, 06 Nov 1994 08:49:30 GMT")
    7.0
    """
    if value is None:
        return None
    text = value.strip(" \t")
    if text.isascii() and text.isdigit():
        digits = text.lstrip("0")
        # Not by int(): it would take its time over thousands of digits, and then refuse them.
        return min(float(digits or 0), LONGEST / SECOND) if len(digits) <= 12 else LONGEST / SECOND
    due = http_date(text)
    if due is None:
        return None
    sent = None if date is None else http_date(date.strip(" \t"))
    now = clock.wall_time() if sent is None else sent
    return min(max(0.0, due - now), LONGEST / SECOND)


def http_date(text: str) -> float | None:
    """Seconds since 1970 of a date in one of the three forms of RFC 9110; `None` for anything else."""
    if len(text) > LONGEST_VALUE:
        return None
    for form in _FORMS:
        match = form.fullmatch(text)
        if match is None:
            continue
        year = int(match["year"])
        if len(match["year"]) == 2:
            year = _whole_year(year)
        try:
            instant = datetime(
                year,
                _MONTHS.index(match["month"]) + 1,
                int(match["day"]),
                int(match["hour"]),
                int(match["minute"]),
                min(int(match["second"]), 59) if match["second"] == "60" else int(match["second"]),
                tzinfo=UTC,
            )
        except ValueError:
            return None
        return instant.timestamp()
    return None


def _whole_year(last_digits: int) -> int:
    """Two digits are a year at most 50 years ahead, else the latest past one that ends so."""
    this_year = datetime.fromtimestamp(clock.wall_time(), UTC).year
    year = this_year - this_year % 100 + last_digits
    return year - 100 if year > this_year + 50 else year
