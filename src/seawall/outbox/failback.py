"""`Failback`: when a call fails, its work is stored and done later. (`Fallback`, by contrast, answers at once.)"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from seawall.cluster.broadcast import Broadcast
from seawall.cluster.failover import Failover
from seawall.cluster.failsafe import Failsafe
from seawall.cluster.strategy import LiveStrategy, Strategy
from seawall.context import CURRENT, derive, restore
from seawall.errors import BroadcastError, ConfigError, NotQueued
from seawall.machines.verdict import Verdict
from seawall.outbox.box import Outbox
from seawall.outbox.operations import Operation
from seawall.outbox.record import Queued, Work, error_text
from seawall.outbox.running import Run, running
from seawall.policies.classify import Errors, matcher
from seawall.policies.layer import Ending
from seawall.policies.timeout import Timeout
from seawall.policy import Policy
from seawall.policy.outcome import Outcome
from seawall.runtime import chance, clock
from seawall.units import Duration, duration_ns, given

if TYPE_CHECKING:
    from seawall.cluster.serving import Serving

__all__ = ["Failback"]


class Failback(Strategy[Queued]):
    """Make the call by the strategy `after`; if that fails, store its work and answer `Queued`: a worker does it later.

    For work that may be late but must not be lost: audit entries, notifications, updates of an index. It is done at
    least once, so it must bear being done twice. The function is an operation of the outbox: this is checked, and its
    arguments are encoded, before the first attempt is made. `outcome.queued` tells that the work was stored. If it
    cannot be stored, `NotQueued` is raised from the error of the call.

    Errors of the program and cancellations are not queued, nor errors that are answers (see `Cluster(on=...)`). A
    `Fallback` around the cluster gives another answer *now*; a failback does the same work *later*.

    Args:
        outbox: where the work is stored, and where its operation is registered.
        after: what is tried first. Default `Failover()`. `Failfast()`, `Failsilent()`, `Forking()` do as well.
        on: exception types or a predicate: which errors are worth a later attempt. Default: every `Exception` but
            errors of the program; refusals by guards are among them.
        reserve: how much of the caller's deadline is kept for storing; at most a quarter of it. Default 50 ms.

    Raises:
        ConfigError: a setting is of the wrong kind.

    Example:
        >>> from seawall import Cluster
        >>> from seawall.outbox import Failback, MemoryOutbox
        >>> outbox = MemoryOutbox()
        >>> audit = Cluster("audit", ["http://10.0.0.9:80"], strategy=Failback(outbox))
        >>> down = True
        >>> @outbox.operation("audit.write", through=audit)
        ... def write(endpoint, entry: dict) -> None:
        ...     if down: raise ConnectionRefusedError("the audit is down")
        ...     print("written:", entry)
        >>> queued = audit.call(write, {"user": 7})
        >>> queued.operation, queued.durable
        ('audit.write', False)
        >>> down = False
        >>> import time
        >>> time.sleep(1)
        >>> outbox.worker().drain()
        written: {'user': 7}
        1

    After Dubbo's failback cluster, which keeps what failed in the memory of the caller and loses it with it.
    """

    __slots__ = ("outbox", "after", "on", "reserve")

    outbox: Outbox
    after: Strategy[Any]
    on: Errors
    reserve: Duration

    def __init__(
        self,
        outbox: Outbox,
        *,
        after: Strategy[Any] = Failover(),  # noqa: B008  # a frozen value
        on: Errors = Exception,
        reserve: Duration = "50ms",
        name: str | None = None,
    ) -> None:
        if not isinstance(outbox, Outbox):  # pyright: ignore[reportUnnecessaryIsInstance]  # callers without a type checker
            raise ConfigError(f"{given('Failback(outbox)', outbox)}: expected an outbox, such as MemoryOutbox()")
        _check_after(after)
        matcher(on, "Failback(on)", refusals=True)
        duration_ns(reserve, "Failback(reserve)")
        self._init(name, outbox=outbox, after=after, on=on, reserve=reserve)

    def live(self, cluster: str) -> LiveFailback:
        return LiveFailback(cluster, self)


def _check_after(after: object) -> None:
    shown, hint = given("Failback(after)", after), None
    if not isinstance(after, Strategy):
        hint = "expected a strategy, such as Failover()"
    elif isinstance(after, Failsafe):
        hint = "it never fails, so nothing would ever be queued"
    elif isinstance(after, Broadcast):
        hint = "its work is done at all endpoints; register an operation that broadcasts, and put() that"
    elif isinstance(after, Failback):
        hint = "the inner one would queue the work already"
    if hint is not None:
        raise ConfigError(f"{shown}: {hint}")


class LiveFailback(LiveStrategy):
    """A failback at work."""

    kind = "failback"
    forks = True  # the operation is looked up, and its key set, before the first attempt
    answers_late = True  # work without time for an attempt is stored all the same

    def __init__(self, cluster: str, spec: Failback) -> None:
        super().__init__(cluster, spec)
        self._outbox = spec.outbox
        self._inner = spec.after.live(cluster)
        self.budget = self._inner.budget
        self.ejection = self._inner.ejection
        self.strict = self._inner.strict  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]  # that of the strategy it stands for
        self._means = matcher(spec.on, "Failback(on)", refusals=True)
        self._reserve_ns = duration_ns(spec.reserve, "Failback(reserve)")
        self._bound = Policy(Timeout(None), name=cluster)
        self.queued = self.not_queued = 0

    async def serve(self, call: Serving) -> Ending:
        operation = self._outbox.operations.of(call.function)
        self._check_target(operation)
        work = self._outbox.prepare(operation, call.args, call.kwargs)
        run = Run(id=work.id, operation=work.operation, idempotency_key=work.idempotency_key, attempt=0)
        with running(run):
            value, error = await self._first(call)
        try:
            if error is None or not self._may_be_late(call, error):
                return value, error
            await call.discard((None, error))
            return await self._queue(call, operation, work, error)
        finally:
            del error  # it knows this frame

    def _check_target(self, operation: Operation) -> None:
        through = operation.through
        if through is None or not operation.through_cluster:
            hint = f"register it with through={self.cluster}, so that a worker knows where to send it"
            raise ConfigError(f"{self.cluster}: operation {operation.name!r} goes through no cluster; {hint}")
        if through.name != self.cluster:
            raise ConfigError(
                f"{self.cluster}: operation {operation.name!r} is registered with through={through.name}, so a worker "
                f"would send it there; call it through that cluster"
            )

    async def _first(self, call: Serving) -> Ending:
        """The call by the inner strategy, which ends a little before the caller's deadline, so that there is time to
        store the work."""
        left = call.time_left
        if left is None or left <= 0:
            return await self._inner.serve(call)
        context = CURRENT.get()
        due = clock.now_ns() + left - min(self._reserve_ns, left // 4)
        reset = CURRENT.set(derive(context, deadline_ns=due))
        try:
            if not call.runtime.is_async:
                return await self._inner.serve(call)

            async def serve() -> Any:
                value, error = await self._inner.serve(call)
                try:
                    if error is not None:
                        raise error
                    return value
                finally:
                    del error  # as above

            return _ending_of(await self._bound.arun(serve))
        finally:
            restore(reset)

    def _may_be_late(self, call: Serving, error: BaseException) -> bool:
        """Whether the work is worth a later attempt: it failed, and neither the program nor an answer is to blame."""
        return self._means(error) and not _is_answer(call, error)

    async def _queue(self, call: Serving, operation: Operation, work: Work, error: BaseException) -> Ending:
        now, pause = clock.wall_ns(), operation.schedule.pause_ns(1, chance.random())
        due = min(now + pause, work.expires_ns)
        try:
            queued = await self._outbox.store_work(
                work.replace(due_ns=due, last_error=error_text(error)), call.runtime, error
            )
        except NotQueued as refusal:
            self.not_queued += 1
            return None, refusal
        self.queued += 1
        call.queued = True
        return queued, None

    def snapshot(self) -> dict[str, Any]:
        after = {"kind": self._inner.kind, **self._inner.snapshot()}
        return {"outbox": self._outbox.name, "queued": self.queued, "not_queued": self.not_queued, "after": after}

    def explain(self) -> str:
        where = f"the outbox {self._outbox.name!r}"
        return f"{self._inner.explain()} If that fails, failback stores the work in {where}, to be done later."


def _ending_of(outcome: Outcome[Any]) -> Ending:
    """Apart, since the error knows the frame that waited for it: that must not know the outcome."""
    return outcome.value, outcome.error


def _is_answer(call: Serving, error: BaseException) -> bool:
    """Whether the endpoints answered by this error, so that another attempt would hear it again."""
    if isinstance(error, BroadcastError):
        return False
    if isinstance(error, BaseExceptionGroup):
        group = cast("BaseExceptionGroup[BaseException]", error)
        return all(_is_answer(call, part) for part in group.exceptions)
    return call.read(error).verdict is Verdict.OK
