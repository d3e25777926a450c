"""What the two fronts do about each kind of trouble, in virtual time and without a single process."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from seawall import BulkheadFull, DeadlineExceeded
from seawall.demo.client import Answer, CallFailed, NotReached
from seawall.demo.deeds import DeedCounter
from seawall.demo.front import POPULAR, SeawallFront
from seawall.demo.layout import SERVICES
from seawall.demo.page import Front
from seawall.demo.plain import PlainFront
from seawall.testing import run

REPLICAS = {name: [f"http://{name}-{n}" for n in range(plan.replicas)] for name, plan in SERVICES.items()}
Trouble = Callable[[], Awaitable[None]]


class Services:
    """Stands in for the client and all services: healthy replicas take their time, the others what their trouble is."""

    def __init__(self) -> None:
        self.trouble: dict[str, Trouble] = {}
        self.asked: list[str] = []

    async def get(self, service: str, url: str, timeout: float | None = None) -> Answer:  # noqa: ASYNC109  # as the client has it
        return await self._answer(service, url, timeout)

    async def post(self, service: str, url: str, timeout: float | None = None) -> Answer:  # noqa: ASYNC109  # as the client has it
        return await self._answer(service, url, timeout)

    async def _answer(self, service: str, url: str, timeout: float | None) -> Answer:  # noqa: ASYNC109  # the same
        replica = url.split("/")[2]
        self.asked.append(replica)
        try:
            async with asyncio.timeout(timeout):
                await self.trouble.get(replica, lambda: asyncio.sleep(SERVICES[service].work))()
        except TimeoutError:
            raise CallFailed(service, "no answer in time") from None
        return {"picks": ["picked"], "from": replica}

    def all_of(self, service: str, trouble: Trouble) -> None:
        for number in range(SERVICES[service].replicas):
            self.trouble[f"{service}-{number}"] = trouble

    def count(self, name: str) -> int:
        return sum(replica.startswith(name) for replica in self.asked)


def broken(service: str) -> Trouble:
    async def answers_500() -> None:
        raise CallFailed(service, "answered 500")

    return answers_500


def dead(service: str) -> Trouble:
    async def refuses() -> None:
        raise NotReached(service, "not reached")

    return refuses


async def hangs() -> None:
    await asyncio.sleep(3_600)


def both(services: Services) -> list[Front]:
    return [PlainFront(REPLICAS, services), SeawallFront(REPLICAS, services)]  # type: ignore[arg-type]


def seawall(services: Services) -> SeawallFront:
    return SeawallFront(REPLICAS, services)  # type: ignore[arg-type]


def test_no_setting_of_the_front_works_against_another() -> None:
    for part in seawall(Services()).parts:
        assert part.lint() == []


def test_a_healthy_page_costs_both_fronts_the_same_requests() -> None:
    async def main() -> None:
        for number in (0, 1):
            services = Services()
            front = both(services)[number]
            viewed, bought = await front.view(7, 1), await front.order(7, "healthy-1")
            assert not viewed.degraded and not bought.degraded
            assert viewed.body["recommended"] == ["picked"]
            assert (bought.body["order"], bought.body["audit"]) == ("healthy-1", "written")
            counts = {service: services.count(service) for service in SERVICES}
            assert counts == {"inventory": 2, "payments": 1, "recommendations": 1, "audit": 2}

    run(main)


def test_plain_asks_replicas_in_turn_and_shows_what_fails() -> None:
    async def main() -> None:
        services = Services()
        plain, _ = both(services)
        services.trouble["inventory-1"] = dead("inventory")
        ended: list[str] = []
        for _ in range(6):
            try:
                await plain.view(7, 1)
                ended.append("served")
            except CallFailed as error:
                ended.append(str(error))
        assert ended == ["served", "inventory: not reached", "served"] * 2

    run(main)


@pytest.mark.parametrize("trouble", [dead("inventory"), broken("inventory"), hangs])
def test_one_bad_inventory_replica_is_no_error_and_soon_gets_no_traffic(trouble: Trouble) -> None:
    async def main() -> None:
        services = Services()
        front = seawall(services)
        services.trouble["inventory-1"] = trouble
        for _ in range(40):
            assert not (await front.view(7, 1)).degraded
        assert services.count("inventory-1") <= 3 + 12  # three in a row, then probes: one a second and rarer
        assert front.snapshot()["inventory"]["ejections"] >= 1

    run(main)


def test_a_charge_is_never_sent_twice() -> None:
    async def main() -> None:
        services = Services()
        front = seawall(services)
        services.all_of("payments", broken("payments"))
        with pytest.raises(CallFailed, match="payments: answered 500"):
            await front.order(7, "x-1")
        services.all_of("payments", hangs)
        with pytest.raises(DeadlineExceeded):
            await front.order(7, "x-2")
        assert services.count("payments") == 2
        assert services.count("audit") == 0

    run(main)


def test_orders_are_audited_when_audit_is_back_and_views_are_not_missed() -> None:
    async def main() -> None:
        services, counter = Services(), DeedCounter()
        front = seawall(services)
        services.trouble["audit-0"] = dead("audit")
        async with front.at_work():
            for number in range(3):
                assert (await front.order(7, f"x-{number}")).body["audit"] == "queued"
            assert not (await front.view(7, 1)).degraded
            assert await front.backlog() == 3
            del services.trouble["audit-0"]
            await asyncio.sleep(60)
            assert await front.backlog() == 0
        assert counter.counts["audit-outbox"] == {"queued": 3, "delivered": 3}
        assert counter.counts["audit"]["failed safe"] == 1

    run(main)


def test_slow_recommendations_are_replaced_and_soon_not_waited_for() -> None:
    async def main() -> None:
        services = Services()
        front = seawall(services)
        services.all_of("recommendations", hangs)
        loop = asyncio.get_running_loop()
        waits: list[float] = []
        for _ in range(8):
            began = loop.time()
            page = await front.view(7, 1)
            assert page.degraded and page.body["recommended"] == POPULAR["picks"]
            assert page.body["item"]["from"].startswith("inventory")  # not the catalogue's
            waits.append(loop.time() - began)
        healthy = SERVICES["inventory"].work + SERVICES["audit"].work
        assert waits[0] == pytest.approx(healthy + SERVICES["recommendations"].timeout)
        assert waits[-1] == pytest.approx(healthy)
        assert services.count("recommendations") == 6  # three at each replica

    run(main)


def test_a_full_shop_shows_lookers_the_catalogue_and_turns_buyers_away_before_they_pay() -> None:
    async def main() -> None:
        services = Services()
        front = seawall(services)
        lookers = [asyncio.ensure_future(front.view(7, user)) for user in range(60)]
        buyers = [asyncio.ensure_future(front.order(7, f"x-{number}")) for number in range(60)]
        pages = await asyncio.gather(*lookers)
        ended = await asyncio.gather(*buyers, return_exceptions=True)
        served, refused = (
            [page for page in pages if not page.degraded],
            [end for end in ended if isinstance(end, BaseException)],
        )
        assert 8 <= len(served) < 60
        assert refused and all(isinstance(error, BulkheadFull) for error in refused)
        assert services.count("payments") == 60 - len(refused) >= 16

    run(main)


def test_lookers_take_no_room_from_buyers() -> None:
    async def main() -> None:
        front = seawall(Services())
        lookers = [asyncio.ensure_future(front.view(7, user)) for user in range(200)]
        await asyncio.sleep(0.05)
        bought = await asyncio.gather(*(front.order(7, f"x-{number}") for number in range(16)))
        assert len(bought) == 16
        await asyncio.gather(*lookers)

    run(main)
