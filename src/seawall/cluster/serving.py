"""One call on its way through a cluster: its attempts, whom it has tried, and what its errors mean."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from seawall import events
from seawall.cluster.reading import Reading, Terms
from seawall.context import CURRENT, derive, restore
from seawall.errors import NoEndpoints, Rejected
from seawall.machines.verdict import Verdict
from seawall.policies.layer import Ending
from seawall.runtime import clock
from seawall.runtime.closing import closer_of
from seawall.runtime.thread_legs import Pool, ThreadLegs

if TYPE_CHECKING:
    from seawall.cluster.endpoint import Endpoint
    from seawall.cluster.member import Member, Seat
    from seawall.cluster.roster import Roster
    from seawall.runtime.protocol import Runtime
    from seawall.runtime.race import Legs

__all__ = ["Serving", "report"]


def report(seat: Seat, verdict: Verdict, now_ns: int) -> None:
    """Tell every roster that ejects how an attempt at this seat ended."""
    for roster, health in seat.member.healths:
        roster.ended(seat, health, verdict, now_ns)


class Serving:
    """One call. Its branches (forks, legs of a broadcast) share whom it has tried."""

    __slots__ = (
        "_made",
        "_pool",
        "_refusing",
        "_tried",
        "args",
        "degraded",
        "endpoint",
        "function",
        "kwargs",
        "name",
        "queued",
        "roster",
        "runtime",
        "terms",
    )

    def __init__(
        self,
        name: str,
        roster: Roster,
        pool: Pool,
        runtime: Runtime,
        terms: Terms,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> None:
        self.name = name
        self.roster = roster
        self._pool = pool
        self.runtime = runtime
        self.terms = terms
        self.function = function
        self.args = args
        self.kwargs = kwargs
        self.endpoint: Endpoint | None = None
        """Where the latest attempt went."""
        self.degraded = False
        """Whether the answer is a lesser one."""
        self.queued = False
        """Whether the work was stored for later."""
        self._made: list[Endpoint] = []
        self._tried: dict[Member, None] = {}
        self._refusing: dict[Member, None] = {}

    # -- attempts --------------------------------------------------------------------------------------------------

    @property
    def attempts(self) -> int:
        """How often the function was called, in all branches."""
        return len(self._made)

    @property
    def has_untried(self) -> bool:
        """Whether an endpoint is left that was not tried and may be."""
        return self.roster.has_other(self._tried)

    async def attempt(self, refusal: BaseException | None = None) -> Ending:
        """One attempt at an endpoint not tried yet, or if all were, at one that did not refuse.

        From an endpoint whose own guards refuse it moves on at once, as it does with the `refusal` in hand. Ends with
        `NoEndpoints` if nobody is left.
        """
        while True:
            try:
                seat = self._next(after_a_refusal=refusal is not None)
            except NoEndpoints as nobody:
                return None, nobody
            if seat is None:
                return None, self._nobody(refusal)
            value, error = await self.at(seat)
            if error is None or not self.refused(seat, error):
                return value, error
            refusal = error

    def _next(self, *, after_a_refusal: bool) -> Seat | None:
        if not self._tried:
            seat: Seat | None = self.roster.pick()
        else:
            seat = self.roster.pick_other(self._tried)
            if seat is None and not after_a_refusal:
                seat = self.roster.pick_other((), self._refusing)
        if seat is not None:
            self._tried[seat.member] = None
        return seat

    def _nobody(self, refusal: BaseException | None) -> NoEndpoints:
        waits = [member.retry_after for member in self._refusing]
        wait = min((wait for wait in waits if wait is not None), default=None)
        if wait is None:
            wait = getattr(refusal, "retry_after", None)
        count = len(self._refusing)
        who = "the only endpoint refuses" if count == 1 and len(self._tried) == 1 else f"{count} endpoints refuse"
        detail = f"{who} (the last: {refusal})" if refusal is not None else "no endpoint is left to try"
        nobody = NoEndpoints(detail, policy=self.name, measured=0, threshold=1, retry_after=wait)
        nobody.__cause__ = refusal
        return nobody

    async def at(self, seat: Seat) -> Ending:
        """One attempt at this seat."""
        self.endpoint = seat.endpoint
        self._tried[seat.member] = None
        number = len(self._made) + 1
        self._made.append(seat.endpoint)
        context = CURRENT.get()
        reset = None if context.attempt == number else CURRENT.set(derive(context, attempt=number))
        seat.flying.append(None)
        value, error = None, None
        try:
            if self.runtime.is_async:
                value = await seat.policy.acall(self.function, seat.endpoint, *self.args, **self.kwargs)
            else:
                value = seat.policy.call(self.function, seat.endpoint, *self.args, **self.kwargs)
        except BaseException as raised:  # noqa: BLE001  # travels on as a value
            error = raised
        finally:
            seat.flying.pop()
            if reset is not None:
                restore(reset)
        try:
            self.note(seat, error)
            return value, error
        finally:
            del error  # it knows this frame

    def begin(self, seat: Seat, error: BaseException) -> None:
        """Take over from the healthy path, whose one attempt at `seat` has failed."""
        self.endpoint = seat.endpoint
        self._tried[seat.member] = None
        self._made.append(seat.endpoint)
        self.note(seat, error)

    def note(self, seat: Seat, error: BaseException | None) -> None:
        """Tell the health of the endpoint how the attempt ended, and the listeners if it failed."""
        if error is None:
            if seat.member.healths:
                report(seat, Verdict.OK, clock.now_ns())
            return
        refused = self.refused(seat, error)
        if refused:
            self._refusing[seat.member] = None
            self._made.pop()  # the function was not called
        verdict = Verdict.IGNORE if refused else self.read(error).verdict
        report(seat, verdict, clock.now_ns())
        if not seat.member.shunned and seat.member.refuses:
            seat.roster.spoil()
        if events.sinks:
            events.emit(
                events.AttemptFailed(
                    policy=self.name,
                    layer="cluster",
                    endpoint=str(seat.endpoint),
                    attempt=len(self._made) + refused,
                    error=error,
                    refused=refused,
                )
            )

    @staticmethod
    def refused(seat: Seat, error: BaseException) -> bool:
        """Whether the guards of the endpoint itself refused the attempt, so that the function was not called."""
        return isinstance(error, Rejected) and error.policy in seat.member.guards

    def read(self, error: BaseException) -> Reading:
        """What an error means to this call."""
        return self.terms.read(error)

    # -- what strategies need ------------------------------------------------------------------------------------------

    def branch(self) -> Serving:
        """The same call once more, to run beside this one; it shares whom it has tried."""
        other = Serving(
            self.name, self.roster, self._pool, self.runtime, self.terms, self.function, self.args, self.kwargs
        )
        other._made, other._tried, other._refusing = self._made, self._tried, self._refusing
        return other

    def legs(self) -> Legs:
        """Where parallel attempts of this call run: tasks of the loop, or threads of the cluster's pool."""
        if not self.runtime.is_async:
            return ThreadLegs(self._pool)
        from seawall.runtime.task_legs import TaskLegs  # noqa: PLC0415  # asyncio, not before the first async use

        return TaskLegs()

    @property
    def time_left(self) -> int | None:
        """Nanoseconds until the deadline of the call; None without one."""
        due = CURRENT.get().deadline_ns
        return None if due is None else due - clock.now_ns()

    async def discard(self, ending: Ending) -> None:
        """Close what is not wanted any more: the response of an attempt that is followed by another."""
        close = closer_of(ending, is_async=self.runtime.is_async)
        if close is None:
            return
        try:
            closing = close()
            if self.runtime.is_async and hasattr(closing, "__await__"):
                await closing
        except Exception:
            import logging  # noqa: PLC0415  # only a broken close pays for it

            logging.getLogger("seawall").exception("closing the result of an attempt failed")
