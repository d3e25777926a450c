"""The peers' single layers: each function imports one peer and gives its decorator, in its documented form.

A peer that lacks something is used without it, and a comment says so; no peer is given more work than its documentation
asks for.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from .settings import ATTEMPTS, FAILURE, FAILURES, LIMIT, OPEN_FOR, SECONDS

Wrap = Callable[[Callable[..., Any]], Callable[..., Any]]

_circuits = itertools.count()


# --- retry: `waits=False` is for the section `failing`, where the wait would hide the cost of the machinery


def tenacity_retry(waits: bool = True) -> Wrap:
    # No retry budget.
    import tenacity

    return tenacity.retry(
        retry=tenacity.retry_if_exception_type(FAILURE),
        stop=tenacity.stop_after_attempt(ATTEMPTS),
        wait=tenacity.wait_random_exponential(multiplier=0.1, max=2) if waits else tenacity.wait_none(),
        reraise=True,
    )


def stamina_retry(waits: bool = True) -> Wrap:
    # No retry budget. Its default limit of total time (45 s) is left on, as its documentation recommends.
    import stamina

    if waits:
        return stamina.retry(on=FAILURE, attempts=ATTEMPTS)
    return stamina.retry(on=FAILURE, attempts=ATTEMPTS, wait_initial=0, wait_jitter=0)


def backoff_retry(waits: bool = True) -> Wrap:
    # No retry budget.
    import backoff

    if waits:
        return backoff.on_exception(backoff.expo, FAILURE, max_tries=ATTEMPTS)
    return backoff.on_exception(backoff.constant, FAILURE, max_tries=ATTEMPTS, jitter=None, interval=0)


def hyx_retry(waits: bool = True) -> Wrap:
    # Async only; no retry budget; no jitter in its default wait.
    from hyx.retry import retry

    return retry(on=FAILURE, attempts=ATTEMPTS, backoff=0.5 if waits else 0.0)


def pyresilience_retry(waits: bool = True) -> Wrap:
    # A retry budget exists but is off by default, and is left off.
    from pyresilience import resilient

    return resilient(retry=pyresilience_retry_config(waits))


def pyresilience_retry_config(waits: bool = True) -> Any:
    from pyresilience import RetryConfig

    if waits:
        return RetryConfig(max_attempts=ATTEMPTS, retry_on=(FAILURE,))
    return RetryConfig(max_attempts=ATTEMPTS, retry_on=(FAILURE,), delay=0, jitter=False)


# --- breaker: all but pyresilience count failures in a row, which is less work than the window Seawall keeps


def pybreaker_breaker() -> Wrap:
    # Sync only: `async def` passes through it unprotected. Holds its lock during the call.
    from pybreaker import CircuitBreaker

    return CircuitBreaker(fail_max=FAILURES, reset_timeout=OPEN_FOR)


def circuitbreaker_breaker() -> Wrap:
    # No lock; half-open admits everybody.
    from circuitbreaker import circuit  # type: ignore[import-untyped]  # ships no types

    wrap: Wrap = circuit(failure_threshold=FAILURES, recovery_timeout=OPEN_FOR, expected_exception=FAILURE)
    return wrap


def aiobreaker_breaker() -> Wrap:
    # Sync and async in one object; half-open admits everybody.
    from aiobreaker import CircuitBreaker  # type: ignore[import-untyped]  # ships no types

    wrap: Wrap = CircuitBreaker(fail_max=FAILURES, timeout_duration=timedelta(seconds=OPEN_FOR))
    return wrap


def purgatory_sync_breaker() -> Wrap:
    from purgatory import SyncCircuitBreakerFactory

    factory = SyncCircuitBreakerFactory(default_threshold=FAILURES, default_ttl=OPEN_FOR)
    wrap: Wrap = factory(f"circuit-{next(_circuits)}")
    return wrap


def purgatory_async_breaker() -> Wrap:
    from purgatory import AsyncCircuitBreakerFactory

    factory = AsyncCircuitBreakerFactory(default_threshold=FAILURES, default_ttl=OPEN_FOR)
    wrap: Wrap = factory(f"circuit-{next(_circuits)}")
    return wrap


def hyx_breaker() -> Wrap:
    # Async only.
    from hyx.circuitbreaker import consecutive_breaker

    return consecutive_breaker(exceptions=FAILURE, failure_threshold=FAILURES, recovery_time_secs=OPEN_FOR)


def pyresilience_breaker(window: int = 0) -> Wrap:
    from pyresilience import resilient

    return resilient(circuit_breaker=pyresilience_breaker_config(window))


def pyresilience_breaker_config(window: int = 0) -> Any:
    # 0: failures in a row (its default and its fastest form); otherwise a rate over the last `window` calls, which
    # is what Seawall's breaker does over time.
    from pyresilience import CircuitBreakerConfig

    if not window:
        return CircuitBreakerConfig(failure_threshold=FAILURES, recovery_timeout=OPEN_FOR, error_types=(FAILURE,))
    return CircuitBreakerConfig(
        sliding_window_size=window,
        failure_rate_threshold=0.5,
        minimum_calls=10,
        recovery_timeout=OPEN_FOR,
        error_types=(FAILURE,),
    )


# --- bulkhead


def hyx_bulkhead() -> Wrap:
    # Async only. Its capacity counts running and queued calls together; equal numbers mean no queue, as in Seawall.
    from hyx.bulkhead import bulkhead

    return bulkhead(max_concurrency=LIMIT, max_capacity=LIMIT)


def pyresilience_bulkhead() -> Wrap:
    from pyresilience import resilient

    return resilient(bulkhead=pyresilience_bulkhead_config())


def pyresilience_bulkhead_config() -> Any:
    from pyresilience import BulkheadConfig

    return BulkheadConfig(max_concurrent=LIMIT)


# --- timeout


def hyx_timeout() -> Wrap:
    # Async only; a task per call.
    from hyx.timeout import timeout

    return timeout(SECONDS)


def pyresilience_timeout() -> Wrap:
    # In sync it runs the call on a pool of four threads, in async in `asyncio.wait_for`.
    from pyresilience import resilient

    return resilient(timeout=pyresilience_timeout_config())


def pyresilience_timeout_config() -> Any:
    from pyresilience import TimeoutConfig

    return TimeoutConfig(seconds=SECONDS)
