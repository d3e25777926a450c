"""Whatever happens, whoever is picked may be picked: a roster beside the rules, with lists, breakers and time at random."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from seawall import CircuitBreaker, NoEndpoints, PowerOfTwo, Random, RoundRobin
from seawall.cluster.member import Member, Seat
from seawall.machines.ejection import Rules, Standing
from seawall.machines.verdict import Verdict
from seawall.runtime import chance
from seawall.testing import VirtualClock
from tests.cluster.lab import Lab
from tests.machines.effort import MODEL

SECOND = 1_000_000_000
VERDICTS = st.sampled_from([Verdict.OK, Verdict.OK, Verdict.FAIL, Verdict.FAIL, Verdict.FAIL, Verdict.IGNORE])
RULES = st.none() | st.builds(
    Rules,
    consecutive=st.sampled_from([1, 2]),
    base_ns=st.sampled_from([SECOND, 10 * SECOND]),
    cap_ns=st.just(30 * SECOND),
    probe_lease_ns=st.just(5 * SECOND),
    strict=st.booleans(),
)
BALANCERS = st.sampled_from([PowerOfTwo(), RoundRobin(), Random(), RoundRobin(slow_start=0)])


class BesideTheRules(RuleBasedStateMachine):
    """Attempts overlap and end late; endpoints leave and return; breakers are forced open; time passes."""

    def __init__(self) -> None:
        super().__init__()
        self.time = VirtualClock(100)
        self.time.__enter__()
        self.restore = chance.install(lambda: 0.5)
        self.running: list[tuple[Seat, bool]] = []

    def teardown(self) -> None:
        self.restore()
        self.time.__exit__(None, None, None)

    @initialize(size=st.integers(1, 5), rules=RULES, balancer=BALANCERS)
    def begin(self, size: int, rules: Rules | None, balancer: Any) -> None:
        self.rules = rules
        self.lab = Lab(size, rules, balancer=balancer, each=(CircuitBreaker(),))
        self.roster, self.directory = self.lab.roster, self.lab.directory

    # -- the rules, as one would say them ------------------------------------------------------------------------------

    def is_in(self, member: Member) -> bool:
        return self.rules is None or self.roster.standing(member)["standing"] == "in"

    def usable(self) -> list[Member]:
        return [each for each in self.directory.members if self.is_in(each) and not each.refuses]

    def panic(self) -> bool:
        return not self.roster.strict and 2 * len(self.usable()) < len(self.directory.members)

    def due(self) -> list[Member]:
        """Those whose probe somebody may make now."""
        found: list[Member] = []
        for member in self.directory.members:
            for roster, health in member.healths:
                out = roster is self.roster and health.standing is not Standing.IN and not member.refuses
                until = health.until_ns if health.standing is Standing.OUT else health.lease_until_ns
                if out and self.time.now_ns >= until:
                    found.append(member)
        return found

    # -- what happens --------------------------------------------------------------------------------------------------

    @rule(rand=st.sampled_from([0.0, 0.3, 0.7, 1 - 2**-53]))
    def somebody_is_picked(self, rand: float) -> None:
        due, usable, panic = self.due(), self.usable(), self.panic()
        undo, seat, wait = chance.install(lambda: rand), None, None
        try:
            seat = self.roster.pick()
        except NoEndpoints as nobody:
            wait = nobody.retry_after
        finally:
            undo()
        if seat is None:
            assert self.roster.strict and not usable and not due
            assert wait is not None and wait > 0
            return
        member = seat.member
        assert member in self.directory.members
        if due:
            assert member in due and self.roster.standing(member)["standing"] == "probing"
        else:
            assert member in usable or panic
        self.running.append((seat, bool(due)))

    @rule(count=st.integers(0, 3))
    def another_is_picked(self, count: int) -> None:
        tried = dict.fromkeys(self.directory.members[:count])
        allowed = list(self.directory.members) if self.panic() else self.usable()
        seat = self.roster.pick_other(tried)
        assert self.roster.size == len(allowed)
        assert (seat is None) == (not set(allowed) - set(tried)) == (not self.roster.has_other(tried))
        if seat is not None:
            assert seat.member in allowed and seat.member not in tried
            self.running.append((seat, False))

    @precondition(lambda self: self.running)
    @rule(which=st.integers(0, 9), verdict=VERDICTS)
    def an_attempt_ends(self, which: int, verdict: Verdict) -> None:
        seat, probe = self.running.pop(which % len(self.running))
        before = self.roster.standing(seat.member)["standing"], self.roster.ejections
        self.lab.end(seat, verdict)
        after = self.roster.standing(seat.member)["standing"]
        if before[0] != "in" and not probe:
            assert (after, self.roster.ejections) == before, "only the probe decides"

    @rule(numbers=st.sets(st.integers(0, 6), min_size=1, max_size=5))
    def the_list_changes(self, numbers: set[int]) -> None:
        self.lab.update(*sorted(numbers))
        assert {self.lab.number_of(seat) for seat in self.roster.seats()} == numbers

    @rule(number=st.integers(0, 6), open_=st.booleans())
    def a_breaker_turns(self, number: int, open_: bool) -> None:
        for member in self.directory.members:
            if str(member.endpoint) == f"e{number}:80":
                breaker: Any = member.policy[CircuitBreaker]
                (breaker.force_open if open_ else breaker.reset)()
                self.roster.spoil()  # as the attempt would that was refused there

    @rule(span=st.sampled_from(["100ms", "1s", "3s", "6s", "13s", "100s"]))
    def time_passes(self, span: str) -> None:
        self.time.advance(span)

    @precondition(lambda self: self.rules is not None)
    @rule()
    def somebody_counts(self) -> None:
        assert self.roster.size == len(self.directory.members if self.panic() else self.usable())
        ejector: Any = self.roster._ejector
        out = [member for member in self.directory.members if not self.is_in(member)]
        assert (ejector.size, ejector.out) == (len(self.directory.members), len(out))

    # -- at any time ---------------------------------------------------------------------------------------------------

    @invariant()
    def one_probe_at_a_time(self) -> None:
        if hasattr(self, "lab"):
            for member in self.directory.members:
                for roster, health in member.healths:
                    probes = [
                        seat
                        for seat, probe in self.running
                        if probe and seat.member is member and roster is self.roster and seat.stay == health.stay
                    ]
                    assert len(probes) <= 1


def test_whoever_is_picked_may_be_picked() -> None:
    """Ejection, panic, probes, breakers, lists that change, attempts that end late, for any balancer."""
    run_state_machine_as_test(BesideTheRules, settings=MODEL)
