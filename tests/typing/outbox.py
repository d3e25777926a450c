"""What the outbox and Failback answer, as type checkers must see it. Read by the type checkers, never run."""

from __future__ import annotations

from typing import assert_type

from seawall import Cluster, Endpoint, Failfast, Outcome
from seawall.outbox import (
    Failback,
    MemoryOutbox,
    Outbox,
    Queued,
    Run,
    Stats,
    Store,
    Work,
    Worker,
    current,
    idempotency_key,
)
from seawall.outbox.memory.store import MemoryStore

outbox = MemoryOutbox(backlog=10, when_full="drop-oldest")
audit = Cluster("audit", ["a:80"], strategy=Failback(outbox, after=Failfast()))
assert_type(audit, Cluster[Failback])


@outbox.operation("audit.write", through=audit)
def write(endpoint: Endpoint, entry: str, *, level: int = 0) -> int:
    return 0


def key_of(entry: str) -> str:
    return entry


@outbox.operation("audit.awrite", through=audit, key=key_of, attempts=3, final=ValueError)
async def awrite(endpoint: Endpoint, entry: str) -> None: ...


@outbox.operation("mail.send")
def send(address: str) -> bool:
    return True


# The decorator leaves the function as it is.
assert_type(write(Endpoint("a:80"), "login", level=1), int)
assert_type(send("ann@example.org"), bool)
send(7)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]

assert_type(audit.call(write, "login"), int | Queued)
assert_type(audit.run(write, "login", level=2), Outcome[int | Queued])
audit.call(write)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]

assert_type(outbox.put(send, "ann@example.org"), Queued)
assert_type(outbox.using(delay="1h", priority=9).put(write, "login"), Queued)
assert_type(outbox.stats(), Stats)
assert_type(outbox.worker(), Worker)
assert_type(outbox.worker().drain(), int)
assert_type(current(), Run | None)
assert_type(idempotency_key(), str | None)
store: Store = MemoryStore()
general: Outbox = outbox
records: list[Work] = list(outbox.records("dead"))


async def main() -> None:
    assert_type(await audit.acall(awrite, "login"), Queued | None)
    assert_type(await outbox.aput(awrite, "login"), Queued)
    async with outbox.worker() as worker:
        assert_type(worker, Worker)
    with outbox.worker() as threads:
        assert_type(threads, Worker)
