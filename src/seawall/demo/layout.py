"""The plan of the shop, the same for both sides: its services, what they can do, and how long callers wait for them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

Side = Literal["plain", "seawall"]
SIDES: Final[tuple[Side, Side]] = ("plain", "seawall")
Replicas = Mapping[str, Sequence[str]]
"""The addresses of all replicas, by service."""


@dataclass(frozen=True, slots=True)
class Service:
    """One service of the shop; all its replicas are alike."""

    replicas: int
    workers: int
    """How many requests a replica works on at once; it queues the rest."""
    work: float
    """Seconds that one request takes."""
    timeout: float
    """Seconds that a front gives an attempt, on both sides."""
    share: float
    """How many requests the page of an average user needs."""

    @property
    def capacity(self) -> float:
        """Users a second for whom all replicas together can work."""
        return self.replicas * self.workers / self.work / self.share


ORDER_SHARE: Final = 0.3
"""So many of the users buy something; the others look at it."""

SERVICES: Final[Mapping[str, Service]] = {
    "inventory": Service(replicas=3, workers=4, work=0.200, timeout=0.6, share=1.0),
    "payments": Service(replicas=2, workers=3, work=0.100, timeout=0.4, share=ORDER_SHARE),
    "recommendations": Service(replicas=2, workers=4, work=0.050, timeout=0.2, share=1 - ORDER_SHARE),
    "audit": Service(replicas=1, workers=8, work=0.010, timeout=0.2, share=1.0),
}
DISPENSABLE: Final = ("recommendations", "audit")
"""What a page can be shown without."""

CAPACITY: Final = min(service.capacity for service in SERVICES.values())
"""Users a second that the whole shop can serve when nothing is wrong."""
PROCESSES: Final = len(SIDES) * (1 + sum(service.replicas for service in SERVICES.values()))

USER_PATIENCE: Final = 2.0
"""Seconds that a user waits for his page, on both sides."""
ITEMS: Final = 1_000
USERS: Final = 1_000
