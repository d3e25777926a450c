"""Deadline, criticality and attempt go out as three headers, and come in only if they are exactly as they should be."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seawall import Criticality, Policy, Retry, criticality, deadline
from seawall.http import outward_headers
from seawall.http.propagation import ATTEMPT, CRITICALITY, DEADLINE, HEADERS, inward
from seawall.testing import Script, VirtualClock

MILLISECOND = 1_000_000


def test_without_a_deadline_the_other_two_go_out() -> None:
    assert outward_headers() == {"Seawall-Criticality": "CRITICAL", "Seawall-Attempt": "1"}


def test_the_time_that_is_left_goes_out_in_whole_milliseconds() -> None:
    with VirtualClock() as time, deadline("2s"), criticality(Criticality.SHEDDABLE_PLUS):
        time.advance("500.6ms")
        assert outward_headers(attempt=3) == {
            "Seawall-Deadline": "1499",
            "Seawall-Criticality": "SHEDDABLE_PLUS",
            "Seawall-Attempt": "3",
        }


def test_a_deadline_that_has_passed_goes_out_as_0() -> None:
    with VirtualClock() as time, deadline("2s"):
        time.advance("1h")
        assert outward_headers()[DEADLINE] == "0"


def test_the_attempt_of_a_retry_goes_out() -> None:
    sent: list[str] = []
    target = Script(OSError, OSError, "well")

    def send() -> str:
        sent.append(outward_headers()[ATTEMPT])
        return target()

    Policy(Retry(on=OSError, delay=0, budget=None)).call(send)
    assert sent == ["1", "2", "3"]


def test_what_goes_out_can_always_come_in() -> None:
    with VirtualClock(), deadline("90d"):
        with deadline("100d"):
            pass
        arrived = inward({name: [value] for name, value in outward_headers(attempt=10**9).items()})
        assert (arrived.left_ns, arrived.attempt, arrived.malformed) == (90 * 86_400_000 * MILLISECOND, 999_999, 0)
    with VirtualClock(), deadline(99 * 365 * 86_400):
        arrived = inward({name: [value] for name, value in outward_headers().items()})
        assert arrived.left_ns == 9_999_999_999 * MILLISECOND


@pytest.mark.parametrize("level", list(Criticality))
def test_what_came_in_is_read(level: Criticality) -> None:
    arrived = inward({DEADLINE: ["250"], CRITICALITY: [level.name], ATTEMPT: ["2"]})
    assert (arrived.left_ns, arrived.criticality, arrived.attempt, arrived.malformed) == (
        250 * MILLISECOND,
        level,
        2,
        0,
    )


def test_0_is_a_deadline_and_0_is_no_attempt() -> None:
    arrived = inward({DEADLINE: ["0"], ATTEMPT: ["0"]})
    assert (arrived.left_ns, arrived.attempt, arrived.malformed) == (0, None, 1)


def test_nothing_is_nothing() -> None:
    assert (inward({}), inward({name: [] for name in HEADERS})) == (inward({}), inward({}))
    assert inward({}).malformed == 0


BAD_NUMBERS = [
    *("", " ", " 5", "5 ", "\t5", "5\n", "5\r\nX: y", "-5", "+5", "5.0", "5e3", "0x5", "1_000", "5,", "5, 5", "5;5"),
    *("٥", "５", "²", "५", "1\u00a0", "inf", "nan", "None", "true", "\x00", "5\x00", "\ud800", "9" * 11, "9" * 5_000),
]


@pytest.mark.parametrize("bad", BAD_NUMBERS)
def test_a_number_that_is_not_plainly_one_is_ignored_and_counted(bad: str) -> None:
    arrived = inward({DEADLINE: [bad], ATTEMPT: [bad], CRITICALITY: ["SHEDDABLE"]})
    assert (arrived.left_ns, arrived.attempt, arrived.malformed) == (None, None, 2)
    assert arrived.criticality is Criticality.SHEDDABLE, "the others stand"


@pytest.mark.parametrize(
    "bad", ["", "critical", "CRITICAL ", "HIGH", "2", "Criticality.CRITICAL", "__members__", "name", "C" * 9_000]
)
def test_a_criticality_of_another_name_is_ignored_and_counted(bad: str) -> None:
    arrived = inward({CRITICALITY: [bad]})
    assert (arrived.criticality, arrived.malformed) == (None, 1)


def test_a_header_that_came_twice_is_not_believed_even_if_both_agree() -> None:
    arrived = inward({DEADLINE: ["250", "250"], CRITICALITY: ["CRITICAL", "SHEDDABLE"], ATTEMPT: ["1", "2"]})
    assert (arrived.left_ns, arrived.criticality, arrived.attempt, arrived.malformed) == (None, None, None, 3)


@given(st.lists(st.text(), max_size=3), st.lists(st.text("0123456789 _+-٣"), max_size=2))
def test_whatever_comes_what_is_read_is_sound(one: list[str], other: list[str]) -> None:
    for values in (one, other):
        arrived = inward(dict.fromkeys(HEADERS, values))
        assert arrived.left_ns is None or 0 <= arrived.left_ns < 10**10 * MILLISECOND
        assert arrived.attempt is None or 1 <= arrived.attempt < 10**6
        read = sum(value is not None for value in (arrived.left_ns, arrived.criticality, arrived.attempt))
        assert arrived.malformed == (3 - read if values else 0)


@given(st.integers(0, 9_999_999_999))
def test_every_number_of_milliseconds_is_read(milliseconds: int) -> None:
    assert inward({DEADLINE: [str(milliseconds)]}).left_ns == milliseconds * MILLISECOND
