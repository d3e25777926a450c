"""The rules of the breaker, one by one and in numbers: when it opens, for how long, and what the probes decide."""

from __future__ import annotations

import itertools
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seawall.machines.breaker import Breaker, Mode, Permit, Refusal, Rules, State, Transition, Trip
from seawall.machines.verdict import Ended, Verdict
from tests.machines.effort import QUICK

OK, FAIL, IGNORE = Ended(Verdict.OK), Ended(Verdict.FAIL), Ended(Verdict.IGNORE)
SECOND = 1_000_000_000
HOUR = 3_600 * SECOND


def admitted(machine: Breaker, now: int, deadline: int | None = None) -> Permit:
    answer = machine.admit(now, 0.5, deadline)
    assert isinstance(answer, Permit), answer.why
    return answer


def refused(machine: Breaker, now: int) -> Refusal:
    answer = machine.admit(now, 0.5)
    assert isinstance(answer, Refusal)
    return answer


def attempt(machine: Breaker, ended: Ended, now: int, rand: float = 0.5) -> Transition | None:
    return machine.settle(admitted(machine, now), ended, now, rand)


def opened(rand: float = 0.5, retry_after_ns: int = 0, **settings: Any) -> tuple[Breaker, int]:
    machine = Breaker(Rules(consecutive=1, **settings))
    attempt(machine, Ended(Verdict.FAIL, retry_after_ns=retry_after_ns), 0, rand)
    assert machine.state is State.OPEN
    return machine, machine.until_ns


@pytest.mark.parametrize(("failures", "calls", "opens"), [(4, 9, False), (4, 10, False), (5, 9, False), (5, 10, True)])
def test_it_opens_at_the_rate_and_not_before_min_calls(failures: int, calls: int, opens: bool) -> None:
    """The defaults: at least half of at least ten calls."""
    machine = Breaker(Rules())
    for number in range(calls):
        attempt(machine, FAIL if number < failures else OK, 0)
    assert (machine.state is State.OPEN) is opens
    if opens:
        assert machine.trip == Trip("failed", 5, 10, 0.5)


@given(st.lists(st.floats(0, 1, exclude_max=True), min_size=6, max_size=6))
@QUICK
def test_open_for_doubles_with_each_failed_trial_up_to_eight_times(rands: list[float]) -> None:
    """1, 2, 4, 8, 8, 8 times `open_for`, each within 10 % of it."""
    machine, _ = opened(rands[0], probes=1)
    assert 0.9 <= machine.until_ns / (30 * SECOND) <= 1.1
    for rand, times in zip(rands[1:], (2, 4, 8, 8, 8), strict=False):
        now = machine.until_ns
        change = attempt(machine, FAIL, now, rand)
        assert change is not None
        assert change.open_ns == machine.until_ns - now
        assert 0.9 <= change.open_ns / (times * 30 * SECOND) <= 1.1


@pytest.mark.parametrize(("rand", "seconds"), [(0.0, 27), (0.25, 28.5), (0.5, 30), (0.75, 31.5)])
def test_the_jitter_is_spread_evenly_over_ten_percent_either_way(rand: float, seconds: float) -> None:
    """The random number is mapped linearly: 0 to 27 s, 1/2 to 30 s, towards 1 to 33 s."""
    assert opened(rand)[1] == seconds * SECOND


def test_a_successful_trial_ends_the_doubling() -> None:
    """After it has been well, it begins with the plain `open_for` again; so it does after a hand has reset it."""

    def well(machine: Breaker) -> None:
        attempt(machine, OK, machine.until_ns)

    for heal in (
        well,
        lambda machine: machine.reset(machine.until_ns),
        lambda machine: (machine.set_mode(Mode.DISABLED, 0), machine.set_mode(Mode.AUTO, 0)),
    ):
        machine, now = opened(probes=1)
        attempt(machine, FAIL, now)
        heal(machine)
        assert machine.state is State.CLOSED
        change = attempt(machine, FAIL, now + HOUR)
        assert change is not None
        assert change.open_ns == 30 * SECOND


@pytest.mark.parametrize(("wish", "seconds"), [(10 * SECOND, 30), (45 * SECOND, 45), (HOUR, 3_600)])
def test_it_stays_open_no_shorter_than_the_target_asked_for(wish: int, seconds: int) -> None:
    """Retry-After is a floor, of the trip and of the failed trial alike."""
    assert opened(retry_after_ns=wish)[1] == seconds * SECOND
    machine, now = opened(probes=1, open_for_ns=15 * SECOND)
    attempt(machine, Ended(Verdict.FAIL, 0, wish), now)
    assert machine.until_ns - now == seconds * SECOND


def test_open_refuses_with_the_time_that_is_left() -> None:
    """To the nanosecond: one before the end refuses for 1 ns, at the end it asks."""
    machine, until = opened()
    assert refused(machine, 0).retry_after_ns == until
    assert refused(machine, until - 1).retry_after_ns == 1
    assert refused(machine, 0).retry_after_ns == 1, "a clock that goes back stands still"
    change = admitted(machine, until).transition
    assert change is not None
    assert (change.before, change.after) == ("open", "half_open")


RATES = [None, 1, 200_000, 333_333, 500_000, 666_666, 900_000, 1_000_000]


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("probes", [1, 2, 3, 5])
def test_half_open_decides_as_soon_as_it_can_in_every_order_of_outcomes(rate: int | None, probes: int) -> None:
    """It reopens at the outcome that reaches the share, closes at the one after which none can; no earlier, no later.

    A setting of slow calls without `slow_after` has no say in it.
    """
    share = Fraction(rate or 500_000, 1_000_000)
    for fates in itertools.product([False, True], repeat=probes):
        machine, now = opened(failure_rate_ppm=rate, probes=probes, slow_rate_ppm=1)
        permits = [admitted(machine, now) for _ in range(probes)]
        refused(machine, now)
        for number, (permit, fails) in enumerate(zip(permits, fates, strict=True), 1):
            failures, left = sum(fates[:number]), probes - number
            change = machine.settle(permit, FAIL if fails else OK, now, 0.5)
            if Fraction(failures, probes) >= share:
                assert change is not None and change.after == "open" and change.trip is not None
                assert (change.trip.bad, change.trip.calls) == (failures, number)
                break
            if Fraction(failures + left, probes) < share:
                assert change is not None and change.after == "closed"
                break
            assert change is None
        else:
            raise AssertionError("all probes are in, and nothing was decided")


def test_half_open_admits_exactly_as_many_as_there_are_probes() -> None:
    """Twenty callers, five probes; when one ends undecided, nobody takes its place."""
    machine, now = opened()
    answers = [machine.admit(now, 0.5) for _ in range(20)]
    assert [isinstance(answer, Permit) for answer in answers] == [True] * 5 + [False] * 15
    assert refused(machine, now).retry_after_ns == SECOND
    assert isinstance(answers[0], Permit)
    machine.settle(answers[0], OK, now, 0.5)
    refused(machine, now)


def test_an_ignored_probe_gives_its_place_to_another_and_decides_nothing() -> None:
    """A hundred cancelled probes in turn leave the breaker as it was: half-open, one place free."""
    machine, now = opened(probes=1)
    for _ in range(100):
        permit = admitted(machine, now)
        refused(machine, now)
        assert machine.settle(permit, IGNORE, now, 0.5) is None
    assert machine.state is State.HALF_OPEN


@pytest.mark.parametrize(("deadline", "lease"), [(None, 60), (10, 10), (90, 60), (-5, 0)])
def test_a_silent_probe_is_given_back_after_its_lease_or_its_own_deadline(deadline: int | None, lease: int) -> None:
    """Whichever comes first, to the nanosecond; what it says afterwards changes nothing."""
    machine, now = opened(probes=1)
    silent = admitted(machine, now, None if deadline is None else now + deadline * SECOND)
    if lease:
        refused(machine, now + lease * SECOND - 1)
    second = admitted(machine, now + lease * SECOND)
    assert machine.settle(silent, FAIL, now + lease * SECOND, 0.5) is None
    assert machine.state is State.HALF_OPEN
    refused(machine, now + lease * SECOND)
    change = machine.settle(second, OK, now + lease * SECOND, 0.5)
    assert change is not None and change.after == "closed"


@pytest.mark.parametrize("ended", [OK, FAIL, IGNORE])
def test_a_permit_of_an_old_stay_changes_nothing(ended: Ended) -> None:
    """Settled in the open state, as a stranger among the probes, or after recovery: not a count moves."""
    machine = Breaker(Rules(consecutive=1, probes=1))
    late = [admitted(machine, 0) for _ in range(4)]
    attempt(machine, FAIL, 0)
    assert machine.settle(late[0], ended, 0, 0.5) is None
    probe = admitted(machine, machine.until_ns)
    assert machine.settle(late[1], ended, machine.until_ns, 0.5) is None
    refused(machine, machine.until_ns)
    machine.settle(probe, OK, machine.until_ns, 0.5)
    assert machine.settle(late[2], ended, machine.until_ns, 0.5) is None
    assert (machine.state, machine.window.calls) == (State.CLOSED, 0)
    machine.settle(probe, FAIL, machine.until_ns, 0.5)
    assert (machine.state, machine.window.calls) == (State.CLOSED, 0)


def test_ten_thousand_failures_at_once_are_one_transition() -> None:
    """All in flight together: the tenth opens it, the others come too late to say anything."""
    machine = Breaker(Rules())
    permits = [admitted(machine, 0) for _ in range(10_000)]
    changes = [machine.settle(permit, FAIL, 0, 0.5) for permit in permits]
    assert [number for number, change in enumerate(changes, 1) if change] == [10]


def test_an_hour_forward_empties_the_window_and_an_hour_back_changes_nothing() -> None:
    """After the jump back time stands still: nothing leaves the window until the clock has caught up."""
    machine = Breaker(Rules())
    for now in [2 * HOUR] * 4 + [3 * HOUR] * 4 + [2 * HOUR]:
        attempt(machine, FAIL, now)
    assert (machine.window.calls, machine.state) == (5, State.CLOSED)
    attempt(machine, OK, 3 * HOUR + 30 * SECOND)
    assert machine.window.calls == 1


def test_an_outcome_leaves_at_the_very_edge_of_its_bucket() -> None:
    """A reader sees it one nanosecond before, and no more at the edge."""
    machine = Breaker(Rules())
    attempt(machine, FAIL, 0)
    for now, calls in ((30 * SECOND - 1, 1), (30 * SECOND, 0)):
        machine.refresh(now)
        assert machine.window.calls == calls


def test_without_a_failure_rate_half_of_the_probes_decide() -> None:
    """A breaker by failures in a row alone still needs a share for its probes: 3 of 5."""
    machine, now = opened(failure_rate_ppm=None)
    ends = [attempt(machine, FAIL, now) for _ in range(3)]
    assert [end and end.after for end in ends] == [None, None, "open"]
