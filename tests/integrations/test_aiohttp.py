"""The middleware for aiohttp: how a request is made anew for an endpoint, and what is refused when it is made."""

from __future__ import annotations

import asyncio
import io
from contextlib import nullcontext
from typing import Any
from unittest.mock import Mock

import pytest
from aiohttp import ClientRequest, InvalidURL, ServerTimeoutError, StreamReader
from yarl import URL

from seawall import (
    Broadcast,
    Cluster,
    ConfigError,
    Criticality,
    DeadlineExceeded,
    Endpoint,
    Failsafe,
    Registry,
    criticality,
    deadline,
)
from seawall.http import outward_headers
from seawall.http.exchange import Exchange
from seawall.integrations.aiohttp import Middleware
from seawall.integrations.aiohttp._middleware import AIOHTTP
from seawall.integrations.aiohttp._requests import outgoing
from seawall.integrations.aiohttp._responses import bound
from seawall.testing import run


def made(url: str, endpoint: Endpoint, *, forks: bool = False, **options: Any) -> tuple[Any, Any]:
    """A request of a session, and the same as it goes to an endpoint."""

    async def main() -> tuple[Any, Any]:
        method = options.pop("method", "GET")
        request = ClientRequest(method, URL(url), loop=asyncio.get_running_loop(), **options)
        return request, outgoing(request, endpoint, outward_headers(), forks=forks)[0]

    return asyncio.run(main())


@pytest.mark.parametrize(
    ("url", "address", "sent"),
    [
        ("http://shop/items/7?q=a%20b&q=c#x", "http://10.0.0.1:80", "http://10.0.0.1/items/7?q=a%20b&q=c"),
        ("http://shop", "http://10.0.0.1:8080", "http://10.0.0.1:8080/"),
        ("http://shop/a%2Fb/", "https://10.0.0.1/v1/", "https://10.0.0.1/v1/a%2Fb/"),
        ("http://shop:99/x", "10.0.0.1:8080", "http://10.0.0.1:8080/x"),
        ("http://shop/x", "http://[::1]:8080", "http://[::1]:8080/x"),
    ],
)
def test_the_url_is_that_of_the_endpoint(url: str, address: str, sent: str) -> None:
    before, after = made(url, Endpoint(address))
    assert str(after.url) == sent
    assert str(after.original_url) == str(URL(url)), "the sender's own URL stays"
    assert str(before.url) == str(URL(url).with_fragment(None)), "and so does his request"
    assert after.headers["Host"] == URL(sent).host_port_subcomponent


def test_the_name_of_an_endpoint_is_its_host_and_what_tls_checks() -> None:
    _, after = made("http://shop/", Endpoint("https://10.0.0.1:8443", host="inventory.internal"))
    assert (after.headers["Host"], after.server_hostname) == ("inventory.internal:8443", "inventory.internal")
    assert after.is_ssl()


def test_what_the_user_wrote_stays() -> None:
    endpoint = Endpoint("https://10.0.0.1", host="inventory.internal")
    headers = [("Host", "tenant.example"), ("X-Many", "1"), ("X-Many", "2")]
    _, after = made("http://shop/", endpoint, headers=headers, server_hostname="x.example")
    assert (after.headers["Host"], after.server_hostname) == ("tenant.example", "x.example")
    assert after.headers.getall("X-Many") == ["1", "2"]


def test_the_context_goes_out_in_place_of_what_came_in() -> None:
    headers = {"seawall-criticality": "CRITICAL_PLUS", "Seawall_Attempt": "7", "SEAWALL-DEADLINE": "1"}
    with criticality(Criticality.SHEDDABLE):
        before, after = made("http://shop/", Endpoint("http://10.0.0.1"), headers=headers)
    ours = {name.lower(): value for name, value in after.headers.items() if "seawall" in name.lower()}
    assert ours == {"seawall-criticality": "SHEDDABLE", "seawall-attempt": "1"}
    assert before.headers["Seawall_Attempt"] == "7"


def test_each_attempt_waits_for_its_own_word_of_the_server() -> None:
    before, after = made("http://shop/", Endpoint("http://10.0.0.1"), method="POST", data=b"x", expect100=True)
    assert before._continue is not None and after._continue is not before._continue


def test_the_body_is_the_same() -> None:
    for data in (b"x", io.BytesIO(b"x"), {"a": "b"}):
        before, after = made("http://shop/", Endpoint("http://10.0.0.1"), method="POST", data=data)
        assert after.body is before.body


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"clusters": "shop"}, r"^Middleware\(clusters='shop'\)"),
        ({"max_body": 0}, r"^Middleware\(max_body=0\)"),
        (
            {"clusters": Cluster("shop", ["http://10.0.0.1"], strategy=Broadcast(), names=Registry())},
            "^shop: Broadcast",
        ),
        (
            {"clusters": Cluster("shop", ["http://10.0.0.1"], strategy=Failsafe(), names=Registry())},
            "default of Failsafe",
        ),
        ({"clusters": Cluster("shop", ["ftp://10.0.0.1"], names=Registry())}, "base URL"),
    ],
)
def test_a_wrong_setting_is_refused_by_name(bad: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Middleware(**bad)


@pytest.mark.parametrize(
    ("patience", "inherited", "policy"), [(None, False, "shop"), ("1h", False, "shop"), ("500ms", True, "")]
)
def test_a_body_that_hangs_is_the_replicas_fault_unless_the_callers_time_is_over(
    patience: str | None, inherited: bool, policy: str
) -> None:
    async def main() -> BaseException | None:
        loop = asyncio.get_running_loop()
        content = StreamReader(Mock(), 2**16, loop=loop)
        response = Mock(status=200, closed=False, content=content)
        with nullcontext() if patience is None else deadline(patience):
            exchange = Exchange(
                Cluster("shop", ["http://10.0.0.1"], names=Registry()),
                AIOHTTP,
                "GET",
                "http://shop/",
                (),
                body=b"",
                replayable=lambda: True,
                forkable=True,
            )
            with deadline("1s"):
                bound(response, exchange.body_due_ns, None, exchange.body_late)
        with pytest.raises(ServerTimeoutError):
            await content.read()
        assert response.close.called
        return content.exception()

    error = run(main)
    assert isinstance(error, DeadlineExceeded)
    assert (error.inherited, error.policy) == (inherited, policy)


@pytest.mark.parametrize("address", ["http://10.0.0.1:80", "10.0.0.1:443"])
def test_a_request_for_https_never_leaves_in_clear_text(address: str) -> None:
    cluster: Cluster[Any] = Cluster("shop", [address, "http://10.0.0.2"], names=Registry())

    async def handler(request: ClientRequest) -> Any:
        raise AssertionError("it was sent")

    async def main() -> None:
        request = ClientRequest("GET", URL("https://shop/items/7"), loop=asyncio.get_running_loop())
        with pytest.raises(InvalidURL, match="shop: https was asked for, and .* would be sent it in clear text"):
            await Middleware(cluster)(request, handler)

    asyncio.run(main())
