"""The fast lane of ejection counts exactly as the locked way does, and is open only where a success changes nothing."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from seawall.machines.ejection import Ejector, Health, Rules
from seawall.machines.verdict import Verdict
from tests.machines.effort import LONG

OK, FAIL, IGNORE = Verdict.OK, Verdict.FAIL, Verdict.IGNORE
LOOK, PROBE = "look", "probe"
RULES = st.builds(
    Rules,
    consecutive=st.sampled_from([None, 2, 3]),
    failure_rate_ppm=st.sampled_from([None, 300_000, 500_000]),
    min_calls=st.integers(1, 8),
    window_ns=st.sampled_from([100, 200]),
    base_ns=st.just(150),
    cap_ns=st.just(1_000),
    probe_lease_ns=st.just(100),
)
STEP = st.one_of(
    st.tuples(st.just(OK), st.integers(1, 9)),
    st.tuples(st.sampled_from([FAIL, FAIL, IGNORE]), st.integers(1, 3)),
    st.sampled_from([1, 9, 10, 11, 19, 20, 21, 160, 1_500, -5, -30]),
    st.sampled_from([LOOK, PROBE, PROBE]),
)


class Caller:
    """Makes the attempts of a trace, by the fast lane where it is open, or always under the lock."""

    def __init__(self, rules: Rules, *, fast: bool) -> None:
        self.machine, self.health, self.fast = Ejector(rules), Health(rules), fast
        self.machine.size = 2
        self.now = 1_000
        self.quick = 0

    def end(self, verdict: Verdict) -> Any:
        health = self.health
        if self.fast and verdict is OK and self.now < health.edge_ns:
            next(health.ticks)
            self.quick += 1
            return None
        return self.machine.settle(health, health.stay, verdict, self.now, 0.5)

    def take(self, step: Any) -> Any:
        match step:
            case (verdict, count):
                return [self.end(verdict) for _ in range(count)]
            case int():
                self.now = max(0, self.now + step)
            case "look":
                return self.look()
            case "probe":
                return self.machine.take_probe(self.health, self.now)
        return None

    def look(self) -> tuple[Any, ...]:
        health = self.health
        health.roll(self.now)
        health.open_fast_lane()
        window = health.window
        return window.calls, window.failed, health.standing, health.stay, health.times, health.until_ns, health.streak


@LONG
@given(RULES, st.lists(STEP, min_size=8, max_size=30))
def test_the_fast_lane_is_equal_to_the_locked_way(rules: Rules, trace: list[Any]) -> None:
    """The same trace gives the same ejections, returns and counts either way."""
    locked, fast = Caller(rules, fast=False), Caller(rules, fast=True)
    for step in [*trace, LOOK]:
        assert fast.take(step) == locked.take(step)


def test_a_healthy_replica_stays_in_the_fast_lane() -> None:
    """A thousand successes within a bucket need the lock once, and a failure closes the lane until the next success."""
    caller = Caller(Rules(), fast=True)
    caller.take((OK, 1_000))
    assert caller.quick == 999
    caller.take((FAIL, 1))
    caller.take((OK, 10))
    assert caller.quick == 999 + 9
    assert caller.look()[:2] == (1_011, 1)


def test_the_lane_is_closed_while_it_is_out_or_probed_and_until_the_first_success() -> None:
    caller = Caller(Rules(consecutive=1), fast=True)
    assert caller.health.edge_ns == 0
    caller.take((FAIL, 1))
    assert caller.health.edge_ns == 0
    caller.now += 40_000_000_000
    caller.take(PROBE)
    assert caller.health.edge_ns == 0
    caller.take((OK, 1))
    assert caller.health.edge_ns > caller.now


def test_the_lane_closes_where_the_bucket_is_full() -> None:
    """So that a success is counted in the bucket of its time."""
    caller = Caller(Rules(window_ns=100), fast=True)
    caller.take((OK, 5))
    caller.now = caller.health.edge_ns
    caller.take((OK, 5))
    caller.now += 95
    assert caller.look()[0] == 5, "those of the first bucket have left the window"


def test_what_went_through_the_lane_before_an_ejection_is_not_counted_after_the_return() -> None:
    """Ticks that nobody has gathered yet belong to the stay that is over."""
    caller = Caller(Rules(consecutive=2, failure_rate_ppm=None), fast=True)
    caller.take((OK, 100))
    caller.take((FAIL, 2))
    caller.now += 40_000_000_000
    caller.take(PROBE)
    caller.take((OK, 1))
    assert caller.look()[0] == 0
