"""`CircuitBreaker`: stop calling what keeps failing, and ask it a little before trusting it again."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any

from seawall import events
from seawall.context import CURRENT
from seawall.errors import CircuitOpen, ConfigError
from seawall.machines.breaker import Breaker, Mode, Permit, Refusal, Rules, Transition, Trip
from seawall.machines.verdict import Ended, Verdict
from seawall.policies.breaker_words import because, explain, measured
from seawall.policies.classify import Errors, Matcher, matcher, retry_after_of, verdict_of
from seawall.policies.functions import check_predicate
from seawall.policies.keyed import MOST_KEYS, Per
from seawall.policies.layer import Call, Fast, Lane, Live, Site
from seawall.policies.spec import Spec
from seawall.runtime import chance, clock, forks
from seawall.runtime.section import Section
from seawall.units import Duration, count_of, duration_ns, fraction_ppm

__all__ = ["BreakerGuard", "CircuitBreaker"]


class CircuitBreaker(Spec):
    """Refuse calls for a while when too many of the recent ones failed, or were too slow.

    One breaker belongs around one remote target. It opens when, of the calls in the `window`, a share of at least
    `failure_rate` failed; or a share of at least `slow_rate` took longer than `slow_after`; or `consecutive` failed
    in a row: whichever comes first. Shares are looked at from `min_calls` calls on. Open, it refuses with
    `CircuitOpen` for `open_for` (doubled for each failed trial up to 8 times, +-10 %, never less than the target's
    Retry-After, which is obeyed up to 8 times `open_for`). Then `probes` calls are let through, and their outcomes
    decide.

    Args:
        failure_rate: share above 0 to 1, or None to switch the rule off. Default 0.5.
        min_calls: whole number from 1. Default 10.
        window: a duration (the last 30 s, in `buckets`), or with `window_calls` not used.
        window_calls: count the last n calls instead of a span of time; 1 to 1,000,000.
        buckets: into how many the span is split, 1 to 1,000. Default 10.
        slow_after, slow_rate: a call is slow beyond `slow_after`; share above 0 to 1, default 1.0. Off by default.
        consecutive: failures in a row that open it. Off by default.
        open_for: default 30 s. probes: default 5. probe_lease: a silent probe is given back after 60 s.
        on: exception types or a predicate that are failures; what is not meant counts as a success, since the target
        did answer.
            Default: every `Exception`. Refusals from further inside, cancellation, and deadlines of the caller never
            count.
        ignore: exception types or a predicate that count neither way.
        ok: a predicate of the result; a result it refuses counts as a failure (and is returned all the same).

    Raises:
        ConfigError: a setting is outside its range.

    Example:
        >>> from seawall import Policy, CircuitBreaker, CircuitOpen
        >>> stock = Policy(CircuitBreaker(consecutive=2), name="stock")
        >>> def broken(): raise ConnectionError("refused")
        >>> for _ in range(3):
        ...     try: stock.call(broken)
        ...     except (ConnectionError, CircuitOpen) as error: print(type(error).__name__)
        ConnectionError
        ConnectionError
        CircuitOpen

    After Nygard, "Release It!"; window and half-open state as in resilience4j.
    """

    __slots__ = (
        "failure_rate",
        "min_calls",
        "window",
        "window_calls",
        "buckets",
        "slow_after",
        "slow_rate",
        "consecutive",
        "open_for",
        "probes",
        "probe_lease",
        "on",
        "ignore",
        "ok",
    )  # in the order in which they are read: this is the order of repr() too

    failure_rate: float | None
    min_calls: int
    window: Duration
    window_calls: int | None
    buckets: int
    slow_after: Duration | None
    slow_rate: float
    consecutive: int | None
    open_for: Duration
    probes: int
    probe_lease: Duration
    on: Errors
    ignore: Errors | None
    ok: Callable[[Any], object] | None

    def __init__(
        self,
        failure_rate: float | None = 0.5,
        *,
        min_calls: int = 10,
        window: Duration = 30,
        window_calls: int | None = None,
        buckets: int = 10,
        slow_after: Duration | None = None,
        slow_rate: float = 1.0,
        consecutive: int | None = None,
        open_for: Duration = 30,
        probes: int = 5,
        probe_lease: Duration = 60,
        on: Errors = Exception,
        ignore: Errors | None = None,
        ok: Callable[[Any], object] | None = None,
        name: str | None = None,
    ) -> None:
        self._init(
            name,
            failure_rate=failure_rate,
            min_calls=min_calls,
            window=window,
            window_calls=window_calls,
            buckets=buckets,
            slow_after=slow_after,
            slow_rate=slow_rate,
            consecutive=consecutive,
            open_for=open_for,
            probes=probes,
            probe_lease=probe_lease,
            on=on,
            ignore=ignore,
            ok=ok,
        )
        self.rules()
        self.matchers()
        check_predicate(ok, "CircuitBreaker(ok)", "a predicate of the result")

    def rules(self) -> Rules:
        """The settings as the machine wants them; raises `ConfigError` if one is wrong."""

        def at(field: str) -> str:
            return f"CircuitBreaker({field})"

        if self.failure_rate is None and self.slow_after is None and self.consecutive is None:
            raise ConfigError("CircuitBreaker(failure_rate=None) needs slow_after or consecutive: else it never opens")
        by_time = self.window_calls is None
        calls = 100 if self.window_calls is None else self.window_calls
        window_ns = duration_ns(self.window, at("window"), zero=False)
        buckets = count_of(self.buckets, at("buckets"), most=1_000)
        if by_time and window_ns < buckets:
            raise ConfigError(f"CircuitBreaker(window={self.window!r}): shorter than {buckets} ns, one for each bucket")
        rules = Rules(
            failure_rate_ppm=None if self.failure_rate is None else fraction_ppm(self.failure_rate, at("failure_rate")),
            slow_rate_ppm=fraction_ppm(self.slow_rate, at("slow_rate")),
            slow_after_ns=None
            if self.slow_after is None
            else duration_ns(self.slow_after, at("slow_after"), zero=False),
            consecutive=None if self.consecutive is None else count_of(self.consecutive, at("consecutive")),
            min_calls=count_of(self.min_calls, at("min_calls")),
            window_ns=window_ns if by_time else None,
            window_calls=count_of(calls, at("window_calls"), most=1_000_000),
            buckets=buckets,
            open_for_ns=duration_ns(self.open_for, at("open_for"), zero=False),
            probes=count_of(self.probes, at("probes"), most=10_000),
            probe_lease_ns=duration_ns(self.probe_lease, at("probe_lease"), zero=False),
        )
        if not by_time and rules.min_calls > rules.window_calls:
            raise ConfigError(
                f"CircuitBreaker(min_calls={self.min_calls}): more than window_calls={self.window_calls} can ever hold"
            )
        return rules

    def matchers(self) -> tuple[Matcher, Matcher | None]:
        """What counts as a failure, and what counts neither way. Here programming errors count: the call did fail."""
        ignored = None if self.ignore is None else matcher(self.ignore, "CircuitBreaker(ignore)", refusals=True)
        if self.on is Exception:
            return (lambda error: isinstance(error, Exception)), ignored
        return matcher(self.on, "CircuitBreaker(on)", refusals=True), ignored

    def per(self, key: Callable[..., Hashable], *, most: int = MOST_KEYS) -> Per:
        """The same, with state of its own for each `key(*args, **kwargs)` of the call; at most `most` keys are kept."""
        return Per(self, key, most=most)

    def bind(self, site: Site) -> Sequence[Live]:
        return (BreakerGuard(site, self),)


class BreakerGuard(Live):
    """A breaker at work. Its methods are what `policy[CircuitBreaker]` offers to an operator."""

    kind = "breaker"

    def __init__(self, site: Site, spec: CircuitBreaker) -> None:
        super().__init__(site, spec)
        self._rules = spec.rules()
        self._means_failure, self._means_nothing = spec.matchers()
        self._ok = spec.ok
        self._lock = Section()
        self._machine = Breaker(self._rules)
        if site.shadow:
            self._machine.set_mode(Mode.SHADOW, clock.now_ns())
        self.refused = 0
        # The words of the latest refusal: while the breaker stays open they are the same for every call.
        self._told: tuple[Trip | None, str, str] | None = None
        forks.renew_after_fork(self)

    # -- the chain -----------------------------------------------------------------------------------------------

    def lane(self, *, is_async: bool) -> Lane:
        accepts = self._ok
        if accepts is not None:

            def judged(permit: Permit, now_ns: int, result: object) -> None:
                (self._settle_ok if accepts(result) else self._settle_bad)(permit, now_ns, result)

            return Lane(self._admit, judged)
        fast = Fast(
            enter=(
                "$t = $machine.free_pass",
                "if $t is None:",
                "    $t = $admit()",
            ),
            leave=(
                "if $t is $machine.free_pass and now < $machine.edge_ns:",
                "    next($t.ticks)",
                "else:",
                "    $settle($t, now, result)",
            ),
            names={"machine": self._machine, "admit": self._admit, "settle": self._settle_ok},
        )
        return Lane(self._admit, self._settle_ok, fast=fast)

    def _admit(self) -> Permit:
        due = CURRENT.get().deadline_ns
        with self._lock:
            passed_over = self._machine.passed_over
            answer = self._machine.admit(clock.now_ns(), chance.random(), due)
            only_watched = self._machine.passed_over > passed_over
            if isinstance(answer, Refusal):
                self.refused += 1
        transition = answer.transition
        if transition is not None:
            try:
                self._announce(transition)
            except BaseException:  # a sink was interrupted: a probe must not be lost with it
                if isinstance(answer, Permit):
                    self.undo(answer)
                raise
        if isinstance(answer, Permit):
            if only_watched:
                self.emit_refused(CircuitOpen.reason, shadow=True)
            return answer
        self.emit_refused(CircuitOpen.reason)
        trip = answer.trip
        if self._told is None or self._told[0] is not trip or self._told[1] != answer.why:
            self._told = trip, answer.why, f"breaker {answer.why}{because(trip, self._rules)}"
        raise CircuitOpen(
            self._told[2],
            policy=self.policy,
            measured=measured(trip),
            threshold=trip.threshold if trip else 0,
            retry_after=answer.retry_after_ns / 1e9,
        )

    def _settle_ok(self, permit: Permit, now_ns: int, result: object) -> None:
        self._settle(permit, Verdict.OK, now_ns)

    def _settle_bad(self, permit: Permit, now_ns: int, result: object) -> None:
        self._settle(permit, Verdict.FAIL, now_ns, retry_after_of(result))

    def _settle(self, permit: Permit, verdict: Verdict, now_ns: int, retry_after_ns: int | None = None) -> None:
        if self._lock.put_off(lambda: self._settle(permit, verdict, now_ns, retry_after_ns)):
            return
        # A target may ask for patience, but not for ever.
        ended = Ended(verdict, now_ns - permit.started_ns, min(retry_after_ns or 0, 8 * self._rules.open_for_ns))
        with self._lock:
            transition = self._machine.settle(permit, ended, now_ns, chance.random())
        if transition is not None:
            self._announce(transition)

    def note(self, call: Call, token: Permit, error: BaseException) -> None:
        verdict = Verdict.IGNORE  # stands if the user's predicate raises: the permit goes home all the same
        try:
            verdict = verdict_of(error, self._means_failure, self._means_nothing)
        finally:
            self._settle(token, verdict, clock.now_ns(), retry_after_of(error))

    def undo(self, token: Permit) -> None:
        self._settle(token, Verdict.IGNORE, clock.now_ns())

    def _announce(self, change: Transition, *, by_hand: bool = False) -> None:
        if not events.sinks:
            return
        if by_hand:
            why = "by hand"
        elif change.trip is not None:
            why = because(change.trip, self._rules).strip(" ()")
        else:
            why = "the pause is over" if change.after == "half_open" else "the probes succeeded"
        retry_after = change.open_ns / 1e9 if change.open_ns else None
        events.emit(
            events.BreakerChanged(
                policy=self.policy,
                layer=self.name,
                before=change.before,
                after=change.after,
                why=why,
                retry_after=retry_after,
            )
        )

    # -- by hand ---------------------------------------------------------------------------------------------------

    def force_open(self) -> None:
        """Refuse every call until `auto()` or `reset()`."""
        self._set_mode(Mode.FORCED_OPEN)

    def disable(self) -> None:
        """Admit every call and record nothing, until `auto()` or `reset()`."""
        self._set_mode(Mode.DISABLED)

    def watch(self) -> None:
        """Shadow mode: record and change state, but refuse nobody, until `auto()` or `reset()`."""
        self._set_mode(Mode.SHADOW)

    def auto(self) -> None:
        """Work by its rules again."""
        self._set_mode(Mode.AUTO)

    def reset(self) -> None:
        """Forget the past: closed, by its rules, with an empty window."""
        with self._lock:
            transition = self._machine.reset(clock.now_ns())
        if transition is not None:
            self._announce(transition, by_hand=True)

    def _set_mode(self, mode: Mode) -> None:
        with self._lock:
            transition = self._machine.set_mode(mode, clock.now_ns())
        if transition is not None:
            self._announce(transition, by_hand=True)

    @property
    def state(self) -> str:
        """`"closed"`, `"open"`, `"half_open"`, `"forced_open"` or `"disabled"`."""
        return self._machine.label

    @property
    def busy(self) -> bool:
        return self._machine.label != "closed"

    @property
    def judges_results(self) -> bool:
        return self._ok is not None

    @property
    def refuses(self) -> bool:
        if self._machine.free_pass is not None:
            return False
        now = self.snapshot()
        return now["mode"] != "shadow" and (now["state"] == "forced_open" or bool(now["retry_after"]))

    def snapshot(self) -> dict[str, Any]:
        with self._lock:
            now = self._machine.refresh(clock.now_ns())
            machine = self._machine
            window = machine.window
            return {
                "state": machine.label,
                "mode": machine.mode.value,
                "calls": window.calls,
                "failed": window.failed,
                "slow": window.slow,
                "refused": self.refused,
                "would_refuse": machine.passed_over,
                "retry_after": max(0, machine.until_ns - now) / 1e9 if machine.label == "open" else None,
            }

    def explain(self) -> str:
        return explain(self.snapshot(), self._machine.trip, self._rules)

    def renew_after_fork(self) -> None:
        if self._lock.held_by_another():
            # Some thread was in the middle of a change that nobody will ever finish.
            self._machine.reset(clock.now_ns())
        self._lock = Section()
