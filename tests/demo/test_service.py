"""A replica answers as its mode says, and no process of the shop answers anybody but this machine."""

import asyncio
import json
from collections.abc import Awaitable, Callable

import aiohttp
import pytest
from aiohttp import web

from seawall.demo import ledger
from seawall.demo.client import CallFailed, Client, NotReached, session
from seawall.demo.door import Door
from seawall.demo.layout import SERVICES
from seawall.demo.ledger import Ledger
from seawall.demo.lifeline import application
from seawall.demo.page import Page
from seawall.demo.plain import PlainFront
from seawall.demo.service import Replica


async def serving(app: web.Application, use: Callable[[aiohttp.ClientSession, str], Awaitable[None]]) -> None:
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        async with session() as http:
            await use(http, f"http://127.0.0.1:{runner.addresses[0][1]}")
    finally:
        await runner.cleanup()


def with_replica(service: str, use: Callable[[aiohttp.ClientSession, str, Ledger], Awaitable[None]]) -> None:
    books = Ledger()

    async def main() -> None:
        replica = Replica(service, "1", books.fileno)
        app = application()
        app.router.add_put("/mode/{mode}", replica.set_mode)
        app.router.add_route("*", "/{what}/{subject}", replica.answer)
        await serving(app, lambda http, url: use(http, url, books))

    try:
        asyncio.run(main())
    finally:
        books.close()


def test_errors_come_by_their_rate_and_a_healthy_replica_has_none() -> None:
    async def use(http: aiohttp.ClientSession, url: str, books: Ledger) -> None:
        client = Client(http)

        async def ask() -> str:
            try:
                await client.post("audit", f"{url}/views/7")
            except CallFailed as error:
                return str(error)
            return "served"

        assert set(await asyncio.gather(*(ask() for _ in range(50)))) == {"served"}
        await http.put(f"{url}/mode/errors")
        ended = await asyncio.gather(*(ask() for _ in range(200)))
        assert 30 <= ended.count("audit: answered 500") <= 90  # 60 expected, deviation 6.5
        assert client.sent == {"audit": 250}

    with_replica("audit", use)


def test_a_replica_that_hangs_or_is_slow_is_given_up_and_one_that_heals_answers() -> None:
    async def use(http: aiohttp.ClientSession, url: str, books: Ledger) -> None:
        client = Client(http)
        for mode in ("hang", "slow"):
            await http.put(f"{url}/mode/{mode}")
            with pytest.raises(CallFailed, match="recommendations: no answer in time"):
                await client.get("recommendations", f"{url}/picks/7", timeout=0.1)
        await http.put(f"{url}/mode/healthy")
        assert len((await client.get("recommendations", f"{url}/picks/7", timeout=5))["picks"]) == 3

    with_replica("recommendations", use)


def test_a_mode_that_does_not_exist_is_refused() -> None:
    async def use(http: aiohttp.ClientSession, url: str, books: Ledger) -> None:
        async with http.put(f"{url}/mode/burn") as reply:
            assert reply.status == 400
            assert "healthy, errors, hang, slow" in (await reply.json())["error"]

    with_replica("inventory", use)


@pytest.mark.parametrize(
    ("service", "what", "entry"), [("payments", "charges", "charged"), ("audit", "orders", "audited")]
)
def test_what_is_done_for_an_order_stands_in_the_ledger(service: str, what: str, entry: ledger.Entry) -> None:
    async def use(http: aiohttp.ClientSession, url: str, books: Ledger) -> None:
        await Client(http).post(service, f"{url}/{what}/killed-1")
        async with http.post(f"{url}/{what}/killed-2%0Acharged%20x") as reply:
            assert reply.status == 400
        assert books.orders(entry, "") == {"killed-1"}

    with_replica(service, use)


def test_nobody_is_asked_where_nobody_listens() -> None:
    async def main() -> None:
        async with session() as http:
            with pytest.raises(NotReached, match="payments: not reached") as caught:
                await Client(http).post("payments", "http://127.0.0.1:9/charges/x")
            assert isinstance(caught.value, ConnectionRefusedError)
            assert (caught.value.service, caught.value.why) == ("payments", "not reached")

    asyncio.run(main())


def test_an_answer_that_breaks_off_or_is_no_json_is_a_failed_call() -> None:
    async def close(request: web.Request) -> web.Response:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    async def garbage(request: web.Request) -> web.Response:
        return web.Response(text="{", content_type="application/json")

    async def use(http: aiohttp.ClientSession, url: str) -> None:
        for path in ("close", "garbage"):
            with pytest.raises(CallFailed, match="audit: broke off"):
                await Client(http).post("audit", f"{url}/{path}")

    app = application()
    app.router.add_post("/close", close)
    app.router.add_post("/garbage", garbage)
    asyncio.run(serving(app, use))


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", ""])
def test_a_page_on_the_web_cannot_reach_the_shop_by_a_name_of_its_own(host: str) -> None:
    async def use(http: aiohttp.ClientSession, url: str, books: Ledger) -> None:
        async with http.put(f"{url}/mode/hang", headers={"Host": host}) as reply:
            assert reply.status in (400, 403)
        assert await Client(http).get("inventory", f"{url}/items/7", timeout=5)

    with_replica("inventory", use)


def door_to(
    view: Callable[[int, int], Awaitable[Page]], use: Callable[[aiohttp.ClientSession, str], Awaitable[None]]
) -> None:
    async def main() -> None:
        async with session() as inside:
            client = Client(inside)
            front = PlainFront({name: ["http://127.0.0.1:9"] for name in SERVICES}, client)
            front.view = view  # type: ignore[method-assign, assignment]
            door, app = Door(front, client), application()
            app.router.add_get(r"/items/{item:[0-9]{1,9}}", door.view)
            app.router.add_post(r"/orders/{item:[0-9]{1,9}}", door.order)
            app.router.add_get("/stats", door.stats)
            await serving(app, use)

    asyncio.run(main())


def test_the_door_shows_pages_errors_and_faults_for_what_they_are() -> None:
    async def view(item: int, user: int) -> Page:
        if item == 1:
            return Page({"item": user}, degraded=True)
        raise LookupError("nobody expected this")

    async def use(http: aiohttp.ClientSession, url: str) -> None:
        async def get(path: str, method: str = "GET") -> tuple[int, object]:
            async with http.request(method, url + path) as reply:
                return reply.status, json.loads(await reply.read())

        assert await get("/items/1?user=5") == (200, {"item": 5, "degraded": True})
        assert await get("/items/2") == (500, {"error": "LookupError: nobody expected this"})
        assert (await get("/items/1?user=x"))[0] == 400
        assert (await get("/orders/1?order=a%0Ab", "POST"))[0] == 400
        assert await get("/orders/1?order=a-1", "POST") == (502, {"error": "inventory: not reached"})
        status, stats = await get("/stats")
        assert status == 200
        assert isinstance(stats, dict) and stats["sent"] == {"inventory": 1}

    door_to(view, use)
