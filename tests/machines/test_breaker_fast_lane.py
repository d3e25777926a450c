"""The fast lane of the breaker decides and counts exactly as the locked way does."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seawall.machines.breaker import Breaker, Mode, Permit, Rules
from seawall.machines.verdict import Ended, Verdict
from tests.machines.effort import LONG

OK, FAIL, IGNORE = Ended(Verdict.OK), Ended(Verdict.FAIL), Ended(Verdict.IGNORE)
START, LOOK = "start", "look"
PAUSES = [0, 50, 50, 25, 34, 60]
RULES = st.builds(
    Rules,
    failure_rate_ppm=st.sampled_from([500_000, 400_000, 250_000, None]),
    consecutive=st.sampled_from([None, None, None, 3]),
    min_calls=st.integers(1, 6),
    window_ns=st.just(100),
    buckets=st.sampled_from([2, 2, 3, 4]),
    open_for_ns=st.just(1_000),
    probes=st.integers(1, 3),
)
STEP = st.one_of(
    st.just(START),
    # A wave: these one after another, then a pause, then perhaps a look, which rolls the window.
    st.tuples(st.sampled_from(["1", "5", "5", "xx1", "1x1"]), st.sampled_from(PAUSES), st.booleans()),
    st.tuples(st.integers(0, 3), st.sampled_from([OK, OK, FAIL, IGNORE])),
    st.sampled_from([1, 24, 25, 26, 1_200]),
    st.sampled_from([LOOK, LOOK, Mode.SHADOW, Mode.AUTO]),
)


class Caller:
    """Makes the attempts of a trace, by the fast lane where it is open, or always under the lock."""

    def __init__(self, rules: Rules, *, fast: bool) -> None:
        self.machine, self.fast = Breaker(rules), fast
        self.now = 0
        self.running: list[Permit | None] = []
        self.told: list[Any] = []
        self.machine.refresh(self.now)

    def start(self) -> None:
        permit = self.machine.free_pass if self.fast else None
        if permit is None:
            answer = self.machine.admit(self.now, 0.5)
            permit = None
            if isinstance(answer, Permit):
                permit = answer
            else:
                self.told.append(("refused", answer.retry_after_ns, answer.why, answer.trip))
            self.told.append(answer.transition)
        else:
            self.told.append(None)
        self.running.append(permit)

    def end(self, which: int, ended: Ended) -> None:
        permit = self.running.pop(which)
        if permit is None:
            self.told.append("was refused")
        elif self.fast and ended is OK and permit is self.machine.free_pass and self.now < self.machine.edge_ns:
            next(permit.ticks)
            self.told.append(None)
        else:
            self.told.append(self.machine.settle(permit, ended, self.now, 0.5))

    def take(self, step: Any) -> None:
        match step:
            case "start":
                self.start()
            case list():
                for ended in step:
                    self.start()
                    self.end(-1, ended)
            case (str(wave), pause, looks):
                for sign in wave:
                    self.take([FAIL] if sign == "x" else [OK] * int(sign))
                self.now += pause
                if looks:
                    self.told.append(self.look())
            case (which, ended):
                if self.running:
                    self.end(which % len(self.running), ended)
            case int():
                self.now += step
            case "look":
                self.told.append(self.look())
            case mode:
                self.told.append(self.machine.set_mode(mode, self.now))
        self.told.append((self.machine.label, self.machine.passed_over))

    def look(self) -> tuple[int, ...]:
        self.machine.refresh(self.now)
        window = self.machine.window
        return window.calls, window.failed, window.slow


@LONG
@given(RULES, st.lists(STEP, min_size=8, max_size=30))
def test_the_fast_lane_is_equal_to_the_locked_way(rules: Rules, trace: list[Any]) -> None:
    """The same trace gives the same admissions, transitions, states and counts either way."""
    locked, fast = Caller(rules, fast=False), Caller(rules, fast=True)
    for step in [*trace, LOOK]:
        locked.take(step)
        fast.take(step)
        assert fast.told == locked.told


@LONG
@given(RULES, st.lists(STEP, min_size=3, max_size=15), st.integers(1, 9))
def test_while_the_fast_lane_is_open_no_number_of_successes_changes_the_state(
    rules: Rules, trace: list[Any], successes: int
) -> None:
    """Whenever one more success could open the breaker, there is no free pass."""
    locked = Caller(rules, fast=False)
    for step in trace:
        locked.take(step)
    machine = locked.machine
    if machine.free_pass is not None and locked.now < machine.edge_ns:
        for _ in range(successes):
            locked.start()
            locked.end(-1, OK)
            assert machine.label == "closed"


def test_a_window_that_loses_its_successes_closes_the_fast_lane() -> None:
    """When time takes the good calls out of the window, the next success is judged, looked at before or not."""
    rules = Rules(failure_rate_ppm=500_000, min_calls=2, window_ns=100, buckets=2)
    for looks in (False, True):
        caller = Caller(rules, fast=True)
        caller.take([OK] * 5)
        caller.take(60)
        caller.take([FAIL, FAIL, OK])
        assert caller.machine.label == "closed"
        caller.take(50)
        if looks:
            assert caller.look() == (3, 2, 0)
        caller.take([OK])
        assert caller.machine.label == "open"


@pytest.mark.parametrize("mode", [Mode.DISABLED, Mode.FORCED_OPEN])
def test_no_fast_lane_in_a_mode_that_does_not_count(mode: Mode) -> None:
    """Told by hand to refuse or not to count, it offers no free pass, and what was handed out does not count."""
    caller = Caller(Rules(), fast=True)
    caller.start()
    caller.machine.set_mode(mode, 0)
    assert caller.machine.free_pass is None
    caller.end(0, OK)
    assert caller.look() == (0, 0, 0)


@pytest.mark.parametrize(
    "rules", [Rules(slow_after_ns=1), Rules(window_ns=None)], ids=["slow calls to watch", "count window"]
)
def test_no_fast_lane_where_each_success_must_be_seen(rules: Rules) -> None:
    """Slow calls are watched one by one, and a count window forgets one outcome for each new one."""
    caller = Caller(rules, fast=True)
    caller.take([OK] * 50)
    assert caller.machine.free_pass is None


def test_a_healthy_breaker_stays_in_the_fast_lane() -> None:
    """A thousand successes within a bucket never need the lock: the permit is one and the same."""
    caller = Caller(Rules(), fast=True)
    passes = set()
    for _ in range(1_000):
        passes.add(caller.machine.free_pass)
        caller.take([OK])
    assert passes == {caller.machine.shared}
    assert caller.look() == (1_000, 0, 0)


def test_a_few_failures_among_many_successes_keep_the_fast_lane_open() -> None:
    """After a failure one success takes the locked way; the rest need it no more, though min_calls are not reached."""
    caller = Caller(Rules(min_calls=10), fast=True)
    caller.take([FAIL])
    assert caller.machine.free_pass is None
    caller.take([OK])
    assert caller.machine.free_pass is not None
    caller.take([FAIL, FAIL, FAIL, OK])
    assert caller.machine.free_pass is not None, "four of ten are less than half, however few the calls are now"
    caller.take([FAIL, OK])
    assert caller.machine.free_pass is None, "the tenth call, though a success, will open it"


def test_a_clock_that_goes_back_does_not_open_the_fast_lane_of_an_earlier_bucket() -> None:
    """The window has gone on; whoever comes with an earlier time is judged by what it holds now."""
    caller = Caller(Rules(failure_rate_ppm=500_000, min_calls=2, window_ns=100, buckets=2), fast=True)
    caller.take([OK] * 5)
    caller.take(60)
    caller.take([FAIL, FAIL, OK])
    caller.take(50)
    caller.take([IGNORE])
    assert caller.machine.label == "closed"
    caller.take(-40)
    caller.take([OK])
    assert caller.machine.label == "open"


def test_the_fast_lane_loses_no_call_when_the_clock_goes_back() -> None:
    """Whatever the clock does, what is counted in the fast lane is found by the next step under the lock."""
    caller = Caller(Rules(), fast=True)
    for now in (5, 4_000_000_000, 1, 3_600_000_000_000, 7):
        caller.now = now
        caller.take([OK, OK, OK])
    assert caller.look() == (6, 0, 0), "those of the last bucket; an hour took the others away"
