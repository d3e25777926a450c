"""A real cluster of three, with a replica for each, and real sentinels: keys find their server, before and after it changes."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from typing import Any

import pytest
import redis

from seawall import ConcurrencyLimit, ConfigError, LeakyBucket, Limiter, SlidingWindow, TokenBucket, Valkey
from tests.valkey.conftest import Make
from tests.valkey.servers import Server, until

pytestmark = pytest.mark.once

NODES = 3


class Cluster:
    """Three primaries, and three replicas."""

    def __init__(self) -> None:
        options = (
            "--cluster-enabled",
            "yes",
            "--cluster-node-timeout",
            "500",
            "--cluster-replica-validity-factor",
            "0",
        )
        with ThreadPoolExecutor(6) as pool:
            self.servers = list(pool.map(lambda _: Server(*options), range(2 * NODES)))
        try:
            self.join()
        except BaseException:
            self.close()
            raise

    def join(self) -> None:
        first = self.servers[0]
        for other in self.servers[1:]:
            first.do("CLUSTER", "MEET", "127.0.0.1", other.port)
        per = 16_384 // NODES
        for number, server in enumerate(self.servers[:NODES]):
            last = 16_383 if number == NODES - 1 else (number + 1) * per - 1
            server.do("CLUSTER", "ADDSLOTSRANGE", number * per, last)
        until(lambda: all(self.known(server) == 2 * NODES for server in self.servers), "all know each other")
        for primary, replica in zip(self.servers[:NODES], self.servers[NODES:], strict=True):
            name = primary.do("CLUSTER", "MYID")
            until(lambda replica=replica, name=name: replica.do("CLUSTER", "REPLICATE", name), "a replica")
        until(lambda: all(self.info(server)["cluster_state"] == "ok" for server in self.servers), "the cluster is well")
        until(lambda: all(self.in_step(server) for server in self.servers[NODES:]), "the replicas are in step")

    def in_step(self, replica: Server) -> bool:
        return bool(replica.do("INFO", "replication").get("master_link_status") == "up")

    def known(self, server: Server) -> int:
        return int(self.info(server)["cluster_known_nodes"])

    def info(self, server: Server) -> dict[str, str]:
        text = server.do("CLUSTER", "INFO")
        found = text if isinstance(text, dict) else dict(line.split(":") for line in text.decode().split())
        return {str(name): str(value) for name, value in found.items()}

    @property
    def url(self) -> str:
        return "valkey+cluster://" + ",".join(server.address for server in self.servers[:NODES])

    def close(self) -> None:
        for server in self.servers:
            server.close()


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    made = Cluster()
    yield made
    made.close()


def stats_of(server: Server) -> dict[str, Any]:
    client = server.client()
    try:
        found: Any = client.info("commandstats")
        return dict(found)
    finally:
        client.close()


USERS = [f"user {number}" for number in range(60)]


def test_keys_of_a_cluster_are_asked_of_their_servers(cluster: Cluster, store: Make) -> None:
    limits = {"a": TokenBucket("2/h"), "b": SlidingWindow("3/h")}
    limiter, other = (Limiter(limits, name="spread", store=store(cluster.url)) for _ in range(2))

    async def main() -> list[bool]:
        first = await asyncio.gather(*(limiter.ahit(user) for user in USERS))
        return [bool(decision) for decision in first]

    assert all(asyncio.run(main()))
    assert all(other.hit(user) for user in USERS)
    assert not any(limiter.hit(user) for user in USERS)
    with limiter.reserve("holder", {"b": 2}) as held:
        assert limiter.peek("holder", 0).parts["b"].remaining == 1
        held.cancel()
    served = [stats_of(server) for server in cluster.servers[:NODES]]
    assert all("cmdstat_evalsha" in stats for stats in served), "each server had its part"


def test_slots_of_a_cluster_are_counted_on_their_servers(cluster: Cluster, store: Make) -> None:
    limit, other = (ConcurrencyLimit(1, name="spread slots", store=store(cluster.url)) for _ in range(2))

    async def enter(stack: AsyncExitStack, user: str) -> None:
        await stack.enter_async_context(limit.slot(user))

    async def main() -> None:
        async with AsyncExitStack() as stack:
            await asyncio.gather(*(enter(stack, user) for user in USERS))
            assert not any([await other.apeek(user) for user in USERS])
        assert all([await other.apeek(user) for user in USERS])

    asyncio.run(main())
    with other.slot(USERS[0]):
        assert not limit.peek(USERS[0])


def test_a_ready_client_of_a_cluster_leads_to_it(cluster: Cluster, store: Make) -> None:
    first = cluster.servers[0]
    client = redis.RedisCluster(host="127.0.0.1", port=first.port)
    try:
        limiter = Limiter(TokenBucket("1/h"), name="ready", store=store(client))
        assert all(limiter.hit(user) for user in USERS[:9])
    finally:
        client.close()


def test_a_cluster_asked_as_a_single_server_is_an_error_that_says_what_to_write(cluster: Cluster, store: Make) -> None:
    limiter = Limiter(TokenBucket("9/h"), name="single", store=store(cluster.servers[0].url, on_outage="open"))
    with pytest.raises(Exception, match=r"valkey\+cluster://"):
        for user in USERS:
            limiter.hit(user)


def keys_on(server: Server, pattern: str) -> list[bytes]:
    found: list[bytes] = server.do("KEYS", pattern)
    return found


def test_slots_that_move_are_followed_and_nothing_is_counted_twice(cluster: Cluster, store: Make) -> None:
    limiter = Limiter(LeakyBucket("1/h", queue=9), name="moving", store=store(cluster.url, prefix="moving"))
    assert limiter.hit("ann")
    primaries = cluster.servers[:NODES]
    source = next(server for server in primaries if keys_on(server, "moving:*:leaky_bucket:*"))
    target = next(server for server in primaries if server is not source)
    (key,) = keys_on(source, "moving:*:leaky_bucket:*")
    slot = source.do("CLUSTER", "KEYSLOT", key)
    ids = {server: server.do("CLUSTER", "MYID") for server in (source, target)}
    target.do("CLUSTER", "SETSLOT", slot, "IMPORTING", ids[source])
    source.do("CLUSTER", "SETSLOT", slot, "MIGRATING", ids[target])
    source.do("MIGRATE", "127.0.0.1", target.port, key, 0, 5_000)
    asked = limiter.peek("ann")
    assert not asked and 3_000 < asked.retry_after <= 3_600, "ASK: the key is there already, the slot is not"
    for server in (target, source):
        server.do("CLUSTER", "SETSLOT", slot, "NODE", ids[target])
    assert not limiter.peek("ann"), "MOVED"
    assert not limiter.peek("ann")


def test_a_dead_server_of_a_cluster_takes_only_its_keys_with_it_until_its_replica_is_promoted(
    cluster: Cluster, store: Make
) -> None:
    short = store(cluster.url, on_outage="closed", connect_timeout="300ms", timeout="300ms")
    limiter = Limiter(TokenBucket("1000/h"), name="dead", store=short)
    assert all(limiter.hit(user) for user in USERS)
    cluster.servers[2].kill()
    found = [bool(limiter.hit(user)) for user in USERS]
    assert any(found) and not all(found)
    until(lambda: all(limiter.hit(user) for user in USERS), "its replica has taken over", 20)
    counted = [limiter.peek(user, 0).remaining for user in USERS]
    assert all(remaining < 999 for remaining in counted), "the replica knew what was used"


# -- sentinels ------------------------------------------------------------------------------------------------------------


class Watched:
    """A primary, a replica, and three sentinels."""

    def __init__(self) -> None:
        self.primary, self.replica = Server(), Server()
        self.replica.do("REPLICAOF", "127.0.0.1", self.primary.port)
        config = (
            f"sentinel monitor main 127.0.0.1 {self.primary.port} 2\n"
            "sentinel down-after-milliseconds main 500\nsentinel failover-timeout main 2000\n"
        )
        self.sentinels = [Server(sentinel=config) for _ in range(3)]
        try:
            until(lambda: all(self.sees(sentinel) for sentinel in self.sentinels), "the sentinels see each other")
        except BaseException:
            self.close()
            raise

    def sees(self, sentinel: Server) -> bool:
        client = sentinel.client()
        try:
            state: Any = client.sentinel_master("main")
            return (state["num-other-sentinels"], state["num-slaves"]) == (2, 1)
        finally:
            client.close()

    @property
    def url(self) -> str:
        return "valkey+sentinel://" + ",".join(each.address for each in self.sentinels) + "/main"

    def close(self) -> None:
        for server in (self.primary, self.replica, *self.sentinels):
            server.close()


@pytest.fixture
def watched() -> Iterator[Watched]:
    made = Watched()
    yield made
    made.close()


def test_sentinels_name_the_server_before_and_after_a_failover(watched: Watched, store: Make) -> None:
    short: Valkey = store(watched.url, on_outage="closed", connect_timeout="300ms", timeout="300ms")
    limiter = Limiter(TokenBucket("1000/h"), name="watched", store=short)
    assert limiter.hit("ann", 400)
    watched.primary.wait_for(watched.replica)
    watched.sentinels[0].kill()
    assert limiter.hit("ann", 100), "the other sentinels suffice, and the one that is known already"
    watched.primary.wait_for(watched.replica)
    watched.primary.kill()
    assert not limiter.hit("ann")
    decision = until(lambda: limiter.hit("ann"), "the replica is promoted", 20)
    assert decision.remaining <= 500

    async def main() -> bool:
        return bool(await limiter.ahit("ann"))

    assert asyncio.run(main())


def test_a_service_that_no_sentinel_knows_is_an_outage(watched: Watched, store: Make) -> None:
    wrong = store(watched.url.replace("/main", "/other"), on_outage="closed", timeout="200ms")
    assert not Limiter(TokenBucket("1/h"), name="wrong", store=wrong).hit("ann")


@pytest.mark.parametrize(
    "url",
    [
        "valkey+sentinel://127.0.0.1",
        "valkey+cluster://127.0.0.1/3",
        "valkey://a,b",
        "http://127.0.0.1",
        "valkey://",
        "valkey://host:port",
        "unix://",
        "valkey://127.0.0.1?socket_timeout=9",
        "valkey://127.0.0.1?ssl_ca_certs=x",
    ],
)
def test_a_url_that_leads_nowhere_is_refused_and_not_shown_with_its_password(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Valkey(url.replace("://", "://user:hidden@"))
    assert "hidden" not in str(caught.value)
