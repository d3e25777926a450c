"""`policy.explain()`: a paragraph for the person who asks, at three in the morning, what this policy is doing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from seawall.policy.meter import Meter
from seawall.runtime import off

if TYPE_CHECKING:
    from seawall.policy import Policy

__all__ = ["explain"]


def explain(policy: Policy) -> str:
    """What would happen to the next call, in one sentence, and then why, layer by layer from the outside in."""
    if off.everything:
        return f"{policy.name}: Seawall is switched off by disable(); the next call would be made without any layer."
    said = [layer.explain() for layer in policy.layers if not isinstance(layer, Meter)]
    return " ".join([f"{policy.name}: {_verdict(policy)}", *filter(None, said)])


def _verdict(policy: Policy) -> str:
    if policy.shadow:
        return "Shadow: the next call would be made once and unchanged, and the layers only watch."
    for index, layer in enumerate(policy.layers):
        if layer.refuses:
            saved = any(outer.replaces for outer in policy.layers[:index])
            end = "and answered by the fallback" if saved else "with an error"
            return f"The next call would be refused by {layer.name}, {end}."
    return "The next call would be made."
