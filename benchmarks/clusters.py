"""Section `cluster`: what choosing an endpoint, its health and the strategy add to a call of the endpoint's policy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from .measure import Effort, Subject, async_timings, sync_timings
from .settings import ANSWER, LIMIT, SECONDS
from .tables import Table, compared

BARE = "policy call"
BARE_AWAIT = "policy await"
FEW, MANY = 3, 500

Make = Callable[[], Callable[[], Any]]


def here(endpoint: object) -> int:
    """The payload: a function of the endpoint."""
    return ANSWER


async def ahere(endpoint: object) -> int:
    """The payload of the async tables."""
    return ANSWER


def _each() -> tuple[Any, ...]:
    from seawall import Bulkhead, CircuitBreaker

    return (CircuitBreaker(), Bulkhead(LIMIT))


def _policy(*, is_async: bool) -> Make:
    def make() -> Callable[[], Any]:
        from seawall import Endpoint, Policy

        policy = Policy(*_each(), name="benchmark")
        if is_async:
            return partial(policy.acall, ahere, Endpoint("a:80"))
        return partial(policy.call, here, Endpoint("a:80"))

    return make


def _cluster(strategy: str, *, is_async: bool, size: int = FEW, **settings: Any) -> Make:
    def make() -> Callable[[], Any]:
        import seawall

        settings_now = {name: getattr(seawall, value)() for name, value in settings.items()}
        chosen = getattr(seawall, strategy)()
        endpoints = [f"h{number}:80" for number in range(size)]
        cluster: Any = seawall.Cluster("benchmark", endpoints, strategy=chosen, each=_each(), **settings_now)
        for address in endpoints:
            # The first call at an endpoint puts its frame together: that is not what is measured.
            getattr(cluster[address], "acall" if is_async else "call")
        if strategy == "Broadcast":
            call = partial(cluster.acall if is_async else cluster.call, ahere if is_async else here)
            return _first_answer(call, is_async=is_async)
        return partial(cluster.acall, ahere) if is_async else partial(cluster.call, here)

    return make


def _first_answer(call: Callable[[], Any], *, is_async: bool) -> Callable[[], Any]:
    def sync() -> Any:
        return next(iter(call().values()))

    async def aio() -> Any:
        return next(iter((await call()).values()))

    return aio if is_async else sync


def _under_deadline(make: Make) -> Make:
    def made() -> Callable[[], Any]:
        from seawall import deadline

        call = make()

        async def limited() -> Any:
            with deadline(SECONDS):
                return await call()

        return limited

    return made


def _subjects(*, is_async: bool) -> list[Subject]:
    rows: Sequence[tuple[str, Make, str]] = [
        ("failover", _cluster("Failover", is_async=is_async), "counts the call for its budget"),
        ("failfast", _cluster("Failfast", is_async=is_async), ""),
        ("failover, ejection", _cluster("Failover", is_async=is_async, ejection="Ejection"), ""),
        ("failover, round robin", _cluster("Failover", is_async=is_async, balancer="RoundRobin"), ""),
        (f"failover, {MANY} endpoints", _cluster("Failover", is_async=is_async, size=MANY), ""),
    ]
    bare = Subject(BARE_AWAIT if is_async else BARE, _policy(is_async=is_async), role="bare")
    subjects = [bare, *(Subject(name, make, role="ours", note=note) for name, make, note in rows)]
    if is_async:
        failover, policy = _cluster("Failover", is_async=True), _policy(is_async=True)
        subjects += [
            Subject("policy, under a deadline", _under_deadline(policy), role="ours", note="carried, not enforced"),
            Subject("failover, under a deadline", _under_deadline(failover), role="ours", note="enforced"),
            Subject("forking to 2", _cluster("Forking", is_async=True), role="ours", note="two tasks"),
            Subject(f"broadcast to {FEW}", _cluster("Broadcast", is_async=True), role="ours", note="three tasks"),
        ]
    return subjects


def cluster(effort: Effort) -> list[Table]:
    """A healthy call through breaker and bulkhead of the chosen endpoint, beside the same policy alone."""
    title = "Cluster, breaker and bulkhead for each endpoint"
    in_sync = compared(sync_timings(_subjects(is_async=False), effort))
    in_async = compared(async_timings(_subjects(is_async=True), effort))
    return [
        Table("cluster sync", f"{title}, sync", in_sync, bare=BARE),
        Table("cluster async", f"{title}, async", in_async, bare=BARE_AWAIT),
    ]
