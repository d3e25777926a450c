"""Where a worker's records come from: leases of its store, probes, and what is given back untouched."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from seawall.machines.backoff import Backoff
from seawall.outbox.store import Lease, OpenStore
from seawall.outbox.worker.reports import Reports
from seawall.runtime import chance

if TYPE_CHECKING:
    from seawall.outbox.box import Outbox

__all__ = ["Supply"]

SECOND = 1_000_000_000
SAMPLE = 64
"""Among how many records a probe is chosen."""
STORE_PAUSES = Backoff(SECOND, 2.0, 30 * SECOND)


class Supply:
    """What one run of a worker takes from its store."""

    def __init__(self, box: Outbox, store: OpenStore, reports: Reports, lease_ns: int) -> None:
        self._box = box
        self._store = store
        self._reports = reports
        self._lease_ns = lease_ns
        self.troubles = 0
        """How often in a row the store, or a limiter, could not be asked."""
        self.answers = True
        """Whether the store did, when it was last asked for work or for its counts."""

    async def lease(self, n: int, skip: Collection[str]) -> tuple[Sequence[Lease], int | None]:
        """As the store's, but a store that is down is no reason to stop working: it is asked again after a pause."""
        try:
            leased = await self._store.lease(n, self._lease_ns, skip)
        except Exception as error:  # noqa: BLE001  # as the docstring says
            self.answers = False
            return (), self.trouble("lease", error)
        self.troubles = 0
        self.answers = True
        return leased

    async def sample(self, wanted: Collection[str], skip: Collection[str]) -> tuple[Sequence[Lease], int | None]:
        """One record of these operations, that tells most of their targets: of those due, the newest of the least
        attempted. The others keep their places."""
        others = {operation.name for operation in self._box.operations.all()} - set(wanted)
        leases, hint = await self.lease(SAMPLE, {*skip, *others})
        # What no program here knows may be among them.
        found = [lease for lease in leases if lease.work.operation in wanted]
        best = min(found, key=lambda lease: (lease.work.attempts, -lease.work.created_ns), default=None)
        await self.put_all_back([lease for lease in leases if lease is not best], best)
        return [] if best is None else [best], hint

    async def put_all_back(self, leases: Sequence[Lease], kept: Lease | None = None) -> None:
        """With `kept`, which is to be started then, if this is cancelled."""
        begun = 0
        try:
            for lease in leases:
                begun += 1
                await self._reports.put_back(lease)
        except GeneratorExit:
            raise  # nothing can be awaited any more; the leases run out
        except BaseException:
            for lease in [*leases[begun:], *([] if kept is None else [kept])]:
                await self._reports.put_back(lease)
            raise

    def trouble(self, step: str, error: Exception) -> int:
        """Something could not be asked; after how long it is worth trying again."""
        self._reports.failed(step, error)
        self.troubles += 1
        return STORE_PAUSES.pause_ns(self.troubles, chance.random())
