"""What a store of leases is: who is inside, for each key, and at most so many at a time.

A concurrency limit opens one table. Each step on it is atomic. A lease that is not renewed runs out; a holder is known
by his token alone, so that whoever comes late changes nothing for those who are inside now.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from seawall.stores.decision import Decision, Origin, told

if TYPE_CHECKING:
    from seawall.machines.leases import LeaseRules, Renewed
    from seawall.runtime.protocol import Runtime

__all__ = ["Lease", "LeaseStore", "LeaseTable", "decision_of", "origin_of"]

LIMIT_NAME = "ConcurrencyLimit"


class Lease:
    """What a holder has in hand."""

    __slots__ = ("__weakref__", "asked", "key", "number", "on_server", "token", "until_ns")

    def __init__(self, key: str, number: int, token: bytes = b"") -> None:
        self.key = key
        self.number = number
        """By which this process knows it."""
        self.token = token
        """By which a server knows it."""
        self.asked = False
        """Whether a server may know of it."""
        self.on_server = False
        """Whether one does."""
        self.until_ns: int | None = None
        """Until then it is live for certain, on the clock of this process; None: for as long as somebody holds it."""


class LeaseTable(Protocol):
    """The leases of one concurrency limit."""

    @property
    def every_ns(self) -> int | None:
        """How often a holder has to renew; None: never, it is known here that he lives."""
        ...

    @property
    def hears_of_releases(self) -> bool:
        """Whether all who could leave are in this process. Otherwise whoever waits has to ask again now and then."""
        ...

    async def enter(self, runtime: Runtime, key: str) -> tuple[Decision, Lease | None]:
        """A lease, or None if there is no room. Whoever is cancelled meanwhile has none."""
        ...

    async def renew(self, runtime: Runtime, lease: Lease) -> Renewed:
        """Let it begin anew; one that has run out enters again if there is room."""
        ...

    async def release(self, runtime: Runtime, lease: Lease) -> bool:
        """End it; tells whether it was live. It is done even if the caller is cancelled meanwhile."""
        ...

    async def look(self, runtime: Runtime, key: str) -> Decision:
        """What `enter` would answer."""
        ...

    async def reset(self, runtime: Runtime, key: str) -> None:
        """Forget all leases of a key."""
        ...

    def reconfigure(self, rules: LeaseRules) -> None:
        """Take other numbers; those who are inside stay."""
        ...

    def snapshot(self) -> dict[str, Any]: ...


@runtime_checkable
class LeaseStore(Protocol):
    """A place for tables of leases."""

    def open_leases(self, limiter: str, rules: LeaseRules) -> LeaseTable: ...


def origin_of(limiter: str, rules: LeaseRules) -> Origin:
    """Which limit decisions are about."""
    limit: Any = rules
    return Origin(limiter, LIMIT_NAME, limit)


def decision_of(origin: Origin, live: int, wait_ns: int, rest_ns: int, *, allowed: bool) -> Decision:
    """`live` are inside now, the one who was admitted among them."""
    return told(origin, 1, (origin.limit.capacity - live, wait_ns, rest_ns), allowed=allowed)
