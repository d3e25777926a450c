"""The demo's script: its phases, and users that arrive the same way for the same seed."""

from dataclasses import dataclass
from random import Random
from typing import Final, Literal

Order = Literal["errors", "hang", "kill", "start"]
ERROR_RATE: Final = 0.3
USERS: Final = 1_000


@dataclass(frozen=True, slots=True)
class Step:
    """One order to the services, `at` a share of the phase; 0 means before the first user comes."""

    at: float
    order: Order


@dataclass(frozen=True, slots=True)
class Phase:
    """One phase: users arrive at `load` times the service's capacity while `steps` happen to it."""

    key: str
    title: str
    load: float = 0.5
    steps: tuple[Step, ...] = ()


PHASES: Final = (
    Phase("healthy", "healthy"),
    Phase("errors", "30 % errors", steps=(Step(0.0, "errors"),)),
    Phase("hanging", "hanging", steps=(Step(0.2, "hang"),)),
    Phase("killed", "killed -9, restarted", steps=(Step(0.25, "kill"), Step(0.4, "start"))),
    Phase("overload", "twice its capacity", load=2.0),
)


@dataclass(frozen=True, slots=True)
class Arrival:
    """One user who comes `at` seconds after the phase began."""

    at: float
    user: int


def arrivals(seed: str, rate: float, seconds: float) -> tuple[Arrival, ...]:
    """Poisson arrivals at `rate` a second over `seconds`: users do not wait for each other."""
    dice = Random(f"{seed}:arrivals")
    found: list[Arrival] = []
    at = dice.expovariate(rate)
    while at < seconds:
        found.append(Arrival(at, dice.randrange(USERS)))
        at += dice.expovariate(rate)
    return tuple(found)
