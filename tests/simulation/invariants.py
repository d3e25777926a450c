"""What must hold after each step of a simulated world, and once it has come to rest."""

from __future__ import annotations

from collections.abc import Iterable

from seawall import Policy
from seawall.policies.bulkhead import BulkheadGuard
from seawall.policies.circuit_breaker import BreakerGuard
from seawall.policies.keyed import Keyed
from seawall.policies.layer import Live

__all__ = ["Watch", "breakers_of", "live_layers"]


def live_layers(policy: Policy) -> Iterable[Live]:
    """The live layers of a policy and of those it keeps by key, compartments included."""
    for each in (policy, *(kept for _, kept in policy._by_key.items())):
        for layer in each.layers:
            if isinstance(layer, Keyed):
                yield from (cell.live for _, cell in layer.layers.items())
            else:
                yield layer


def breakers_of(policy: Policy) -> list[BreakerGuard]:
    return [layer for layer in live_layers(policy) if isinstance(layer, BreakerGuard)]


class Watch:
    """Looks at every guard of some policies after each step."""

    REFRESH = 16
    """Steps after which guards that are made by key are looked for again."""

    def __init__(self, policies: list[Policy]) -> None:
        self._policies = policies
        self._bulkheads: list[BulkheadGuard] = []
        self._breakers: list[BreakerGuard] = []
        self.steps = 0

    def __call__(self) -> None:
        if self.steps % self.REFRESH == 0:
            layers = {id(layer): layer for policy in self._policies for layer in live_layers(policy)}.values()
            self._bulkheads = [layer for layer in layers if isinstance(layer, BulkheadGuard)]
            self._breakers = [layer for layer in layers if isinstance(layer, BreakerGuard)]
        self.steps += 1
        for bulkhead in self._bulkheads:
            self._look_at_bulkhead(bulkhead)
        for breaker in self._breakers:
            self._look_at_breaker(breaker)

    def _look_at_bulkhead(self, guard: BulkheadGuard) -> None:
        gate = guard._gate
        free, waiting, most = len(gate.free), len(gate.waiting), gate.limit + gate.excess
        assert 0 <= free <= most, f"{guard.policy}: {free} permits are free, of {most}"
        assert waiting <= gate.queue, f"{guard.policy}: {waiting} wait, {gate.queue} may"
        assert not (free and waiting), f"{guard.policy}: a permit lies idle while somebody waits"
        assert not (free and gate.excess), f"{guard.policy}: a permit is kept although there are too many"

    def _look_at_breaker(self, guard: BreakerGuard) -> None:
        machine = guard._machine
        probes = machine.rules.probes
        assert len(machine._out) + machine._done <= probes, f"{guard.policy}: more than {probes} probes"
        window = machine.window
        assert 0 <= window.failed <= window.calls, f"{guard.policy}: the window does not add up"
        assert 0 <= window.slow <= window.calls, f"{guard.policy}: the window does not add up"
