"""The figures of the demo are what their names say, and the same seed brings the same users."""

import pytest

from seawall.demo.measure import Tally, percentile
from seawall.demo.traffic import PHASES, USERS, arrivals


@pytest.mark.parametrize(
    ("values", "share", "expected"),
    [
        ([], 0.5, 0.0),
        ([7.0], 0.5, 7.0),
        ([7.0], 0.99, 7.0),
        ([3.0, 1.0, 2.0], 0.5, 2.0),
        ([float(n) for n in range(1, 101)], 0.50, 50.0),
        ([float(n) for n in range(1, 101)], 0.99, 99.0),
        ([float(n) for n in range(1, 102)], 0.99, 100.0),
    ],
)
def test_percentile_is_the_nearest_rank(values: list[float], share: float, expected: float) -> None:
    assert percentile(values, share) == expected


def test_a_tally_counts_each_user_once() -> None:
    tally = Tally(arrived=4, attempts=5)
    tally.end("served", 0.010)
    tally.end("degraded", 0.020)
    tally.end("error", 0.030, "ServerError")
    assert (tally.served, tally.degraded, tally.errors, tally.waiting) == (1, 1, 1, 1)
    told = tally.as_json()
    assert (told["p50_ms"], told["p99_ms"]) == (20.0, 30.0)
    assert told["errors_by_type"] == {"ServerError": 1}


def test_the_same_seed_brings_the_same_users() -> None:
    assert arrivals("7:healthy", 50, 5) == arrivals("7:healthy", 50, 5)
    assert arrivals("7:healthy", 50, 5) != arrivals("8:healthy", 50, 5)


def test_arrivals_are_ordered_within_the_phase_and_near_their_rate() -> None:
    found = arrivals("1", 200, 50)
    times = [arrival.at for arrival in found]
    assert times == sorted(times)
    assert times[0] > 0
    assert times[-1] < 50
    assert 9_500 < len(found) < 10_500  # 10,000 expected, deviation 100
    assert {arrival.user for arrival in found} <= set(range(USERS))


def test_the_five_phases_are_those_promised() -> None:
    assert [phase.title for phase in PHASES] == [
        "healthy",
        "30 % errors",
        "hanging",
        "killed -9, restarted",
        "twice its capacity",
    ]
    assert PHASES[-1].load == 2.0
