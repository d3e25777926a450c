"""Ejection does, step by step, what its model does: for any rules, at any time, with replicas that come and go."""

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

from seawall.machines.ejection import Change, Ejector, Health, Rules, Standing
from seawall.machines.verdict import Verdict
from tests.machines.effort import MODEL
from tests.machines.ejection_model import Attempt, EjectionModel, Replica

HOUR = 3_600_000_000_000
STEPS = st.sampled_from([0, 1, 99, 100, 101, 250, 500, 1_001, 3_000, HOUR, -1, -100, -HOUR])
RANDS = st.sampled_from([0.0, 0.25, 0.5, 0.75, 1 - 2**-53])
VERDICTS = st.sampled_from([Verdict.OK, Verdict.OK, Verdict.FAIL, Verdict.FAIL, Verdict.FAIL, Verdict.IGNORE])
ENDS = st.sampled_from([Verdict.OK, Verdict.FAIL, Verdict.FAIL, Verdict.FAIL])
WHICH = st.integers(0, 9)
RULES = st.builds(
    Rules,
    consecutive=st.sampled_from([None, 1, 2, 3]),
    failure_rate_ppm=st.sampled_from([None, 333_333, 500_000, 1_000_000]),
    min_calls=st.integers(1, 5),
    window_ns=st.sampled_from([1_000, 997, 30_000]),
    base_ns=st.sampled_from([500, 1_000]),
    cap_ns=st.sampled_from([1_000, 3_500]),
    probe_lease_ns=st.sampled_from([200, 6_000]),
    strict=st.booleans(),
)


class BesideItsModel(RuleBasedStateMachine):
    """Attempts start, end, overlap, are late, ignored or silent, while the clock does what it likes."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 10 * HOUR
        self.running: list[tuple[Health, int, Attempt]] = []
        self.pairs: list[tuple[Health, Replica]] = []

    @initialize(rules=RULES, size=st.integers(1, 5))
    def begin(self, rules: Rules, size: int) -> None:
        self.rules = rules
        self.machine, self.model = Ejector(rules), EjectionModel(rules)
        for _ in range(size):
            self.one_joins()

    def pick(self, which: int) -> tuple[Health, Replica]:
        there = [pair for pair in self.pairs if pair[1].there]
        return there[which % len(there)]

    def same_change(self, told: Change | None, wanted: str | None, replica: Replica, health: Health) -> None:
        assert (None if told is None else "returned" if told.out_ns is None else "ejected") == wanted
        if told is None:
            return
        assert told.why
        if told.out_ns is not None:
            least, most = self.model.bounds(replica)
            assert least - 2 < told.out_ns <= most
            assert told.out_ns <= self.rules.cap_ns
            replica.stay.until_ns = self.now + told.out_ns
            assert health.until_ns == replica.stay.until_ns

    # -- time and members ------------------------------------------------------------------------------------------

    @rule(step=STEPS)
    def the_clock_moves(self, step: int) -> None:
        self.now = max(0, self.now + step)

    @precondition(lambda self: self.model.out())
    @rule(which=WHICH, early=st.sampled_from([0, 0, 0, 1]))
    def it_is_time_for_a_probe(self, which: int, early: int) -> None:
        out = self.model.out()
        self.now = out[which % len(out)].stay.until_ns - early

    @precondition(lambda self: len(self.pairs) < 7)
    @rule()
    def one_joins(self) -> None:
        health, replica = Health(self.rules), Replica()
        self.pairs.append((health, replica))
        self.model.replicas.append(replica)
        self.machine.remember(health)
        self.machine.size = len(self.model.members())

    @precondition(lambda self: len(self.model.members()) > 1)
    @rule(which=WHICH)
    def one_leaves(self, which: int) -> None:
        health, replica = self.pick(which)
        replica.there = False
        self.machine.forget(health)
        self.machine.size = len(self.model.members())

    @precondition(lambda self: len(self.model.members()) < len(self.pairs))
    @rule(which=WHICH)
    def one_is_back(self, which: int) -> None:
        away = [pair for pair in self.pairs if not pair[1].there]
        health, replica = away[which % len(away)]
        replica.there = True
        self.machine.remember(health)
        self.machine.size = len(self.model.members())

    # -- attempts --------------------------------------------------------------------------------------------------

    @rule(which=WHICH)
    def an_attempt_starts(self, which: int) -> None:
        """Also at one that is out: in a panic nobody asks for health."""
        health, replica = self.pick(which)
        if health.standing is not Standing.PROBING:
            self.running.append((health, health.stay, Attempt(replica, replica.stay)))

    @precondition(lambda self: self.running)
    @rule(which=WHICH, verdict=VERDICTS, rand=RANDS)
    def an_attempt_ends(self, which: int, verdict: Verdict, rand: float) -> None:
        health, stay, attempt = self.running[which % len(self.running)]
        if not attempt.replica.there:
            return  # the caller keeps that from the machine
        del self.running[which % len(self.running)]
        self.ends(health, stay, attempt, verdict, rand)

    def ends(self, health: Health, stay: int, attempt: Attempt, verdict: Verdict, rand: float) -> None:
        replica, before = attempt.replica, attempt.replica.standing
        wanted = self.model.settle(attempt, verdict, self.now)
        told = self.machine.settle(health, stay, verdict, self.now, rand)
        self.same_change(told, wanted, replica, health)
        if replica.standing == "in":
            window = self.model.window(replica)
            assert (health.window.calls, health.window.failed) == (len(window), sum(window))
        elif before == "in":
            assert len(self.model.out()) <= self.model.allowed(), "more are out than may be"

    @rule(which=WHICH, verdicts=st.lists(ENDS, min_size=1, max_size=6), rand=RANDS)
    def attempts_start_and_end_at_once(self, which: int, verdicts: list[Verdict], rand: float) -> None:
        health, replica = self.pick(which)
        for verdict in verdicts:
            if health.standing is not Standing.PROBING:
                self.ends(health, health.stay, Attempt(replica, replica.stay), verdict, rand)

    @rule(which=WHICH, count=st.integers(1, 12))
    def successes_end_in_the_fast_lane(self, which: int, count: int) -> None:
        health, replica = self.pick(which)
        for _ in range(count):
            if self.now < health.edge_ns:
                next(health.ticks)
                # The lane does not tell the time; so long as the bucket is not full that makes no difference.
                attempt = Attempt(replica, replica.stay)
                assert self.model.settle(attempt, Verdict.OK, min(self.now, replica.latest_ns)) is None

    @rule(which=WHICH, askers=st.integers(1, 4))
    def some_ask_for_the_probe(self, which: int, askers: int) -> None:
        """Many ask, one gets it."""
        health, replica = self.pick(which)
        for _ in range(askers):
            assert self.machine.probe_due(health, self.now) == self.model.due(replica, self.now)
            wanted = self.model.take_probe(replica, self.now)
            stay = self.machine.take_probe(health, self.now)
            assert (stay is None) == (wanted is None)
            if stay is not None and wanted is not None:
                self.running.append((health, stay, wanted))
                assert health.lease_until_ns == replica.stay.until_ns

    @precondition(lambda self: self.model.out())
    @rule(which=WHICH, verdict=st.sampled_from([Verdict.OK, Verdict.OK, Verdict.FAIL, Verdict.IGNORE]), rand=RANDS)
    def a_probe_is_made(self, which: int, verdict: Verdict, rand: float) -> None:
        """From the moment when it is due to its end."""
        out = self.model.out()
        replica = out[which % len(out)]
        health = next(health for health, other in self.pairs if other is replica)
        self.now = replica.stay.until_ns
        wanted, stay = self.model.take_probe(replica, self.now), self.machine.take_probe(health, self.now)
        assert wanted is not None and stay is not None
        self.ends(health, stay, wanted, verdict, rand)

    @precondition(lambda self: self.running)
    @rule(which=WHICH)
    def an_attempt_is_never_heard_of_again(self, which: int) -> None:
        del self.running[which % len(self.running)]

    # -- at any time -----------------------------------------------------------------------------------------------

    @invariant()
    def same_state(self) -> None:
        if not hasattr(self, "machine"):
            return
        assert self.machine.out == len(self.model.out())
        assert self.machine.may_eject == (self.machine.out < self.model.allowed())
        for health, replica in self.pairs:
            assert health.standing.value == replica.standing
            assert health.times == replica.times
            if replica.standing == "in":
                assert health.streak == replica.stay.row
                assert health.returned_ns == (replica.stay.returned_ns or None)

    @invariant()
    def never_two_probes(self) -> None:
        probes: list[Any] = [stay for _, _, attempt in self.running if (stay := attempt.stay) is attempt.replica.stay]
        probing = [id(stay) for stay in probes if stay.standing == "probing"]
        assert len(probing) == len(set(probing))


def test_ejection_is_equal_to_its_model() -> None:
    """Rows, rates, windows, limits, probes and leases, late ends, the fast lane, and clocks that jump."""
    run_state_machine_as_test(BesideItsModel, settings=MODEL)
