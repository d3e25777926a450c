"""Failover over three replicas: one is dead, and after a few calls nobody asks it any more."""

from collections import Counter

from seawall import CircuitBreaker, Cluster, Endpoint, Failover, NoEndpoints, RoundRobin, Timeout

stock = Cluster(
    "stock",
    ["http://10.0.0.1:80", "http://10.0.0.2:80", "http://10.0.0.3:80"],
    strategy=Failover(retries=2),
    each=(CircuitBreaker(consecutive=3), Timeout("500ms")),  # every replica has its own
    balancer=RoundRobin(),
)
LEVELS = {"A-7": 7}
DEAD = {"http://10.0.0.1:80"}
asked: Counter[str] = Counter()


def level(endpoint: Endpoint, sku: str) -> int:
    """Stands for a request to the endpoint: `client.get(f"{endpoint}/items/{sku}")`."""
    asked[str(endpoint)] += 1
    if str(endpoint) in DEAD:
        raise ConnectionRefusedError(f"{endpoint} refuses")
    return LEVELS[sku]


def main() -> None:
    answers = [stock.call(level, "A-7") for _ in range(30)]
    print(f"{len(answers)} calls, {answers.count(7)} answers")
    print(f"the dead replica was asked {asked['http://10.0.0.1:80']} times, until its breaker opened")
    print(stock.explain())

    DEAD.update(str(endpoint) for endpoint in stock.endpoints)
    errors = [stock.run(level, "A-7").error for _ in range(10)]
    print("all dead:", dict(Counter(type(error).__name__ for error in errors)))
    refusal = errors[-1]
    if isinstance(refusal, NoEndpoints):
        print(refusal)


if __name__ == "__main__":
    main()
