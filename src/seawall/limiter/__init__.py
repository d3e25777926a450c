"""Flow control: limits, the limiter that applies them, and the layer that puts one into a policy."""

from seawall.limiter.limiter import Limiter
from seawall.limiter.specs import FixedWindow, LeakyBucket, SlidingLog, SlidingWindow, TokenBucket

__all__ = ["FixedWindow", "LeakyBucket", "Limiter", "SlidingLog", "SlidingWindow", "TokenBucket"]
