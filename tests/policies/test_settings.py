"""Every wrong number or setting is a `ConfigError` at construction that names the field, the value and what is allowed."""

from __future__ import annotations

import math
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction

import pytest

from seawall import Bulkhead, CircuitBreaker, ConfigError, Fallback, Hedge, Policy, Retry, RetryBudget, Timeout
from seawall.units import count_of, duration_ns, flag_of, fraction_ppm, show_seconds

ODD = [
    math.nan,
    math.inf,
    -math.inf,
    -1,
    True,
    False,
    "3",
    b"3",
    Decimal(3),
    Fraction(1, 2),
    None,
    [3],
    3 + 0j,
    object(),
]
NO_COUNT = [*ODD, 1.0, 0.5, 10**30, -(10**30), "٣", "1_0", " 3", "3\n", "9" * 5_000]
NO_DURATION = [
    *(value for value in ODD if value is not None),
    *(
        10**30,
        1e300,
        "",
        "s",
        "ms",
        "1",
        "-1s",
        "+1s",
        "1 s",
        " 1s",
        "1s ",
        "1s\n",
        "1e3s",
        "1_0s",
        "1,5s",
        ".5s",
        "5.s",
    ),
    *("1..5s", "٣s", "３s", "nans", "infs", "1S", "1sec", "1m", "0x10s", "9" * 30 + "s", "1." + "9" * 30 + "s"),
]
NO_SHARE = [*ODD, 1.0000001, 2, 1e300, 10**30, -0.1, "0.5", "50%"]


def build(spec: Callable[..., object], field: str, value: object) -> object:
    if spec is Retry:
        return Retry(on=OSError, **{field: value})
    if spec is Bulkhead and field != "limit":
        return Bulkhead(3, **{field: value})
    return spec(**{field: value})


def refused(spec: Callable[..., object], field: str, value: object) -> str:
    with pytest.raises(ConfigError) as caught:
        build(spec, field, value)
    message = str(caught.value)
    assert f"{spec.__name__}({field}" in message, "it names the field"
    assert repr(value)[:40] in message or str(value)[:40] in message, "it shows the value"
    assert "expected" in message, "it says what is allowed"
    return message


COUNTS = [
    (Retry, "attempts"),
    (Bulkhead, "limit"),
    (Bulkhead, "queue"),
    (CircuitBreaker, "min_calls"),
    (CircuitBreaker, "buckets"),
    (CircuitBreaker, "probes"),
    (CircuitBreaker, "window_calls"),
    (CircuitBreaker, "consecutive"),
    (RetryBudget, "per_second"),
    (Hedge, "max"),
]
DURATIONS = [
    (Timeout, "time"),
    (Retry, "delay"),
    (Retry, "base"),
    (Retry, "cap"),
    (Retry, "total"),
    (Retry, "max_retry_after"),
    (Bulkhead, "max_wait"),
    (CircuitBreaker, "window"),
    (CircuitBreaker, "open_for"),
    (CircuitBreaker, "probe_lease"),
    (CircuitBreaker, "slow_after"),
    (RetryBudget, "window"),
]
OPTIONAL = {(CircuitBreaker, "window_calls"), (CircuitBreaker, "consecutive")}


@pytest.mark.parametrize(("spec", "field"), COUNTS)
def test_counts(spec: Callable[..., object], field: str) -> None:
    for value in NO_COUNT:
        if not (value is None and (spec, field) in OPTIONAL):
            assert "a whole number from" in refused(spec, field, value)


@pytest.mark.parametrize(("spec", "field"), COUNTS)
def test_zero_is_a_count_only_where_it_means_something(spec: Callable[..., object], field: str) -> None:
    if field in ("queue", "per_second"):
        build(spec, field, 0)
    else:
        refused(spec, field, 0)


@pytest.mark.parametrize(("spec", "field"), DURATIONS)
def test_durations(spec: Callable[..., object], field: str) -> None:
    for value in NO_DURATION:
        assert "seconds as a number, or a string" in refused(spec, field, value)


@pytest.mark.parametrize(("spec", "field"), [item for item in DURATIONS if item[0] in (CircuitBreaker, RetryBudget)])
def test_spans_of_nothing(spec: Callable[..., object], field: str) -> None:
    for value in (0, 0.0, "0s", "0.4ns"):
        assert "more than 0" in refused(spec, field, value)


@pytest.mark.parametrize(
    ("spec", "field"), [(CircuitBreaker, "failure_rate"), (CircuitBreaker, "slow_rate"), (RetryBudget, "share")]
)
def test_shares(spec: Callable[..., object], field: str) -> None:
    for value in NO_SHARE:
        if not (value is None and field == "failure_rate"):
            assert "a share" in refused(spec, field, value)
    for value in (1, 1.0, 0.5, 0.000001):
        build(spec, field, value)


def test_a_threshold_of_zero_would_always_be_reached() -> None:
    for field in ("failure_rate", "slow_rate"):
        for value in (0, 0.0, 1e-9):
            refused(CircuitBreaker, field, value)
    RetryBudget(0)


@pytest.mark.parametrize("value", [value for value in ODD if value not in (True, 3)] + [0, 0.99, 1e7, "2", 10**400])
def test_the_factor_of_the_backoff(value: object) -> None:
    refused(Retry, "factor", value)


@pytest.mark.parametrize("value", ["no", "", 0, 1, None, "False"])
def test_flags_are_flags(value: object) -> None:
    for spec, field in ((Retry, "jitter"), (Bulkhead, "threads"), (Policy, "shadow")):
        assert "True or False" in refused(spec, field, value)


@pytest.mark.parametrize("value", [3, b"x", object(), ["a"]])
@pytest.mark.parametrize("spec", [Retry, CircuitBreaker, Bulkhead, Timeout, Hedge, RetryBudget, Policy])
def test_names_are_strings(spec: Callable[..., object], value: object) -> None:
    if spec is Timeout:
        with pytest.raises(ConfigError, match=r"Timeout\(name="):
            Timeout(1, name=value)
    else:
        refused(spec, "name", value)


@pytest.mark.parametrize(
    "value", [3, "OSError", None, [OSError], (OSError, 3), (OSError, "KeyError"), int, BaseException]
)
def test_errors_are_types_or_a_predicate(value: object) -> None:
    for make in (
        lambda: Retry(on=value),
        lambda: Fallback(1, on=value),
        lambda: CircuitBreaker(on=value),
        lambda: CircuitBreaker(ignore=value if value is not None else 3),
    ):
        with pytest.raises(ConfigError, match=r"\((on|ignore)="):
            make()


def test_retry_does_not_guess_what_may_be_tried_again() -> None:
    with pytest.raises(TypeError, match="on"):
        Retry()


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Retry(on=OSError, base=3, cap=2), "base=3.*more than cap=2"),
        (lambda: Retry(on=OSError, until="done"), r"until='done'.*predicate"),
        (lambda: CircuitBreaker(ok=200), r"ok=200.*predicate"),
        (lambda: CircuitBreaker(failure_rate=None), "needs slow_after or consecutive"),
        (lambda: CircuitBreaker(window="5ns", buckets=10), "window='5ns'.*shorter than 10 ns"),
        (lambda: CircuitBreaker(window_calls=5, min_calls=10), "min_calls=10.*more than window_calls=5"),
        (lambda: Bulkhead(3, queue=5), "queue=5, max_wait=0.*give both or neither"),
        (lambda: Bulkhead(3, max_wait=5), "queue=0, max_wait=5.*give both or neither"),
        (lambda: Bulkhead(3, max_wait=None), "queue=0, max_wait=None.*give both or neither"),
    ],
)
def test_settings_that_contradict_each_other(make: Callable[[], object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        make()


def test_an_unknown_setting_is_refused() -> None:
    for spec in (CircuitBreaker, RetryBudget, Hedge):
        with pytest.raises(TypeError, match="colour"):
            spec(colour="red")


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [
        ("1ns", 1),
        ("1.5us", 1_500),
        ("150ms", 150_000_000),
        ("1.5s", 1_500_000_000),
        ("2min", 120 * 10**9),
        ("1h", 3_600 * 10**9),
        ("1d", 86_400 * 10**9),
        (2, 2 * 10**9),
        (0.1, 10**8),
        (0, 0),
        ("0s", 0),
    ],
)
def test_durations_are_exact(text: object, nanoseconds: int) -> None:
    assert duration_ns(text, "field") == nanoseconds


def test_the_checks_return_what_they_checked() -> None:
    assert count_of(3, "field") == 3
    assert fraction_ppm(0.25, "field") == 250_000
    assert flag_of(True, "field") is True
    assert [show_seconds(n) for n in (0, 850_000_000, 10**9, 12_400_000_000, 123_456_000_000)] == [
        "0 ms",
        "850 ms",
        "1 s",
        "12.4 s",
        "123 s",
    ]
