"""What is decided while the store is out, by `on_outage`: its share, everything, or nothing.

    local    this process keeps to its share of each limit (machines/local_share.py), with states of its own. They are
             kept from one outage to the next, so a store that flaps hands out nothing twice. A process that has never
             seen the store refuses.
    open     everything is admitted.
    closed   everything is refused.

Each decision is counted, and emits `BackendFailed`.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

from seawall import events
from seawall.machines.local_share import LocalShare, share_of
from seawall.runtime import clock
from seawall.stores.decision import Decision, Origin, combined, told
from seawall.stores.memory import MemoryTable
from seawall.stores.protocol import Ask
from seawall.stores.valkey.faults import Outage
from seawall.stores.valkey.standing import Standing

__all__ = ["MODES", "Without"]

MODES = ("local", "open", "closed")
MOST_KEYS = 100_000
SOON_NS = 100_000_000
"""When to ask again, if nothing tells when the store may be back."""


class Without:
    """The decisions of one limiter without its store."""

    def __init__(self, store: str, mode: str, standing: Standing, origins: Mapping[str, Origin]) -> None:
        self._store = store
        self._mode = mode
        self._standing = standing
        self._origins = origins
        self._lock = threading.Lock()
        self._shares: dict[str, Any] = {}
        self._table: MemoryTable | None = None
        self._nodes = 0
        self._since_ns = 0

    def decide(self, ask: Ask, outage: Outage, wait_ns: int) -> Decision:
        """One decision; `wait_ns` is how long the store is left alone."""
        table = self._local(self._standing.begin())
        if table is not None and self._fits(ask.costs):
            return self._tell(self._as_own(table.decide(ask), ask), outage)
        return self._tell(self._flat(ask, wait_ns), outage)

    def hold(self, ask: Ask, lasts_ns: int, outage: Outage, wait_ns: int) -> tuple[Decision, Any]:
        """As `decide`, but set aside."""
        table = self._local(self._standing.begin())
        if table is not None and self._fits(ask.costs):
            decision, held = table.hold_now(ask, lasts_ns)
            return self._tell(self._as_own(decision, ask), outage), None if held is None else (table, held)
        return self._tell(self._flat(ask, wait_ns), outage), None

    def queue_up(self, ask: Ask, most_ns: int | None, outage: Outage, wait_ns: int) -> tuple[Decision, int, Any]:
        """A slot of a leaky bucket: the decision, the wait, and what `leave` wants."""
        table = self._local(self._standing.begin())
        if table is not None and self._fits(ask.costs):
            (cost,) = ask.costs.values()
            decision, wait, slot = table.queue_up(ask.key, cost, most_ns)
            return self._tell(self._as_own(decision, ask), outage), wait, (table, slot)
        return self._tell(self._flat(ask, wait_ns), outage), 0, None

    def change(self, origins: Mapping[str, Origin]) -> None:
        """Other numbers: the states begin anew, without a burst."""
        with self._lock:
            self._origins, self._table = origins, None

    # -- states of its own -------------------------------------------------------------------------------------------

    def _local(self, since_ns: int) -> MemoryTable | None:
        """The states of this process, made for this outage; None if it does not decide by them."""
        if self._mode != "local" or not self._standing.seen:
            return None
        with self._lock:
            nodes = self._standing.nodes if self._since_ns != since_ns or self._table is None else self._nodes
            if self._table is None or nodes != self._nodes:
                self._shares = {name: share_of(origin.limit, nodes, 0) for name, origin in self._origins.items()}
                limits = {name: share for name, share in self._shares.items() if share is not None}
                self._table = MemoryTable("", limits, MOST_KEYS)
                self._nodes, self._since_ns = nodes, -1
            if self._since_ns != since_ns:
                self._since_ns = since_ns
                for share in self._shares.values():
                    if isinstance(share, LocalShare):
                        ahead = clock.wall_ns() - clock.now_ns() if share.civil else 0
                        share.since = since_ns + ahead
            return self._table

    def _fits(self, costs: Mapping[str, int]) -> bool:
        return all(
            self._shares[name] is not None and cost <= self._shares[name].capacity for name, cost in costs.items()
        )

    # -- answers -----------------------------------------------------------------------------------------------------

    def _as_own(self, decision: Decision, ask: Ask) -> Decision:
        """The decision of the share as one of the limit: it bears its name."""
        parts = decision.parts or {decision.name: decision}
        own = {name: self._one(name, ask.costs[name], part) for name, part in parts.items()}
        return combined(own) if len(own) > 1 else next(iter(own.values()))

    def _one(self, name: str, cost: int, part: Decision) -> Decision:
        numbers = (part.remaining, part.retry_after_ns, round(part.reset_after * 1e9))
        return told(self._origins[name], cost, numbers, allowed=part.allowed)

    def _flat(self, ask: Ask, wait_ns: int) -> Decision:
        """Admitted or refused whatever was used."""
        allowed = self._mode == "open"
        wait = max(wait_ns, SOON_NS)
        own = {
            name: told(
                self._origins[name],
                cost,
                (self._origins[name].limit.capacity, 0, 0) if allowed else (0, wait, wait),
                allowed=allowed,
                asked=allowed,
            )
            for name, cost in ask.costs.items()
        }
        return combined(own) if len(own) > 1 else next(iter(own.values()))

    def _tell(self, decision: Decision, outage: Outage) -> Decision:
        self._standing.decide("admitted" if decision.allowed else "refused")
        if events.sinks:
            event = events.BackendFailed(
                policy=decision.limiter,
                layer=self._store,
                mode=self._mode,
                allowed=decision.allowed,
                why=outage.why,
            )
            events.emit(event)
        return decision
