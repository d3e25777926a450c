"""The breaker does, step by step, what its model does: in all states and modes, by all rules, at any time."""

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

from seawall.machines.breaker import Breaker, Mode, Permit, Refusal, Rules, Transition
from seawall.machines.verdict import Ended, Verdict
from tests.machines.breaker_model import Attempt, BreakerModel
from tests.machines.effort import MODEL

HOUR = 3_600_000_000_000
RANDS = st.sampled_from([0.0, 0.25, 0.5, 0.75, 0.999])
STEPS = st.sampled_from([0, 1, 99, 100, 101, 101, 250, 500, 1_001, 5_000, HOUR, -1, -100, -HOUR])
DEADLINES = st.sampled_from([None, None, None, -5, 0, 1, 300, 20_000])
VERDICTS = st.sampled_from([Verdict.OK, Verdict.OK, Verdict.FAIL, Verdict.FAIL, Verdict.FAIL, Verdict.IGNORE])
RULES = st.builds(
    Rules,
    failure_rate_ppm=st.sampled_from([None, 333_333, 500_000, 1_000_000]),
    slow_rate_ppm=st.sampled_from([300_000, 500_000, 1_000_000]),
    slow_after_ns=st.sampled_from([None, None, 100, 1_000]),
    consecutive=st.sampled_from([None, None, 1, 2, 3]),
    min_calls=st.integers(1, 4),
    window_ns=st.sampled_from([None, 1_000, 997, 30_000]),
    window_calls=st.integers(4, 6),
    buckets=st.integers(1, 5),
    open_for_ns=st.sampled_from([1_000, 4_000]),
    probes=st.integers(1, 5),
    probe_lease_ns=st.sampled_from([500, 6_000]),
)


class BesideItsModel(RuleBasedStateMachine):
    """Attempts start, end, overlap, are late, ignored or silent, while the clock does what it likes."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 10 * HOUR
        self.running: list[tuple[Permit, Attempt]] = []
        self.by_themselves = 0

    @initialize(rules=RULES)
    def begin(self, rules: Rules) -> None:
        self.rules = rules
        self.machine, self.model = Breaker(rules), BreakerModel(rules)
        self.a_reader_looks()

    def same_change(self, told: Transition | None, wanted: tuple[str, str] | None) -> None:
        assert (told and (told.before, told.after)) == wanted
        if told is not None and told.trip is not None:
            assert (told.trip.rule, told.trip.bad, told.trip.calls) == self.model.trip
            assert told.open_ns == self.machine.until_ns - self.model.now_ns
        assert told is None or (told.trip is not None) == (told.after == "open")
        self.same_counts()

    def same_counts(self) -> None:
        window = self.machine.window
        assert (window.calls, window.failed, window.slow) == self.model.counts()

    # -- time ----------------------------------------------------------------------------------------------------

    @rule(step=STEPS)
    def the_clock_moves(self, step: int) -> None:
        self.now = self.model.now_ns + step

    @precondition(lambda self: self.model.state == "open" and self.model.now_ns < self.model.until_ns)
    @rule(early=st.sampled_from([0, 0, 0, 1]), rand=RANDS)
    def the_pause_ends(self, early: int, rand: float) -> None:
        self.now = self.model.until_ns - early
        self.attempts_start(self.rules.probes, rand, None)

    @rule()
    def a_reader_looks(self) -> None:
        assert self.machine.refresh(self.now) == max(self.now, self.model.now_ns)
        self.model.tick(self.now)
        self.same_counts()

    # -- attempts ------------------------------------------------------------------------------------------------

    @rule(rand=RANDS, deadline=DEADLINES)
    def an_attempt_starts(self, rand: float, deadline: int | None) -> None:
        due = None if deadline is None else self.now + deadline
        wanted = self.model.admit(self.now, rand, due)
        told = self.machine.admit(self.now, rand, due)
        if isinstance(told, Permit):
            assert wanted.attempt is not None, "admitted what must be refused"
            self.running.append((told, wanted.attempt))
            if wanted.attempt.probe:
                assert told.lease_until_ns == wanted.attempt.lease_until_ns
        else:
            assert wanted.attempt is None, "refused what must be admitted"
            assert told.retry_after_ns == wanted.retry_after_ns
            assert (told.trip and (told.trip.rule, told.trip.bad, told.trip.calls)) == wanted.trip
        self.same_change(told.transition, wanted.change)

    @precondition(lambda self: self.model.state != "open" or self.model.now_ns >= self.model.until_ns)
    @rule(count=st.integers(1, 6), rand=RANDS, deadline=DEADLINES)
    def attempts_start(self, count: int, rand: float, deadline: int | None) -> None:
        for _ in range(count):
            self.an_attempt_starts(rand, deadline)

    @rule()
    def an_attempt_starts_in_the_fast_lane(self) -> None:
        permit = self.machine.free_pass
        if permit is not None:
            attempt = Attempt(self.model.outcomes, self.model.now_ns)
            self.model.attempts.append(attempt)
            self.running.append((permit, attempt))

    @precondition(lambda self: self.running)
    @rule(
        which=st.integers(0, 9),
        verdict=VERDICTS,
        took=st.sampled_from([None, None, 0, 100, 101, 1_001]),
        retry_after=st.sampled_from([0, 0, 1_500, HOUR]),
        rand=RANDS,
    )
    def an_attempt_ends(self, which: int, verdict: Verdict, took: int | None, retry_after: int, rand: float) -> None:
        permit, attempt = self.running.pop(which % len(self.running))
        took = self.now - permit.started_ns if took is None else took
        wanted = self.model.settle(attempt, verdict, took, retry_after, self.now, rand)
        told = self.machine.settle(permit, Ended(verdict, took, retry_after), self.now, rand)
        self.same_change(told, wanted)

    @precondition(lambda self: self.running)
    @rule(which=st.integers(0, 9))
    def a_success_ends_in_the_fast_lane(self, which: int) -> None:
        permit, attempt = self.running[which % len(self.running)]
        if permit is self.machine.free_pass and self.now < self.machine.edge_ns:
            del self.running[which % len(self.running)]
            next(permit.ticks)
            # The lane does not tell the time; so long as the bucket is not full that makes no difference.
            assert self.model.settle(attempt, Verdict.OK, 0, 0, self.model.now_ns, 0.5) is None

    @precondition(lambda self: len(self.running) > 1)
    @rule(verdicts=st.lists(VERDICTS, min_size=2, max_size=6), took=st.sampled_from([None, 0, 101]), rand=RANDS)
    def attempts_end(self, verdicts: list[Verdict], took: int | None, rand: float) -> None:
        for verdict in verdicts[: len(self.running)]:
            self.an_attempt_ends(-1, verdict, took, 0, rand)

    @precondition(lambda self: self.model.state != "open" or self.model.now_ns >= self.model.until_ns)
    @rule(
        verdicts=st.lists(st.sampled_from([Verdict.OK, Verdict.OK, Verdict.FAIL]), min_size=1, max_size=5), rand=RANDS
    )
    def attempts_start_and_end_at_once(self, verdicts: list[Verdict], rand: float) -> None:
        for verdict in verdicts:
            running = len(self.running)
            self.an_attempt_starts(rand, None)
            if len(self.running) > running:
                self.an_attempt_ends(running, verdict, 0, 0, rand)

    @precondition(lambda self: self.running)
    @rule(which=st.integers(0, 9))
    def an_attempt_is_never_heard_of_again(self, which: int) -> None:
        del self.running[which % len(self.running)]

    # -- by hand -------------------------------------------------------------------------------------------------

    @precondition(lambda self: self.by_themselves > 5)
    @rule(mode=st.sampled_from([Mode.AUTO, Mode.AUTO, Mode.SHADOW, Mode.SHADOW, Mode.FORCED_OPEN, Mode.DISABLED, None]))
    def an_operator_acts(self, mode: Mode | None) -> None:
        if mode is None:
            told, wanted = self.machine.reset(self.now), self.model.reset(self.now)
        else:
            told, wanted = self.machine.set_mode(mode, self.now), self.model.set_mode(mode, self.now)
        assert (told and (told.before, told.after, told.trip)) == (wanted and (*wanted, None))
        self.same_counts()
        self.by_themselves = 3 if self.model.mode in (Mode.FORCED_OPEN, Mode.DISABLED) else 0

    # -- at any time ---------------------------------------------------------------------------------------------

    @invariant()
    def same_state(self) -> None:
        self.by_themselves += 1
        if hasattr(self, "machine"):
            assert (self.machine.state.value, self.machine.mode) == (self.model.state, self.model.mode)
            assert (self.machine.label, self.machine.passed_over) == (self.model.label, self.model.passed_over)
            if self.model.state == "open":
                assert self.machine.until_ns == self.model.until_ns

    @invariant()
    def never_more_probes_than_allowed(self) -> None:
        if hasattr(self, "machine"):
            assert len(self.model.out()) + len(self.model.decided()) <= self.rules.probes


def test_the_breaker_is_equal_to_its_model() -> None:
    """States, modes, rates, slow calls, probes and leases, late permits, the fast lane, and clocks that jump."""
    run_state_machine_as_test(BesideItsModel, settings=MODEL)


def explained(refusal: Any) -> str:
    assert isinstance(refusal, Refusal)
    return refusal.why


def test_a_refusal_tells_why() -> None:
    """Open, all probes out, and forced open are told apart."""
    machine = Breaker(Rules(consecutive=1, probes=1, open_for_ns=1_000))
    permit = machine.admit(0, 0.5)
    assert isinstance(permit, Permit)
    machine.settle(permit, Ended(Verdict.FAIL), 0, 0.5)
    assert explained(machine.admit(999, 0.5)) == "open"
    assert isinstance(machine.admit(1_000, 0.5), Permit)
    assert explained(machine.admit(1_000, 0.5)) == "half-open, all probes are out"
    machine.set_mode(Mode.FORCED_OPEN, 1_000)
    assert explained(machine.admit(1_000, 0.5)) == "forced open"
