"""`Failsilent`: endpoints that keep timing out get no traffic for a while."""

from __future__ import annotations

from typing import Any, Never

from seawall.cluster.ejection import Ejection
from seawall.cluster.failfast import LiveFailfast
from seawall.cluster.strategy import Strategy
from seawall.errors import ConfigError

__all__ = ["Failsilent"]


class Failsilent(Strategy[Never]):
    """Make one attempt, at an endpoint that is not silent; when all are silent, fail at once and send nothing.

    An endpoint is silenced by the rules of `ejection`, without its limits: any number may be silent. Then the call
    fails with `NoEndpoints`, whose `retry_after` says when the first may be asked again; a probe ends the silence. For
    services that time out often, where waiting again and again would hurt more than the part that is unavailable.

    Args:
        ejection: when an endpoint falls silent, and for how long. Default `Ejection()`: 5 failures in a row, or half of
            at least 20 in 30 s; 30 s and more.

    Raises:
        ConfigError: not an `Ejection`.

    Example:
        >>> from seawall import Cluster, Ejection, Failsilent, NoEndpoints
        >>> maps = Cluster("maps", ["a:80"], strategy=Failsilent(Ejection(consecutive=1)))
        >>> def slow(endpoint): raise TimeoutError("no answer")
        >>> for call in range(2):
        ...     try: maps.call(slow)
        ...     except (TimeoutError, NoEndpoints) as error: print(type(error).__name__)
        TimeoutError
        NoEndpoints
    """

    __slots__ = ("ejection",)

    ejection: Ejection

    def __init__(self, ejection: Ejection = Ejection(), *, name: str | None = None) -> None:  # noqa: B008  # a frozen value
        if not isinstance(ejection, Ejection):  # pyright: ignore[reportUnnecessaryIsInstance]  # callers without a type checker
            raise ConfigError(f"Failsilent(ejection={ejection!r}): expected Ejection(...)")
        self._init(name, ejection=ejection)

    def live(self, cluster: str) -> LiveFailsilent:
        return LiveFailsilent(cluster, self)


class LiveFailsilent(LiveFailfast):
    """A failsilent at work: a failfast among those who are not silent."""

    kind = "failsilent"
    strict = True

    def __init__(self, cluster: str, spec: Failsilent) -> None:
        super().__init__(cluster, spec)
        self.ejection = spec.ejection

    def snapshot(self) -> dict[str, Any]:
        return {}

    def explain(self) -> str:
        return "Failsilent: silent endpoints get no traffic; when all are silent, a call fails at once."
