"""Pacing: never more goes than was announced, an honest server never has to refuse, and no server stops it for good."""

from __future__ import annotations

import heapq
import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seawall.machines.pacing import SETTLE_NS, Pacing
from tests.machines.effort import LONG, QUICK

SECOND = 1_000_000_000
CAP = 60 * SECOND
YEARS = 10 * 365 * 86_400 * SECOND


def told(left: int, seconds: float, quota: int | None = None) -> list[tuple[int, int, int | None]]:
    return [(left, round(seconds * SECOND), quota)]


def known(left: int, seconds: float, quota: int | None = None) -> Pacing:
    """A server that has just answered the first request, at 0."""
    machine = Pacing(CAP)
    machine.answered(machine.send(0), 0, told(left, seconds, quota))
    return machine


def times(machine: Pacing, count: int, now: int = 0) -> list[float]:
    """When the next requests go that are sent as soon as they may, in seconds; none is ever answered."""
    found = []
    for _ in range(count):
        now += machine.wait(now)
        machine.lost(machine.send(now))
        found.append(now / SECOND)
    return found


# -- the rules ---------------------------------------------------------------------------------------------------------


def test_while_more_than_half_is_left_requests_go_at_once_and_then_they_are_spread() -> None:
    assert times(known(6, 9, 6), 6) == pytest.approx([0, 0, 0, 9 / 4, 9 / 2, 27 / 4])


def test_with_nothing_left_the_next_goes_when_there_is_more() -> None:
    assert known(0, 30).wait(0) == 30 * SECOND
    assert known(0, 30).wait(12 * SECOND) == 18 * SECOND
    assert known(0, 30).wait(30 * SECOND) == 0


def test_a_request_after_a_pause_goes_at_once() -> None:
    machine = known(2, 30, 100)
    assert machine.wait(0) == 10 * SECOND
    assert machine.wait(25 * SECOND) == 0
    machine.lost(machine.send(25 * SECOND))
    assert machine.wait(25 * SECOND) == 2.5 * SECOND


def test_of_several_limits_the_tightest_holds() -> None:
    machine = Pacing(CAP)
    limits = [(50, 30 * SECOND, 50), (0, 5 * SECOND, 10), (1, 8 * SECOND, 10)]
    machine.answered(machine.send(0), 0, limits)
    assert machine.wait(0) == 5 * SECOND


def test_the_newest_answer_wins_and_one_that_was_overtaken_changes_nothing() -> None:
    machine = Pacing(CAP)
    first, second = machine.send(0), machine.send(0)
    machine.answered(second, 0, told(50, 10, 60))
    machine.answered(first, 0, told(0, 60))
    assert machine.wait(0) == 0
    machine.answered(machine.send(0), 0, told(0, 60))
    assert machine.wait(0) == 60 * SECOND


def test_requests_on_their_way_are_taken_off_what_is_left() -> None:
    machine = Pacing(CAP)
    numbers = [machine.send(0) for _ in range(4)]
    machine.answered(numbers[3], 0, told(3, 10, 100))
    assert machine.wait(0) == 10 * SECOND, "the three others may not be in the server's count"


def test_the_wait_for_a_window_includes_that_for_those_on_their_way_when_it_ends() -> None:
    machine = Pacing(CAP)
    machine.send(0)
    machine.answered(machine.send(0), 0, told(0, 0.5))
    assert machine.wait(0) == SETTLE_NS
    assert machine.wait(SETTLE_NS) == 0


def test_those_on_their_way_for_long_are_in_the_servers_count() -> None:
    machine = Pacing(CAP)
    for _ in range(3):
        machine.send(0)
    now = SETTLE_NS
    machine.answered(machine.send(now), now, told(1, 10, 100))
    assert machine.wait(now) == 5 * SECOND


def test_before_the_first_answer_one_goes_alone_for_a_second_at_most() -> None:
    machine = Pacing(CAP)
    assert machine.wait(0) == 0
    number = machine.send(0)
    assert machine.wait(0) == SETTLE_NS
    assert machine.wait(SETTLE_NS) == 0
    machine.send(SETTLE_NS)
    assert machine.wait(SETTLE_NS) == 0
    machine.answered(number, SETTLE_NS, [])
    assert machine.wait(SETTLE_NS) == 0


def test_behind_the_end_of_a_window_one_goes_and_the_others_wait_for_its_answer() -> None:
    machine = known(0, 5)
    now = 5 * SECOND
    number = machine.send(now)
    assert machine.wait(now) == SETTLE_NS
    machine.answered(number, now + 1, told(40, 5, 60))
    assert machine.wait(now + 1) == 0
    silent = known(0, 5)
    number = silent.send(now)
    silent.answered(number, now + 1, [])
    assert silent.wait(now + 1) == 0, "it says nothing any more, so it is left alone"


def test_an_answer_without_fields_leaves_what_was_announced() -> None:
    machine = known(3, 10, 100)
    number = machine.send(0)
    machine.answered(number, 0, [])
    assert machine.wait(0) == round(10 * SECOND / 3 + 0.5)


def test_what_was_not_sent_after_all_gives_its_place_back() -> None:
    machine = known(1, 10, 100)
    number = machine.send(5 * SECOND)
    assert machine.wait(5 * SECOND) == 5 * SECOND
    machine.give_back(number)
    machine.give_back(number)
    assert machine.windows is not None
    assert machine.windows[0].left == 1


def test_what_was_not_sent_after_all_gives_back_what_a_later_answer_took_off() -> None:
    machine = known(50, 10, 100)
    number = machine.send(0)
    machine.answered(machine.send(0), 0, told(4, 10, 100))
    assert machine.windows is not None
    assert machine.windows[0].left == 3
    machine.give_back(number)
    assert machine.windows[0].left == 4


@pytest.mark.parametrize("left", [0, 1, 1_000, 10**15 - 1])
def test_ten_years_hold_nobody_for_longer_than_the_cap(left: int) -> None:
    machine = known(left, YEARS / SECOND, 10**15 - 1)
    assert 0 <= machine.wait(0) <= CAP
    assert machine.wait(CAP) == 0


def test_the_wait_of_those_in_line_is_no_longer_than_it_turns_out() -> None:
    for left, quota in itertools.product(range(8), (None, 4, 8)):
        machine = known(left, 9, quota)
        guesses = [machine.least(0, ahead) / SECOND for ahead in range(8)]
        real = times(known(left, 9, quota), 8)
        assert all(guess <= time + 1e-8 for guess, time in zip(guesses, real, strict=True)), (left, quota)
        assert guesses[: left + 1] == pytest.approx(real[: left + 1])


# -- whatever the server says ------------------------------------------------------------------------------------------

ANSWER = st.lists(
    st.tuples(
        st.integers(0, 12) | st.just(10**15 - 1),
        st.integers(0, 90 * SECOND) | st.just(YEARS),
        st.none() | st.integers(0, 20),
    ),
    max_size=3,
)
STEP = st.tuples(
    st.sampled_from(["send", "send", "answer", "answer", "lose", "give back", "pass"]),
    st.integers(0, 20),
    st.integers(0, 3 * SECOND),
    ANSWER,
)


@LONG
@given(st.lists(STEP, max_size=60))
def test_never_more_goes_than_was_announced_and_there_is_always_a_next_time(steps: list[Any]) -> None:
    machine, now = Pacing(CAP), 0
    flying: list[int] = []
    newest, grants = -1, list[list[int]]()
    for what, which, passes, answer in steps:
        if what == "pass":
            now += passes
        elif what == "send" and not machine.wait(now):
            flying.append(machine.send(now))
            for grant in grants:
                grant[0] -= 1
                assert grant[0] >= 0 or now >= min(grant[1], grant[2] + CAP), "more than was announced"
        elif what == "send":
            assert machine.wait(now) <= 2 * CAP, "it is always known when, and never far"
        elif flying:
            number = flying.pop(which % len(flying))
            if what == "answer":
                # Those that may not be counted yet, and hang for a second at most.
                hidden = sum(now - machine.flying[other] < SETTLE_NS for other in flying)
                machine.answered(number, now, answer)
                if answer and number > newest:
                    newest = number
                    grants = [[max(0, left - hidden), now + for_ns, now] for left, for_ns, _ in answer]
            elif what == "lose":
                machine.lost(number)
            else:
                machine.give_back(number)
                grants = []  # nothing went; the model does not follow what that gives back
    due = now + machine.wait(now)
    assert due <= now + CAP + SETTLE_NS
    assert machine.wait(due) == 0, "when the time has come, it goes"


@QUICK
@given(
    quota=st.integers(1, 12),
    window=st.integers(1, 8),
    callers=st.integers(1, 25),
    delays=st.lists(st.integers(1, SETTLE_NS // 2 - 1), min_size=1, max_size=40),
    start=st.integers(0, 8 * SECOND),
    says=st.booleans(),
)
def test_an_honest_server_never_has_to_refuse(
    quota: int, window: int, callers: int, delays: list[int], start: int, says: bool
) -> None:
    """A fixed window, asked by callers that each send again as soon as they are answered and may."""
    machine, length = Pacing(CAP), window * SECOND
    delay = itertools.cycle(delays)
    counted: dict[int, int] = {}
    events: list[tuple[int, int, str, Any]] = []
    serial = itertools.count()

    def later(at: int, what: str, fact: Any = None) -> None:
        heapq.heappush(events, (at, next(serial), what, fact))

    for _ in range(callers):
        later(start, "wants")
    sent = 0
    while events and sent < 60:
        now, _, what, fact = heapq.heappop(events)
        if what == "wants":
            wait = machine.wait(now)
            if wait:
                later(now + min(wait, SECOND // 5), "wants")  # something may have come free
            else:
                sent += 1
                later(now + next(delay), "arrives", machine.send(now))
        elif what == "arrives":
            number = now // length
            counted[number] = counted.get(number, 0) + 1
            assert counted[number] <= quota, "one too many"
            seconds = -(-(length - now % length) // SECOND)
            answer = told(quota - counted[number], seconds, quota if says else None)
            later(now + next(delay), "answer", (fact, answer))
        else:
            machine.answered(fact[0], now, fact[1])
            later(now, "wants")


def test_it_keeps_nothing_of_what_has_ended() -> None:
    machine = Pacing(CAP)
    for number in range(1_000):
        now = number * SECOND
        machine.answered(machine.send(now), now, told(5, 1, 10))
    assert (len(machine.flying), len(machine.windows or ())) == (0, 1)
    assert not machine.idle(999 * SECOND)
    assert machine.idle(1_000 * SECOND)
