"""Forking: one replica in three is slow, and the callers do not notice."""

import asyncio
import time

from seawall import Cluster, Endpoint, Failfast, Forking, RoundRobin, Timeout

prices = Cluster(
    "prices",
    ["http://10.0.4.1:80", "http://10.0.4.2:80", "http://10.0.4.3:80"],
    strategy=Forking(n=2, stagger="10ms"),  # in earnest "p95": the slowest twentieth gets a second call
    each=(Timeout("1s"),),
    balancer=RoundRobin(),
)
PRICES = {"A-7": 7.5}
SLOW = "http://10.0.4.3:80"


async def price(endpoint: Endpoint, sku: str) -> float:
    """Stands for a request to the endpoint."""
    await asyncio.sleep(0.1 if str(endpoint) == SLOW else 0.001)
    return PRICES[sku]


async def slowest(cluster: "Cluster[Forking] | Cluster[Failfast]") -> tuple[float, int]:
    """The longest of nine calls, in seconds, and how many attempts they took together."""
    longest, attempts = 0.0, 0
    for _ in range(9):
        begun = time.perf_counter()
        outcome = await cluster.arun(price, "A-7")
        longest = max(longest, time.perf_counter() - begun)
        attempts += outcome.attempts
    return longest, attempts


async def main() -> None:
    for what, cluster in (("one replica each", prices.using(Failfast())), ("forking", prices)):
        longest, attempts = await slowest(cluster)
        took = "over" if longest > 0.09 else "under"
        print(f"{what}: {attempts} attempts for 9 calls, the slowest took {took} 90 ms")
    print(prices.snapshot()["strategy"])


if __name__ == "__main__":
    asyncio.run(main())
