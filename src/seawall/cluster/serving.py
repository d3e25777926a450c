"""One call on its way through a cluster: its attempts, whom it has tried, and what its errors mean."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from seawall import events
from seawall.cluster.reading import Reading, Terms
from seawall.context import CURRENT, derive, restore
from seawall.errors import DeadlineExceeded, NoEndpoints, Rejected
from seawall.machines.verdict import Verdict
from seawall.policies.layer import Ending
from seawall.runtime import clock, off
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
        "_branches",
        "_made",
        "_number",
        "_obstacle",
        "_pool",
        "_refusing",
        "_seats",
        "_tried",
        "args",
        "degraded",
        "endpoint",
        "found_nobody",
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
        self.found_nobody = False
        """Whether the latest attempt ended for want of anybody to ask, and not with an error of the function."""
        self._made: list[Endpoint] = []
        self._tried: dict[Member, object] = {}
        self._refusing: dict[Member, None] = {}
        self._seats: list[Seat] = []
        """The seat that a fork was given when it was made, until its attempt begins."""
        self._number: int | None = None
        """The number of the attempt, if this is a branch: it makes one only."""
        self._branches = 0
        self._obstacle: Exception | None = None

    def begin_round(self, obstacle: Exception | None) -> None:
        """A layer around the call makes it, perhaps not for the first time: ask those that refused again.

        With an `obstacle` there is nobody to ask at all, and the first attempt ends with it.
        """
        self._obstacle = obstacle
        self.degraded = False
        if self._tried:
            self._refusing.clear()
            if not self.has_untried:
                self._tried.clear()

    # -- attempts --------------------------------------------------------------------------------------------------

    @property
    def attempts(self) -> int:
        """How often the function was called, in all branches."""
        return len(self._made)

    @property
    def has_untried(self) -> bool:
        """Whether an endpoint is left that was not tried and may be."""
        return self.roster.has_other(self._tried)

    @property
    def has_willing(self) -> bool:
        """Whether an endpoint may be asked that has not refused."""
        return self.roster.has_other(self._refusing)

    async def attempt(self, refusal: BaseException | None = None) -> Ending:
        """One attempt at an endpoint not tried yet, or if all were, at one that did not refuse.

        From an endpoint whose own guards refuse it moves on at once, as it does with the `refusal` in hand. Ends with
        `NoEndpoints` if nobody is left. A fork begins where it was told to, and goes where no other has been.
        """
        seat: Seat | None
        again, self.found_nobody = False, True
        try:
            self.raise_obstacle()
            if self._number is None:
                seat = self._next()
                if seat is None and refusal is None:
                    again, seat = True, self._next(again=True)
            else:
                seat = self._own_seat()
        except (DeadlineExceeded, NoEndpoints) as nobody:
            return None, nobody
        error: BaseException | None = None
        try:
            while seat is not None:
                value, error = await self.at(seat)
                if error is None or not self.refused(seat, error):
                    self.found_nobody = False
                    return value, error
                refusal = error
                seat = self._next(again=again)
            return None, self.nobody(refusal)
        finally:
            del error, refusal  # they know this frame

    def raise_obstacle(self) -> None:
        """Raise what stands against any attempt, if something does."""
        obstacle, self._obstacle = self._obstacle, None  # an error knows the frame that knows this call
        if obstacle is not None:
            try:
                raise obstacle
            finally:
                del obstacle

    def _next(self, *, again: bool = False) -> Seat | None:
        """Who is asked next; with `again` also those that were asked before, unless they refused."""
        if again:
            return self.roster.pick_other((), self._refusing)
        seat = self._first() if not self._tried else self.roster.pick_other(self._tried)
        # On threads two branches may choose the same endpoint; one of them goes elsewhere.
        claim = object()
        while seat is not None and self._tried.setdefault(seat.member, claim) is not claim:
            seat = self.roster.pick_other(self._tried)
        return seat

    def _first(self) -> Seat | None:
        try:
            return self.roster.pick()
        except NoEndpoints:
            if not off.everything:
                raise
            return next(self.roster.seats(), None)

    def nobody(self, refusal: BaseException | None) -> NoEndpoints:
        """The error for a call for which nobody is left to ask; `refusal` is the last one's, if one has refused."""
        refusing = list(self._refusing)  # other branches may add to it
        waits = [wait for wait in (member.retry_after for member in refusing) if wait is not None]
        wait = min(waits) if waits else getattr(refusal, "retry_after", None)
        who = "the only endpoint refuses" if len(refusing) == len(self._tried) == 1 else _refuse(len(refusing))
        detail = f"{who} (the last: {refusal})" if refusal is not None else "no endpoint is left to try"
        nobody = NoEndpoints(detail, policy=self.name, measured=0, threshold=1, retry_after=wait)
        nobody.__cause__ = refusal
        return nobody

    async def at(self, seat: Seat) -> Ending:
        """One attempt at this seat."""
        self.endpoint = seat.endpoint
        self._tried[seat.member] = None
        number = len(self._made) + 1 if self._number is None else self._number
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
            self.note(seat, error, number)
            return value, error
        finally:
            del error  # it knows this frame

    def begin(self, seat: Seat, error: BaseException) -> None:
        """Take over from the healthy path, whose one attempt at `seat` has failed."""
        self.endpoint = seat.endpoint
        self._tried[seat.member] = None
        self._made.append(seat.endpoint)
        self.note(seat, error, 1)

    def note(self, seat: Seat, error: BaseException | None, number: int) -> None:
        """Tell the health of the endpoint how the attempt ended, and the listeners if it failed."""
        if error is None:
            if seat.member.healths:
                report(seat, Verdict.OK, clock.now_ns())
            return
        if off.everything:
            report(seat, Verdict.IGNORE, clock.now_ns())  # gives a probe back
            return
        refused = self.refused(seat, error)
        if refused:
            self._refusing[seat.member] = None
            self._made.pop()  # the function was not called
            # Of a branch it matters only if it wins; and other branches may change the list meanwhile.
            self.endpoint = self._made[-1] if self._number is None and self._made else None
        verdict = Verdict.IGNORE
        try:
            if not refused:
                verdict = self.read(error).verdict  # by a predicate of the user's, which may fail
        finally:
            report(seat, verdict, clock.now_ns())
        if seat.member.refuses and (refused or not seat.member.shunned) and not seat.roster.panic:
            seat.roster.spoil()  # another roster may have seen it before; this one chose it all the same
        # A cancellation says nothing about the attempt, and an answer is no failure of it.
        if events.sinks and isinstance(error, Exception) and verdict is not Verdict.OK:
            events.emit(
                events.AttemptFailed(
                    policy=self.name,
                    layer="cluster",
                    endpoint=str(seat.endpoint),
                    attempt=number,
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
        self._branches += 1
        other._number = self._branches
        return other

    def fork(self) -> Serving | None:
        """A branch for one `attempt()` at an endpoint that no other has tried; None if there is none left.

        It holds its place at the endpoint from now on, and must be given up by `release()`. Raises `NoEndpoints` if
        there was nobody from the beginning.
        """
        self.raise_obstacle()
        seat = self._next()
        if seat is None:
            return None
        branch = self.branch()
        branch._seats.append(seat)
        return branch

    def _own_seat(self) -> Seat | None:
        try:
            return self._seats.pop()  # atomic: of two threads one gets it
        except IndexError:
            return None

    def release(self) -> None:
        """Give up a fork whose attempt may not have begun: if it was to be a probe, somebody else may make it."""
        seat = self._own_seat()
        if seat is not None:
            report(seat, Verdict.IGNORE, clock.now_ns())

    @property
    def most_legs(self) -> int | None:
        """How many attempts may run beside each other; None for any number."""
        return None if self.runtime.is_async else self._pool.limit

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

    async def discard(self, ending: Ending) -> bool:
        """Close what is not wanted any more: the response of an attempt that is followed by another. Tells whether
        there was something to close."""
        close = closer_of(ending, is_async=self.runtime.is_async)
        if close is None:
            return False
        try:
            closing = close()
            if self.runtime.is_async and hasattr(closing, "__await__"):
                await closing
        except Exception:
            import logging  # noqa: PLC0415  # only a broken close pays for it

            logging.getLogger("seawall").exception("closing the result of an attempt failed")
        return True


def _refuse(count: int) -> str:
    return "1 endpoint refuses" if count == 1 else f"{count} endpoints refuse"
