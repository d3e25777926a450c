"""Backoff is exponential, capped before it is jittered, and no number of retries overflows it."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seawall.machines.backoff import Backoff
from tests.machines.effort import LONG, QUICK

CENTURY = 100 * 365 * 86_400 * 10**9
NS = st.integers(0, CENTURY) | st.integers(0, 100)
FACTORS = st.sampled_from([1.0, 1.000_001, 1.1, 1.5, 2.0, 3.0, 10.0, 1e9, 1e300]) | st.floats(1, 16)
BACKOFFS = st.builds(Backoff, base_ns=NS, factor=FACTORS, cap_ns=NS)
RANDS = st.floats(0, 1, exclude_max=True) | st.just(1 - 2**-53)


@LONG
@given(BACKOFFS, st.integers(1, 60))
def test_the_ceiling_is_the_exact_power_or_the_cap(backoff: Backoff, retry: int) -> None:
    """min(cap, base * factor ** (retry - 1)), to half a nanosecond and the precision of a float."""
    power = backoff.base_ns * Fraction(backoff.factor) ** (retry - 1)
    exact = min(Fraction(backoff.cap_ns), power)
    assert abs(backoff.ceiling_ns(retry) - exact) <= Fraction(1, 2) + exact / 10**13


@LONG
@given(BACKOFFS, st.lists(st.integers(1, 200), min_size=2, max_size=6))
def test_ceilings_never_fall_and_never_pass_the_cap(backoff: Backoff, retries: list[int]) -> None:
    """A later retry never waits for less than an earlier one might."""
    ceilings = [backoff.ceiling_ns(retry) for retry in sorted(retries)]
    assert ceilings == sorted(ceilings)
    assert 0 <= ceilings[-1] <= backoff.cap_ns


@QUICK
@given(BACKOFFS)
def test_no_number_of_retries_overflows(backoff: Backoff) -> None:
    """After 2**5000 retries the ceiling is the cap, if it grows at all."""
    grows = backoff.factor > 1 and backoff.base_ns > 0
    assert backoff.ceiling_ns(2**5000) == (backoff.cap_ns if grows else min(backoff.base_ns, backoff.cap_ns))
    assert 0 <= backoff.pause_ns(2**5000, 1 - 2**-53) <= backoff.cap_ns


def test_the_defaults() -> None:
    """100 ms, doubled, capped at 2 s, with jitter."""
    backoff = Backoff()
    assert [backoff.ceiling_ns(retry) // 10**6 for retry in range(1, 9)] == [100, 200, 400, 800, 1600, 2000, 2000, 2000]
    assert backoff.jitter


@LONG
@given(BACKOFFS, st.integers(1, 100), RANDS)
def test_full_jitter_is_below_the_ceiling_and_in_proportion_to_chance(
    backoff: Backoff, retry: int, rand: float
) -> None:
    """The pause is the same share of the ceiling that `rand` is of 1, rounded down: evenly drawn from [0, ceiling)."""
    ceiling, pause = backoff.ceiling_ns(retry), backoff.pause_ns(retry, rand)
    assert 0 <= pause <= max(0, ceiling - 1)
    assert abs(pause - ceiling * Fraction(rand)) <= 1 + Fraction(ceiling, 2**52)


@pytest.mark.parametrize("retry", [1, 3, 50])
def test_each_tenth_of_the_range_is_drawn_equally_often(retry: int) -> None:
    """Of evenly spaced chances a tenth falls into each tenth: nothing piles up at the cap, long after reaching it."""
    backoff = Backoff()
    ceiling = backoff.ceiling_ns(retry)
    tenths = [0] * 10
    for step in range(10_000):
        tenths[backoff.pause_ns(retry, (step + 0.5) / 10_000) * 10 // ceiling] += 1
    assert tenths == [1_000] * 10


@QUICK
@given(NS, NS, st.integers(1, 90), RANDS)
def test_without_jitter_the_pause_is_the_ceiling(base: int, cap: int, retry: int, rand: float) -> None:
    """Chance has no say."""
    backoff = Backoff(base, 2.0, cap, jitter=False)
    assert backoff.pause_ns(retry, rand) == backoff.ceiling_ns(retry)


def test_no_base_is_no_pause_however_many_retries() -> None:
    """Nothing doubled is nothing."""
    assert {Backoff(base_ns=0).ceiling_ns(retry) for retry in (1, 2, 31, 32, 33, 1_000, 2**5000)} == {0}
