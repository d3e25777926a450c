"""What a strategy is to a cluster: a spec that says what to do about failures, and its live half that does it.

Five strategies make good a failure: they are entered with the first failure in hand (`failed`), and cost a healthy call
nothing. Two are taken before the call, for more safety: they run the whole of it (`serve`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from seawall.policies.layer import Ending
from seawall.policies.spec import Spec

if TYPE_CHECKING:
    from seawall.cluster.ejection import Ejection
    from seawall.cluster.serving import Serving
    from seawall.policies.budget import BudgetMeter

__all__ = ["LiveStrategy", "Strategy"]

D_co = TypeVar("D_co", covariant=True)


class Strategy(Spec, Generic[D_co]):
    """The base of strategies. `D_co` is what one may answer besides the result of the function: `Never` for most."""

    __slots__ = ()

    def live(self, cluster: str) -> LiveStrategy:
        """The strategy at work in the cluster of that name, with a state of its own."""
        raise NotImplementedError(f"{type(self).__name__}.live")


class LiveStrategy:
    """A strategy at work."""

    kind: ClassVar[str]
    forks: ClassVar[bool] = False
    """Whether it is taken before the call, and runs all of it."""
    ejection: Ejection | None = None
    """The rules by which it wants endpoints ejected, if it has its own."""
    strict: ClassVar[bool] = False
    """Whether an ejected endpoint gets no traffic whatever happens."""
    answers_late: ClassVar[bool] = False
    """Whether it answers a call whose deadline has passed."""
    answers_for_all: ClassVar[bool] = False
    """Whether its answer has a form of its own, so that it is made also while Seawall is switched off."""
    budget: BudgetMeter | None = None
    """Counts the calls, of which further attempts are a share."""

    def __init__(self, cluster: str, spec: Strategy[Any]) -> None:
        self.cluster = cluster
        self.spec = spec
        self.name = spec.name

    async def serve(self, call: Serving) -> Ending:
        """Serve the call from its beginning."""
        value, error = await call.attempt()
        try:
            return (value, None) if error is None else await self.failed(call, error)
        finally:
            del error  # it knows this frame

    async def failed(self, call: Serving, error: BaseException) -> Ending:
        """The first attempt has failed with `error`: say how the call ends."""
        return None, error

    def snapshot(self) -> dict[str, Any]:
        """The state as JSON-ready values."""
        return {}

    def explain(self) -> str:
        """A sentence: what it would do about a failure."""
        return ""
