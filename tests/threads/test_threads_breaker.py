"""Under every order of threads a breaker counts each call once, changes once, and lets in its probes and no more."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from seawall import CircuitBreaker, CircuitOpen, Policy, events
from seawall.policies.circuit_breaker import BreakerGuard
from seawall.runtime import clock
from tests.support.threads import as_many, explore
from tests.threads.frames import BREAKER, World, expect, traced

SEEDS = as_many(200)
SECOND = 1_000_000_000
TRACE = traced(Policy(CircuitBreaker()), *BREAKER, __file__)


def well() -> str:
    return "answer"


def broken() -> str:
    raise ConnectionError("refused")


class Callers:
    """Calls through one policy, and how they ended."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.guard: BreakerGuard = policy[CircuitBreaker]
        self.ok: list[str] = []
        self.failed: list[str] = []
        self.refused: list[str] = []
        self.changes: list[str] = []

    def calling(self, *functions: Callable[[], str]) -> Callable[[], None]:
        def calls() -> None:
            for function in functions:
                try:
                    self.ok.append(self.policy.call(function))
                except ConnectionError:
                    self.failed.append("")
                except CircuitOpen:
                    self.refused.append("")

        return calls

    def listen(self) -> Callable[[], None]:
        def take(event: events.BreakerChanged) -> None:
            self.changes.append(f"{event.before} > {event.after}")

        return events.subscribe(take, events.BreakerChanged)


def counts(guard: BreakerGuard) -> tuple[int, int]:
    shot = guard.snapshot()
    return shot["calls"], shot["failed"]


@pytest.mark.parametrize(
    "functions", [[well, well], [well, broken], [broken, well, well]], ids=["ok", "both", "first fails"]
)
def test_each_call_is_in_the_window_once(functions: list[Callable[[], str]]) -> None:
    def build() -> World:
        callers = Callers(Policy(CircuitBreaker(min_calls=1_000)))

        def check() -> None:
            failed = 3 * functions.count(broken)
            expect(counts(callers.guard) == (3 * len(functions), failed), str(callers.guard.snapshot()))
            expect((len(callers.ok), len(callers.failed)) == (3 * len(functions) - failed, failed), "a call is lost")

        return [callers.calling(*functions)] * 3, check

    assert explore(build, trace=TRACE, seeds=range(SEEDS)) == SEEDS


def test_a_reader_and_the_edge_of_a_bucket_lose_no_call() -> None:
    def build() -> World:
        callers = Callers(Policy(CircuitBreaker(min_calls=1_000, window=1000, buckets=1000)))

        def look() -> None:
            for _ in range(2):
                callers.guard.snapshot()
                clock.sleep_ns(SECOND)

        def check() -> None:
            expect(counts(callers.guard) == (6, 0), str(callers.guard.snapshot()))

        return [look, callers.calling(well, well, well), callers.calling(well, well, well)], check

    assert explore(build, trace=TRACE, seeds=range(SEEDS), hasty=True) == SEEDS


def test_many_failures_at_once_open_it_once() -> None:
    stop: list[Callable[[], None]] = []

    def build() -> World:
        callers = Callers(Policy(CircuitBreaker(consecutive=2)))
        stop.append(callers.listen())

        def check() -> None:
            stop.pop()()
            expect(callers.changes == ["closed > open"], str(callers.changes))
            expect(callers.guard.state == "open", callers.guard.state)
            expect(len(callers.failed) + len(callers.refused) == 6, "a call is lost")

        return [callers.calling(broken, broken)] * 3, check

    assert explore(build, trace=TRACE, seeds=range(SEEDS)) == SEEDS


@pytest.mark.parametrize("probe", [well, broken])
def test_only_so_many_probes_get_in_and_one_change_follows(probe: Callable[[], str]) -> None:
    stop: list[Callable[[], None]] = []

    def build() -> World:
        callers = Callers(Policy(CircuitBreaker(1.0, consecutive=1, open_for=1, probes=2)))
        callers.calling(broken)()
        clock.sleep_ns(2 * SECOND)
        callers.failed.clear()
        stop.append(callers.listen())
        most = 0

        def watched() -> str:
            nonlocal most
            most = max(most, len(callers.guard._machine._out))
            return probe()

        def check() -> None:
            stop.pop()()
            expect(most <= 2, f"{most} probes in flight")
            entered = len(callers.ok) + len(callers.failed)
            expect(entered + len(callers.refused) == 4, "a call is lost")
            expect(entered >= 2, f"{entered} probes")
            after = "closed" if probe is well else "open"
            expect(callers.changes == ["open > half_open", f"half_open > {after}"], str(callers.changes))
            expect(not callers.guard._machine._out, "a probe is lost")

        return [callers.calling(watched)] * 4, check

    assert explore(build, trace=TRACE, seeds=range(SEEDS)) == SEEDS


def test_what_began_before_a_hand_intervened_changes_nothing_afterwards() -> None:
    def build() -> World:
        callers = Callers(Policy(CircuitBreaker(consecutive=50, min_calls=1_000)))

        def by_hand() -> None:
            callers.guard.force_open()

        def check() -> None:
            expect(counts(callers.guard) == (0, 0), str(callers.guard.snapshot()))
            expect(callers.guard.state == "forced_open", callers.guard.state)

        return [by_hand, callers.calling(well, broken), callers.calling(broken, well)], check

    assert explore(build, trace=TRACE, seeds=range(SEEDS)) == SEEDS
