"""How the calls of a cluster are made: the healthy attempt in one frame, everything else through the strategy.

A call of a sequential strategy, without layers around it, deadline or earlier attempts to think of, goes

    pick a seat -> the policy of the endpoint, with the function -> note the success

and only a failure makes a `Serving` and asks the strategy. All other calls are a `Serving` from the beginning.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from seawall.cluster.member import Seat
from seawall.cluster.reading import Terms
from seawall.cluster.serving import Serving, report
from seawall.context import CURRENT, Context, ends_this_task
from seawall.errors import DeadlineExceeded, NoEndpoints
from seawall.machines.verdict import Verdict
from seawall.policies.layer import Ending
from seawall.policies.timeout import Timeout
from seawall.policy import Policy
from seawall.policy.outcome import Outcome
from seawall.runtime import clock, off
from seawall.runtime.blocking import drive
from seawall.runtime.which import runtime_for

if TYPE_CHECKING:
    from seawall.cluster.directory import Directory
    from seawall.cluster.roster import Roster
    from seawall.cluster.strategy import LiveStrategy
    from seawall.runtime.thread_legs import Pool

__all__ = ["Calls"]


class Calls:
    """Makes the calls of one cluster under one strategy."""

    def __init__(
        self,
        directory: Directory,
        roster: Roster,
        strategy: LiveStrategy,
        pool: Pool,
        terms: Terms,
        around: Policy | None,
    ) -> None:
        self._directory = directory
        self.roster = roster
        self.strategy = strategy
        self._budget = strategy.budget
        self._pool = pool
        self._terms = terms
        self._around = around
        # In async a deadline of the caller ends the call, whatever the function does; a Timeout around does it already.
        bounded = around is not None and any(layer.kind == "timeout" for layer in around.layers)
        self._bound = None if bounded else Policy(Timeout(None), name=directory.name)
        self._plain = around is None and not strategy.forks

    # -- the healthy path ------------------------------------------------------------------------------------------

    def call(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """One synchronous call."""
        seat = self._seat(CURRENT.get())
        if seat is None:
            return _end(drive(self.serve(self.begin(function, args, kwargs, is_async=False))))
        seat.flying.append(None)
        try:
            result = seat.policy.call(function, seat.endpoint, *args, **kwargs)
        except BaseException as error:  # noqa: BLE001  # the strategy decides; what it lets through is raised
            seat.flying.pop()
            serving = self.begin(function, args, kwargs, is_async=False)
            value, failure = drive(self._after_failure(serving, seat, error))
            if failure is None:
                return value
            try:
                if failure is error:
                    raise
                raise failure from failure.__cause__
            finally:
                del failure  # the error knows this frame: see policy/frame.py
        seat.flying.pop()
        self._count(seat)
        return result

    async def acall(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """One asynchronous call."""
        context = CURRENT.get()
        if context.deadline_ns is not None and self._bound is not None and not ends_this_task(context):
            if self.strategy.answers_late:
                return _end(await self.serve(self.begin(function, args, kwargs, is_async=True)))
            return await self._bound.acall(self.acall, function, *args, **kwargs)
        seat = self._seat(context)
        if seat is None:
            return _end(await self.serve(self.begin(function, args, kwargs, is_async=True)))
        seat.flying.append(None)
        try:
            result = await seat.policy.acall(function, seat.endpoint, *args, **kwargs)
        except BaseException as error:  # noqa: BLE001  # the strategy decides; what it lets through is raised
            seat.flying.pop()
            serving = self.begin(function, args, kwargs, is_async=True)
            value, failure = await self._after_failure(serving, seat, error)
            if failure is None:
                return value
            try:
                if failure is error:
                    raise
                raise failure from failure.__cause__
            finally:
                del failure  # as above
        seat.flying.pop()
        self._count(seat)
        return result

    def _seat(self, context: Context) -> Seat | None:
        """A seat for the healthy path; None if the call has to go the whole way."""
        due, end = self._directory.due_ns, context.deadline_ns
        if not self._plain or context.attempt != 1:
            return None
        if (due is not None and clock.now_ns() >= due) or (end is not None and clock.now_ns() >= end):
            return None
        try:
            return self.roster.pick()
        except NoEndpoints:
            return None  # the strategy decides what becomes of that

    def _count(self, seat: Seat) -> None:
        """A healthy call has ended."""
        budget = self._budget
        if budget is not None or seat.member.healths:
            now = clock.now_ns()
            if budget is not None:
                budget.count_quickly(now)
            if seat.member.healths:
                report(seat, Verdict.OK, now)

    async def _after_failure(self, serving: Serving, seat: Seat, error: BaseException) -> Ending:
        """The healthy path has met `error` at `seat`."""
        if self._budget is not None:
            self._budget.count_call(None, clock.now_ns(), None)
        serving.begin(seat, error)
        try:
            if off.everything:
                return None, error
            if not serving.refused(seat, error):
                return await self.strategy.failed(serving, error)
            value, failure = await serving.attempt(refusal=error)
            try:
                return (value, None) if failure is None else await self.strategy.failed(serving, failure)
            finally:
                del failure
        finally:
            del error  # it knows this frame

    # -- everything else ---------------------------------------------------------------------------------------------

    def begin(
        self,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        *,
        is_async: bool,
        terms: Terms | None = None,
    ) -> Serving:
        """A call that has not been made yet."""
        chosen = self._terms if terms is None else terms
        name = self._directory.name
        return Serving(name, self.roster, self._pool, runtime_for(is_async=is_async), chosen, function, args, kwargs)

    async def serve(self, serving: Serving) -> Ending:
        """Make the whole call, with the layers around it; in async, not beyond the deadline of the caller."""
        bound, context = self._bound, CURRENT.get()
        if bound is None or not serving.runtime.is_async or context.deadline_ns is None or ends_this_task(context):
            return await self._serve(serving)
        if self.strategy.answers_late and clock.now_ns() >= context.deadline_ns:
            return await self._serve(serving)  # no attempt is made: `_obstacle` leaves the answer to the strategy
        try:
            return await bound.acall(self._raising, serving), None
        except BaseException as error:  # noqa: BLE001  # travels on as a value
            if self.strategy.answers_late and isinstance(error, DeadlineExceeded):
                return await self.strategy.failed(serving, error)
            return None, error

    async def _serve(self, serving: Serving) -> Ending:
        if self._around is None:
            return await self._inner(serving)
        if serving.runtime.is_async:
            outcome = await self._around.arun(self._raising_inner, serving)
        else:
            outcome = self._around.run(lambda: _end(drive(self._inner(serving))))
        serving.degraded = serving.degraded or outcome.degraded
        try:
            return outcome.value, outcome.error
        finally:
            del outcome  # its error knows this frame

    async def _raising(self, serving: Serving) -> Any:
        return _end(await self._serve(serving))

    async def _raising_inner(self, serving: Serving) -> Any:
        return _end(await self._inner(serving))

    async def _inner(self, serving: Serving) -> Ending:
        try:
            serving.begin_round(await self._obstacle(serving))
            if self._budget is not None:
                self._budget.count_call(None, clock.now_ns(), None)
            if off.everything and not self.strategy.answers_for_all:
                return await serving.attempt()
            return await self.strategy.serve(serving)
        except BaseException as error:  # noqa: BLE001  # travels on as a value
            return None, error

    async def _obstacle(self, serving: Serving) -> Exception | None:
        """Why no attempt can be made: the time is over, or there is no list of endpoints. The strategy decides."""
        directory, end = self._directory, CURRENT.get().deadline_ns
        if end is not None and clock.now_ns() >= end:
            late = "the deadline of the caller passed before an attempt was made"
            return DeadlineExceeded(late, policy=directory.name, inherited=True)
        if directory.members and directory.due_ns is None:
            return None
        try:
            await directory.first_lookup(serving.runtime)
        except (DeadlineExceeded, NoEndpoints) as error:
            return error
        return None

    # -- outcomes ----------------------------------------------------------------------------------------------------

    def run(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Outcome[Any]:
        """One synchronous call, with its end as a value."""
        serving = self.begin(function, args, kwargs, is_async=False)
        return outcome_of(serving, drive(self.serve(serving)))

    async def arun(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Outcome[Any]:
        """One asynchronous call, with its end as a value."""
        serving = self.begin(function, args, kwargs, is_async=True)
        return outcome_of(serving, await self.serve(serving))


def _end(ending: Ending) -> Any:
    """Return the value, or raise the error."""
    value, error = ending
    if error is None:
        return value
    try:
        raise error
    finally:
        del error, ending  # the error knows this frame


def outcome_of(serving: Serving, ending: Ending) -> Outcome[Any]:
    """The end of a call as a value; raises what is no `Exception`."""
    value, error = ending
    if error is not None and not isinstance(error, Exception):
        try:
            raise error
        finally:
            del error, ending
    return Outcome(
        value,
        error,
        attempts=serving.attempts,
        degraded=serving.degraded,
        endpoint=serving.endpoint,
        queued=serving.queued,
    )
