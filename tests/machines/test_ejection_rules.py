"""Each rule of ejection by itself, at the defaults of SEMANTICS: who is out, for how long, and how it comes back."""

from __future__ import annotations

from random import Random

import pytest

from seawall.machines.ejection import Change, Ejector, Health, Rules, Standing
from seawall.machines.verdict import Verdict

OK, FAIL, IGNORE = Verdict.OK, Verdict.FAIL, Verdict.IGNORE
SECOND = 1_000_000_000
MIDDLE = 0.5
"""The rand that leaves a length as it is."""


class Replicas:
    """Some replicas, a clock, and no concurrency."""

    def __init__(self, size: int, rules: Rules = Rules()) -> None:  # noqa: B008  # a frozen value
        self.machine = Ejector(rules)
        self.machine.size = size
        self.all = [Health(rules) for _ in range(size)]
        self.now = 1_000 * SECOND

    def passes(self, seconds: float) -> None:
        self.now += round(seconds * SECOND)

    def end(self, which: int, *verdicts: Verdict, rand: float = MIDDLE) -> list[Change]:
        """Attempts that begin and end now; what they changed."""
        health = self.all[which]
        ends = [self.machine.settle(health, health.stay, verdict, self.now, rand) for verdict in verdicts]
        return [change for change in ends if change is not None]

    def eject(self, which: int, rand: float = MIDDLE) -> float:
        """Seconds for which it is out."""
        (change,) = self.end(which, *[FAIL] * 5, rand=rand)
        assert change.out_ns is not None
        return change.out_ns / SECOND

    def probe(self, which: int, verdict: Verdict, rand: float = MIDDLE) -> Change | None:
        stay = self.machine.take_probe(self.all[which], self.now)
        assert stay is not None
        return self.machine.settle(self.all[which], stay, verdict, self.now, rand)

    def standings(self) -> list[str]:
        return [health.standing.value for health in self.all]


# -- who is ejected ---------------------------------------------------------------------------------------------------


def test_five_failures_in_a_row_eject() -> None:
    replicas = Replicas(2)
    assert replicas.end(0, *[FAIL] * 4, OK, *[FAIL] * 4) == []
    (change,) = replicas.end(0, FAIL)
    assert (change.why, change.out_ns) == ("5 attempts failed in a row", 30 * SECOND)
    assert replicas.standings() == ["out", "in"]


def test_what_says_nothing_does_not_break_a_row() -> None:
    replicas = Replicas(2)
    assert replicas.end(0, FAIL, FAIL, IGNORE, FAIL, IGNORE, FAIL) == []
    assert len(replicas.end(0, FAIL)) == 1


def test_half_of_at_least_twenty_failures_eject() -> None:
    replicas = Replicas(2)
    assert replicas.end(0, *[FAIL, OK] * 9, OK) == [], "nineteen are too few"
    (change,) = replicas.end(0, FAIL)
    assert change.why == "10 of 20 attempts failed"


def test_a_share_below_half_does_not() -> None:
    replicas = Replicas(2)
    assert replicas.end(0, *[FAIL, OK, OK] * 50) == []


def test_failures_older_than_the_window_do_not_count() -> None:
    replicas = Replicas(2)
    replicas.end(0, *[FAIL, OK] * 9)
    replicas.passes(30)
    assert replicas.end(0, *[FAIL, OK] * 9) == []


def test_a_success_never_ejects() -> None:
    """Even where the share has long been reached: the tenth is the one that makes it ten."""
    replicas = Replicas(2, Rules(consecutive=None, min_calls=10))
    assert replicas.end(0, *[FAIL] * 9, OK) == []
    assert len(replicas.end(0, FAIL)) == 1


@pytest.mark.parametrize(("off", "ejects"), [("consecutive", False), ("failure_rate_ppm", True)])
def test_a_rule_that_is_none_is_off(off: str, ejects: bool) -> None:
    replicas = Replicas(2, Rules(min_calls=100).replace(**{off: None}))
    assert bool(replicas.end(0, *[FAIL] * 5)) is ejects
    if off == "failure_rate_ppm":
        again = Replicas(2, Rules(min_calls=1, consecutive=10**9, failure_rate_ppm=None))
        assert again.end(0, *[FAIL] * 500) == []


@pytest.mark.parametrize(("size", "most"), [(1, 0), (2, 1), (3, 1), (4, 2), (5, 2), (500, 250)])
def test_never_more_than_half_are_out_and_none_where_there_is_only_one(size: int, most: int) -> None:
    replicas = Replicas(size)
    for which in range(size):
        replicas.end(which, *[FAIL] * 20)
    assert replicas.standings().count("out") == replicas.machine.out == most


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_under_strict_rules_all_may_be_out(size: int) -> None:
    replicas = Replicas(size, Rules(strict=True))
    for which in range(size):
        replicas.eject(which)
    assert replicas.standings() == ["out"] * size


def test_one_that_may_not_be_ejected_is_as_soon_as_there_is_room() -> None:
    replicas = Replicas(2)
    replicas.eject(0)
    assert replicas.end(1, *[FAIL] * 7) == []
    replicas.passes(30)
    replicas.probe(0, OK)
    (change,) = replicas.end(1, FAIL)
    assert change.why == "8 attempts failed in a row"


def test_one_that_is_probed_still_takes_the_place_of_one_that_is_out() -> None:
    replicas = Replicas(2)
    replicas.eject(0)
    replicas.passes(30)
    assert replicas.machine.take_probe(replicas.all[0], replicas.now) is not None
    assert replicas.end(1, *[FAIL] * 5) == []


# -- for how long -----------------------------------------------------------------------------------------------------


def test_each_ejection_lasts_thirty_seconds_longer_up_to_the_cap() -> None:
    """A probe that fails ejects for longer; the cap of 300 s leaves room for the jitter."""
    replicas = Replicas(2)
    lengths = [replicas.eject(0)]
    for _ in range(11):
        replicas.passes(lengths[-1])
        change = replicas.probe(0, FAIL)
        assert change is not None and change.out_ns is not None and change.why == "its probe failed"
        lengths.append(change.out_ns / SECOND)
    assert lengths == [30, 60, 90, 120, 150, 180, 210, 240, 250, 250, 250, 250]


def test_jitter_is_a_fifth_to_either_side() -> None:
    assert Replicas(2).eject(0, rand=0.0) == 24
    assert Replicas(2).eject(0, rand=1 - 2**-53) == pytest.approx(36)
    assert Replicas(2).eject(0, rand=0.25) == 27


def test_at_the_cap_nobody_is_out_for_longer_and_all_come_back_at_different_times() -> None:
    """Five hundred replicas that have failed for long, as after a long outage."""
    random = Random(0).random
    lengths = []
    for _ in range(500):
        replicas = Replicas(2)
        replicas.all[0].times = 40
        lengths.append(replicas.eject(0, rand=random()))
    assert 200 <= min(lengths) < 205 and 295 < max(lengths) <= 300
    assert len(set(lengths)) > 450, "they would come back together"
    assert Replicas(2).all[0].times == 0


@pytest.mark.parametrize("days", [1, 365, 36_500])
def test_however_long_the_cap_it_is_kept(days: int) -> None:
    cap = days * 86_400 * SECOND
    replicas = Replicas(2, Rules(base_ns=cap, cap_ns=cap))
    (change,) = replicas.end(0, *[FAIL] * 5, rand=1 - 2**-53)
    assert change.out_ns is not None and cap - cap // 1_000_000 - 5 <= change.out_ns <= cap


def test_health_makes_good_one_ejection_for_each_thirty_seconds() -> None:
    replicas = Replicas(2)
    lengths = []
    replicas.all[0].times = 3
    for healthy in (0, 29.9, 30, 59.9, 60, 61, 1e6):
        replicas.passes(replicas.eject(0))
        before = replicas.all[0].times
        replicas.probe(0, OK)
        replicas.passes(healthy)
        lengths.append((before, healthy))
    assert lengths == [(4, 0), (5, 29.9), (6, 30), (6, 59.9), (6, 60), (5, 61), (4, 1e6)]
    assert replicas.eject(0) == 30, "after a long time of health it begins anew"


def test_time_out_of_the_traffic_is_no_health() -> None:
    replicas = Replicas(2)
    replicas.passes(replicas.eject(0))
    replicas.probe(0, OK)
    replicas.passes(replicas.eject(0) + 3_600)
    change = replicas.probe(0, FAIL)
    assert change is not None and change.out_ns == 90 * SECOND


def test_a_clock_that_goes_back_makes_nothing_good() -> None:
    replicas = Replicas(2)
    replicas.passes(replicas.eject(0))
    replicas.probe(0, OK)
    replicas.passes(-900)
    assert replicas.eject(0) == 60


# -- how it comes back ------------------------------------------------------------------------------------------------


def test_exactly_one_of_many_askers_gets_the_probe_once_the_time_is_over() -> None:
    replicas = Replicas(2)
    health, machine = replicas.all[0], replicas.machine
    replicas.eject(0)
    replicas.passes(30)
    replicas.now -= 1
    assert machine.take_probe(health, replicas.now) is None
    replicas.now += 1
    stays = [machine.take_probe(health, replicas.now) for _ in range(1_000)]
    assert [stay for stay in stays if stay is not None] == [health.stay]
    assert health.standing is Standing.PROBING


def test_a_replica_that_is_in_has_no_probe() -> None:
    replicas = Replicas(2)
    assert not replicas.machine.probe_due(replicas.all[0], replicas.now)
    assert replicas.machine.take_probe(replicas.all[0], replicas.now) is None


def test_after_a_good_probe_it_begins_anew() -> None:
    """Neither the row nor the window remembers what was before."""
    replicas = Replicas(2, Rules(consecutive=5, min_calls=5, window_ns=3_600 * SECOND))
    replicas.eject(0)
    replicas.passes(30)
    assert replicas.probe(0, OK) == Change(why="its probe succeeded", out_ns=None)
    assert replicas.standings() == ["in", "in"]
    assert replicas.all[0].returned_ns == replicas.now
    assert replicas.end(0, *[FAIL] * 4) == []
    assert len(replicas.end(0, FAIL)) == 1


def test_a_probe_that_says_nothing_is_given_to_the_next() -> None:
    replicas = Replicas(2)
    replicas.eject(0)
    replicas.passes(30)
    assert replicas.probe(0, IGNORE) is None
    assert replicas.standings() == ["out", "in"]
    stay = replicas.machine.take_probe(replicas.all[0], replicas.now)
    replicas.passes(-5)
    assert stay is not None
    assert replicas.machine.settle(replicas.all[0], stay, IGNORE, replicas.now, MIDDLE) is None
    assert replicas.probe(0, OK) is not None, "at once, though the clock has gone back"


def test_each_change_of_standing_begins_a_new_stay() -> None:
    replicas = Replicas(2)
    health = replicas.all[0]
    stays = [health.stay]
    for verdict in (FAIL, IGNORE, OK):
        if health.standing is Standing.IN:
            replicas.eject(0)
        stays.append(health.stay)
        replicas.passes(3_600)
        stay = replicas.machine.take_probe(health, replicas.now)
        assert stay is not None
        stays.append(stay)
        replicas.machine.settle(health, stay, verdict, replicas.now, MIDDLE)
    stays.append(health.stay)
    assert stays == sorted(set(stays))


def test_a_probe_that_is_silent_for_the_lease_is_given_to_the_next_and_comes_too_late_then() -> None:
    replicas = Replicas(2)
    health, machine = replicas.all[0], replicas.machine
    replicas.eject(0)
    replicas.passes(30)
    first = machine.take_probe(health, replicas.now)
    replicas.passes(60)
    replicas.now -= 1
    assert machine.take_probe(health, replicas.now) is None
    replicas.now += 1
    second = machine.take_probe(health, replicas.now)
    assert first is not None and second is not None and first != second
    assert machine.settle(health, first, FAIL, replicas.now, MIDDLE) is None
    assert machine.settle(health, first, OK, replicas.now, MIDDLE) is None
    assert machine.settle(health, first, IGNORE, replicas.now, MIDDLE) is None
    assert health.standing is Standing.PROBING
    assert machine.settle(health, second, OK, replicas.now, MIDDLE) is not None


def test_a_silent_probe_that_nobody_has_replaced_still_decides() -> None:
    replicas = Replicas(2)
    replicas.eject(0)
    replicas.passes(30)
    stay = replicas.machine.take_probe(replicas.all[0], replicas.now)
    replicas.passes(3_600)
    assert stay is not None
    assert replicas.machine.settle(replicas.all[0], stay, OK, replicas.now, MIDDLE) is not None


@pytest.mark.parametrize("verdict", [OK, FAIL, IGNORE])
def test_what_began_before_changes_nothing(verdict: Verdict) -> None:
    """Attempts in flight when their replica is ejected, probed, and back."""
    replicas = Replicas(2, Rules(consecutive=1))
    health, machine = replicas.all[0], replicas.machine
    late = health.stay
    replicas.end(0, FAIL)

    def comes_late() -> None:
        health.roll(replicas.now)
        before = (health.standing, health.stay, health.until_ns, health.streak, machine.out, health.window.calls)
        assert machine.settle(health, late, verdict, replicas.now, MIDDLE) is None
        assert before == (
            *(health.standing, health.stay, health.until_ns, health.streak, machine.out, health.window.calls),
        )

    comes_late()
    replicas.passes(30)
    comes_late()
    stay = machine.take_probe(health, replicas.now)
    comes_late()
    assert stay is not None
    machine.settle(health, stay, OK, replicas.now, MIDDLE)
    comes_late()


@pytest.mark.parametrize("verdict", [OK, FAIL, IGNORE])
def test_what_is_tried_while_it_is_out_changes_nothing(verdict: Verdict) -> None:
    """In a panic traffic goes there all the same; only the probe decides."""
    replicas = Replicas(2)
    replicas.eject(0)
    assert replicas.end(0, *[verdict] * 30) == []
    assert replicas.standings() == ["out", "in"]


def test_one_that_leaves_makes_room_and_one_that_is_back_takes_it_again() -> None:
    replicas = Replicas(4)
    first, machine = replicas.all[0], replicas.machine
    replicas.eject(0)
    replicas.eject(1)
    assert machine.out == 2 and not machine.may_eject
    machine.forget(first)
    assert machine.out == 1 and machine.may_eject
    machine.remember(first)
    machine.remember(first)
    assert machine.out == 2
    machine.remember(replicas.all[3])
    assert machine.out == 2, "it is not out"
