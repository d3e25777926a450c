"""Under every order of threads a cluster counts what is in flight, what failed and who was tried exactly, and makes one
probe."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

from seawall import (
    Bulkhead,
    CircuitBreaker,
    Cluster,
    Ejection,
    Endpoint,
    Failfast,
    Failover,
    Failsafe,
    Failsilent,
    Forking,
    RetryBudget,
    RoundRobin,
    current,
    events,
)
from seawall.cluster import calls, core, roster, serving
from seawall.machines import ejection
from seawall.policies import budget
from seawall.policies.registry import Registry
from seawall.runtime import clock
from seawall.runtime.blocking import drive
from tests.cluster.service import Dead, filled
from tests.support.threads import as_many, explore
from tests.threads.frames import World, expect

SEEDS = as_many(100)
SECOND = 1_000_000_000
TRACE: list[ModuleType] = [calls, serving, roster, ejection, budget]


def cluster(size: int, strategy: Any, **settings: Any) -> Cluster[Any]:
    settings = {"balancer": RoundRobin(slow_start=0), "names": Registry(), **settings}
    return Cluster("stock", [f"e{n}:80" for n in range(size)], strategy=strategy, **settings)


class Work:
    """What is called: fails at some endpoints, and notes who was asked, and what the counters say meanwhile."""

    def __init__(self, made: Cluster[Any], *dead: int) -> None:
        self.made = made
        self.dead = {f"e{number}:80" for number in dead}
        self.asked: list[str] = []
        self.inside: Counter[str] = Counter()

    def __call__(self, endpoint: Endpoint) -> str:
        address = endpoint.address
        self.asked.append(address)
        self.inside[address] += 1
        flying = len(self.made._core.directory.member(address).flying)
        expect(flying >= self.inside[address], f"{self.inside[address]} work at {address}, {flying} are in flight")
        self.inside[address] -= 1
        if address in self.dead:
            raise Dead(address)
        return address


def home(made: Cluster[Any]) -> None:
    flying = [len(member.flying) for member in made._core.directory.members]
    expect(not any(flying), f"in flight: {flying}")


def test_healthy_calls_are_counted_exactly() -> None:
    def build() -> World:
        made = cluster(3, Failover(budget=RetryBudget()), ejection=Ejection())
        work = Work(made)

        def caller() -> None:
            for _ in range(2):
                made.call(work)

        def check() -> None:
            home(made)
            expect(sorted(work.asked) == sorted(each.address for each in made.endpoints for _ in range(2)), "in turn")
            budget_of = made._calls.strategy.budget
            expect(budget_of is not None and budget_of.snapshot()["calls"] == 6, "a call was not counted, or twice")
            seen = 0
            for member in made._core.directory.members:
                ((_, health),) = member.healths
                health.roll(clock.now_ns())
                seen += health.window.calls
            expect(seen == 6, f"{seen} attempts are in the windows")

        return [caller] * 3, check

    assert explore(build, trace=TRACE, seeds=range(SEEDS)) == SEEDS


def test_failures_are_counted_exactly_and_each_caller_goes_elsewhere() -> None:
    def build() -> World:
        rules = Ejection(None, failure_rate=1.0, min_calls=1000, window="1h")
        made = cluster(3, Failover(retries=2, base=0, cap=0, budget=None), ejection=rules)
        work = Work(made, 0, 1, 2)
        failed: list[events.AttemptFailed] = []
        stop = events.subscribe(failed.append, events.AttemptFailed)

        def caller() -> None:
            outcome = made.run(work)
            expect(outcome.attempts == 3, f"{outcome.attempts} attempts")
            causes = {str(outcome.error), str(outcome.error.__cause__), str(outcome.error.__cause__.__cause__)}
            expect(len(causes) == 3, f"tried again while another was left: {causes}")

        def check() -> None:
            stop()
            home(made)
            expect(Counter(work.asked) == {f"e{n}:80": 3 for n in range(3)}, str(Counter(work.asked)))
            expect(Counter(event.attempt for event in failed) == {1: 3, 2: 3, 3: 3}, "the numbers of the attempts")
            for member in made._core.directory.members:
                ((_, health),) = member.healths
                health.roll(clock.now_ns())
                expect((health.window.calls, health.window.failed) == (3, 3), f"{member}: {health.window.failed}")
            expect(made.snapshot()["strategy"]["retries"] == 6, str(made.snapshot()["strategy"]))

        return [caller] * 3, check

    assert explore(build, trace=TRACE, seeds=range(SEEDS)) == SEEDS


@pytest.mark.parametrize("strict", [False, True], ids=["others", "failsilent"])
def test_ejections_keep_to_their_limit_and_are_told_once(strict: bool) -> None:
    rules = Ejection(consecutive=1, out_for=10)

    def build() -> World:
        made = cluster(2, Failsilent(rules) if strict else Failfast(), ejection=None if strict else rules)
        work = Work(made, 0, 1)
        told: list[events.EndpointEjected] = []
        stop = events.subscribe(told.append, events.EndpointEjected)

        def caller() -> None:
            for _ in range(2):
                made.run(work)

        def check() -> None:
            stop()
            home(made)
            out = [each["address"] for each in made.snapshot()["endpoints"] if each["standing"] == "out"]
            expect(sorted(event.endpoint for event in told) == sorted(out), f"{told}, but {out} are out")
            expect(len(out) == (2 if strict else 1), f"{out} are out")

        return [caller] * 3, check

    assert explore(build, trace=TRACE, seeds=range(SEEDS)) == SEEDS


@pytest.mark.parametrize("verdict", ["well", "dead", "says nothing"])
def test_exactly_one_probe(verdict: str) -> None:
    def build() -> World:
        made = cluster(2, Failover(base=0, cap=0, budget=None), ejection=Ejection(consecutive=1, out_for=10))
        work = Work(made, 0)
        while "e0:80" not in work.asked:
            made.call(work)
        clock.sleep_ns(12 * SECOND)
        work.asked.clear()
        if verdict == "well":
            work.dead.clear()
        hold: list[bool] = []

        def probe(endpoint: Endpoint) -> str:
            if endpoint.address == "e0:80" and not hold:
                hold.append(True)
                work.asked.append("probe")
                if verdict == "says nothing":
                    raise KeyboardInterrupt
                clock.sleep_ns(SECOND)
            return work(endpoint)

        def caller() -> None:
            try:
                made.call(probe)
            except KeyboardInterrupt:
                pass

        def check() -> None:
            home(made)
            expect(work.asked.count("probe") == 1, str(work.asked))
            standing = made.snapshot()["endpoints"][0]["standing"]
            if verdict == "dead":
                expect(work.asked.count("e0:80") == 1, f"a stampede: {work.asked}")
            expect(standing != "probing", "the probe is lost")

        return [caller] * 4, check

    assert explore(build, trace=TRACE, seeds=range(SEEDS)) == SEEDS


def test_forks_never_meet_and_have_numbers_of_their_own() -> None:
    """The forks of one call as threads of the scheduler; two endpoints are full, so that they have to move on."""

    def build() -> World:
        made = cluster(5, Forking(3), each=(Bulkhead(1),))
        work = Work(made, 0, 1, 2, 3, 4)
        numbers: list[int] = []
        filled(made, "e0:80", "e1:80")

        def function(endpoint: Endpoint) -> None:
            numbers.append(current().attempt)
            work(endpoint)

        call = made._calls.begin(function, (), {}, is_async=False)
        forks = [fork for _ in range(3) if (fork := call.fork()) is not None]

        def run(fork: Any) -> Callable[[], object]:
            return lambda: drive(fork.attempt())

        def check() -> None:
            for fork in forks:
                fork.release()
            home(made)
            expect(sorted(work.asked) == ["e2:80", "e3:80", "e4:80"], f"they met: {work.asked}")
            expect(sorted(numbers) == [1, 2, 3], str(numbers))
            expect(call.attempts == 3, f"{call.attempts} attempts")

        return [run(fork) for fork in forks], check

    assert explore(build, trace=TRACE, seeds=range(SEEDS)) == SEEDS


def test_a_fork_that_is_released_as_it_begins_is_begun_or_released_but_not_both() -> None:
    def build() -> World:
        made = cluster(2, Failfast(), ejection=Ejection(consecutive=1, out_for=10))
        work = Work(made, 0)
        while "e0:80" not in work.asked:
            made.run(work)
        clock.sleep_ns(12 * SECOND)
        work.asked.clear()
        work.dead.clear()
        call = made._calls.begin(work, (), {}, is_async=False)
        fork = call.fork()
        assert fork is not None
        standing = made.snapshot()["endpoints"][0]["standing"]
        assert standing == "probing"
        ends: list[Any] = []

        def check() -> None:
            home(made)
            ((_, error),) = ends
            after = made.snapshot()["endpoints"][0]["standing"]
            expect(after == ("in" if error is None else "out"), f"{after}, after {error}")
            expect(len(work.asked) == (error is None), str(work.asked))

        return [lambda: ends.append(drive(fork.attempt())), fork.release], check

    assert explore(build, trace=TRACE, seeds=range(SEEDS)) == SEEDS


def test_a_list_that_changes_under_calls_loses_nobody() -> None:
    def build() -> World:
        made = cluster(3, Failover(base=0, cap=0, budget=None), ejection=Ejection(consecutive=1))
        work = Work(made, 0)
        members = list(made._core.directory.members)

        def caller() -> None:
            for _ in range(2):
                made.call(lambda endpoint: work_at(endpoint))

        def work_at(endpoint: Endpoint) -> str:
            work.asked.append(endpoint.address)
            if endpoint.address in work.dead:
                raise Dead
            return endpoint.address

        def change() -> None:
            made.update(["e1:80", "e2:80", "e3:80"])
            made.update(["e0:80", "e2:80"])

        def check() -> None:
            home(made)
            expect(not any(member.flying for member in members), "something flies at one that has left")
            expect([each.address for each in made.endpoints] == ["e0:80", "e2:80"], str(made.endpoints))

        return [caller, caller, change], check

    assert explore(build, trace=TRACE, seeds=range(SEEDS)) == SEEDS


def test_views_made_at_once_share_one_state() -> None:
    def build() -> World:
        made = cluster(2, Failfast())
        views: list[Any] = []

        def look() -> None:
            for strategy in (Failsafe(0), Failsilent()):
                views.append(made.using(strategy)._calls)

        def check() -> None:
            expect(len({id(view) for view in views}) == 2, "equal strategies have states of their own")
            expect(len(made._core.directory.rosters) == 2, f"{len(made._core.directory.rosters)} rosters")

        return [look] * 3, check

    assert explore(build, trace=[core], seeds=range(SEEDS)) == SEEDS


def test_a_breaker_that_opens_is_avoided_by_all_views() -> None:
    def build() -> World:
        made = cluster(3, Failfast(), each=(CircuitBreaker(consecutive=1),))
        view = made.using(Failsilent(Ejection(consecutive=5)))
        work = Work(made, 0)
        for _ in range(3):
            made.run(work)
            view.run(work)
        work.asked.clear()

        def caller(through: Cluster[Any]) -> Callable[[], object]:
            return lambda: [through.call(work) for _ in range(3)]

        def check() -> None:
            home(made)
            expect("e0:80" not in work.asked, "an open breaker was asked")
            expect(len(work.asked) == 12, str(work.asked))

        return [caller(made), caller(view), caller(made), caller(view)], check

    assert explore(build, trace=TRACE, seeds=range(50)) == 50
