"""`Failsafe`: when the attempt fails, note it and answer with a default."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, cast, overload

from seawall import events
from seawall.cluster.reading import is_programming
from seawall.cluster.serving import Serving
from seawall.cluster.strategy import LiveStrategy, Strategy
from seawall.errors import ConfigError
from seawall.machines.verdict import Verdict
from seawall.policies.layer import Ending

__all__ = ["Failsafe"]

D_co = TypeVar("D_co", covariant=True)
T = TypeVar("T")


class Failsafe(Strategy[D_co]):
    """Make one attempt; if it fails, the error is recorded (an event, a count) and `default` is the answer.

    For side calls: audit, logs, metrics. A call that hangs is not safe: give the endpoints a `Timeout` (`lint` asks for
    one). Errors of the program are not hidden. `outcome.degraded` tells that the answer is the default.

    Args:
        default: the answer, or a function of the error that gives it (async ones work in async calls). Default None.

    Raises:
        ConfigError: `default` is a class.

    Example:
        >>> from seawall import Cluster, Failsafe
        >>> def note(endpoint, entry): raise ConnectionError("the audit is down")
        >>> audit = Cluster("audit", ["a:80"], strategy=Failsafe(default=False))
        >>> audit.call(note, "login")
        False

    After Dubbo's failsafe cluster.
    """

    __slots__ = ("default",)

    default: D_co | Callable[[Exception], D_co]

    @overload
    def __init__(self: Failsafe[None], *, name: str | None = None) -> None: ...
    @overload
    def __init__(
        self: Failsafe[T], default: Callable[[Exception], Awaitable[T]], *, name: str | None = None
    ) -> None: ...
    @overload
    def __init__(self: Failsafe[T], default: Callable[[Exception], T], *, name: str | None = None) -> None: ...
    @overload
    def __init__(self: Failsafe[T], default: T, *, name: str | None = None) -> None: ...
    def __init__(self, default: Any = None, *, name: str | None = None) -> None:
        if isinstance(default, type):
            raise ConfigError(
                f"Failsafe(default={default!r}): a class would be called with the error; give a value or a function"
            )
        self._init(name, default=default)

    def __eq__(self, other: object) -> bool:
        # Equal strategies share their state; but who asks for 0 must not get another's False.
        mine, theirs = cast("Any", self), cast("Any", other)
        return super().__eq__(other) and type(mine.default) is type(theirs.default)

    def __hash__(self) -> int:
        return super().__hash__()

    def live(self, cluster: str) -> LiveFailsafe:
        return LiveFailsafe(cluster, self)


class LiveFailsafe(LiveStrategy):
    """A failsafe at work."""

    kind = "failsafe"
    answers_late = True

    def __init__(self, cluster: str, spec: Failsafe[Any]) -> None:
        super().__init__(cluster, spec)
        self._default = spec.default
        self.saved = 0

    async def failed(self, call: Serving, error: BaseException) -> Ending:
        if not isinstance(error, Exception) or not self._saves(call, error):
            return None, error
        self.saved += 1
        if events.sinks:
            events.emit(events.FailedSafe(policy=call.name, layer=self.name, error=error))
        try:
            answer = self._default(error) if callable(self._default) else self._default
            if hasattr(answer, "__await__"):
                answer = await self._awaited(call, answer)
        finally:
            await call.discard((None, error))  # not before the default has read what the error holds
        call.degraded = True
        return answer, None

    @staticmethod
    def _saves(call: Serving, error: Exception) -> bool:
        """Whether the default is an answer to it: not if it is one itself, nor to errors of the program."""
        reading = call.read(error)
        if reading.verdict is Verdict.OK:
            return False
        return reading.again or not is_programming(error)

    async def _awaited(self, call: Serving, answer: Any) -> Any:
        if call.runtime.is_async:
            return await answer
        if hasattr(answer, "close"):
            answer.close()
        raise ConfigError(f"{call.name}: an async default answers async calls only; this call is synchronous")

    def snapshot(self) -> dict[str, Any]:
        return {"saved": self.saved}

    def explain(self) -> str:
        return f"Failsafe: an error is recorded ({self.saved} so far) and the default is the answer."
