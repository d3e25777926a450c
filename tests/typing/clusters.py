"""What the strategies answer, as type checkers must see it."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from typing import Any, assert_type

from seawall import (
    Broadcast,
    Cluster,
    Endpoint,
    Failfast,
    Failover,
    Failsafe,
    Failsilent,
    Forking,
    Outcome,
)


def level(endpoint: Endpoint, sku: str, *, fresh: bool = False) -> int:
    return 0


async def alevel(endpoint: Endpoint, sku: str, *, fresh: bool = False) -> int:
    return 0


def in_words(error: Exception) -> str:
    return str(error)


plain = Cluster("plain", ["a:80"])
assert_type(plain, Cluster[Failover])
over = Cluster("over", ["a:80"], strategy=Failover(retries=1))
fast = Cluster("fast", ["a:80"], strategy=Failfast())
silent = Cluster("silent", ["a:80"], strategy=Failsilent())
forked = Cluster("forked", ["a:80"], strategy=Forking(stagger="50ms"))
told = Cluster("told", ["a:80"], strategy=Broadcast())
safe_value = Cluster("safe", ["a:80"], strategy=Failsafe("none"))
safe_function = Cluster("safe", ["a:80"], strategy=Failsafe(in_words))
safe_none = Cluster("safe", ["a:80"], strategy=Failsafe())

assert_type(plain.call(level, "A-7"), int)
assert_type(over.call(level, "A-7", fresh=True), int)
assert_type(fast.call(level, "A-7"), int)
assert_type(silent.call(level, "A-7"), int)
assert_type(forked.call(level, "A-7"), int)
assert_type(told.call(level, "A-7"), Mapping[Endpoint, int])
assert_type(safe_value.call(level, "A-7"), int | str)
assert_type(safe_function.call(level, "A-7"), int | str)
assert_type(safe_none.call(level, "A-7"), int | None)
assert_type(plain.using(Failsafe(0.5)).call(level, "A-7"), int | float)
assert_type(plain.broadcast(level, "A-7"), Mapping[Endpoint, int])
assert_type(plain.run(level, "A-7"), Outcome[int])
assert_type(safe_none.run(level, "A-7"), Outcome[int | None])


async def main() -> None:
    assert_type(await plain.acall(alevel, "A-7"), int)
    assert_type(await forked.acall(alevel, "A-7", fresh=True), int)
    assert_type(await told.acall(alevel, "A-7"), Mapping[Endpoint, int])
    assert_type(await safe_value.acall(alevel, "A-7"), int | str)
    assert_type(await plain.abroadcast(alevel, "A-7"), Mapping[Endpoint, int])
    assert_type(await safe_none.arun(alevel, "A-7"), Outcome[int | None])


@plain
def decorated(endpoint: Endpoint, sku: str) -> int:
    return 0


@safe_value
async def adecorated(endpoint: Endpoint, sku: str) -> int:
    return 0


assert_type(decorated("A-7"), int)
wanted: Callable[[str], Coroutine[Any, Any, int | str]] = adecorated

plain.call(level)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
