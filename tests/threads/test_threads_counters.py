"""Under every order of threads meters, budgets, switches, maps and sinks count exactly and lose nobody."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable

import pytest

from seawall import Policy, Retry, RetryBudget, Switch, events
from seawall.machines import retry_budget
from seawall.policies import budget, keyed, switch
from seawall.policies.budget import BudgetMeter
from seawall.policies.keyed import KeyedMap
from seawall.policies.registry import Registry
from seawall.policy import meter
from seawall.runtime import clock
from tests.support.threads import as_many, explore
from tests.threads.frames import World, expect, traced

SEEDS = as_many(200)
SECOND = 1_000_000_000


def test_a_meter_counts_each_call_once_while_it_is_read() -> None:
    trace = traced(Policy(), meter, __file__)

    def build() -> World:
        policy = Policy()
        seen: list[int] = []

        def good() -> None:
            for _ in range(3):
                policy.call(str)

        def bad() -> None:
            for _ in range(2):
                policy.run(int, "x")

        def look() -> None:
            seen.extend(policy.snapshot()["calls"] for _ in range(3))

        def check() -> None:
            shot = policy.snapshot()
            expect((shot["ok"], shot["failed"], shot["calls"]) == (6, 4, 10), str(shot))
            expect(seen == sorted(seen), f"the count went back: {seen}")

        return [good, good, bad, bad, look], check

    assert explore(build, trace=trace, seeds=range(SEEDS)) == SEEDS


def test_a_budget_counts_each_call_once_and_never_grants_too_much() -> None:
    allowed = RetryBudget(0.5, per_second=0, window="1h")
    trace = traced(Policy(Retry(on=OSError, budget=allowed)), retry_budget, budget, __file__)

    def build() -> World:
        driver = Retry(on=OSError, budget=allowed)
        policy = Policy(driver)
        meter_of_budget: BudgetMeter = policy[Retry]._budget
        granted: list[bool] = []

        def calls() -> None:
            for _ in range(3):
                policy.call(str)

        def asks() -> None:
            granted.extend(meter_of_budget.take() for _ in range(4))

        def check() -> None:
            shot = meter_of_budget.snapshot()
            expect(shot["calls"] == 6, str(shot))
            expect(shot["extra"] == sum(granted) <= 3, f"{granted} {shot}")
            expect(shot["refused"] == granted.count(False), str(shot))

        return [calls, calls, asks, asks], check

    assert explore(build, trace=trace, seeds=range(SEEDS)) == SEEDS


def test_an_expired_switch_tells_it_once() -> None:
    def build() -> World:
        lamp, turns = Switch("lamp", names=Registry()), list[events.SwitchChanged]()
        lamp.turn_on(why="sale", lasting=1)
        clock.sleep_ns(2 * SECOND)
        answers: list[bool] = []
        stop = events.subscribe(turns.append, events.SwitchChanged)

        def check() -> None:
            stop()
            expect(answers == [False] * 3, str(answers))
            expect([turn.why for turn in turns] == ["expired"], str(turns))

        return [lambda: answers.append(lamp.is_on)] * 3, check

    assert explore(build, trace=[switch, __file__], seeds=range(SEEDS)) == SEEDS


def test_a_hand_that_turns_a_switch_as_it_expires_is_not_overruled() -> None:
    def build() -> World:
        lamp = Switch("lamp", names=Registry())
        lamp.turn_on(why="sale", lasting=1)
        clock.sleep_ns(2 * SECOND)

        def check() -> None:
            expect(lamp.is_on, f"expired under the hand: {lamp.history}")

        return [lambda: lamp.is_on, lambda: lamp.turn_on(why="again", lasting=60), lambda: lamp.is_on], check

    assert explore(build, trace=[switch, __file__], seeds=range(SEEDS)) == SEEDS


class Thing:
    """What a map keeps."""

    def __init__(self, key: Hashable) -> None:
        self.key = key
        self.busy = key == "busy"


def test_a_map_makes_one_thing_for_a_key_and_never_drops_a_busy_one() -> None:
    def build() -> World:
        made: list[Hashable] = []

        def make(key: Hashable) -> Thing:
            made.append(key)
            return Thing(key)

        things: KeyedMap[Thing] = KeyedMap(make, 2)
        got: list[Thing] = []

        def takes(*keys: str) -> Callable[[], None]:
            return lambda: got.extend([things.get(key) for key in keys])

        def check() -> None:
            kept = dict(things.items())
            expect(len(kept) == 2, f"{list(kept)} are kept")
            expect(made.count("busy") == 1 and "busy" in kept, "a busy thing was dropped or made twice")
            expect(all(thing.key == key for thing, key in zip(got, got_keys(got), strict=True)), "a wrong thing")

        return [takes("busy", "a"), takes("busy", "b"), takes("busy", "a", "b")], check

    assert explore(build, trace=[keyed, __file__], seeds=range(SEEDS)) == SEEDS


def got_keys(got: list[Thing]) -> list[Hashable]:
    return [thing.key for thing in got]


def ignore(event: object) -> None: ...


@pytest.mark.parametrize("leaving", [False, True], ids=["come", "come and go"])
def test_no_sink_is_lost_when_many_come_and_go(leaving: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    before = events.sinks

    def build() -> World:
        # It was made when the module was imported, before the scheduler could put its own in the place.
        monkeypatch.setattr(events, "_changing", threading.Lock())
        stops: list[Callable[[], None]] = []

        def come() -> None:
            stop = events.subscribe(ignore)
            if leaving:
                stop()
            else:
                stops.append(stop)

        def check() -> None:
            listening = len(events.sinks) - len(before)
            for stop in stops:
                stop()
            events.sinks = before
            expect(listening == len(stops), f"{listening} sinks listen, {len(stops)} came to stay")

        return [come] * 3, check

    assert explore(build, trace=[events, __file__], seeds=range(SEEDS)) == SEEDS
