"""Who may get the next attempt: ejection, probes, panic, breakers and slow start, for 1 to 5 endpoints and for 500."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from seawall import (
    CircuitBreaker,
    Cluster,
    Ejection,
    Endpoint,
    Failfast,
    Failover,
    Failsilent,
    PowerOfTwo,
    Random,
    RoundRobin,
)
from seawall.cluster.member import Member
from seawall.events import EndpointEjected, EndpointReturned
from seawall.machines.ejection import Rules
from seawall.machines.verdict import Verdict
from seawall.policies.registry import Registry
from seawall.testing import VirtualClock
from tests.cluster.lab import QUICK, Lab, counted_looks, middle_of_jitter, time
from tests.policies.worlds import World, fail, heard, in_both_worlds

__all__ = ["time"]

OK, FAIL, IGNORE = Verdict.OK, Verdict.FAIL, Verdict.IGNORE
STRICT = QUICK.replace(strict=True)
BREAKER = (CircuitBreaker(consecutive=1, open_for=20),)
JITTER = 1.2


# -- ejected ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [2, 3, 4, 5, 500])
def test_one_that_is_ejected_gets_nothing_but_one_probe_when_its_time_is_over(time: VirtualClock, size: int) -> None:
    lab = Lab(size)
    with middle_of_jitter():
        lab.eject(0)
    assert 0 not in lab.picks(3 * size)
    time.advance("9999999999ns")
    assert 0 not in lab.picks(3 * size)
    time.advance("1ns")
    probe = lab.roster.pick()
    assert lab.number_of(probe) == 0 and lab.standing(0) == "probing"
    assert 0 not in lab.picks(5 * size), "the probe is under way"
    lab.end(probe, OK)
    assert lab.standing(0) == "in"
    assert lab.picks(3 * size)[0] == 3


@pytest.mark.parametrize("verdict", [OK, FAIL, IGNORE])
def test_the_end_of_the_probe_decides(time: VirtualClock, verdict: Verdict) -> None:
    lab = Lab(3)
    with middle_of_jitter(), heard(EndpointEjected, EndpointReturned) as seen:
        lab.eject(0)
        time.advance(10)
        lab.end(lab.roster.pick(), verdict)
        assert lab.standing(0) == {OK: "in", FAIL: "out", IGNORE: "out"}[verdict]
        told = [(type(event), event.endpoint, getattr(event, "out_for", None)) for event in seen]
        assert told[0] == (EndpointEjected, "e0:80", 10)
        assert (
            told[1:]
            == {
                OK: [(EndpointReturned, "e0:80", None)],
                FAIL: [(EndpointEjected, "e0:80", 20)],
                IGNORE: [],
            }[verdict]
        )
        assert lab.number_of(lab.roster.pick()) == 0 or verdict is not IGNORE, "the next call makes it at once"
    assert lab.roster.ejections == (2 if verdict is FAIL else 1)


def test_a_probe_that_is_silent_for_its_lease_is_made_by_another(time: VirtualClock) -> None:
    lab = Lab(3)
    with middle_of_jitter():
        lab.eject(0)
    time.advance(10)
    first = lab.roster.pick()
    time.advance("59999999999ns")
    assert 0 not in lab.picks(100)
    time.advance("1ns")
    second = lab.roster.pick()
    assert lab.number_of(second) == 0 and 0 not in lab.picks(100)
    lab.end(first, OK)
    assert lab.standing(0) == "probing", "it comes too late"
    lab.end(second, OK)
    assert lab.standing(0) == "in"


@pytest.mark.parametrize("rules", [QUICK, STRICT], ids=["up to half", "strict"])
@pytest.mark.parametrize("size", [2, 3, 4, 5, 60])
def test_of_many_probes_that_are_due_at_once_each_is_made_once(time: VirtualClock, size: int, rules: Rules) -> None:
    lab = Lab(size, rules)
    out = size if rules.strict else size // 2
    with middle_of_jitter():
        lab.eject(*range(out))
    time.advance(10)
    probes = [lab.roster.pick() for _ in range(out)]
    assert sorted(lab.number_of(seat) for seat in probes) == [*range(out)]
    if rules.strict:
        assert lab.refusal().retry_after == 1
    else:
        assert not set(lab.picks(3 * size)) & set(range(out))
    for seat in probes:
        lab.end(seat, OK)
    assert len(lab.picks(size)) == size


def test_attempts_elsewhere_after_a_failure_make_no_probe(time: VirtualClock) -> None:
    """They are the second attempt of a call that has already lost time."""
    lab = Lab(3)
    with middle_of_jitter():
        lab.eject(0)
    time.advance(10)
    for _ in range(20):
        seat = lab.roster.pick_other({lab.member(1): None})
        assert seat is not None and lab.number_of(seat) == 2
    assert lab.standing(0) == "out"
    assert lab.number_of(lab.roster.pick()) == 0


@pytest.mark.parametrize(("size", "most"), [(1, 0), (2, 1), (3, 1), (4, 2), (5, 2), (500, 250)])
def test_however_sick_they_all_are_never_more_than_half_are_out(time: VirtualClock, size: int, most: int) -> None:
    lab = Lab(size)
    for _ in range(3 * size):
        lab.end(lab.roster.pick(), FAIL)
        assert lab.standings().count("in") >= size - most
    assert lab.standings().count("out") == most == lab.roster.ejections
    assert not lab.roster.panic, "the other half is thought to be well"


@pytest.mark.parametrize("size", [1, 2, 3, 5, 100])
def test_under_strict_rules_all_may_be_out_and_nothing_is_sent(time: VirtualClock, size: int) -> None:
    lab = Lab(size, STRICT)
    lab.eject(*range(size))
    assert lab.refusal().detail == f"all {size} endpoints are silent"
    assert lab.roster.pick_other(()) is None and not lab.roster.has_other(()) and lab.roster.size == 0
    assert not lab.roster.panic


def test_what_was_in_flight_when_it_was_ejected_changes_nothing(time: VirtualClock) -> None:
    lab = Lab(2)
    with middle_of_jitter():
        late = [lab.seat_at(0) for _ in range(3)]
        lab.eject(0)
        for seat, verdict in zip(late, (OK, FAIL, IGNORE), strict=True):
            lab.end(seat, verdict)
        assert (lab.standing(0), lab.roster.ejections) == ("out", 1)
        time.advance(10)
        lab.end(lab.roster.pick(), OK)
        for seat, verdict in zip(late, (OK, FAIL, IGNORE), strict=True):
            lab.end(seat, verdict)
    assert (lab.standing(0), lab.roster.ejections) == ("in", 1)
    lab.health(0).roll(time.now_ns)
    assert lab.health(0).window.calls == 0, "nor is a success counted"


def test_a_success_that_changes_nothing_but_a_count_takes_no_lock(
    time: VirtualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab = Lab(2)
    seat, settled = lab.seat_at(0), list[Any]()
    settle = lab.roster._settle
    monkeypatch.setattr(lab.roster, "_settle", lambda *arguments: settled.append(settle(*arguments)))
    for _ in range(1_000):
        lab.end(seat, OK)
    assert len(settled) == 1
    lab.end(seat, FAIL)
    assert len(settled) == 2 and lab.standing(0) == "out"


def test_health_is_kept_by_rows_and_rates_through_both_lanes(time: VirtualClock) -> None:
    """Successes that need no lock are counted with the others."""
    lab = Lab(2, Rules(consecutive=None, failure_rate_ppm=500_000, min_calls=20))
    seat = lab.seat_at(0)
    for verdict in [OK] * 11 + [FAIL] * 10:
        lab.end(seat, verdict)
    assert lab.standing(0) == "in"
    lab.end(seat, FAIL)
    assert lab.standing(0) == "out"


def test_those_that_have_left_take_no_place_among_the_ejected(time: VirtualClock) -> None:
    lab = Lab(5)
    lab.eject(0, 1)
    lab.update(2, 3, 4, 5, 6)
    lab.eject(2, 3)
    lab.end(lab.seat_at(4), FAIL)
    assert lab.standings() == ["out", "out", "in", "in", "in"]
    lab.update(0, 4, 5, 6)
    lab.eject(5)
    assert lab.standings() == ["out", "in", "out", "in"], "one that is back takes its place again"
    lab.end(lab.seat_at(6), FAIL)
    assert lab.standing(6) == "in"


# -- breakers -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [2, 3, 5, 500])
def test_one_with_an_open_breaker_is_not_chosen_while_others_are(time: VirtualClock, size: int) -> None:
    lab = Lab(size, None, each=BREAKER)
    lab.breaker(0).force_open()
    lab.roster.spoil()
    assert 0 not in lab.picks(3 * size)
    lab.breaker(0).reset()
    time.advance("100ms")
    assert lab.picks(2 * size)[0] == 2, "looked at again after a tenth of a second"


@in_both_worlds
async def test_a_breaker_that_opens_is_seen_by_the_very_next_call(world: World) -> None:
    cluster = Cluster("stock", ["a:80", "b:80", "c:80"], strategy=Failfast(), each=BREAKER, names=Registry())
    await world.error_of(cluster, fail())
    (sick,) = [each["address"] for each in cluster.snapshot()["endpoints"] if each["breaker_refuses"]]
    asked = {await world.call(cluster, str) for _ in range(50)}
    assert len(asked) == 2 and sick not in asked
    await world.passes(20 * 1.1)
    asked = {await world.call(cluster, str) for _ in range(50)}
    assert len(asked) == 3, "half-open it is asked again"


@in_both_worlds
async def test_a_breaker_that_opens_is_seen_by_each_view_of_the_cluster(world: World) -> None:
    """Each strategy with rules of its own looks for itself."""
    cluster = Cluster("stock", ["a:80", "b:80", "c:80"], strategy=Failfast(), each=BREAKER, names=Registry())
    views = [cluster, cluster.using(Failsilent()), cluster.using(Failsilent(Ejection(consecutive=3)))]
    for view in views:
        await world.call(view, str)
    await world.error_of(cluster, fail())
    for view in views:
        await world.outcome(view, str)
        assert len({await world.call(view, str) for _ in range(50)}) == 2


# -- panic --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 500])
def test_health_is_ignored_when_fewer_than_half_are_usable(time: VirtualClock, size: int) -> None:
    lab = Lab(size, None, each=BREAKER)
    for sick in range(size + 1) if size < 10 else (249, 250, 251, 500):
        for number in range(sick):
            lab.breaker(number).force_open()
        lab.roster.spoil()
        panic = 2 * (size - sick) < size
        chosen = lab.picks(4 * size)
        assert lab.roster.panic is panic
        assert set(chosen) == set(range(size) if panic else range(sick, size))


def test_the_ejected_and_those_with_open_breakers_count_together(time: VirtualClock) -> None:
    lab = Lab(4, each=BREAKER)
    lab.eject(0)
    lab.breaker(1).force_open()
    lab.roster.spoil()
    assert set(lab.picks(20)) == {2, 3} and not lab.roster.panic
    lab.breaker(2).force_open()
    lab.roster.spoil()
    assert set(lab.picks(20)) == {0, 1, 2, 3} and lab.roster.panic


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_there_is_no_panic_under_strict_rules(time: VirtualClock, size: int) -> None:
    lab = Lab(size, STRICT, each=BREAKER)
    for number in range(size):
        lab.breaker(number).force_open()
    assert lab.refusal().detail == "no endpoint may be tried now"
    assert not lab.roster.panic


@pytest.mark.parametrize("verdict", [OK, FAIL, IGNORE])
def test_in_a_panic_attempts_at_the_ejected_are_made_and_decide_nothing(time: VirtualClock, verdict: Verdict) -> None:
    lab = Lab(3, each=BREAKER)
    with middle_of_jitter():
        lab.eject(0)
    for number in (1, 2):
        lab.breaker(number).force_open()
    lab.roster.spoil()
    seats = [lab.seat_at(0) for _ in range(10)]
    for seat in seats:
        lab.end(seat, verdict)
    assert (lab.standing(0), lab.roster.ejections) == ("out", 1)
    time.advance(10)
    probe = lab.roster.pick()
    beside = lab.seat_at(0)
    assert lab.standing(0) == "probing"
    lab.end(beside, verdict)
    for seat in seats:
        lab.end(seat, verdict)
    assert lab.standing(0) == "probing", "the probe alone decides"
    lab.end(probe, OK)
    assert lab.standing(0) == "in"
    lab.end(beside, FAIL)
    for seat in seats:
        lab.end(seat, FAIL)
    assert lab.standing(0) == "in", "they began before its return"


# -- several rosters ----------------------------------------------------------------------------------------------------


def test_each_roster_knows_health_by_its_own_rules_and_hears_of_all_attempts(time: VirtualClock) -> None:
    lab = Lab(4, QUICK.replace(consecutive=3))
    strict = lab.another(STRICT)
    plain = lab.another(None)
    for roster in (lab.roster, strict, plain):
        roster.pick()
    seat = lab.seat_at(0)
    lab.end(seat, FAIL)
    assert (lab.standing(0), lab.standing(0, strict), lab.standing(0, plain)) == ("in", "out", "in")
    lab.end(seat, FAIL)
    lab.end(seat, FAIL)
    assert lab.standing(0) == "out"
    assert len(lab.member(0).healths) == 2


def test_an_attempt_by_another_roster_counts_for_the_present_whatever_number_that_has_there(
    time: VirtualClock,
) -> None:
    lab = Lab(4, STRICT)
    lenient = lab.another(QUICK.replace(consecutive=9))
    foreign = next(seat for seat in lenient.seats() if seat.member is lab.member(0))
    with middle_of_jitter():
        lab.eject(0)
    time.advance(10)
    lab.end(lab.roster.pick(), OK)
    assert lab.health(0).stay != lab.health(0, lenient).stay == foreign.stay
    lab.end(foreign, FAIL)
    assert lab.standing(0) == "out" and lab.standing(0, lenient) == "in"


@pytest.mark.parametrize("verdict", [OK, FAIL, IGNORE])
def test_an_attempt_by_another_roster_is_nobodys_probe(time: VirtualClock, verdict: Verdict) -> None:
    lab = Lab(4, STRICT)
    plain = lab.another(None)
    with middle_of_jitter():
        lab.eject(0)
    time.advance(10)
    probe = lab.roster.pick()
    foreign = next(seat for seat in plain.seats() if seat.member is lab.member(0))
    lab.end(foreign, verdict)
    assert lab.standing(0) == "probing"
    lab.end(probe, FAIL)
    lab.end(foreign, verdict)
    assert lab.standing(0) == "out"
    time.advance(24)
    lab.end(lab.seat_at(0), OK)
    lab.end(foreign, FAIL)
    assert lab.standing(0) == "out", "once it is in, that of others counts as well"


def test_a_seat_at_every_member_whatever_its_health(time: VirtualClock) -> None:
    lab = Lab(4, STRICT, each=BREAKER)
    assert [lab.number_of(seat) for seat in lab.roster.seats()] == [0, 1, 2, 3], "before the first pick"
    for seat in lab.roster.seats():
        lab.end(seat, FAIL)
    assert lab.standings() == ["out"] * 4, "they count"
    lab.breaker(1).force_open()
    assert [lab.number_of(seat) for seat in lab.roster.seats()] == [0, 1, 2, 3]


# -- slow start ---------------------------------------------------------------------------------------------------------


def weights(lab: Lab) -> dict[int, int]:
    """What each weighs now, in thousandths of a weight of 1."""
    crowd = lab.roster._present()
    return {lab.number_of(seat): weight for seat, weight in zip(crowd.members, crowd.weights, strict=True)}


def test_one_that_returns_grows_from_a_tenth_to_its_whole_weight(time: VirtualClock) -> None:
    lab = Lab(3, balancer=RoundRobin(slow_start=10), weights=[2, 1, 1])
    assert weights(lab) == {0: 2_000, 1: 1_000, 2: 1_000}
    with middle_of_jitter():
        lab.eject(0)
    time.advance(10)
    lab.end(lab.roster.pick(), OK)
    for seconds, part in ((0, 200), (1, 200), (2, 400), (5, 1_000), (9.9, 1_980), (10, 2_000), (1_000, 2_000)):
        with VirtualClock(110 + seconds):
            lab.roster.spoil()
            assert weights(lab) == {0: part, 1: 1_000, 2: 1_000}


def test_while_a_weight_rises_it_is_looked_at_every_tenth_of_a_second_and_then_no_more(
    time: VirtualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab = Lab(2, None, balancer=Random(slow_start=10))
    lab.roster.pick()
    lab.update(0, 1, 2)
    with counted_looks(monkeypatch) as looked:
        for _ in range(2_000):
            lab.roster.pick()
            time.advance("10ms")
    assert len(looked) == 3 * (1 + 100)
    assert weights(lab) == {0: 1_000, 1: 1_000, 2: 1_000}


def test_one_that_is_new_grows_and_those_of_the_first_list_do_not(time: VirtualClock) -> None:
    lab = Lab(2, balancer=PowerOfTwo(slow_start="10s"))
    assert weights(lab) == {0: 1_000, 1: 1_000}
    lab.update(0, 1, 2)
    assert weights(lab) == {0: 1_000, 1: 1_000, 2: 100}
    time.advance(5)
    lab.update(0, 1, 2, 3)
    assert weights(lab) == {0: 1_000, 1: 1_000, 2: 500, 3: 100}
    assert lab.picks(2_000)[3] < 150


def test_without_a_slow_start_all_weigh_what_they_weigh_at_once(time: VirtualClock) -> None:
    lab = Lab(2, balancer=RoundRobin(slow_start=0))
    lab.roster.pick()
    lab.update(0, 1, 2)
    assert weights(lab) == {0: 1_000, 1: 1_000, 2: 1_000}
    assert lab.picks(6) == {0: 2, 1: 2, 2: 2}


def test_a_new_one_that_was_ejected_grows_from_its_return(time: VirtualClock) -> None:
    lab = Lab(2, balancer=Random(slow_start=10))
    lab.roster.pick()
    lab.update(0, 1, 2)
    time.advance(5)
    seat = lab.seat_at(2)
    with middle_of_jitter():
        lab.end(seat, FAIL)
    time.advance(10)
    lab.end(lab.roster.pick(), OK)
    assert weights(lab)[2] == 100
    time.advance(5)
    assert weights(lab)[2] == 500


# -- when it is worth trying again --------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 5])
def test_when_all_are_silent_retry_after_is_tight_to_the_nanosecond(time: VirtualClock, size: int) -> None:
    lab = Lab(size, STRICT)
    for number in range(size):
        lab.eject(number)
        time.advance("777777777ns")
    error = lab.refusal()
    assert error.retry_after is not None and 0 < error.retry_after <= 10 * JITTER
    time.advance("333ms")
    again = lab.refusal()
    assert again.retry_after == pytest.approx(error.retry_after - 0.333, abs=1e-9)
    first = min(lab.health(number).until_ns for number in range(size))
    time.advance(f"{first - 1 - time.now_ns}ns")
    assert lab.refusal().retry_after == 1e-9
    time.advance("1ns")
    assert lab.health(lab.number_of(lab.roster.pick())).until_ns == first


def test_while_the_only_probe_is_under_way_a_second_is_advised_but_not_beyond_its_lease(time: VirtualClock) -> None:
    lab = Lab(1, STRICT)
    with middle_of_jitter():
        lab.eject(0)
    time.advance(10)
    lab.roster.pick()
    assert lab.refusal().retry_after == 1
    time.advance(59.75)
    assert lab.refusal().retry_after == 0.25
    time.advance(0.25)
    assert lab.number_of(lab.roster.pick()) == 0


def test_with_open_breakers_retry_after_is_when_the_first_of_them_may_be_asked(time: VirtualClock) -> None:
    lab = Lab(2, STRICT.replace(consecutive=100), each=(CircuitBreaker(consecutive=1, open_for=20),))
    for number in (0, 1):
        with pytest.raises(ConnectionError), middle_of_jitter():
            lab.member(number).policy.call(fail())
        time.advance(3)
    assert lab.refusal().retry_after == pytest.approx(14)
    time.advance(14)
    assert lab.number_of(lab.roster.pick()) == 0


def test_one_that_is_ejected_behind_an_open_breaker_is_probed_when_both_are_over(
    time: VirtualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A probe that its own breaker would refuse tells nothing, and would be made by each call."""
    lab = Lab(1, STRICT, each=BREAKER)
    with middle_of_jitter():
        lab.eject(0)
        with pytest.raises(ConnectionError):
            lab.member(0).policy.call(fail())
    assert lab.refusal().retry_after == pytest.approx(20)
    time.advance(15)
    with counted_looks(monkeypatch) as looked:
        assert lab.refusal().retry_after == pytest.approx(5)
        for _ in range(100):
            lab.refusal()
    assert len(looked) == 1
    time.advance(5)
    assert lab.number_of(lab.roster.pick()) == 0
    assert lab.standing(0) == "probing"


def test_one_that_is_ejected_for_longer_than_its_breaker_is_open_is_probed_when_it_is_due(time: VirtualClock) -> None:
    lab = Lab(1, STRICT.replace(base_ns=30_000_000_000), each=BREAKER)
    with middle_of_jitter():
        lab.eject(0)
        with pytest.raises(ConnectionError):
            lab.member(0).policy.call(fail())
    assert lab.refusal().retry_after == pytest.approx(30)


def test_without_a_probe_under_way_and_a_time_known_a_second_is_advised(time: VirtualClock) -> None:
    lab = Lab(2, STRICT, each=BREAKER)
    lab.breaker(0).force_open()
    lab.breaker(1).force_open()
    assert lab.refusal().retry_after == 1


def test_without_any_member_nobody_is_silent(time: VirtualClock) -> None:
    lab = Lab(1)
    lab.directory.members = ()
    assert lab.refusal().detail == "no endpoint may be tried now"


# -- elsewhere ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 3, 5, 20, 500])
@pytest.mark.parametrize(
    "balancer", [PowerOfTwo(slow_start=0), RoundRobin(slow_start=0), Random(slow_start=0)], ids=repr
)
def test_another_one_is_none_of_those_that_were_tried(time: VirtualClock, size: int, balancer: Any) -> None:
    lab = Lab(size, None, balancer=balancer)
    tried: dict[Member, None] = {}
    for left in range(size, 0, -1):
        assert lab.roster.has_other(tried)
        seat = lab.roster.pick_other(tried, {lab.member(0): None} if left > 1 else ())
        assert seat is not None and seat.member not in tried
        assert seat.member is not lab.member(0) or left == 1
        tried[seat.member] = None
    assert lab.roster.pick_other(tried) is None and not lab.roster.has_other(tried)
    assert lab.roster.pick_other((), tried) is None


@pytest.mark.parametrize("size", [3, 4, 5, 40])
@pytest.mark.parametrize("kind", [PowerOfTwo, RoundRobin, Random])
def test_what_fails_at_one_is_spread_evenly_over_the_others(size: int, kind: Any) -> None:
    """In turn, its followers would get all of it, or the dead one all first attempts."""

    def works(endpoint: Endpoint) -> str:
        if endpoint.address == "e0:80":
            raise ConnectionRefusedError
        return endpoint.address

    with VirtualClock():
        names = [f"e{number}:80" for number in range(size)]
        cluster = Cluster("stock", names, strategy=Failover(budget=None), balancer=kind(), names=Registry())
        count = 1_000 * (size - 1)
        served = Counter(cluster.call(works) for _ in range(count))
    assert "e0:80" not in served
    for name in names[1:]:
        assert abs(served[name] - 1_000) < 6 * 1_000**0.5


def test_first_attempts_stay_strictly_in_turn_whatever_fails() -> None:
    asked: list[str] = []

    def works(endpoint: Endpoint) -> None:
        asked.append(endpoint.address)
        if endpoint.address == "a:80":
            raise ConnectionRefusedError

    with VirtualClock():
        cluster = Cluster(
            "stock",
            ["a:80", "b:80", "c:80"],
            strategy=Failover(budget=None),
            balancer=RoundRobin(),
            names=Registry(),
        )
        firsts = []
        for _ in range(12):
            asked.clear()
            cluster.call(works)
            firsts.append(asked[0])
    assert firsts == ["a:80", "b:80", "c:80"] * 4


# -- what it costs ------------------------------------------------------------------------------------------------------


@pytest.fixture
def looked(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Member]]:
    with counted_looks(monkeypatch) as looked:
        yield looked


def test_a_healthy_crowd_is_counted_once(time: VirtualClock, looked: list[Member]) -> None:
    lab = Lab(500)
    for _ in range(3):
        for _ in range(1_000):
            lab.end(lab.roster.pick(), OK)
        time.advance(3_600)
    assert len(looked) == 500


def test_failures_that_do_not_eject_cost_no_recount(time: VirtualClock, looked: list[Member]) -> None:
    lab = Lab(500, Rules(consecutive=1_000, failure_rate_ppm=None))
    for _ in range(2_000):
        lab.end(lab.roster.pick(), FAIL)
    assert len(looked) == 500


def test_while_one_is_out_the_crowd_is_counted_ten_times_a_second_at_most(
    time: VirtualClock, looked: list[Member]
) -> None:
    lab = Lab(500)
    lab.eject(7)
    looked.clear()
    for _ in range(5_000):
        lab.end(lab.roster.pick(), OK)
        time.advance("1ms")
    assert len(looked) <= 500 * 50


def test_many_failures_in_flight_where_a_breaker_opens_cost_one_recount(looked: list[Member]) -> None:
    """Ejected at the same time or not."""
    for ejection in (None, Ejection(consecutive=1)):
        with VirtualClock():
            names = [f"e{number}:80" for number in range(500)]
            cluster = Cluster("stock", names, strategy=Failfast(), each=BREAKER, ejection=ejection, names=Registry())
            calls, seat = cluster._calls, cluster._calls.roster.pick()
            looked.clear()
            with pytest.raises(ConnectionError):
                seat.policy.call(fail())
            for _ in range(50):
                serving = calls.begin(str, (), {}, is_async=False)
                serving.note(seat, ConnectionError(), 1)
                calls.roster.pick()
            assert len(looked) <= 500 * (1 if ejection is None else 2)


class Tried:
    """Counts the questions it is asked."""

    def __init__(self, *members: Member) -> None:
        self.members = members
        self.asked = 0

    def __contains__(self, member: object) -> bool:
        self.asked += 1
        return member in self.members


def test_to_find_another_one_of_five_hundred_they_are_not_all_asked(time: VirtualClock) -> None:
    lab = Lab(500, None, balancer=PowerOfTwo())
    tried = Tried(lab.member(0), lab.member(1))
    for _ in range(200):
        assert lab.roster.pick_other(tried) is not None
        assert lab.roster.has_other(tried)
    assert tried.asked < 200 * 10


def test_a_change_in_the_middle_of_a_count_is_not_overlooked(
    time: VirtualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The list changes, or a listener says that something did, while a roster is counting its members."""
    lab = Lab(3, None)
    look_of, to_do = Member.look, [lambda: lab.update(3, 4, 5)]

    def look(member: Member) -> bool:
        if to_do:
            to_do.pop()()
        return look_of(member)

    monkeypatch.setattr(Member, "look", look)
    lab.roster.pick()
    assert set(lab.picks(9)) == {3, 4, 5}
