"""`Timeout`: an end to waiting, for one attempt inside a retry or for the whole call outside it."""

from __future__ import annotations

from collections.abc import Sequence
from contextvars import Token
from typing import TYPE_CHECKING, Any

from seawall import events
from seawall.context import CURRENT, Context, restore
from seawall.errors import DeadlineExceeded
from seawall.policies.layer import Again, Call, Ending, Lane, Live, Site
from seawall.policies.spec import Spec
from seawall.runtime import clock
from seawall.units import Duration, duration_ns, show_seconds

if TYPE_CHECKING:
    from seawall.runtime.deadlines import Deadlines

__all__ = ["Timeout", "TimeoutDriver"]


class Timeout(Spec):
    """End the call after `time` with `DeadlineExceeded` (a `TimeoutError`). A nearer deadline of the caller counts too.

    In async the task is cancelled inside the function, and the cancellation becomes the error: a call ends within
    the time, if the function lets itself be cancelled. What it returns in the same instant is kept.

    In sync nothing can interrupt a thread: the timeout is a deadline, which every wait of Seawall,
    `Bulkhead(threads=True)`, and transports of `seawall.integrations` obey, and which a function can ask for by
    `seawall.remaining()`. A result that comes late is a result all the same.

    Args:
        time: a duration. 0 fails at once, without a call. None sets no limit of its own and obeys only the caller's.

    Raises:
        ConfigError: not a duration (NaN is none: asyncio would take it for "no timeout").

    Example:
        >>> import asyncio
        >>> from seawall import Policy, Timeout, DeadlineExceeded
        >>> quick = Policy(Timeout("50ms"), name="quick")
        >>> @quick
        ... async def nap(): await asyncio.sleep(10)
        >>> try: asyncio.run(nap())
        ... except DeadlineExceeded as error: print(error)
        quick: no answer within 50 ms
    """

    __slots__ = ("time",)

    time: Duration | None

    def __init__(self, time: Duration | None, *, name: str | None = None) -> None:
        if time is not None:
            duration_ns(time, "Timeout(time)")
        self._init(name, time=time)

    def bind(self, site: Site) -> Sequence[Live]:
        return (TimeoutDriver(site, self),)


class Watch(Context):
    """One synchronous call under a deadline; it is the context of that call as well."""

    __slots__ = ("own", "reset")

    own: bool
    """Whether the layer's limit is the nearer one, not the caller's deadline."""
    reset: Token[Context]


class TimeoutDriver(Live):
    """A timeout at work."""

    kind = "timeout"
    is_guard = False

    def __init__(self, site: Site, spec: Timeout) -> None:
        super().__init__(site, spec)
        self.time_ns = None if spec.time is None else duration_ns(spec.time, "time")
        self._deadlines: Deadlines | None = None
        self.timed_out = 0
        self.late = 0
        """Results of synchronous calls that came after the time was over."""

    def lane(self, *, is_async: bool) -> Lane:
        if self.shadow:
            return Lane(lambda: clock.now_ns(), self._look_back)  # noqa: PLW0108  # looked up at each call
        if is_async:
            from seawall.runtime.deadlines import Deadlines  # noqa: PLC0415  # asyncio, not before the first async use

            if self._deadlines is None:
                self._deadlines = Deadlines(self.time_ns, self._expired)
            return Lane(self._deadlines.enter, self._deadlines.leave)
        return Lane(self._enter, self._leave)

    def _enter(self) -> Watch:
        now, outer = clock.now_ns(), CURRENT.get()
        limit, inherited = self.time_ns, outer.deadline_ns
        watch = Watch()
        watch.own = limit is not None and (inherited is None or now + limit <= inherited)
        watch.deadline_ns = due = inherited if limit is None or not watch.own else now + limit
        if due is not None and due <= now:
            raise self._expired(inherited=not watch.own)
        watch.criticality = outer.criticality
        watch.attempt = outer.attempt
        watch.operation = outer.operation
        watch.reset = CURRENT.set(watch)
        return watch

    def _leave(self, watch: Watch, now_ns: int, result: object) -> None:
        restore(watch.reset)
        if watch.own and now_ns >= (watch.deadline_ns or 0):
            self.late += 1

    async def failed(self, call: Call, token: Any, error: BaseException, again: Again) -> Ending:
        if self.shadow:
            self._look_back(token, clock.now_ns(), None)
            return None, error
        if call.runtime.is_async and self._deadlines is not None:
            error = self._deadlines.end(token, error)
        else:
            restore(token.reset)
        inherited = isinstance(error, DeadlineExceeded) and error.inherited
        if token.own and inherited and clock.now_ns() >= (token.deadline_ns or 0):
            # Whoever waited inside (a transport, a pool of threads) saw only a deadline; it was this layer's own.
            mine = self._expired(inherited=False)
            mine.__cause__ = error
            return None, mine
        return None, error

    def _expired(self, *, inherited: bool) -> DeadlineExceeded:
        self.timed_out += 1
        time = (self.time_ns or 0) / 1e9
        if events.sinks:
            events.emit(events.TimedOut(policy=self.policy, layer=self.name, timeout=time, inherited=inherited))
        detail = (
            "the deadline of the caller passed" if inherited else f"no answer within {show_seconds(self.time_ns or 0)}"
        )
        return DeadlineExceeded(detail, policy=self.policy, timeout=time, inherited=inherited)

    def _look_back(self, started_ns: int, now_ns: int, result: object) -> None:
        """Shadow: say what would have been ended."""
        if self.time_ns is not None and now_ns - started_ns > self.time_ns:
            self.timed_out += 1
            if events.sinks:
                time = self.time_ns / 1e9
                events.emit(
                    events.TimedOut(policy=self.policy, layer=self.name, timeout=time, inherited=False, shadow=True)
                )

    def snapshot(self) -> dict[str, Any]:
        return {
            "timeout": None if self.time_ns is None else self.time_ns / 1e9,
            "timed_out": self.timed_out,
            "late": self.late,
        }

    def explain(self) -> str:
        if self.time_ns is None:
            return "The timeout has no limit of its own; a deadline of the caller holds."
        return f"The timeout gives what lies inside it {show_seconds(self.time_ns)}."
