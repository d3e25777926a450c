"""`RetryBudget`: retries and hedges are a share of the calls, so that a sick target is not buried under them."""

from __future__ import annotations

from typing import Any

from seawall.errors import ConfigError
from seawall.machines import retry_budget as machine
from seawall.policies.layer import Fast
from seawall.policies.registry import Registry, registry
from seawall.policies.spec import Spec
from seawall.runtime import clock, forks
from seawall.runtime.section import Section
from seawall.units import Duration, count_of, duration_ns, fraction_ppm, given

__all__ = ["BudgetMeter", "RetryBudget", "check_budget", "meter_for"]


class RetryBudget(Spec):
    """Allow extra attempts up to `share` of the calls of the last `window`, plus `per_second`.

    Without a `name` every policy has a budget of its own. All that give the same name share one; the first one bound
    sets its numbers.

    Args:
        share: from 0 to 1. Default 0.2.
        per_second: whole number from 0, for quiet times. Default 3.
        window: a duration. Default 10 s.

    Raises:
        ConfigError: a setting is outside its range.

    Example:
        >>> from seawall import Policy, Retry, RetryBudget
        >>> outbound = RetryBudget(share=0.1, name="outbound")
        >>> a = Policy(Retry(on=ConnectionError, budget=outbound))
        >>> b = Policy(Retry(on=ConnectionError, budget="outbound"))

    After Finagle's RetryBudget.
    """

    __slots__ = ("share", "per_second", "window")  # in the order in which they are read, in repr() too

    share: float
    per_second: int
    window: Duration

    def __init__(
        self, share: float = 0.2, *, per_second: int = 3, window: Duration = 10, name: str | None = None
    ) -> None:
        fraction_ppm(share, "RetryBudget(share)", zero=True)
        count_of(per_second, "RetryBudget(per_second)", least=0)
        duration_ns(window, "RetryBudget(window)", zero=False)
        self._init(name or "", share=share, per_second=per_second, window=window)


class BudgetMeter:
    """A budget at work, possibly shared by many policies."""

    def __init__(self, spec: RetryBudget) -> None:
        self.name = spec.name
        self.spec = spec
        self._machine = machine.RetryBudget(
            fraction_ppm(spec.share, "share", zero=True),
            spec.per_second,
            duration_ns(spec.window, "window", zero=False),
        )
        self._lock = Section()
        self.refused = 0
        forks.renew_after_fork(self)

    def fast(self) -> Fast:
        """The lines that count a call on its way out."""
        return Fast(
            leave=(
                "if now < $budget.edge_ns:",
                "    next($budget.ticks)",
                "else:",
                "    $count(None, now, None)",
            ),
            names={"budget": self._machine, "count": self.count_call},
        )

    def count_quickly(self, now_ns: int) -> None:
        """Count one call, without the lock where the interpreter makes that atomic."""
        if now_ns < self._machine.edge_ns:
            next(self._machine.ticks)
        else:
            self.count_call(None, now_ns, None)

    def count_call(self, token: object, now_ns: int, result: object) -> None:
        """Count one call, under the lock."""
        if self._lock.put_off(lambda: self.count_call(token, now_ns, result)):
            return
        with self._lock:
            self._machine.add_call(now_ns)

    def take(self) -> bool:
        """Ask for one attempt beyond the first."""
        with self._lock:
            granted = self._machine.take(clock.now_ns())
            self.refused += not granted
        return granted

    def snapshot(self) -> dict[str, Any]:
        """The counts of the window, and how many more attempts they would grant."""
        with self._lock:
            self._machine.roll(clock.now_ns())
            return {
                "name": self.name,
                "calls": self._machine.calls,
                "extra": self._machine.extra,
                "left": self._machine.left,
                "refused": self.refused,
            }

    def renew_after_fork(self) -> None:
        self._lock = Section()


def check_budget(budget: RetryBudget | str | None, field: str) -> None:
    """Raise `ConfigError` if this is none of what a layer takes for a budget."""
    if budget is not None and not isinstance(budget, (RetryBudget, str)):  # pyright: ignore[reportUnnecessaryIsInstance]  # callers without a type checker
        raise ConfigError(f"{given(field, budget)}: expected a RetryBudget, the name of one, or None for no budget")


def meter_for(
    budget: RetryBudget | str | None, field: str, default: RetryBudget, names: Registry = registry
) -> BudgetMeter | None:
    """The live budget: shared if it has a name, one's own if not, None if `budget` is None."""
    check_budget(budget, field)
    if budget is None:
        return None
    spec = default.replace(name=budget) if isinstance(budget, str) else budget
    if not spec.name:
        return BudgetMeter(spec)
    known = names.budgets.setdefault(spec.name, BudgetMeter(spec))
    if known.spec != spec and not isinstance(budget, str):
        hint = "the name is taken by a budget with other numbers; take another, or remove it from registry.budgets"
        raise ConfigError(f"{given(field, budget)}: {hint}")
    return known
