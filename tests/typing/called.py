"""What a policy is called with is checked, and what comes back has its type. Read by the type checkers, never run."""

from typing import assert_type

from seawall import Bulkhead, CircuitBreaker, Fallback, Hedge, Outcome, Policy, Retry, Timeout
from seawall.policies.bulkhead import BulkheadGuard
from seawall.policies.circuit_breaker import BreakerGuard
from seawall.testing import run

pay = Policy(
    Fallback(lambda error: f"cached, because: {error}"),
    Timeout("5s"),
    Retry(on=(ConnectionError, TimeoutError), attempts=3),
    CircuitBreaker(failure_rate=0.5),
    Bulkhead(20, queue=50, max_wait="100ms"),
    Timeout(1.5),
    name="payments",
)
hedged = Policy(Hedge("50ms"))


def price(sku: str, *, net: bool = False) -> int:
    return len(sku)


async def price_of(sku: str, *, net: bool = False) -> int:
    return len(sku)


def sync() -> None:
    assert_type(pay.call(price, "A-1"), int)
    assert_type(pay.call(price, sku="A-1", net=True), int)
    outcome = pay.run(price, "A-1")
    assert_type(outcome, Outcome[int])
    assert_type(outcome.value, int | None)
    assert_type(outcome.unwrap(), int)
    assert_type(outcome.attempts, int)
    assert_type(outcome.degraded, bool)

    pay.call(price, 1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    pay.run(price)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


async def asynchronous() -> None:
    assert_type(await pay.acall(price_of, "A-1"), int)
    assert_type(await hedged.acall(price_of, "A-1", net=True), int)
    outcome = await pay.arun(price_of, "A-1")
    assert_type(outcome, Outcome[int])

    await pay.acall(price_of, 1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await pay.acall(price, "A-1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def state() -> None:
    assert_type(pay[CircuitBreaker], BreakerGuard)
    assert_type(pay[Bulkhead], BulkheadGuard)
    assert_type(pay.for_key("acme"), Policy)
    assert_type(pay.for_key("acme").call(price, "A-1"), int)


def blocks() -> None:
    for attempt in pay.attempts():
        with attempt:
            assert_type(attempt.number, int)
    with pay.guard():
        pass


async def async_blocks() -> None:
    async for attempt in pay.attempts():
        with attempt:
            assert_type(attempt.number, int)
    async with pay.guard():
        pass


def virtual_time() -> None:
    async def main() -> str:
        return "done"

    assert_type(run(main), str)
    assert_type(run(main(), seed=7), str)


def settings() -> None:
    Retry(on="ConnectionError")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    Timeout(time=["1s"])  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    Bulkhead("20")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    Policy("retry")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
