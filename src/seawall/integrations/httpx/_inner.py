"""What both kinds of transports are made with: the clusters, and the transports that do the sending."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from seawall.errors import ConfigError
from seawall.http.names import Clusters, Names
from seawall.http.pacing import Pace, pace_of
from seawall.integrations.httpx._kit import PACKAGES, Kit, kit_named
from seawall.units import count_of, given

if TYPE_CHECKING:
    from seawall.cluster import Cluster

__all__ = ["Settings"]

LARGEST = 1 << 50


class Settings:
    """The settings of a transport, checked; and its inner transports, one for each package it is used with."""

    def __init__(
        self,
        owner: str,
        clusters: Clusters | None,
        inner: Any,
        max_body: int | None,
        pace: Pace | bool,
        *,
        method: str,
        make: Callable[[Kit], Any],
    ) -> None:
        self._names = Names(clusters, f"{owner}(clusters)")
        self.most = None if max_body is None else count_of(max_body, f"{owner}(max_body)", most=LARGEST)
        self.pace = pace_of(pace, f"{owner}(pace)")
        if inner is not None and not callable(getattr(inner, method, None)):
            raise ConfigError(f"{given(f'{owner}(inner)', inner)}: expected a transport with {method}()")
        self.given = inner
        self._make = make
        self._made: dict[str, Any] = {}
        imported = [name for name in PACKAGES if name in sys.modules]
        if inner is None and len(imported) == 1:
            # Reading the certificates takes its time, which the first request should not spend.
            self.inner(kit_named(imported[0]))

    def cluster_of(self, request: Any) -> Cluster[Any] | None:
        """The cluster that serves the host of a request."""
        return self._names.find(request.url.host)

    def inner(self, kit: Kit) -> Any:
        """The transport that sends for a package."""
        if self.given is not None:
            return self.given
        made = self._made.get(kit.name)
        if made is None:
            made = self._made.setdefault(kit.name, self._make(kit))
        return made

    @property
    def made(self) -> list[Any]:
        """The transports that were made here, and have to be closed here."""
        return list(self._made.values())
