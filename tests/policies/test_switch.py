"""`Switch`: planned degradation. While it is on the fallback answers without a call; audited, and it may expire."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from seawall import (
    CircuitBreaker,
    ConfigError,
    Degraded,
    Fallback,
    Policy,
    Registry,
    Switch,
    registry,
)
from seawall.events import CallRefused, FellBack, SwitchChanged
from seawall.policies import switch as switch_module
from seawall.runtime import clock
from seawall.testing import Script
from tests.policies.worlds import World, heard, in_both_worlds
from tests.support.threads import explore


@pytest.fixture
def switch() -> Switch:
    return Switch("recommendations", names=Registry())


@in_both_worlds
async def test_while_it_is_on_the_fallback_answers_without_a_call(world: World, switch: Switch) -> None:
    target = Script("for you")
    policy = Policy(Fallback("bestsellers", when=switch), CircuitBreaker())
    assert await world.call(policy, target) == "for you"
    switch.turn_on(why="black friday", by="ops")
    outcome = await world.outcome(policy, target)
    assert (outcome.value, outcome.degraded, outcome.attempts) == ("bestsellers", True, 0)
    assert len(target.calls) == 1
    assert policy[CircuitBreaker].snapshot()["calls"] == 1, "what lies inside sees nothing of it"
    switch.turn_off()
    assert await world.call(policy, target) == "for you"


@in_both_worlds
async def test_the_fallback_is_told_why(world: World, switch: Switch) -> None:
    policy = Policy(Fallback(lambda error: error, when=switch), name="shelf")
    switch.turn_on(why="maintenance", lasting=60)
    error = await world.call(policy, str)
    assert isinstance(error, Degraded)
    assert str(error) == "shelf: the switch 'recommendations' is on; retry in 60 s"
    assert (error.reason, error.retry_after) == ("degraded", 60)


@in_both_worlds
async def test_a_fallback_that_does_not_mean_it_lets_the_refusal_out(world: World, switch: Switch) -> None:
    switch.turn_on(why="maintenance")
    assert isinstance(await world.error_of(Policy(Fallback("cached", on=OSError, when=switch)), str), Degraded)


@in_both_worlds
async def test_it_expires_by_itself(world: World, switch: Switch) -> None:
    policy = Policy(Fallback("lesser", when=switch))
    with heard(SwitchChanged) as seen:
        switch.turn_on(why="peak", by="ops", lasting="10min")
        assert switch.expires_in == 600
        await world.passes(599)
        assert await world.call(policy, str) == "lesser"
        await world.passes(1)
        assert await world.call(policy, str) == ""
        assert await world.call(policy, str) == ""
    assert [(event.policy, event.on, event.by, event.why, event.expires_in) for event in seen] == [
        ("recommendations", True, "ops", "peak", 600),
        ("recommendations", False, "itself", "expired", None),
    ]
    assert (switch.is_on, switch.expires_in) == (False, None)


@in_both_worlds
async def test_a_later_turn_replaces_the_expiry(world: World, switch: Switch) -> None:
    switch.turn_on(why="peak", lasting=10)
    switch.turn_on(why="longer than we thought")
    await world.passes(1_000)
    assert switch.is_on


def test_it_expires_once_though_many_ask() -> None:
    """And one that is turned on again meanwhile is not turned off by who saw the old one expire."""

    def build() -> tuple[list[Callable[[], object]], Callable[[], None]]:
        switch = Switch("peak", names=Registry())
        switch.turn_on(why="peak", lasting=10)
        switch._until_ns = clock.now_ns()

        def check() -> None:
            assert [turn.by for turn in switch.history].count("itself") <= 1
            assert switch.is_on

        return [lambda: switch.is_on, lambda: switch.is_on, lambda: switch.turn_on(why="again")], check

    assert explore(build, trace=[switch_module], seeds=range(100)) == 100


def test_it_is_audited(switch: Switch) -> None:
    switch.turn_on(why="peak", by="ops", lasting=60)
    switch.turn_off(why="over", by="dev")
    assert [(turn.on, turn.by, turn.why, turn.expires_in) for turn in switch.history] == [
        (True, "ops", "peak", 60),
        (False, "dev", "over", None),
    ]
    assert all(turn.at > 1.6e9 for turn in switch.history), "civil time, for people"
    for _ in range(500):
        switch.turn_off()
    assert len(switch.history) == 100


@in_both_worlds
async def test_its_answers_are_events_and_counted(world: World, switch: Switch) -> None:
    policy = Policy(Fallback("lesser", when=switch), name="shelf")
    switch.turn_on(why="peak")
    with heard(CallRefused, FellBack) as seen:
        await world.call(policy, str)
    assert [type(event).__name__ for event in seen] == ["CallRefused", "FellBack"]
    assert seen[0].reason == "degraded"


def test_it_shows_in_explain_and_snapshot(switch: Switch) -> None:
    policy = Policy(Fallback("lesser", when=switch), name="shelf")
    assert "The switch 'recommendations' is off." in policy.explain()
    switch.turn_on(why="peak", by="ops")
    assert "would be refused by the switch 'recommendations', and answered by the fallback" in policy.explain()
    assert "turned on by ops (peak)" in policy.explain()
    shown = json.loads(json.dumps(policy.snapshot()))["layers"][1]
    assert (shown["kind"], shown["switch"], shown["on"], shown["why"]) == ("switch", "recommendations", True, "peak")


def test_it_is_found_by_name_and_a_new_one_takes_its_place() -> None:
    kept = dict(registry.switches)
    try:
        first = Switch("found by name")
        assert registry.switches["found by name"] is first
        second = Switch("found by name")
        assert registry.switches["found by name"] is second
    finally:
        registry.switches.clear()
        registry.switches.update(kept)


@pytest.mark.parametrize("bad", [0, -1, float("nan"), "later", True])
def test_how_long_it_lasts_is_checked_and_a_wrong_one_changes_nothing(switch: Switch, bad: object) -> None:
    with pytest.raises(ConfigError, match=r"turn_on\(lasting"):
        switch.turn_on(why="peak", lasting=bad)
    assert not switch.is_on
    assert not switch.history


def test_its_repr_tells_where_it_stands(switch: Switch) -> None:
    assert repr(switch) == "Switch('recommendations', off)"
    switch.turn_on(why="peak")
    assert repr(switch) == "Switch('recommendations', on)"
