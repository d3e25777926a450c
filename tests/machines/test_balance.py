"""The balancers pick by load, in turn or by chance, by weight in each case, for one replica as for five hundred."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Sized
from fractions import Fraction
from random import Random as Dice
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seawall.machines.balance import Crowd, Picker, PowerOfTwo, Random, RoundRobin
from tests.machines.effort import LONG, QUICK

NEARLY_ONE = 1 - 2**-53
EDGES = st.sampled_from([0.0, NEARLY_ONE, 0.5, 2**-53, 1 / 3])
RANDS = st.lists(EDGES | st.floats(0, NEARLY_ONE), min_size=8, max_size=8)
WEIGHTS = st.lists(st.integers(1, 9), min_size=1, max_size=6)
HUGE = st.lists(st.integers(1, 10**30) | st.sampled_from([1, 2**53, 2**53 + 1, 2**64 - 1]), min_size=1, max_size=6)
PICKERS: list[Callable[[], Picker]] = [PowerOfTwo, RoundRobin, Random]


class Replica:
    """Says how much is in flight, and notes who asked."""

    def __init__(self, number: int, load: int, asked: list[int]) -> None:
        self.number = number
        self.load = load
        self.asked = asked

    @property
    def flying(self) -> Sized:
        self.asked.append(self.number)
        return range(self.load)

    def __repr__(self) -> str:
        return f"Replica({self.number})"


def crowd_of(weights: Iterable[int], loads: Iterable[int] = ()) -> Crowd[Replica]:
    weights = list(weights)
    asked: list[int] = []
    filled = itertools.chain(loads, itertools.repeat(0))
    return Crowd([Replica(number, next(filled), asked) for number in range(len(weights))], weights)


def told(rands: Iterable[float]) -> Callable[[], float]:
    return iter([*rands]).__next__


def picks(picker: Picker, crowd: Crowd[Replica], count: int, seed: int = 0) -> list[int]:
    random = Dice(seed).random
    return [picker.pick(crowd, random).number for _ in range(count)]


# -- the line on which each has a stretch of its weight ---------------------------------------------------------------


@LONG
@given(WEIGHTS, st.integers(0, 2**20 - 1))
def test_a_draw_is_the_one_in_whose_stretch_of_the_line_it_falls(weights: list[int], part: int) -> None:
    """Beside a line that is written out, in fractions."""
    line = [number for number, weight in enumerate(weights) for _ in range(weight)]
    place = Fraction(part, 2**20) * len(line)
    crowd = crowd_of(weights)
    assert crowd.draw(part / 2**20) == line[int(place)]
    assert [crowd.at(place) for place in range(crowd.total)] == line


@pytest.mark.parametrize("make", PICKERS)
@LONG
@given(data=st.data())
def test_no_rand_and_no_weight_leads_out_of_the_crowd(make: Callable[[], Picker], data: st.DataObject) -> None:
    """Weights too great for a float, and rands of 0 and of just below 1."""
    weights, rands = data.draw(HUGE | WEIGHTS), data.draw(RANDS)
    picker, crowd = make(), crowd_of(weights, data.draw(st.lists(st.integers(0, 3))))
    for _ in range(3):
        assert picker.pick(crowd, itertools.cycle(rands).__next__) in crowd.members
    assert 0 <= crowd.draw(rands[0]) < len(weights)


def test_a_weight_beyond_the_exactness_of_floats_gets_its_share() -> None:
    crowd = crowd_of([2**60, 1, 2**60])
    assert [crowd.draw(rand) for rand in (0.0, 0.4999, 0.5001, NEARLY_ONE)] == [0, 0, 2, 2]


def test_the_second_one_is_drawn_by_weight_as_well() -> None:
    """Beside one of weight 1, one of weight 90 stands for comparison ten times as often as one of weight 9."""
    random, seconds = Dice(5).random, Counter[int]()
    for _ in range(10_000):
        crowd = crowd_of([1, 9, 90])
        PowerOfTwo().pick(crowd, itertools.chain([0.0], iter(random, None)).__next__)
        seconds.update(set(crowd.members[0].asked) - {0})
    assert seconds[1] + seconds[2] == 10_000 and abs(seconds[1] - 909) < 180


@pytest.mark.parametrize("make", PICKERS)
def test_the_only_one_is_picked_every_time(make: Callable[[], Picker]) -> None:
    assert set(picks(make(), crowd_of([7]), 20)) == {0}


# -- the less loaded of two -------------------------------------------------------------------------------------------


@LONG
@given(WEIGHTS.filter(lambda weights: len(weights) > 1), st.lists(st.integers(0, 6), min_size=6, max_size=6), RANDS)
def test_of_two_different_ones_the_less_loaded_for_its_weight_is_picked(
    weights: list[int], loads: list[int], rands: list[float]
) -> None:
    """Two are looked at, never one twice, and the other one has no less in flight for its weight."""
    crowd = crowd_of(weights, loads)
    taken = PowerOfTwo().pick(crowd, told(rands))
    looked = set(crowd.members[0].asked)
    assert len(looked) == 2 and taken.number in looked
    other = crowd.members[(looked - {taken.number}).pop()]
    assert Fraction(taken.load, weights[taken.number]) <= Fraction(other.load, weights[other.number])


@pytest.mark.parametrize("size", [2, 3, 4, 5])
def test_each_pair_is_drawn_equally_often_and_each_order_of_it(size: int) -> None:
    """Where it ties the first drawn is taken: over all draws, each has beaten each other once."""
    won: Counter[tuple[int, int]] = Counter()
    for one, two in itertools.product(range(size), range(size - 1)):
        crowd = crowd_of([3] * size)
        first = PowerOfTwo().pick(crowd, told([(one + 0.5) / size, (two + 0.5) / (size - 1)])).number
        (second,) = set(crowd.members[0].asked) - {first}
        won[first, second] += 1
    assert won == Counter(itertools.permutations(range(size), 2))


@QUICK
@given(WEIGHTS)
def test_an_idle_crowd_is_served_by_weight(weights: list[int]) -> None:
    total = sum(weights)
    served: Counter[int] = Counter()
    for place in range(total):
        crowd = crowd_of(weights)
        served[PowerOfTwo().pick(crowd, told([(place + 0.5) / total, 0.1, 0.9, 0.5, 0.0])).number] += 1
    assert [served[number] for number in range(len(weights))] == weights


def test_a_second_one_is_found_though_the_first_is_drawn_again_and_again() -> None:
    """Of a crowd in which one has nearly all the weight."""
    for last in (0.0, 0.3, 0.6, NEARLY_ONE):
        crowd = crowd_of([1, 1_000_000, 1, 1], [0, 9_000_000, 0, 0])
        assert PowerOfTwo().pick(crowd, told([0.5, 0.5, 0.5, 0.5, last])).number != 1
        assert len(set(crowd.members[0].asked)) == 2


@pytest.mark.parametrize("weights", [[1] * 500, [1, 2, 5] * 160], ids=["equal weights", "three weights"])
def test_five_hundred_fill_evenly_for_their_weight(weights: list[int]) -> None:
    """Work that stays: by the less loaded of two hardly one is above the average, where chance alone is far off."""
    spread: dict[Any, float] = {}
    for make in (PowerOfTwo, Random):
        crowd, random, picker = crowd_of(weights), Dice(3).random, make()
        for _ in range(20 * sum(weights)):
            picker.pick(crowd, random).load += 1
        spread[make] = max(member.load / weight for member, weight in zip(crowd.members, weights, strict=True)) - 20
    assert spread[PowerOfTwo] <= 5
    assert spread[Random] >= 8


# -- by chance --------------------------------------------------------------------------------------------------------


@QUICK
@given(WEIGHTS)
def test_by_chance_each_is_picked_as_often_as_its_weight_says(weights: list[int]) -> None:
    total, crowd = sum(weights), crowd_of(weights)
    rands = told((place + 0.5) / total for place in range(total))
    served = Counter(Random().pick(crowd, rands).number for _ in range(total))
    assert [served[number] for number in range(len(weights))] == weights


@pytest.mark.parametrize("make", [PowerOfTwo, Random])
@pytest.mark.parametrize(
    "weights", [[1] * 500, [1, 3] * 250, [1, 2, 3, 4, 5], [1, 1]], ids=["500", "500 w", "5 w", "2"]
)
def test_shares_of_an_idle_crowd_are_those_of_the_weights(make: Callable[[], Picker], weights: list[int]) -> None:
    """No share is further off than six deviations, which chance allows once in some hundred million."""
    draws = 100_000
    served = Counter(picks(make(), crowd_of(weights), draws))
    for number, weight in enumerate(weights):
        share = weight / sum(weights)
        assert abs(served[number] - draws * share) < 6 * (draws * share * (1 - share)) ** 0.5


# -- in turn ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 500])
def test_equal_weights_go_strictly_in_turn(size: int) -> None:
    assert picks(RoundRobin(), crowd_of([4] * size), 3 * size + 1) == [*range(size)] * 3 + [0]


@QUICK
@given(st.lists(st.integers(1, 100), min_size=2, max_size=8), st.integers(0, 10**9))
def test_unequal_weights_get_their_share_of_any_run_of_turns(weights: list[int], start: int) -> None:
    """In any run of up to 1,000 turns nobody has four more or less than is due, wherever the run begins."""
    picker, crowd, total = RoundRobin(), crowd_of(weights), sum(weights)
    picker._turns = itertools.count(start)
    served: Counter[int] = Counter()
    for turns in range(1, 1_001):
        served[picker.pick(crowd, told([])).number] += 1
        for number, weight in enumerate(weights):
            assert abs(served[number] * total - turns * weight) < 4 * total


@QUICK
@given(st.lists(st.integers(1, 100), min_size=2, max_size=5))
def test_nobody_waits_longer_than_thrice_its_distance(weights: list[int]) -> None:
    """Turns are spread evenly: one with a tenth of the weight has its turn within thirty."""
    served = picks(RoundRobin(), crowd_of(weights), 5_000)
    for number, weight in enumerate(weights):
        turns = [-1, *(turn for turn, taken in enumerate(served) if taken == number), len(served)]
        longest = max((after - before for before, after in itertools.pairwise(turns)), default=0)
        assert longest * weight <= 3 * sum(weights) + weight


def test_five_hundred_of_unequal_weight_all_have_their_turn() -> None:
    weights = [1, 2, 3, 4] * 125
    served = Counter(picks(RoundRobin(), crowd_of(weights), 10 * sum(weights)))
    for number, weight in enumerate(weights):
        assert abs(served[number] - 10 * weight) <= 4


@pytest.mark.parametrize("make", PICKERS)
def test_a_crowd_may_be_another_at_each_pick(make: Callable[[], Picker]) -> None:
    """It grows, shrinks and changes weights while turns go on."""
    picker, random = make(), Dice(1).random
    for size in (1, 5, 2, 3, 500, 1):
        for weights in ([1] * size, [*range(1, size + 1)]):
            crowd: Crowd[Any] = crowd_of(weights)
            assert picker.pick(crowd, random) in crowd.members
