"""Protect a function: retry, breaker, timeout and a lesser answer around a service that fails now and then."""

from seawall import CircuitBreaker, Fallback, Policy, Retry, Timeout

prices = Policy(  # outermost first
    Fallback({"price": 9.99, "stale": True}),
    Retry(on=ConnectionError, delay=0),  # no pause, so that the example is quick; leave `delay` away in earnest
    CircuitBreaker(consecutive=5),
    Timeout("1s"),
    name="prices",
)


class Service:
    """Stands for a service behind the network: it drops every fifth call, and all of them while it is down."""

    def __init__(self) -> None:
        self.is_down = False
        self.calls = 0

    def price(self, sku: str) -> dict[str, object]:
        self.calls += 1
        if self.is_down or self.calls % 5 == 0:
            raise ConnectionError(f"no price of {sku}: refused")
        return {"price": 7.5, "stale": False}


def main() -> None:
    service = Service()
    for day, is_down in (("a good day", False), ("a bad day", True)):
        service.is_down = is_down
        before = service.calls
        outcomes = [prices.run(service.price, "A-7") for _ in range(10)]
        lesser = sum(outcome.degraded for outcome in outcomes)
        calls = service.calls - before
        print(f"{day}: {len(outcomes)} answers, {lesser} of them lesser ones, for {calls} calls of the service")
    print(prices.explain())

    service.is_down = False
    prices[CircuitBreaker].reset()  # as an operator would; by itself it asks again after a while
    print("after the reset:", prices.call(service.price, "A-7"))


if __name__ == "__main__":
    main()
