"""A circuit breaker: stop calling what fails, ask it again a little, and come back when it is well.

States and transitions
    CLOSED     every attempt is admitted and recorded in the window.
               -> OPEN when the window holds at least `min_calls` and the share of failures reaches `failure_rate`,
                  or the share of slow ones reaches `slow_rate`; or when `consecutive` failures stand in a row.
    OPEN       every attempt is refused for `open_for`, doubled for each failed trial up to 8 times, +-10 % jitter,
               never less than the target's own Retry-After.
               -> HALF_OPEN at the first admission after that.
    HALF_OPEN  exactly `probes` outcomes decide; that many are admitted, the rest are refused.
               -> OPEN as soon as the failures reach their share of the probes (a failed trial).
               -> CLOSED as soon as they no longer can.

Modes, set by hand: AUTO (as above), FORCED_OPEN (refuses all), DISABLED (admits all, records nothing), SHADOW
(records and moves through the states as AUTO does, but refuses nobody).

Rules
    permit       belongs to one stay in one state; settled after that state has ended, it changes nothing.
    IGNORE       gives a probe back; otherwise changes nothing.
    probe lease  a probe that stays silent for `probe_lease`, or beyond its own deadline, is given back.
    slow         an attempt in flight for longer than `slow_after` is counted as slow at the next admission,
                 and not again when it ends.

The fast lane. While CLOSED with nothing to watch, all attempts share one permit, `free_pass`. Its holder may record a
success by `next(permit.ticks)` alone, if `free_pass` is still that permit and the clock has not reached `edge_ns`;
drawing a number is atomic, so no lock is taken. Every other step needs the caller's lock. The ticks are gathered at
the next step taken under it. Whenever one more success could change the state, `free_pass` is None.

After Nygard, "Release It!" (2007); states and window as in resilience4j.
"""

from __future__ import annotations

from seawall.machines.breaker_values import PPM, Mode, Permit, Refusal, Rules, State, Transition, Trip
from seawall.machines.verdict import Ended, Verdict
from seawall.machines.window import TimeWindow

__all__ = ["Breaker", "Mode", "Permit", "Refusal", "Rules", "State", "Transition", "Trip"]

MOST_DOUBLINGS = 3
SOON_NS = 1_000_000_000
"""When to ask again if nothing tells when: a probe is out and may end at any time."""


UNTRACKED = -1


class Breaker:
    """The state of one breaker. Not safe for threads by itself, but for the fast lane described above."""

    __slots__ = (
        "_cutoff",
        "_done",
        "_failures",
        "_gathered",
        "_inflight",
        "_now_ns",
        "_out",
        "_slows",
        "_stay",
        "_streak",
        "_trials",
        "edge_ns",
        "free_pass",
        "mode",
        "passed_over",
        "rules",
        "shared",
        "state",
        "trip",
        "until_ns",
        "window",
    )

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self.mode = Mode.AUTO
        self.window = rules.make_window()
        self.trip: Trip | None = None
        self.until_ns = 0
        self.passed_over = 0
        """How many attempts SHADOW admitted that AUTO would have refused."""
        self._now_ns = 0
        self._trials = 0
        self._streak = 0
        self._stay = 0
        share = rules.failure_rate_ppm or 500_000
        self._cutoff = max(1, -(-share * rules.probes // PPM))
        self._enter(State.CLOSED)

    # -- admission ---------------------------------------------------------------------------------------------

    def admit(self, now_ns: int, rand: float, deadline_ns: int | None = None) -> Permit | Refusal:
        """Ask to make an attempt. `rand` in [0, 1) is for the jitter if slow calls open the breaker just now."""
        now = self._begin(now_ns)
        if self.mode is Mode.DISABLED:
            return Permit(UNTRACKED, now)
        if self.mode is Mode.FORCED_OPEN:
            return Refusal(self.rules.open_for_ns, "forced open", None, None)
        transition = self._count_overdue(now, rand)
        if self.state is State.OPEN:
            if now < self.until_ns:
                return self._refuse(now, self.until_ns - now, "open", transition)
            transition = self._move(State.HALF_OPEN)
        if self.state is State.CLOSED:
            return self._admit_closed(now)
        self._expire_leases(now)
        if self._done + len(self._out) >= self.rules.probes:
            return self._refuse(now, min(SOON_NS, self.rules.open_for_ns), "half-open, all probes are out", transition)
        permit = Permit(self._stay, now)
        lease_end = now + self.rules.probe_lease_ns
        permit.lease_until_ns = lease_end if deadline_ns is None else min(lease_end, max(deadline_ns, now))
        permit.transition = transition
        self._out[permit] = None
        self._track(permit)
        return permit

    def _admit_closed(self, now: int) -> Permit:
        if self.free_pass is not None:
            return self.free_pass
        permit = Permit(self._stay, now)
        self._track(permit)
        return permit

    def _refuse(self, now: int, retry_after_ns: int, why: str, transition: Transition | None) -> Permit | Refusal:
        if self.mode is Mode.SHADOW:
            self.passed_over += 1
            permit = Permit(UNTRACKED, now)
            permit.transition = transition
            return permit
        return Refusal(retry_after_ns, why, self.trip, transition)

    def _track(self, permit: Permit) -> None:
        if self.rules.slow_after_ns is not None:
            self._inflight[permit] = None

    def _count_overdue(self, now: int, rand: float) -> Transition | None:
        slow_after = self.rules.slow_after_ns
        if slow_after is None or self.state is State.OPEN:
            return None
        while self._inflight:
            permit = next(iter(self._inflight))
            if now - permit.started_ns <= slow_after:
                break
            del self._inflight[permit]
            if self.state is State.HALF_OPEN:
                permit.slow_mark = 0
                self._slows += 1
            else:
                permit.slow_mark = self.window.record(now, failed=False, slow=True)
        return self._judge_probes(now, rand, 0) if self.state is State.HALF_OPEN else self._judge(now, rand, 0)

    def _expire_leases(self, now: int) -> None:
        for permit in [permit for permit in self._out if permit.lease_until_ns <= now]:
            del self._out[permit]

    # -- settlement --------------------------------------------------------------------------------------------

    def settle(self, permit: Permit, ended: Ended, now_ns: int, rand: float) -> Transition | None:
        """Tell how the attempt ended. `rand` in [0, 1) is for the jitter of `open_for`."""
        now = self._begin(now_ns)
        if permit.stay != self._stay:
            return None
        if self.state is State.HALF_OPEN:
            return self._settle_probe(permit, ended, now, rand)
        self._inflight.pop(permit, None)
        if ended.verdict is Verdict.IGNORE:
            return None
        failed = ended.verdict is Verdict.FAIL
        if permit.slow_mark is None:
            self.window.record(now, failed=failed, slow=self._is_slow(ended))
        elif failed:
            self.window.amend_failed(permit.slow_mark, now)
        self._streak = self._streak + 1 if failed else 0
        return self._judge(now, rand, ended.retry_after_ns)

    def _settle_probe(self, permit: Permit, ended: Ended, now: int, rand: float) -> Transition | None:
        self._inflight.pop(permit, None)
        if permit not in self._out:
            return None
        del self._out[permit]
        if ended.verdict is Verdict.IGNORE:
            return None
        self._done += 1
        self._failures += ended.verdict is Verdict.FAIL
        self._slows += permit.slow_mark is None and self._is_slow(ended)
        return self._judge_probes(now, rand, ended.retry_after_ns)

    def _judge_probes(self, now: int, rand: float, retry_after_ns: int) -> Transition | None:
        rules = self.rules
        # How many more may still fail, and how many more may still turn out slow: those marked slow already count.
        left = rules.probes - self._done
        may_be_slow = left - sum(permit.slow_mark is not None for permit in self._out)
        # Without `slow_after` nothing is slow, and no number of probes reaches this.
        slow_cutoff = rules.probes + 1
        if rules.slow_after_ns is not None:
            slow_cutoff = max(1, -(-rules.slow_rate_ppm * rules.probes // PPM))
        if self._failures >= self._cutoff:
            trip = Trip("probes", self._failures, self._done, self._cutoff / rules.probes)
            return self._open(now, rand, retry_after_ns, trip)
        if self._slows >= slow_cutoff:
            # Slow ones that were given back meanwhile count too, so there may be more of them than `probes`.
            trip = Trip("slow probes", self._slows, max(self._slows, rules.probes), rules.slow_rate_ppm / PPM)
            return self._open(now, rand, retry_after_ns, trip)
        if self._failures + left < self._cutoff and self._slows + may_be_slow < slow_cutoff:
            self._trials = 0
            return self._move(State.CLOSED)
        return None

    def _is_slow(self, ended: Ended) -> bool:
        limit = self.rules.slow_after_ns
        return limit is not None and ended.duration_ns > limit

    def _judge(self, now: int, rand: float, retry_after_ns: int) -> Transition | None:
        """Open if a rule is broken; otherwise see whether the fast lane may be used."""
        rules, window = self.rules, self.window
        trip = None
        if rules.consecutive is not None and self._streak >= rules.consecutive:
            trip = Trip("consecutive", self._streak, self._streak, rules.consecutive)
        elif window.calls >= rules.min_calls:
            if rules.failure_rate_ppm is not None and window.failed * PPM >= rules.failure_rate_ppm * window.calls:
                trip = Trip("failed", window.failed, window.calls, rules.failure_rate_ppm / PPM)
            elif rules.slow_after_ns is not None and window.slow * PPM >= rules.slow_rate_ppm * window.calls:
                trip = Trip("slow", window.slow, window.calls, rules.slow_rate_ppm / PPM)
        if trip is not None:
            return self._open(now, rand, retry_after_ns, trip)
        self._refresh()
        return None

    # -- states ------------------------------------------------------------------------------------------------

    def _open(self, now: int, rand: float, retry_after_ns: int, trip: Trip) -> Transition:
        if self.state is State.HALF_OPEN:
            self._trials += 1
        length = self.rules.open_for_ns << min(self._trials, MOST_DOUBLINGS)
        length += round(length * (rand - 0.5) / 5)
        length = max(length, retry_after_ns)
        self.until_ns = now + length
        self.trip = trip
        return self._move(State.OPEN).replace(trip=trip, open_ns=length)

    def _move(self, state: State) -> Transition:
        before = self.state
        self._enter(state)
        return Transition(before.value, state.value)

    def _enter(self, state: State) -> None:
        """Begin a new stay: what was handed out before no longer counts."""
        self.state = state
        self._stay += 1
        self._streak = self._done = self._failures = self._slows = 0
        self._out: dict[Permit, None] = {}
        self._inflight: dict[Permit, None] = {}
        self.shared = Permit(self._stay, self._now_ns)
        self._gathered = 0
        self.window.clear()
        self._refresh()

    def _begin(self, now_ns: int) -> int:
        """Gather the ticks of the fast lane into their bucket, then let time pass."""
        self._now_ns = now = max(now_ns, self._now_ns)
        window = self.window
        if isinstance(window, TimeWindow):
            drawn = next(self.shared.ticks)
            if drawn > self._gathered:
                window.add_ok(drawn - self._gathered)
            self._gathered = drawn + 1
            if now >= self.edge_ns:
                window.roll(now)
                self._refresh()
        return now

    def _refresh(self) -> None:
        """Offer the fast lane only while no further success can change the state."""
        window, rules = self.window, self.rules
        free = (
            self.state is State.CLOSED
            and self.mode in (Mode.AUTO, Mode.SHADOW)
            and isinstance(window, TimeWindow)
            and rules.slow_after_ns is None
            and self._streak == 0
            and (window.failed == 0 or self._successes_are_harmless(window))
        )
        self.free_pass = self.shared if free else None
        self.edge_ns = window.edge_ns if isinstance(window, TimeWindow) else 0

    def _successes_are_harmless(self, window: TimeWindow) -> bool:
        """Further successes only lower the share, so it is highest at the next judgement: in one call or in several.

        Time may have taken successes out of the window since the last judgement, so that the very next one trips.
        """
        rate = self.rules.failure_rate_ppm
        return rate is None or window.failed * PPM < rate * max(self.rules.min_calls, window.calls + 1)

    @property
    def label(self) -> str:
        """The state as people read it: a mode that overrides it, else the state."""
        return self.state.value if self.mode in (Mode.AUTO, Mode.SHADOW) else self.mode.value

    @property
    def _name(self) -> str:
        """The mode if a hand set one, else the state: what an operator's change goes from and to."""
        return self.state.value if self.mode is Mode.AUTO else self.mode.value

    def refresh(self, now_ns: int) -> int:
        """Bring the counts up to date for a reader; returns the instant they speak of."""
        now = self._begin(now_ns)
        self._refresh()
        return now

    # -- by hand -----------------------------------------------------------------------------------------------

    def set_mode(self, mode: Mode, now_ns: int) -> Transition | None:
        """Take or leave a mode. Only between AUTO and SHADOW are state and window kept; else CLOSED begins anew."""
        self._begin(now_ns)
        if mode is self.mode:
            return None
        before, followed = self._name, (Mode.AUTO, Mode.SHADOW)
        keeps_its_past = self.mode in followed and mode in followed
        self.mode = mode
        if keeps_its_past:
            self._refresh()
        else:
            self._trials = 0
            self._enter(State.CLOSED)
        return Transition(before, self._name)

    def reset(self, now_ns: int) -> Transition | None:
        """Forget everything: CLOSED, AUTO, an empty window."""
        self._begin(now_ns)
        before = self._name
        self.mode = Mode.AUTO
        self._trials = 0
        self.trip = None
        self._enter(State.CLOSED)
        return Transition(before, self._name) if before != self._name else None
