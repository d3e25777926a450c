"""A breaker as SEMANTICS puts it: every outcome of the stay is kept in a list and counted anew at each question.

It shares nothing with the machine but the names of states, and takes shares as fractions. Slow on purpose.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from seawall.machines.breaker import Mode, Rules
from seawall.machines.verdict import Verdict

__all__ = ["Answer", "Attempt", "BreakerModel"]

CLOSED, OPEN, HALF_OPEN = "closed", "open", "half_open"


@dataclass(eq=False)
class Outcome:
    """One line in the list of outcomes."""

    at_ns: int
    failed: bool
    slow: bool


@dataclass(eq=False)
class Attempt:
    """What the model knows of one admitted attempt. `stay` is the list of outcomes it belongs to; None: to none."""

    stay: list[Outcome] | None
    started_ns: int
    lease_until_ns: int = 0
    probe: bool = False
    given_back: bool = False
    ended: bool = False
    slow: bool = False
    failed: bool = False
    counted: Outcome | None = None


@dataclass
class Answer:
    """What `admit` is to say. Refused if there is no attempt."""

    attempt: Attempt | None
    change: tuple[str, str] | None = None
    retry_after_ns: int = 0
    trip: tuple[str, int, int] | None = None


@dataclass
class BreakerModel:
    """All states and modes; `settle` and the others return the change of state as (before, after), or None."""

    rules: Rules
    mode: Mode = Mode.AUTO
    state: str = CLOSED
    now_ns: int = 0
    until_ns: int = 0
    failed_trials: int = 0
    passed_over: int = 0
    trip: tuple[str, int, int] | None = None
    outcomes: list[Outcome] = field(default_factory=list)
    attempts: list[Attempt] = field(default_factory=list)
    row: int = 0

    # -- the window ----------------------------------------------------------------------------------------------

    def window(self) -> list[Outcome]:
        rules = self.rules
        if rules.window_ns is None:
            return self.outcomes[-rules.window_calls :]
        length = -(-rules.window_ns // rules.buckets)
        oldest = self.now_ns // length - rules.buckets + 1
        return [outcome for outcome in self.outcomes if outcome.at_ns // length >= oldest]

    def counts(self) -> tuple[int, int, int]:
        window = self.window()
        return len(window), sum(outcome.failed for outcome in window), sum(outcome.slow for outcome in window)

    # -- steps ---------------------------------------------------------------------------------------------------

    def tick(self, now_ns: int) -> None:
        self.now_ns = max(self.now_ns, now_ns)

    def admit(self, now_ns: int, rand: float, deadline_ns: int | None) -> Answer:
        self.tick(now_ns)
        now, rules = self.now_ns, self.rules
        if self.mode is Mode.DISABLED:
            return Answer(Attempt(None, now))
        if self.mode is Mode.FORCED_OPEN:
            return Answer(None, None, rules.open_for_ns)
        change = self.count_overdue(rand)
        if self.state == OPEN and now < self.until_ns:
            return self.refuse(change, self.until_ns - now)
        if self.state == OPEN:
            change = self.enter(HALF_OPEN)
        attempt = Attempt(self.outcomes, now)
        if self.state == HALF_OPEN:
            for probe in self.out():
                probe.given_back = probe.lease_until_ns <= now
            if len(self.decided()) + len(self.out()) == rules.probes:
                return self.refuse(change, min(1_000_000_000, rules.open_for_ns))
            attempt.probe = True
            ends = [now + rules.probe_lease_ns] + ([] if deadline_ns is None else [max(now, deadline_ns)])
            attempt.lease_until_ns = min(ends)
        self.attempts.append(attempt)
        return Answer(attempt, change)

    def refuse(self, change: Any, retry_after_ns: int) -> Answer:
        if self.mode is Mode.SHADOW:
            self.passed_over += 1
            return Answer(Attempt(None, self.now_ns), change)
        return Answer(None, change, retry_after_ns, self.trip)

    def count_overdue(self, rand: float) -> Any:
        limit = self.rules.slow_after_ns
        if limit is None or self.state == OPEN:
            return None
        for attempt in self.attempts:
            if not attempt.ended and not attempt.slow and self.now_ns - attempt.started_ns > limit:
                attempt.slow = True
                if not attempt.probe:
                    attempt.counted = Outcome(self.now_ns, False, True)
                    self.outcomes.append(attempt.counted)
        return self.judge(rand, 0)

    def settle(
        self, attempt: Attempt, verdict: Verdict, took_ns: int, retry_after_ns: int, now_ns: int, rand: float
    ) -> Any:
        self.tick(now_ns)
        if attempt.stay is not self.outcomes or attempt.given_back:
            attempt.ended = True
            return None
        attempt.ended = True
        if verdict is Verdict.IGNORE:
            attempt.given_back = attempt.probe
            return None
        limit = self.rules.slow_after_ns
        attempt.failed = verdict is Verdict.FAIL
        was_slow, attempt.slow = attempt.slow, attempt.slow or (limit is not None and took_ns > limit)
        if not attempt.probe:
            if not was_slow or (attempt.failed and attempt.counted not in self.window()):
                self.outcomes.append(Outcome(self.now_ns, attempt.failed, attempt.slow and not was_slow))
            elif attempt.failed and attempt.counted is not None:
                attempt.counted.failed = True
            self.row = self.row + 1 if attempt.failed else 0
        return self.judge(rand, retry_after_ns)

    # -- judgement -----------------------------------------------------------------------------------------------

    def probes(self) -> list[Attempt]:
        return [attempt for attempt in self.attempts if attempt.probe]

    def out(self) -> list[Attempt]:
        return [probe for probe in self.probes() if not probe.ended and not probe.given_back]

    def decided(self) -> list[Attempt]:
        return [probe for probe in self.probes() if probe.ended and not probe.given_back]

    def judge(self, rand: float, retry_after_ns: int) -> Any:
        return (self.judge_probes if self.state == HALF_OPEN else self.judge_window)(rand, retry_after_ns)

    def judge_probes(self, rand: float, retry_after_ns: int) -> Any:
        rules = self.rules
        share = Fraction(rules.failure_rate_ppm or 500_000, 1_000_000)
        slow_share = Fraction(rules.slow_rate_ppm, 1_000_000)
        decided = self.decided()
        failures, left = sum(probe.failed for probe in decided), rules.probes - len(decided)
        slow = sum(probe.slow for probe in self.probes())
        may_become_slow = left - sum(probe.slow for probe in self.out())
        if Fraction(failures, rules.probes) >= share:
            return self.open(rand, retry_after_ns, ("probes", failures, len(decided)))
        if rules.slow_after_ns is not None and Fraction(slow, rules.probes) >= slow_share:
            return self.open(rand, retry_after_ns, ("slow probes", slow, max(slow, rules.probes)))
        if Fraction(failures + left, rules.probes) >= share:
            return None
        if rules.slow_after_ns is not None and Fraction(slow + may_become_slow, rules.probes) >= slow_share:
            return None
        self.failed_trials = 0
        return self.enter(CLOSED)

    def judge_window(self, rand: float, retry_after_ns: int) -> Any:
        rules = self.rules
        calls, failed, slow = self.counts()
        enough = calls >= rules.min_calls
        if rules.consecutive is not None and self.row >= rules.consecutive:
            return self.open(rand, retry_after_ns, ("consecutive", self.row, self.row))
        share, slow_share = rules.failure_rate_ppm, rules.slow_rate_ppm
        if enough and share is not None and Fraction(failed, calls) >= Fraction(share, 1_000_000):
            return self.open(rand, retry_after_ns, ("failed", failed, calls))
        if enough and rules.slow_after_ns is not None and Fraction(slow, calls) >= Fraction(slow_share, 1_000_000):
            return self.open(rand, retry_after_ns, ("slow", slow, calls))
        return None

    def open(self, rand: float, retry_after_ns: int, trip: tuple[str, int, int]) -> Any:
        self.failed_trials += self.state == HALF_OPEN
        length = self.rules.open_for_ns * min(8, 2**self.failed_trials)
        length = round(length * (Fraction(9, 10) + Fraction(rand) / 5))
        self.until_ns = self.now_ns + max(length, retry_after_ns)
        self.trip = trip
        return self.enter(OPEN)

    def enter(self, state: str) -> tuple[str, str]:
        before, self.state = self.state, state
        self.outcomes, self.attempts, self.row = [], [], 0
        return before, state

    # -- by hand -------------------------------------------------------------------------------------------------

    @property
    def label(self) -> str:
        return self.state if self.mode in (Mode.AUTO, Mode.SHADOW) else self.mode.value

    def set_mode(self, mode: Mode, now_ns: int) -> Any:
        self.tick(now_ns)
        before, old, self.mode = self.name, self.mode, mode
        if mode is old:
            return None
        if {mode, old} != {Mode.AUTO, Mode.SHADOW}:
            self.failed_trials = 0
            self.enter(CLOSED)
        return before, self.name

    @property
    def name(self) -> str:
        return self.state if self.mode is Mode.AUTO else self.mode.value

    def reset(self, now_ns: int) -> Any:
        self.tick(now_ns)
        before = self.name
        self.mode, self.failed_trials, self.trip = Mode.AUTO, 0, None
        self.enter(CLOSED)
        return (before, CLOSED) if before != CLOSED else None
