"""Seawall keeps Python services standing when the services they call fail and when traffic surges."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from seawall import errors, events
from seawall.context import Context, Criticality, carry, criticality, current, deadline, operation, remaining
from seawall.errors import (
    BackendUnavailable,
    BroadcastError,
    BudgetSpent,
    BulkheadFull,
    CircuitOpen,
    ConfigError,
    DeadlineExceeded,
    Degraded,
    NoEndpoints,
    NotQueued,
    RateLimited,
    Rejected,
    SeawallError,
    UnwantedResult,
)
from seawall.policies.budget import RetryBudget
from seawall.policies.bulkhead import Bulkhead
from seawall.policies.circuit_breaker import CircuitBreaker
from seawall.policies.fallback import Fallback, same_args
from seawall.policies.hedge import Hedge
from seawall.policies.keyed import Per
from seawall.policies.registry import Registry, registry
from seawall.policies.retry import Retry
from seawall.policies.switch import Switch
from seawall.policies.timeout import Timeout
from seawall.policy import Policy
from seawall.policy.outcome import Outcome
from seawall.runtime.off import disable, enable

if TYPE_CHECKING:
    from seawall.cluster import (
        Broadcast,
        Cluster,
        Dns,
        Ejection,
        Endpoint,
        Failfast,
        Failover,
        Failsafe,
        Failsilent,
        File,
        Forking,
        Lookup,
        PowerOfTwo,
        Random,
        RoundRobin,
    )
    from seawall.limiter import (
        Concurrency,
        ConcurrencyLimit,
        FixedWindow,
        LeakyBucket,
        Limiter,
        RateLimit,
        Rule,
        Rules,
        SlidingLog,
        SlidingWindow,
        TokenBucket,
    )
    from seawall.outbox import Failback, MemoryOutbox, Queued
    from seawall.stores.decision import Decision
    from seawall.stores.memory import Memory
    from seawall.stores.valkey import Valkey

__all__ = [
    "BackendUnavailable",
    "Broadcast",
    "BroadcastError",
    "BudgetSpent",
    "Bulkhead",
    "BulkheadFull",
    "CircuitBreaker",
    "CircuitOpen",
    "Cluster",
    "Concurrency",
    "ConcurrencyLimit",
    "ConfigError",
    "Context",
    "Criticality",
    "DeadlineExceeded",
    "Decision",
    "Degraded",
    "Dns",
    "Ejection",
    "Endpoint",
    "Failback",
    "Failfast",
    "Failover",
    "Failsafe",
    "Failsilent",
    "Fallback",
    "File",
    "FixedWindow",
    "Forking",
    "Hedge",
    "LeakyBucket",
    "Limiter",
    "Lookup",
    "Memory",
    "MemoryOutbox",
    "NoEndpoints",
    "NotQueued",
    "Outcome",
    "Per",
    "Policy",
    "PowerOfTwo",
    "Queued",
    "Random",
    "RateLimit",
    "RateLimited",
    "Registry",
    "Rejected",
    "Retry",
    "RetryBudget",
    "RoundRobin",
    "Rule",
    "Rules",
    "SeawallError",
    "SlidingLog",
    "SlidingWindow",
    "Switch",
    "Timeout",
    "TokenBucket",
    "UnwantedResult",
    "Valkey",
    "carry",
    "criticality",
    "current",
    "deadline",
    "disable",
    "enable",
    "errors",
    "events",
    "operation",
    "registry",
    "remaining",
    "same_args",
]
__version__ = "0.1.0"

_HOMES = {
    "seawall.cluster": (
        "Broadcast",
        "Cluster",
        "Dns",
        "Ejection",
        "Endpoint",
        "Failfast",
        "Failover",
        "Failsafe",
        "Failsilent",
        "File",
        "Forking",
        "Lookup",
        "PowerOfTwo",
        "Random",
        "RoundRobin",
    ),
    "seawall.limiter": (
        "Concurrency",
        "ConcurrencyLimit",
        "FixedWindow",
        "LeakyBucket",
        "Limiter",
        "RateLimit",
        "Rule",
        "Rules",
        "SlidingLog",
        "SlidingWindow",
        "TokenBucket",
    ),
    "seawall.outbox": ("Failback", "MemoryOutbox", "Queued"),
    "seawall.stores.decision": ("Decision",),
    "seawall.stores.memory": ("Memory",),
    "seawall.stores.valkey": ("Valkey",),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}


# Imported at their first use: a service that protects single functions does not pay for clusters when it starts.
def __getattr__(name: str) -> Any:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module  # noqa: PLC0415  # as above

    value = globals()[name] = getattr(import_module(home), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
