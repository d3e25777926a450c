"""The script of the demo: what happens to both shops, one phase after the other."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from seawall.demo.layout import SERVICES

Order = Literal["kill", "start", "errors", "hang", "slow"]
USUAL_LOAD: Final = 0.4


@dataclass(frozen=True, slots=True)
class Step:
    """One order to one replica, `at` a share of the phase; 0 means before the first user comes."""

    at: float
    order: Order
    service: str
    number: int = 0


@dataclass(frozen=True, slots=True)
class Phase:
    """One phase: users arrive at `load` times the shop's capacity while `steps` happen to it."""

    key: str
    """One word, for JSON and for the numbers of its orders."""
    name: str
    """For the table: at most 11 characters."""
    title: str
    """What happens, in a line."""
    load: float = USUAL_LOAD
    steps: tuple[Step, ...] = ()

    @property
    def touched(self) -> frozenset[tuple[str, int]]:
        """The replicas that are not as they were when it is over: service and number."""
        if self.load > 1:
            return frozenset((name, number) for name, plan in SERVICES.items() for number in range(plan.replicas))
        return frozenset((step.service, step.number) for step in self.steps)


def _all_of(service: str, at: float, order: Order) -> Sequence[Step]:
    return [Step(at, order, service, number) for number in range(SERVICES[service].replicas)]


PHASES: Final = (
    Phase("healthy", "healthy", "nothing is wrong"),
    Phase(
        "killed",
        "killed -9",
        "one of 3 inventory replicas is killed with -9, and restarted later",
        steps=(Step(0.2, "kill", "inventory"), Step(0.6, "start", "inventory")),
    ),
    Phase(
        "hanging",
        "hanging",
        "one of 3 inventory and one of 2 payments replicas hang",
        steps=(Step(0.1, "hang", "inventory", 1), Step(0.1, "hang", "payments")),
    ),
    Phase(
        "errors",
        "30 % errors",
        "one of 3 inventory replicas answers 30 % of its requests with 500",
        steps=(Step(0.0, "errors", "inventory", 2),),
    ),
    Phase(
        "audit",
        "audit down",
        "the only audit replica is killed with -9, and restarted later",
        steps=(Step(0.2, "kill", "audit"), Step(0.6, "start", "audit")),
    ),
    Phase(
        "slow",
        "slow picks",
        "both recommendations replicas take 1.5 s instead of 50 ms",
        steps=(*_all_of("recommendations", 0.2, "slow"),),
    ),
    Phase("overload", "2x capacity", "twice as many users come as the shop can serve", load=2.0),
)
