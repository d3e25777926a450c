"""Quantiles of recent durations are never below the true one, and at most an eighth above it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from seawall.machines.latency import Latency
from tests.machines.effort import LONG, QUICK

DURATIONS = st.integers(0, 40) | st.integers(0, 10**19) | st.integers(0, 64).map(lambda bits: 2**bits - 1)
PPM = st.sampled_from([1, 500_000, 900_000, 950_000, 999_999, 1_000_000]) | st.integers(0, 1_000_000)


def true_quantile(durations: list[int], ppm: int) -> int:
    """The smallest duration that at least that share did not exceed."""
    for duration in sorted(durations):
        if sum(other <= duration for other in durations) * 1_000_000 >= ppm * len(durations):
            return duration
    raise AssertionError


@LONG
@given(st.lists(DURATIONS, min_size=1, max_size=40), PPM)
def test_a_quantile_is_at_most_an_eighth_above_the_true_one_and_never_below(durations: list[int], ppm: int) -> None:
    """Beside a sorted list; durations below 16 ns are exact."""
    machine = Latency(half=100, enough=1)
    for duration in durations:
        machine.record(duration)
    told, true = machine.quantile(ppm), true_quantile(durations, ppm)
    assert told is not None
    assert true <= told
    assert (told - true) * 8 < true if true >= 16 else told == true


def test_each_duration_by_itself_is_told_within_its_bound() -> None:
    """All small ones, and both sides of every bucket's edge up to an hour."""
    edges = [(8 + eighth) << shift for shift in range(40) for eighth in range(8)]
    for duration in {*range(2_000), *edges, *(edge - 1 for edge in edges)}:
        machine = Latency(enough=1)
        machine.record(duration)
        told = machine.quantile(500_000)
        assert told is not None
        assert duration <= told <= duration + (duration // 8 if duration >= 16 else 0)


@LONG
@given(st.integers(1, 6), st.lists(st.integers(0, 10**6), max_size=40), PPM)
def test_it_speaks_of_the_last_one_to_two_halves(half: int, durations: list[int], ppm: int) -> None:
    """Two generations: the older goes as a whole when the younger is full."""
    machine = Latency(half, enough=1)
    generations: list[list[int]] = [[]]
    for duration in durations:
        machine.record(duration)
        if len(generations[-1]) == half:
            generations.append([])
        generations[-1].append(duration)
        recent = [one for generation in generations[-2:] for one in generation]
        assert len(recent) > half or len(generations) == 1 or half == 1 or len(recent) >= half
        assert len(recent) <= 2 * half
        told, true = machine.quantile(ppm), true_quantile(recent, ppm)
        assert told is not None
        assert true <= told <= true + true // 8


@QUICK
@given(st.integers(1, 30), st.integers(0, 60))
def test_no_answer_before_there_is_enough(enough: int, count: int) -> None:
    """With fewer durations than `enough` it says nothing."""
    machine = Latency(half=500, enough=enough)
    for _ in range(count):
        machine.record(7)
    assert machine.quantile(500_000) == (7 if count >= enough else None)


def test_the_defaults() -> None:
    """An answer from 20 durations on, about the last 500 to 1,000."""
    machine = Latency()
    for _ in range(19):
        machine.record(1_000)
    assert machine.quantile(950_000) is None
    for _ in range(481):
        machine.record(1_000)
    assert machine.quantile(1_000_000) == 1_023
    for _ in range(500):
        machine.record(1)
    assert machine.quantile(1_000_000) == 1_023
    machine.record(1)
    assert machine.quantile(1_000_000) == 1


def test_a_clock_that_went_back_is_read_as_no_time() -> None:
    """A negative duration counts as 0."""
    machine = Latency(enough=1)
    machine.record(-5)
    assert machine.quantile(1_000_000) == 0
