"""Durations, counts and shares are read exactly, or refused with the field, the value and what is allowed."""

from __future__ import annotations

import math
import re
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seawall.errors import ConfigError
from seawall.units import count_of, duration_ns, flag_of, fraction_ppm, show_seconds

SECOND = 1_000_000_000
CENTURY = 100 * 365 * 86_400
QUICK = settings(max_examples=100, deadline=None, database=None)

GOOD = [
    (0, 0),
    (0.0, 0),
    (-0.0, 0),
    (1, SECOND),
    (1.5, 1_500_000_000),
    (0.1, 100_000_000),
    (1e-9, 1),
    (CENTURY, CENTURY * SECOND),
    ("0s", 0),
    ("1ns", 1),
    ("7us", 7_000),
    ("150ms", 150_000_000),
    ("1.5s", 1_500_000_000),
    ("2min", 120 * SECOND),
    ("1h", 3_600 * SECOND),
    ("1d", 86_400 * SECOND),
    ("0.25h", 900 * SECOND),
    ("007s", 7 * SECOND),
    ("0.000000001s", 1),
    ("36500d", CENTURY * SECOND),
    ("000000000000000000000001s", SECOND),
]
BAD_TEXTS = [
    "", " ", "s", "ms", "1", "1.5", ".5s", "5.s", ".s", "1..5s", "1.2.3s", "1,5s", "1 s", " 1s", "1s ", "1s\n", "\n1s",
    "1\ts", "1s\0", "+1s", "-1s", "--1s", "1e3s", "1_000ms", "0x10s", "infs", "nans", "inf", "nan", "infinity", "None",
    "\u0661s", "\uff11s", "\u00b2s", "1\uff53", "\u0663.\u0665s", "1S", "1Ms", "1m", "1sec", "1 min", "1minute",
    "1h30min", "1w", "1y", "1\u00b5s", "9" * 25 + "s", "1" * 5_000 + "s", "36501d", "1s1s", "1ss", "1%", "1s;", "True",
]  # fmt: skip
"""Among them the digits 1 and 3.5 in Arabic-Indic, a fullwidth 1 and s, and a superscript 2."""
BAD_VALUES: list[Any] = [
    None, True, False, math.nan, math.inf, -math.inf, -1, -0.5, -1e-10, -5e-324, 1e300, 1e12, CENTURY + 1, 10**30,
    10**5_000, -(10**5_000), Decimal("1.5"), Decimal("NaN"), Fraction(1, 2), 1j, b"1s", bytearray(b"1s"), ["1s"],
    ("1s",), {"s": 1}, object(), int, print,
]  # fmt: skip


def kind(value: object) -> str:
    """Of any value, also of those that cannot be shown."""
    return type(value).__name__


@pytest.mark.parametrize(("value", "nanoseconds"), GOOD, ids=repr)
def test_a_duration_is_read_exactly(value: Any, nanoseconds: int) -> None:
    """Seconds as a number, or digits with a unit."""
    assert duration_ns(value, "field") == nanoseconds


def named(error: pytest.ExceptionInfo[ConfigError], field: str, allowed: str) -> str:
    message = str(error.value)
    assert message.startswith(f"{field.removesuffix(')')}=")
    assert allowed in message
    assert len(message) < 300, "the value is cut short"
    assert "\n" not in message
    return message


@pytest.mark.parametrize("value", BAD_TEXTS + BAD_VALUES, ids=kind)
def test_anything_else_is_refused_by_field_value_and_what_is_allowed(value: Any) -> None:
    """Other digits, signs, blanks, underscores, newlines, thousands of digits, other types, what is no number."""
    with pytest.raises(ConfigError) as error:
        duration_ns(value, "Retry(delay)")
    message = named(error, "Retry(delay)", "seconds as a number, or a string like")
    assert "at least 0 and at most 100 years" in message
    if isinstance(value, str) and len(value) < 50:
        assert repr(value) in message


@pytest.mark.parametrize("value", [0, 0.0, "0s", "0.0ms", 1e-10, "0.4ns"])
def test_nothing_is_refused_where_it_makes_no_sense(value: Any) -> None:
    """`zero=False` refuses 0 and what is less than a nanosecond."""
    assert duration_ns(value, "field") == 0
    with pytest.raises(ConfigError) as error:
        duration_ns(value, "field", zero=False)
    named(error, "field", "more than 0")


@QUICK
@given(
    st.integers(0, 10**9), st.text("0123456789", max_size=9), st.sampled_from(["ns", "us", "ms", "s", "min", "h", "d"])
)
def test_text_is_exact_where_a_float_is_not(whole: int, rest: str, unit: str) -> None:
    """Digits times the unit in fractions, rounded down to the nanosecond."""
    size = {"ns": 1, "us": 10**3, "ms": 10**6, "s": SECOND, "min": 60 * SECOND, "h": 3600 * SECOND, "d": 86400 * SECOND}
    exact = math.floor(Fraction(f"{whole}.{rest or '0'}") * size[unit])
    text = f"{whole}.{rest}{unit}" if rest else f"{whole}{unit}"
    if exact <= CENTURY * SECOND:
        assert duration_ns(text, "field") == exact
    else:
        with pytest.raises(ConfigError):
            duration_ns(text, "field")


@QUICK
@given(st.text(max_size=8) | st.text("0123456789.eE+-_ smhduni\n", max_size=8))
def test_text_is_read_by_its_grammar_or_refused(text: str) -> None:
    """No text raises anything but ConfigError, and none that is not digits, point, digits, unit is read."""
    well_formed = re.fullmatch(r"[0-9]+(\.[0-9]+)?(ns|us|ms|min|s|h|d)", text)
    try:
        assert 0 <= duration_ns(text, "field") <= CENTURY * SECOND
    except ConfigError:
        assert not well_formed or float(re.match(r"[0-9.]+", text)[0]) > 36_500  # type: ignore[index]
    else:
        assert well_formed


@QUICK
@given(st.floats() | st.integers())
def test_a_number_is_seconds_to_the_nearest_nanosecond_or_refused(value: float) -> None:
    """Any float or integer at all."""
    if 0 <= value <= CENTURY:
        assert abs(duration_ns(value, "field") - Fraction(value) * SECOND) <= Fraction(1, 2) + Fraction(value) / 10**6
    else:
        with pytest.raises(ConfigError):
            duration_ns(value, "field")


@pytest.mark.parametrize(
    "value", [True, False, 0, -1, 1.0, 11, "3", None, math.nan, Decimal(3), 10**5_000, b"3"], ids=kind
)
def test_a_count_is_an_integer_in_its_range(value: Any) -> None:
    """True is not 1, 1.0 is not 1, "3" is not 3."""
    with pytest.raises(ConfigError) as error:
        count_of(value, "Bulkhead(limit)", most=10)
    named(error, "Bulkhead(limit)", "a whole number from 1 to 10")


def test_a_count_may_be_either_end_of_its_range() -> None:
    """Both ends belong to it."""
    assert [count_of(value, "n", least=0, most=10) for value in (0, 10)] == [0, 10]
    assert count_of(1, "n") == 1
    assert count_of(1_000_000_000, "n") == 1_000_000_000


@pytest.mark.parametrize(
    ("value", "ppm"),
    [(1, 1_000_000), (1.0, 1_000_000), (0.5, 500_000), (0.57, 570_000), (0.29, 290_000), (1e-6, 1), (0.000_249, 249)],
)
def test_a_share_is_read_in_parts_per_million(value: float, ppm: int) -> None:
    """What is written with up to six decimals is exact."""
    assert fraction_ppm(value, "share") == ppm


def test_every_decimal_of_six_digits_is_exact() -> None:
    """Though a float lies a hair beside it."""
    assert all(fraction_ppm(ppm / 1_000_000, "share", zero=True) == ppm for ppm in range(0, 1_000_001, 7))


@QUICK
@given(st.integers(1, 1_000), st.data())
def test_so_many_of_so_many_reach_their_own_share(whole: int, data: st.DataObject) -> None:
    """k of n are a share of k/n: 2 of 3 failed probes reach failure_rate=2/3, and 1 of 3 does not."""
    part = data.draw(st.integers(1, whole))
    ppm = fraction_ppm(part / whole, "share")
    assert part * 1_000_000 >= ppm * whole
    assert (part - 1) * 1_000_000 < ppm * whole


@pytest.mark.parametrize(
    "value", [True, False, -0.1, 1.1, -1e-9, math.nan, math.inf, "0.5", None, Decimal("0.5"), 10**5_000, 50], ids=kind
)
def test_a_share_lies_between_0_and_1(value: Any) -> None:
    """50 is not 50 %."""
    for zero in (False, True):
        with pytest.raises(ConfigError) as error:
            fraction_ppm(value, "failure_rate", zero=zero)
        named(error, "failure_rate", f"a share {'from' if zero else 'above'} 0 to 1")


def test_a_share_of_nothing_must_be_allowed() -> None:
    """Below one in a million is nothing too."""
    for value in (0, 0.0, -0.0, 1e-7):
        assert fraction_ppm(value, "share", zero=True) == 0
        with pytest.raises(ConfigError):
            fraction_ppm(value, "share")


@pytest.mark.parametrize("value", [0, 1, "no", "", None, [], 1.0], ids=kind)
def test_a_flag_is_true_or_false_and_nothing_that_looks_like_it(value: Any) -> None:
    """ "no" would count as True."""
    with pytest.raises(ConfigError) as error:
        flag_of(value, "Bulkhead(threads)")
    named(error, "Bulkhead(threads)", "True or False")
    assert flag_of(True, "flag") is True
    assert flag_of(False, "flag") is False


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0.85, "850 ms"), (0.0015, "1.5 ms"), (0, "0 ms"), (0.999, "999 ms"), (0.999_999_999, "1.0 s"), (1, "1 s"),
     (12.4, "12.4 s"), (30, "30 s"), (99.96, "100.0 s"), (100.4, "100 s"), (3_600, "3600 s")],
)  # fmt: skip
def test_a_duration_is_shown_as_people_read_it(seconds: float, shown: str) -> None:
    """Milliseconds below a second, tenths below a hundred, never an exponent."""
    assert show_seconds(round(seconds * SECOND)) == shown
