"""Durations and counts as users write them, turned into checked integers or into an error that names the field."""

from __future__ import annotations

from seawall.errors import ConfigError

__all__ = [
    "Duration",
    "count_of",
    "duration_ns",
    "factor_of",
    "flag_of",
    "fraction_ppm",
    "given",
    "rate_of",
    "show_seconds",
]

Duration = int | float | str
"""Seconds as a number, or a string such as `"150ms"`, `"1.5s"`, `"2min"`, `"1h"`, `"1d"`."""

SECOND = 1_000_000_000


def given(field: str, value: object) -> str:
    """How a setting is named in errors: `Bulkhead(limit=0)` for the field `Bulkhead(limit)`."""
    shown = _shown(value)
    return f"{field[:-1]}={shown})" if field.endswith(")") else f"{field}={shown}"


LONGEST = 100 * 365 * 86_400 * SECOND
_UNITS = (
    ("ns", 1),
    ("us", 1_000),
    ("ms", 1_000_000),
    ("min", 60 * SECOND),
    ("s", SECOND),
    ("h", 3_600 * SECOND),
    ("d", 86_400 * SECOND),
)
_FORMS = 'seconds as a number, or a string like "150ms", "1.5s", "2min", "1h", "1d"'


def duration_ns(value: Duration, field: str, *, zero: bool = True) -> int:
    """`value` in nanoseconds; `zero=False` refuses 0. Raises `ConfigError` naming `field` and what is allowed."""
    nanoseconds = _from_text(value) if isinstance(value, str) else _from_number(value)
    if nanoseconds is None or not 0 <= nanoseconds <= LONGEST or (nanoseconds == 0 and not zero):
        least = "at least 0" if zero else "more than 0"
        raise ConfigError(f"{given(field, value)}: expected {_FORMS}, {least} and at most 100 years")
    return nanoseconds


def _from_number(value: object) -> int | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    if isinstance(value, int):
        return value * SECOND
    # NaN fails the comparison, infinity lies outside it.
    return round(value * SECOND) if 0 <= value < 1e12 else None


def _from_text(text: str) -> int | None:
    for suffix, size in _UNITS:
        if text.endswith(suffix):
            whole, point, rest = text[: -len(suffix)].partition(".")
            digits = whole + rest
            if len(digits) > 24 or not (whole and digits.isascii() and digits.isdigit()) or bool(point) != bool(rest):
                return None
            scale: int = 10 ** len(rest)
            return int(digits) * size // scale
    return None


_RATE_FORMS = 'a rate like "100/s", "60/min", "5000/h" or "10/5s"'


def rate_of(text: str, field: str) -> tuple[int, int]:
    """`"10/5s"` as a whole number of at least 1 and a period in nanoseconds. Raises `ConfigError` for anything else."""
    amount, slash, span = text.partition("/") if isinstance(text, str) else ("", "", "")  # pyright: ignore[reportUnnecessaryIsInstance]  # callers without a type checker
    digits = amount.isascii() and amount.isdigit() and len(amount) <= 12
    period = _from_text(span if span[:1].isdigit() else f"1{span}") if slash else None
    if not digits or not int(amount) or period is None or not 0 < period <= LONGEST:
        raise ConfigError(f"{given(field, text)}: expected {_RATE_FORMS}")
    return int(amount), period


def count_of(value: int, field: str, *, least: int = 1, most: int = 1_000_000_000) -> int:
    """`value` if it is an integer from `least` to `most`. Raises `ConfigError` otherwise; `True` is not 1."""
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:  # pyright: ignore[reportUnnecessaryIsInstance]  # callers without a type checker
        raise ConfigError(f"{given(field, value)}: expected a whole number from {least} to {most}")
    return value


def fraction_ppm(value: float, field: str, *, zero: bool = False) -> int:
    """A share from 0 to 1 in parts per million. Raises `ConfigError` outside it; 0 is allowed with `zero=True`."""
    good = not isinstance(value, bool) and isinstance(value, (int, float)) and 0 <= value <= 1  # pyright: ignore[reportUnnecessaryIsInstance]  # callers without a type checker
    # Down, so that 2 of 3 are a share of 2/3; a decimal that lies a hair below its digits is still taken by them.
    ppm = int(value * 1_000_000 + 1e-6) if good else 0
    if not good or (ppm == 0 and not zero):
        raise ConfigError(f"{given(field, value)}: expected a share {'from' if zero else 'above'} 0 to 1")
    return ppm


def factor_of(value: float, field: str) -> float:
    """`value` if it is a number from 1 to 1,000,000, by which pauses grow. Raises `ConfigError` otherwise."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 1 <= value <= 1e6:  # pyright: ignore[reportUnnecessaryIsInstance]  # callers without a type checker
        raise ConfigError(f"{given(field, value)}: expected a number from 1 to 1,000,000")
    return value


def flag_of(value: bool, field: str) -> bool:
    """`value` if it is True or False. Raises `ConfigError` otherwise: `"no"` would count as True."""
    if not isinstance(value, bool):  # pyright: ignore[reportUnnecessaryIsInstance]  # callers without a type checker
        raise ConfigError(f"{given(field, value)}: expected True or False")
    return value


def _shown(value: object) -> str:
    """`value` for a message: cut short, and Python refuses to print an integer of thousands of digits."""
    try:
        text = repr(value)
    except ValueError:
        return "a number of thousands of digits"
    return text if len(text) <= 80 else f"{text[:60]}... ({len(text)} characters)"


def show_seconds(nanoseconds: int) -> str:
    """A duration as people read it: `"850 ms"`, `"12.4 s"`, `"30 s"`."""
    if nanoseconds < SECOND - 500_000:
        return f"{nanoseconds / 1e6:.3g} ms"
    seconds = nanoseconds / SECOND
    return f"{seconds:.0f} s" if seconds >= 100 or seconds == int(seconds) else f"{seconds:.1f} s"
