"""Seawall keeps Python services standing when the services they call fail and when traffic surges."""

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

__all__ = [
    "BackendUnavailable",
    "BroadcastError",
    "BudgetSpent",
    "Bulkhead",
    "BulkheadFull",
    "CircuitBreaker",
    "CircuitOpen",
    "ConfigError",
    "Context",
    "Criticality",
    "DeadlineExceeded",
    "Degraded",
    "Fallback",
    "Hedge",
    "NoEndpoints",
    "NotQueued",
    "Outcome",
    "Per",
    "Policy",
    "RateLimited",
    "Registry",
    "Rejected",
    "Retry",
    "RetryBudget",
    "SeawallError",
    "Switch",
    "Timeout",
    "UnwantedResult",
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
