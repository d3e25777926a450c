"""The front of the shop with Seawall: all its clusters and strategies, and a reason for each setting.

This is the file to read: what is not said here is a default.
"""

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager

from seawall import (
    Bulkhead,
    CircuitBreaker,
    Cluster,
    Ejection,
    Endpoint,
    Failfast,
    Failover,
    Failsafe,
    Failsilent,
    Fallback,
    Policy,
    Timeout,
    same_args,
)
from seawall.demo.client import Answer, Client
from seawall.demo.layout import SERVICES, Replicas
from seawall.demo.page import Page
from seawall.outbox import Failback, MemoryOutbox, Queued

POPULAR: Answer = {"picks": ["popular-1", "popular-2", "popular-3"]}
"""The same for everybody, in place of a personal answer."""


class SeawallFront:
    """The shop as its users see it."""

    def __init__(self, replicas: Replicas, client: Client) -> None:
        self._client = client

        # Reading may be repeated, so what one replica fails another makes good.
        self.inventory = Cluster(
            "inventory",
            replicas["inventory"],
            strategy=Failover(),
            each=(
                CircuitBreaker(open_for="1s"),  # not 30 s: the demo's outages last seconds
                Timeout(SERVICES["inventory"].timeout),  # three times a healthy answer
            ),
            # Not 5 and 30 s: one of three is soon spared, and asking it again costs nobody anything but time.
            ejection=Ejection(consecutive=3, out_for="1s"),
        )

        # A charge that failed may have been made: it is never sent again, and the customer hears it at once.
        self.payments = Cluster(
            "payments",
            replicas["payments"],
            strategy=Failfast(),
            each=(Timeout(SERVICES["payments"].timeout),),  # four times a healthy answer
            ejection=Ejection(consecutive=3),  # not 5: each of them is somebody's order
        )

        # The page is good without it, so nobody waits for replicas that were slow three times running.
        self.recommendations = Cluster(
            "recommendations",
            replicas["recommendations"],
            strategy=Failsilent(Ejection(consecutive=3, out_for="2s")),  # not 5 and 30 s: as above
            each=(Timeout(SERVICES["recommendations"].timeout),),  # four times a healthy answer
            around=(Fallback(POPULAR),),
        )

        # An order must be audited, though not at once: it is queued. In memory, for a demo; in earnest, durably.
        self.outbox = MemoryOutbox(name="audit-outbox")
        self.audit = Cluster(
            "audit",
            replicas["audit"],
            strategy=Failback(self.outbox, after=Failfast()),  # not Failover: there is one replica only
            each=(
                CircuitBreaker(consecutive=5, open_for="500ms"),  # not 30 s: as above
                Timeout(SERVICES["audit"].timeout),  # a page waits for this, so it must not be long
            ),
        )
        # Not 1 s to 15 min: as above.
        self.outbox.operation("audit.order", through=self.audit, base="200ms", cap="1s")(self._write)
        # A view that is not counted is no loss worth an error, nor worth a queue.
        self.view_counts = self.audit.using(Failsafe())

        # Two compartments: however many come to look, there is room for those who buy. Together they hold about twice
        # what the inventory works on at once: beyond that answers come too late, and it is better not to begin.
        self.looking = Policy(
            Fallback(same_args(catalogue_page)),
            Timeout("1.8s"),  # a user waits 2 s: this leaves time to show him the catalogue
            Bulkhead(8, queue=8, max_wait="100ms"),  # a little queue: users come in bunches
            name="looking",
        )
        self.buying = Policy(
            Timeout("1.8s"),
            Bulkhead(16, queue=16, max_wait="300ms"),  # who buys would rather wait
            name="buying",
        )

    # -- pages -----------------------------------------------------------------------------------------------------

    async def view(self, item: int, user: int) -> Page:
        return await self.looking.acall(self._view, item, user)

    async def _view(self, item: int, user: int) -> Page:
        stock = await self.inventory.acall(self._stock, item)
        picked = await self.recommendations.arun(self._picks, user)
        await self.view_counts.acall(self._count, item)
        return Page({"item": stock, "recommended": picked.unwrap()["picks"]}, degraded=picked.degraded)

    async def order(self, item: int, order: str) -> Page:
        return await self.buying.acall(self._order, item, order)

    async def _order(self, item: int, order: str) -> Page:
        stock = await self.inventory.acall(self._stock, item)
        await self.payments.acall(self._charge, order)
        written = await self.audit.acall(self._write, order)
        audit = "queued" if isinstance(written, Queued) else "written"
        return Page({"order": order, "item": stock, "audit": audit})

    # -- one attempt each --------------------------------------------------------------------------------------------

    async def _stock(self, endpoint: Endpoint, item: int) -> Answer:
        return await self._client.get("inventory", f"{endpoint}/items/{item}")

    async def _picks(self, endpoint: Endpoint, user: int) -> Answer:
        return await self._client.get("recommendations", f"{endpoint}/picks/{user}")

    async def _charge(self, endpoint: Endpoint, order: str) -> Answer:
        return await self._client.post("payments", f"{endpoint}/charges/{order}")

    async def _write(self, endpoint: Endpoint, order: str) -> Answer:
        return await self._client.post("audit", f"{endpoint}/orders/{order}")

    async def _count(self, endpoint: Endpoint, item: int) -> Answer:
        return await self._client.post("audit", f"{endpoint}/views/{item}")

    # -- looking after it --------------------------------------------------------------------------------------------

    def at_work(self) -> AbstractAsyncContextManager[object]:
        return self.outbox.worker()

    async def backlog(self) -> int:
        stats = await self.outbox.astats()
        return stats.waiting + stats.leased

    @property
    def parts(
        self,
    ) -> tuple[Cluster[Failover] | Cluster[Failfast] | Cluster[Failsilent] | Cluster[Failback] | Policy, ...]:
        """Everything with a state."""
        return self.looking, self.buying, self.inventory, self.payments, self.recommendations, self.audit

    def explain(self) -> str:
        return "\n\n".join(part.explain() for part in self.parts)

    def snapshot(self) -> Mapping[str, object]:
        return {part.name: part.snapshot() for part in self.parts} | {"outbox": self.outbox.snapshot()}


async def catalogue_page(item: int, user: int) -> Page:  # noqa: ARG001  # it is given the arguments of the call
    """What is known of an item without asking anybody."""
    return Page({"item": {"item": str(item)}, "recommended": POPULAR["picks"]}, degraded=True)
