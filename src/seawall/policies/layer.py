"""What a layer is to the chain: a way in, two ways out, and what it does about a failure.

The healthy call goes `enter` -> the rest -> `leave`, layer by layer: the *lane*. A layer may offer its lane also as
lines of source (`Fast`), which the frame of a policy takes in. When anything goes wrong, the layers are asked with the
error in hand, innermost first: a *guard* only takes `note` of it; a *driver* says by `failed` how the call ends, for
which it may try `again` what lies inside it, or answer with a value instead. Results travel as `(value, None)` or
`(None, error)`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any, ClassVar

from seawall import events
from seawall.errors import UnwantedResult
from seawall.record import Record

if TYPE_CHECKING:
    from seawall.policies.spec import Spec
    from seawall.runtime.protocol import Runtime

__all__ = ["Again", "Call", "Ending", "Fast", "Lane", "Live", "MustWait", "Site", "Unwanted"]

Ending = tuple[Any, BaseException | None]
"""`(value, None)` or `(None, error)`."""
Again = Callable[[], Awaitable[Ending]]
"""Runs what lies inside a driver once more."""


class Fast(Record):
    """The same steps as lines of source for the healthy frame, where no lock is needed for them.

    In the lines `$t` is the token, `$name` stands for `names["name"]`; on the way out `now` and `result` are at hand.
    A line that is in trouble calls back into the layer. Only steps that the interpreter makes atomic may change
    shared state.
    """

    enter: tuple[str, ...] = ()
    leave: tuple[str, ...] = ()
    names: dict[str, Any] = {}  # noqa: RUF012  # a default that nobody changes


class Lane(Record):
    """The steps by which a call passes a layer: safe for threads by themselves.

    `enter()` returns a token or raises; with `takes_call` it is given the arguments of the call. `leave(token,
    now_ns, result)` is called after a success.
    """

    enter: Callable[..., Any] | None = None
    leave: Callable[[Any, int, Any], object] | None = None
    takes_call: bool = False
    fast: Fast | None = None


class Site(Record):
    """Where a spec is bound: the policy's name, and whether it only watches."""

    policy: str
    shadow: bool


class Call:
    """One call that needs more than the healthy frame."""

    __slots__ = ("args", "attempts", "degraded", "function", "job", "kwargs", "leaf", "runtime")

    def __init__(
        self, runtime: Runtime, function: Callable[..., Any] | None, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        self.runtime = runtime
        self.function = function
        self.args = args
        self.kwargs = kwargs
        self.attempts = 0
        self.degraded = False
        self.job: Any = None
        """The thread job that serves the attempt, if a bulkhead with threads does."""
        self.leaf: Callable[[Call], Coroutine[Any, Any, Ending]]


class MustWait(Exception):  # a signal from `enter`, never seen by users
    """Raised by `enter` of a guard that would rather wait than refuse."""


class Unwanted(UnwantedResult):
    """Raised on the way out by a driver that does not accept the result."""


class Live:
    """A layer at work in a policy. Subclasses are the live halves of the specs."""

    kind: str
    is_guard: ClassVar[bool] = True
    undoable: ClassVar[bool] = True
    """Whether a guard is undone and entered again while one further inside waits; else it stays entered."""
    wraps: ClassVar[bool] = False
    """Whether it runs what lies inside by `around`, instead of being entered and left."""
    by_hand: ClassVar[bool] = True
    """Whether `policy[...]` finds it."""
    repeats: ClassVar[bool] = False
    """Whether it may run what lies inside more than once."""
    replaces: ClassVar[bool] = False
    """Whether it may answer with a value of its own."""

    def __init__(self, site: Site, spec: Spec) -> None:
        self.spec = spec
        self.policy = site.policy
        self.shadow = site.shadow
        self.name = spec.name
        self.fused = not self.wraps
        """Whether the healthy frame can hold this layer."""

    def lane(self, *, is_async: bool) -> Lane:
        """The steps of the healthy path."""
        return Lane()

    def note(self, call: Call, token: Any, error: BaseException) -> None:
        """What lies inside has failed with `error`: settle the token (guards)."""

    async def failed(self, call: Call, token: Any, error: BaseException, again: Again) -> Ending:
        """What lies inside has failed with `error`: say how the call ends (drivers)."""
        return None, error

    async def around(self, call: Call, again: Again) -> Ending:
        """Run what lies inside, for layers that wrap it."""
        return await again()

    def undo(self, token: Any) -> None:
        """Give the token back as if nothing had been asked (guards)."""

    async def wait(self, call: Call) -> Any:
        """Wait until admission and return the token (guards whose `enter` raises `MustWait`)."""
        raise AssertionError("this guard does not wait")

    def check(self, *, is_async: bool) -> None:
        """Raise `ConfigError` if the layer cannot work in this kind of call."""

    @property
    def judges_results(self) -> bool:
        """Whether it looks at what the function returns, which a block does not do."""
        return False

    @property
    def refuses(self) -> bool:
        """Whether the next call would be refused here, as things stand."""
        return False

    @property
    def busy(self) -> bool:
        """Whether dropping this layer now would lose something that matters (`for_key` keeps such policies)."""
        return False

    def snapshot(self) -> dict[str, Any]:
        """The state as JSON-ready values."""
        return {}

    def explain(self) -> str:
        """A sentence: what it would do to the next call, and why."""
        return ""

    def emit_refused(self, reason: str, *, shadow: bool = False) -> None:
        """Tell that a call was refused; with `shadow`, or in a policy that only watches, that it would have been."""
        if events.sinks:
            watched = shadow or self.shadow
            events.emit(events.CallRefused(policy=self.policy, layer=self.name, reason=reason, shadow=watched))
