"""What the thread scheduler has to know to switch inside a policy: its modules and the frame made for its shape."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import ModuleType

from seawall import Policy
from seawall.machines import breaker, gate, retry_budget, window
from seawall.policies import budget, bulkhead, circuit_breaker
from seawall.policy import caller, chain, meter

__all__ = ["BREAKER", "BUDGET", "BULKHEAD", "World", "expect", "traced"]

World = tuple[Sequence[Callable[[], object]], Callable[[], object]]
"""The functions to run at once, and the check for afterwards."""

BULKHEAD: list[ModuleType] = [gate, bulkhead]
BREAKER: list[ModuleType] = [breaker, window, circuit_breaker]
BUDGET: list[ModuleType] = [retry_budget, budget]
CHAIN: list[ModuleType] = [caller, chain, meter]


def traced(policy: Policy, *modules: ModuleType | str) -> list[ModuleType | str]:
    """`modules`, and the file name under which the frame of policies of this shape was compiled."""
    protected = policy(str.upper)  # the same code is used for each policy of the shape
    assert protected("x") == "X"
    return [*modules, getattr(protected, "__code__").co_filename]  # noqa: B009  # update_wrapper keeps the type of str.upper


def expect(condition: bool, message: str) -> None:
    assert condition, message
