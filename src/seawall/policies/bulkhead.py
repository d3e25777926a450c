"""`Bulkhead`: at most so many calls at once, so that one slow target cannot take every thread and connection along."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any

from seawall import events
from seawall.context import CURRENT
from seawall.errors import BulkheadFull, ConfigError, DeadlineExceeded
from seawall.machines.gate import Gate, GatePermit, Ticket
from seawall.policies.keyed import MOST_KEYS, Per
from seawall.policies.layer import Call, Fast, Lane, Live, MustWait, Site
from seawall.policies.spec import Spec
from seawall.runtime import clock, forks
from seawall.runtime.jobs import JOB, Workers
from seawall.runtime.section import Section
from seawall.units import Duration, count_of, duration_ns, flag_of, show_seconds

__all__ = ["Bulkhead", "BulkheadGuard"]


OVER_THE_LIMIT = -1
"""The epoch of what shadow mode hands out when the bulkhead is full: it never comes back into the count."""


class Bulkhead(Spec):
    """Admit at most `limit` calls at once; up to `queue` more may wait, first come first served, for `max_wait`.

    Beyond that it refuses with `BulkheadFull`. Threads and tasks, of any number of loops, stand in one queue. A
    caller whose deadline comes first leaves the queue with `DeadlineExceeded`.

    With `threads=True` the function, which must be a blocking one, runs on threads of the bulkhead's own, with the
    caller's context variables. Then a timeout or deadline frees the caller at once; thread and permit are taken until
    the function really ends, so hung calls never pile up beyond `limit`. `acall` takes a blocking function too.

    A call inside a call of the same bulkhead takes a second permit.

    Args:
        limit: calls at once, whole number from 1 to 1,000,000.
        queue: how many may wait, from 0. Default 0: refuse at once.
        max_wait: how long to wait; None means until the deadline of the call, however far. Default 0.
        threads: run the function on own threads. Default False.

    Raises:
        ConfigError: a setting is outside its range, or only one of `queue` and `max_wait` is given.

    Example:
        >>> from seawall import Policy, Bulkhead, BulkheadFull
        >>> reports = Policy(Bulkhead(1), name="reports")
        >>> with reports.guard():
        ...     try: reports.call(print, "never printed")
        ...     except BulkheadFull as error: print(error)
        reports: bulkhead full (1 of 1 permits in use); retry in 1 s

    After Nygard, "Release It!" (2007).
    """

    __slots__ = ("limit", "queue", "max_wait", "threads")  # in the order in which they are read, in repr() too

    limit: int
    queue: int
    max_wait: Duration | None
    threads: bool

    def __init__(
        self,
        limit: int,
        *,
        queue: int = 0,
        max_wait: Duration | None = 0,
        threads: bool = False,
        name: str | None = None,
    ) -> None:
        count_of(limit, "Bulkhead(limit)", most=1_000_000)
        count_of(queue, "Bulkhead(queue)", least=0)
        waits = max_wait is None or duration_ns(max_wait, "Bulkhead(max_wait)") > 0
        if (queue > 0) != waits:
            raise ConfigError(
                f"Bulkhead(queue={queue}, max_wait={max_wait!r}): nobody would ever wait; give both or neither"
            )
        self._init(name, limit=limit, queue=queue, max_wait=max_wait, threads=flag_of(threads, "Bulkhead(threads)"))

    def per(self, key: Callable[..., Hashable], *, most: int = MOST_KEYS) -> Per:
        """The same, with state of its own for each `key(*args, **kwargs)` of the call; at most `most` keys are kept.

        Raises `ConfigError` with `threads=True`: for threads of its own each key needs a policy, by `for_key`.
        """
        if self.threads:
            raise ConfigError("Bulkhead(threads=True).per(): compartments have no threads of their own; use for_key()")
        return Per(self, key, most=most)

    def bind(self, site: Site) -> Sequence[Live]:
        return (BulkheadGuard(site, self),)


class BulkheadGuard(Live):
    """A bulkhead at work. Its methods are what `policy[Bulkhead]` offers to an operator."""

    kind = "bulkhead"

    def __init__(self, site: Site, spec: Bulkhead) -> None:
        super().__init__(site, spec)
        self.threads = spec.threads and not site.shadow
        self._max_wait_ns = None if spec.max_wait is None else duration_ns(spec.max_wait, "max_wait")
        self._lock = Section()
        self._gate = Gate(spec.limit, spec.queue)
        self.refused = 0
        # The thread may outlive the call and takes the permit along, which only the chain can arrange.
        self.fused = not self.threads
        self.workers: Workers | None = Workers(f"seawall {site.policy} {spec.name}") if self.threads else None
        forks.renew_after_fork(self)

    # -- the chain -----------------------------------------------------------------------------------------------

    def lane(self, *, is_async: bool) -> Lane:
        if self.threads:
            return Lane(self._enter_with_thread, self._leave)
        gate = self._gate
        fast = Fast(
            enter=(
                "try:",
                "    $t = $wait() if $waiting else $take()",
                "except IndexError:",
                "    $t = $wait()",
            ),
            leave=(
                "if $waiting or $t is not $gate.permit:",
                "    $give_back($t)",
                "else:",
                "    $give($t)",
                "    if $waiting:",
                "        $pass_on()",
            ),
            names={
                "gate": gate,
                "waiting": gate.waiting,
                "take": gate.free.pop,
                "give": gate.free.append,
                "wait": self._not_at_once,
                "give_back": self._give_back,
                "pass_on": self._pass_on,
            },
        )
        return Lane(self._enter, self._leave, fast=fast)

    def _leave(self, permit: GatePermit, now_ns: int, result: object) -> None:
        self._give_back(permit)

    def _enter(self) -> GatePermit:
        with self._lock:
            permit = self._gate.take()
        return permit if permit is not None else self._not_at_once()

    def _enter_with_thread(self) -> GatePermit:
        JOB.set(None)
        return self._enter()

    def _not_at_once(self) -> GatePermit:
        """No permit is free now: wait if that is allowed, else refuse."""
        if self.shadow:
            self._refusal()
            return GatePermit(OVER_THE_LIMIT)
        if len(self._gate.waiting) < self._gate.queue:
            raise MustWait
        raise self._refusal() from None

    def _refusal(self, waited: str = "") -> BulkheadFull:
        with self._lock:
            self.refused += 1
            gate = self._gate
            used, limit, waiting = gate.in_use, gate.limit, len(gate.waiting)
        self.emit_refused(BulkheadFull.reason)
        state = waited or (f", {waiting} waiting" if gate.queue else "")
        return BulkheadFull(
            f"bulkhead full ({used} of {limit} permits in use{state})",
            policy=self.policy,
            measured=used,
            threshold=limit,
            retry_after=1.0,  # no better guess: a permit may come back at any time
        )

    def _give_back(self, permit: GatePermit) -> None:
        if self._lock.put_off(lambda: self._give_back(permit)):
            return
        with self._lock:
            granted = self._gate.release(permit)
        self._wake(granted)

    def _pass_on(self) -> None:
        if self._lock.put_off(self._pass_on):
            return
        with self._lock:
            granted = self._gate.pass_on()
        self._wake(granted)

    def _give_up(self, ticket: Ticket) -> None:
        if self._lock.put_off(lambda: self._give_up(ticket)):
            return
        with self._lock:
            granted = self._gate.leave(ticket)
        self._wake(granted)

    def _wake(self, granted: list[Ticket]) -> None:
        for ticket in granted:
            # A ticket granted within its own `join` has no sleeper yet and needs no waking.
            if ticket.sleeper is not None and not ticket.sleeper.unpark():
                self._give_up(ticket)

    async def wait(self, call: Call) -> GatePermit:
        parker = call.runtime.parker()
        due = CURRENT.get().deadline_ns
        with self._lock:
            ticket = self._gate.join()
            if ticket is not None and ticket.granted is None:
                ticket.sleeper = parker
        if ticket is None:
            raise self._refusal()
        try:
            if ticket.granted is None:
                await parker.park(self._patience(due))
        except BaseException:
            self._give_up(ticket)
            raise
        with self._lock:
            permit = ticket.granted
            if permit is None:
                self._gate.leave(ticket)
        if permit is not None:
            return permit
        if due is not None and clock.now_ns() >= due:
            if events.sinks:
                events.emit(events.TimedOut(policy=self.policy, layer=self.name, timeout=0, inherited=True))
            detail = "the deadline of the caller passed in the queue of the bulkhead"
            raise DeadlineExceeded(detail, policy=self.policy, inherited=True)
        raise self._refusal(f" after a wait of {show_seconds(self._max_wait_ns or 0)}")

    def _patience(self, due: int | None) -> int | None:
        if due is None:
            return self._max_wait_ns
        left = max(0, due - clock.now_ns())
        return left if self._max_wait_ns is None else min(left, self._max_wait_ns)

    def note(self, call: Call, token: GatePermit, error: BaseException) -> None:
        job = JOB.get() if self.threads else None
        if job is None:
            self._give_back(token)
        else:
            # The caller may be gone while the thread still works: the permit stays with the thread.
            JOB.set(None)
            job.on_end(lambda: self._give_back(token))

    def undo(self, token: GatePermit) -> None:
        self._give_back(token)

    # -- by hand ---------------------------------------------------------------------------------------------------

    def resize(self, limit: int) -> None:
        """Change the limit now. More room is used at once; below what is in use, it drains. Raises `ConfigError`."""
        count_of(limit, "resize(limit)", most=1_000_000)
        with self._lock:
            granted = self._gate.resize(limit)
        self._wake(granted)

    @property
    def in_use(self) -> int:
        """How many permits are held."""
        return self._gate.in_use

    @property
    def limit(self) -> int:
        """How many may be held."""
        return self._gate.limit

    @property
    def waiting(self) -> int:
        """How many callers wait."""
        return len(self._gate.waiting)

    @property
    def busy(self) -> bool:
        return self.in_use > 0 or self.waiting > 0

    @property
    def refuses(self) -> bool:
        return not self.shadow and self.in_use >= self.limit and self.waiting >= self._gate.queue

    def snapshot(self) -> dict[str, Any]:
        return {
            "in_use": self.in_use,
            "limit": self.limit,
            "waiting": self.waiting,
            "queue": self._gate.queue,
            "refused": self.refused,
        }

    def explain(self) -> str:
        used, limit = self.in_use, self.limit
        if used < limit:
            return f"The bulkhead has {limit - used} of {limit} permits free: it would let the call through."
        if self.waiting < self._gate.queue:
            wait = "until its deadline" if self._max_wait_ns is None else f"for up to {show_seconds(self._max_wait_ns)}"
            return f"The bulkhead is full ({used} of {limit}) and {self.waiting} wait: the call would wait {wait}."
        return f"The bulkhead is full ({used} of {limit}, {self.waiting} waiting): it would refuse the call."

    def renew_after_fork(self) -> None:
        self._lock = Section()
        self._gate.begin_epoch()
        if self.workers is not None:
            self.workers.renew()
