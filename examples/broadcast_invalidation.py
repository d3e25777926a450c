"""Broadcast: drop a key from the caches of all replicas, and know which of them have not done it."""

import asyncio

from seawall import Broadcast, BroadcastError, Cluster, Endpoint, Timeout

caches = Cluster(
    "caches",
    ["http://10.0.5.1:80", "http://10.0.5.2:80", "http://10.0.5.3:80"],
    strategy=Broadcast(),
    each=(Timeout("50ms"),),  # so that one that hangs does not hold all the others
)
hanging = {"http://10.0.5.2:80"}


async def drop(endpoint: Endpoint, key: str) -> str:
    """Stands for a request to the endpoint."""
    await asyncio.sleep(1 if str(endpoint) in hanging else 0.001)
    return f"dropped {key}"


async def main() -> None:
    try:
        await caches.acall(drop, "sku:A-7")
    except BroadcastError as error:
        print(error)
        print("done:", sorted(str(endpoint) for endpoint in error.succeeded))
        print("not done:", sorted(str(endpoint) for endpoint in error.failed))

    enough = await caches.using(Broadcast("majority")).acall(drop, "sku:A-7")
    print(f"a majority will do: {len(enough)} of {len(caches.endpoints)}")

    hanging.clear()
    everywhere = await caches.acall(drop, "sku:A-7")
    print(f"the second time: {len(everywhere)} of {len(caches.endpoints)}")


if __name__ == "__main__":
    asyncio.run(main())
