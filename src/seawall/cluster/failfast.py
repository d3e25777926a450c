"""`Failfast`: one attempt, and its error at once."""

from __future__ import annotations

from typing import Never

from seawall.cluster.serving import Serving
from seawall.cluster.strategy import LiveStrategy, Strategy
from seawall.policies.classify import add_note
from seawall.policies.layer import Ending

__all__ = ["Failfast"]


class Failfast(Strategy[Never]):
    """Make one attempt; if it fails, raise its error at once and unchanged, with a note that names the endpoint.

    For calls that must not be repeated, where the caller handles errors. An endpoint whose own guards refuse is no
    attempt: the next one is asked.

    Example:
        >>> from seawall import Cluster, Failfast
        >>> payments = Cluster("payments", ["a:80", "b:80"], strategy=Failfast())
        >>> payments.call(lambda endpoint, order: f"paid {order}", "A-1")
        'paid A-1'

    After Dubbo's failfast cluster.
    """

    __slots__ = ()

    def __init__(self, *, name: str | None = None) -> None:
        self._init(name)

    def live(self, cluster: str) -> LiveFailfast:
        return LiveFailfast(cluster, self)


class LiveFailfast(LiveStrategy):
    """A failfast at work."""

    kind = "failfast"

    async def failed(self, call: Serving, error: BaseException) -> Ending:
        if isinstance(error, Exception) and call.attempts:
            add_note(error, f"seawall: {call.name}: ", f"attempt {call.attempts} at {call.endpoint}")
        return None, error

    def explain(self) -> str:
        return "Failfast: a call is one attempt, and its error is raised at once."
