"""The script of the demo is the one promised, it names only what there is, and the same seed brings the same users."""

import re

import pytest

from seawall.demo.layout import CAPACITY, ITEMS, ORDER_SHARE, PROCESSES, SERVICES, USER_PATIENCE, USERS
from seawall.demo.ledger import ORDER
from seawall.demo.phases import PHASES, Phase
from seawall.demo.report import WIDTH
from seawall.demo.service import MODES
from seawall.demo.traffic import arrivals


def test_the_shop_is_the_one_promised() -> None:
    assert {name: plan.replicas for name, plan in SERVICES.items()} == {
        "inventory": 3,
        "payments": 2,
        "recommendations": 2,
        "audit": 1,
    }
    assert PROCESSES == 18
    assert pytest.approx(60) == CAPACITY


def test_the_phases_are_those_promised() -> None:
    done = {phase.key: {(step.order, step.service, step.number) for step in phase.steps} for phase in PHASES}
    assert list(done) == ["healthy", "killed", "hanging", "errors", "audit", "slow", "overload"]
    assert done["healthy"] == done["overload"] == set()
    assert done["killed"] == {("kill", "inventory", 0), ("start", "inventory", 0)}
    assert done["hanging"] == {("hang", "inventory", 1), ("hang", "payments", 0)}
    assert done["errors"] == {("errors", "inventory", 2)}
    assert done["audit"] == {("kill", "audit", 0), ("start", "audit", 0)}
    assert done["slow"] == {("slow", "recommendations", 0), ("slow", "recommendations", 1)}
    assert PHASES[-1].load == 2.0
    assert all(phase.load < 0.5 for phase in PHASES[:-1])


@pytest.mark.parametrize("phase", PHASES, ids=lambda phase: phase.key)
def test_a_phase_names_what_there_is_and_fits_the_report(phase: Phase) -> None:
    for step in phase.steps:
        assert 0 <= step.at < 1
        assert 0 <= step.number < SERVICES[step.service].replicas
        assert step.order in (*MODES, "kill", "start")
        assert (step.service, step.number) in phase.touched
    assert len(phase.name) <= 11
    assert len(f"{phase.name}: {phase.title}") <= WIDTH
    assert re.fullmatch("[a-z]+", phase.key) and ORDER.fullmatch(f"{phase.key}-123456")


def test_an_overload_touches_every_replica() -> None:
    assert len(PHASES[-1].touched) == sum(plan.replicas for plan in SERVICES.values())
    assert PHASES[0].touched == frozenset()


def test_a_page_has_time_for_one_failover_within_the_patience_of_its_user() -> None:
    healthy = sum(SERVICES[service].work for service in ("inventory", "payments", "audit"))
    assert healthy + SERVICES["inventory"].timeout + 0.1 < USER_PATIENCE
    assert all(plan.timeout > 2.9 * plan.work for plan in SERVICES.values())


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
    assert {arrival.item for arrival in found} <= set(range(ITEMS))
    assert sum(arrival.buys for arrival in found) / len(found) == pytest.approx(ORDER_SHARE, abs=0.03)
