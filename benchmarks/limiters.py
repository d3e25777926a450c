"""Section `limiter`: what a decision costs in memory, for one key, for many, and from several threads."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from typing import Any

from .measure import Effort, Subject, async_timings, sync_timings
from .settings import ANSWER, aplain, plain
from .tables import Table, compared

RATE = 1_000_000_000
"""So many in a second that nothing is ever refused: the healthy answer is what is measured."""
KEY = "user:42"
MANY = 100_000
THREADS = 4
HITS = 20_000

Hit = Callable[[str], Any]
MakeHit = Callable[[], Hit]


def seawall(limit: str = "TokenBucket") -> MakeHit:
    def make() -> Hit:
        import seawall as library

        limiter = library.Limiter(getattr(library, limit)(f"{RATE}/s"), name="benchmark")
        hit: Hit = limiter.hit
        return hit

    return make


def limits_package(strategy: str) -> MakeHit:
    def make() -> Hit:
        import limits
        import limits.strategies

        limiter = getattr(limits.strategies, strategy)(limits.storage.MemoryStorage())
        item = limits.parse(f"{RATE}/second")
        return lambda key: limiter.hit(item, key)

    return make


def throttled(algorithm: str) -> MakeHit:
    def make() -> Hit:
        from throttled import MemoryStore, Throttled

        # Its store keeps 1,024 keys by default and drops others with their debts.
        store = MemoryStore(options={"MAX_SIZE": 2 * MANY})
        limiter = Throttled(using=algorithm, quota=f"{RATE}/s", store=store)
        return lambda key: limiter.limit(key)  # noqa: PLW0108  # bound as the others are

    return make


def pyrate() -> Hit:
    """Its limiter has one bucket; keys need a factory of the user's own."""
    from pyrate_limiter import Duration, Limiter, Rate

    limiter = Limiter(Rate(RATE, Duration.SECOND))
    return lambda key: limiter.try_acquire(key)  # noqa: PLW0108  # bound as the others are


def pyresilience() -> Hit:
    """One bucket for all: it has no keys."""
    from pyresilience import RateLimiter, RateLimiterConfig

    limiter = RateLimiter(RateLimiterConfig(max_calls=RATE))
    return lambda _key: limiter.acquire()


def _one_key(make: MakeHit) -> Callable[[], Callable[[], Any]]:
    def made() -> Callable[[], Any]:
        hit = make()

        def call() -> int:
            hit(KEY)
            return ANSWER

        return call

    return made


def _many_keys(make: MakeHit, count: int = MANY) -> Callable[[], Callable[[], Any]]:
    """The keys in a fixed order that jumps about in memory, as callers do."""

    def made() -> Callable[[], Any]:
        hit = make()
        keys = [f"user:{number * 7_919 % count}" for number in range(count)]
        following = itertools.cycle(keys).__next__
        for key in keys:
            hit(key)

        def call() -> int:
            hit(following())
            return ANSWER

        return call

    return made


def plain_dict() -> Hit:
    """What a dictionary pays for as many keys: one read and one write."""
    counts: dict[str, int] = {}

    def hit(key: str) -> None:
        counts[key] = counts.get(key, 0) + 1

    return hit


def _on_threads(make: MakeHit, count: int) -> Callable[[], Callable[[], Any]]:
    def made() -> Callable[[], Any]:
        hit = make()

        def work() -> None:
            for _ in range(HITS // count):
                hit(KEY)

        def call() -> int:
            threads = [threading.Thread(target=work) for _ in range(count)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            return ANSWER

        return call

    return made


OURS, LIMITS = "seawall, token bucket", "limits, fixed window"
DICT_ONE, DICT_MANY = "plain dict, one key", f"plain dict, {MANY:,} keys"
OURS_ONE, OURS_MANY, OURS_THREADS = "seawall, one key", f"seawall, {MANY:,} keys", f"seawall, {THREADS} threads"
SYNC_PEERS: tuple[tuple[str, MakeHit, str], ...] = (
    (LIMITS, limits_package("FixedWindowRateLimiter"), ""),
    ("limits, sliding window counter", limits_package("SlidingWindowCounterRateLimiter"), ""),
    ("throttled-py, token bucket", throttled("token_bucket"), ""),
    ("throttled-py, fixed window", throttled("fixed_window"), ""),
    ("pyrate-limiter", pyrate, "one bucket, the key is a label"),
    ("pyresilience", pyresilience, "one bucket, no keys"),
)


def limiter(effort: Effort) -> list[Table]:
    """One key, many keys, several threads, asyncio."""
    return [_one(effort), _aio(effort), _many(effort), _threads(effort)]


def _one(effort: Effort) -> Table:
    ours = [
        Subject(OURS, _one_key(seawall()), role="ours"),
        Subject("seawall, sliding window", _one_key(seawall("SlidingWindow")), role="ours"),
        Subject("seawall, fixed window", _one_key(seawall("FixedWindow")), role="ours"),
    ]
    peers = [Subject(name, _one_key(make), note=note) for name, make, note in SYNC_PEERS]
    bare = Subject("bare call", lambda: plain, role="bare")
    return Table("limiter one key", "Limiter, one hot key", compared(sync_timings([bare, *ours, *peers], effort)))


def _aio(effort: Effort) -> Table:
    def aiolimiter() -> Callable[[], Any]:
        from aiolimiter import AsyncLimiter

        limiter = AsyncLimiter(RATE, 1)

        async def call() -> int:
            await limiter.acquire()
            return ANSWER

        return call

    def ours() -> Callable[[], Any]:
        import seawall as library

        limiter = library.Limiter(library.TokenBucket(f"{RATE}/s"), name="benchmark")

        async def call() -> int:
            await limiter.ahit(KEY)
            return ANSWER

        return call

    subjects = [
        Subject("bare await", lambda: aplain, role="bare"),
        Subject("seawall, ahit", ours, role="ours"),
        Subject("aiolimiter", aiolimiter, note="one bucket, no keys; waits, never refuses"),
    ]
    rows = compared(async_timings(subjects, effort))
    return Table("limiter async", "Limiter, asyncio, one hot key", rows, bare="bare await")


def _many(effort: Effort) -> Table:
    subjects = [
        Subject(DICT_ONE, _many_keys(plain_dict, 1), role="bare"),
        Subject(DICT_MANY, _many_keys(plain_dict)),
        Subject(OURS_MANY, _many_keys(seawall()), role="ours"),
        Subject(OURS_ONE, _many_keys(seawall(), 1), role="ours"),
        *(
            Subject(f"{name}, {MANY:,} keys", _many_keys(make), note=note)
            for name, make, note in SYNC_PEERS
            if not note
        ),
    ]
    rows = compared(sync_timings(subjects, effort))
    return Table("limiter many keys", f"Limiter, {MANY:,} keys", rows, bare="a dict with one key")


def _threads(effort: Effort) -> Table:
    subjects = [
        Subject("seawall, 1 thread", _on_threads(seawall(), 1), role="bare"),
        Subject(OURS_THREADS, _on_threads(seawall(), THREADS), role="ours"),
        *(
            Subject(f"{name}, {THREADS} threads", _on_threads(make, THREADS))
            for name, make, note in SYNC_PEERS
            if not note
        ),
    ]
    rows = compared(sync_timings(subjects, effort))
    title = f"Limiter, {HITS:,} hits on one key, by 1 and by {THREADS} threads (figures: ns for all of them)"
    return Table("limiter threads", title, rows, bare="one thread of Seawall")
