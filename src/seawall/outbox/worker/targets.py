"""Where stored work goes: through a twin of the operation's cluster or policy, as much at once as its target bears.

A twin has the same specs and a state of its own: attempts of a worker must not open the breakers of fresh calls, nor
take their permits or retries. Its strategy is the one that is tried first, since one that queues would queue again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from seawall.errors import SeawallError
from seawall.machines.recovery import Recovery
from seawall.outbox.operations import Operation
from seawall.outbox.worker.pace import Gait, Limits, limits_of
from seawall.policy import Policy

if TYPE_CHECKING:
    from seawall.cluster.cluster import Cluster

__all__ = ["LesserAnswer", "Target", "Targets"]


class LesserAnswer(SeawallError):
    """A fallback answered in place of the work, which therefore is not done."""


class Target:
    """What the work of one or several operations goes through, and how much of it may be under way."""

    def __init__(self, name: str, through: Cluster[Any] | Policy | None, limit: int) -> None:
        self.name = name
        self.through = through
        self.recovery = Recovery(limit)
        self.gait = Gait()
        self.limits = Limits.NONE if through is None else limits_of(through)
        self._twin = None if through is None else _twin_of(through)

    def room(self, now_ns: int) -> int:
        """How many more pieces of work may begin now."""
        return self.gait.room(now_ns, self.recovery.room(now_ns))

    def wait_ns(self, now_ns: int) -> int:
        """How long it takes until something may begin again; 0 if there is nothing to wait for but ends."""
        return max(self.recovery.rest_ns(now_ns), self.gait.wait_ns(now_ns))

    def call(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """One attempt, synchronous. Raises what it fails with."""
        if self._twin is None:
            function(*args, **kwargs)
            return
        self._follow()
        _raise_if_undone(self._twin.run(function, *args, **kwargs))

    async def acall(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """One attempt, asynchronous. Raises what it fails with."""
        if self._twin is None:
            await function(*args, **kwargs)
            return
        self._follow()
        _raise_if_undone(await self._twin.arun(function, *args, **kwargs))

    def _follow(self) -> None:
        """Take over the endpoints of the cluster, where they were changed by hand."""
        if isinstance(self.through, Policy) or self.through is None or isinstance(self._twin, Policy):
            return
        now = self.through.endpoints
        if now and self._twin is not None and now != self._twin.endpoints:
            self._twin.update(now)

    def snapshot(self, now_ns: int) -> dict[str, Any]:
        """How it stands, as JSON-ready values."""
        recovery = self.recovery
        return {
            "target": self.name,
            "running": recovery.running,
            "allowed": recovery.allowed,
            "rests_for": recovery.rest_ns(now_ns) / 1e9,
            "limited_for": self.gait.wait_ns(now_ns) / 1e9,
        }


def _twin_of(through: Cluster[Any] | Policy) -> Any:
    name = f"{through.name} outbox"
    if isinstance(through, Policy):
        return Policy(*through.specs, name=name)
    strategy = through.strategy
    # Told by what only a strategy that queues has; its module imports the cluster's, and this one need not.
    strategy = getattr(strategy, "after", strategy)
    return through.twin(strategy, name=name)


def _raise_if_undone(outcome: Any) -> None:
    error = outcome.error
    if outcome.degraded and error is None:
        error = LesserAnswer("a fallback answered in place of the work, so it is not done")
    try:
        if error is not None:
            raise error
    finally:
        del error, outcome  # the error knows this frame


class Targets:
    """The targets of all operations. Not safe for threads by itself."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._known: dict[object, Target] = {}

    def of(self, operation: Operation) -> Target:
        """The target of an operation: one for all that go through the same cluster or policy, else one of its own."""
        key: object = operation.name if operation.through is None else id(operation.through)
        target = self._known.get(key)
        if target is None or target.through is not operation.through:
            through = operation.through
            name = operation.name if through is None else through.name
            target = self._known[key] = Target(name, cast("Any", through), self._limit)
        return target

    def keep_only(self, operations: list[Operation]) -> None:
        """Forget the targets of operations that are registered no more."""
        if len(self._known) > len(operations):
            kept = {id(self.of(operation)) for operation in operations}
            self._known = {key: target for key, target in self._known.items() if id(target) in kept}

    def all(self) -> list[Target]:
        return list(self._known.values())
