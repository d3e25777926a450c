"""Where things with a name are found: retry budgets, degradation switches and clusters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from seawall.policies.budget import BudgetMeter
    from seawall.policies.switch import Switch

__all__ = ["Registry", "registry"]


class Registry:
    """Names and what they stand for. Registering a name again replaces it, so that reloading and tests work.

    >>> from seawall import Switch, registry
    >>> switch = Switch("recommendations")
    >>> registry.switches["recommendations"] is switch
    True
    """

    def __init__(self) -> None:
        self.budgets: dict[str, BudgetMeter] = {}
        self.switches: dict[str, Switch] = {}
        self.clusters: dict[str, Any] = {}
        """Clusters stand above this module, which cannot name their type."""


registry: Registry = Registry()
"""The registry that is used when no other is given."""
