"""Flow control: limits, the limiter that applies them, and the layer that puts one into a policy."""

from seawall.limiter.concurrency import ConcurrencyLimit
from seawall.limiter.concurrency_layer import Concurrency
from seawall.limiter.layer import RateLimit
from seawall.limiter.limiter import Limiter
from seawall.limiter.rules import Rule, Rules
from seawall.limiter.specs import FixedWindow, LeakyBucket, SlidingLog, SlidingWindow, TokenBucket

__all__ = [
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
]
