"""A real server with a real limit: who paces himself gets no 429, and who does not, does; with each of five clients."""

from __future__ import annotations

import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from seawall import Cluster, Failfast, RateLimited, Registry, deadline
from tests.process_http.clients import CLIENTS, Client, Server

PAGES = 12
"""The server gives five in a second."""


def refused(server: Server, caller: str) -> int:
    with urllib.request.urlopen(f"{server.url}/refused/{caller}", timeout=10) as answer:
        return int(answer.read())


def scrape(client: Client, server: Server, family: str, *, pace: bool, through_cluster: bool) -> tuple[int, float]:
    """Fetch all pages, one after the other; how many requests were refused, and how many seconds it took."""
    cluster: Cluster[Any] = Cluster("shop", [server.url], strategy=Failfast(), names=Registry())
    caller = f"{client}-{family}-{pace}-{through_cluster}"
    base = "http://shop" if through_cluster else server.url
    began = time.monotonic()
    client.fetch(cluster, f"/limited/{caller}/{family}", times=PAGES, pace=pace, base=base)
    return refused(server, caller), time.monotonic() - began


@pytest.mark.parametrize(("family", "through_cluster"), [("draft", True), ("older", False), ("epoch", False)])
def test_the_scraper_that_is_refused_otherwise_is_not_when_it_paces_itself(
    family: str, through_cluster: bool, server: Server
) -> None:
    def both(client: Client) -> tuple[int, int, float]:
        # The second of the clock may change once while it runs through: two times five are given at most.
        plain, _ = scrape(client, server, family, pace=False, through_cluster=through_cluster)
        polite, took = scrape(client, server, family, pace=True, through_cluster=through_cluster)
        return plain, polite, took

    with ThreadPoolExecutor(len(CLIENTS)) as threads:
        found = dict(zip(map(repr, CLIENTS), threads.map(both, CLIENTS), strict=True))
    assert {name: polite for name, (_, polite, _) in found.items()} == dict.fromkeys(found, 0)
    assert all(plain > 0 for plain, _, _ in found.values()), found
    assert all(took < 8 for _, _, took in found.values()), found


@pytest.mark.parametrize("client", CLIENTS, ids=repr)
@pytest.mark.parametrize("through_cluster", [True, False])
def test_who_has_no_time_to_wait_is_refused_in_words_that_his_client_knows(
    client: Client, through_cluster: bool, server: Server
) -> None:
    cluster: Cluster[Any] = Cluster("shop", [server.url], strategy=Failfast(), names=Registry())
    caller = f"{client}-hurried-{through_cluster}"
    base = "http://shop" if through_cluster else server.url
    path = f"/limited/{caller}/draft"
    with pytest.raises(RateLimited) as caught:
        client.fetch(cluster, path, times=PAGES, pace=True, base=base, around=lambda: deadline("150ms"))
    assert isinstance(caught.value, client.errors)
    assert caught.value.retry_after is not None
    assert 0.1 < caught.value.retry_after <= 1
    assert refused(server, caller) == 0
