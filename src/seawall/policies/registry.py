"""Where things with a name are found: retry budgets and degradation switches, shared by policies and operators."""

from __future__ import annotations

from typing import TYPE_CHECKING

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


registry: Registry = Registry()
"""The registry that is used when no other is given."""
