"""`Rules`: which limit holds for which request, by operation, role and whatever else tells requests apart."""

from __future__ import annotations

import itertools
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from seawall.errors import ConfigError, RateLimited
from seawall.limiter.asking import Cost
from seawall.limiter.limiter import Limiter
from seawall.limiter.specs import LimitSpec
from seawall.policies.functions import check_predicate
from seawall.policies.spec import Spec
from seawall.runtime import forks
from seawall.stores.decision import Decision
from seawall.stores.protocol import Store
from seawall.units import Duration, flag_of

__all__ = ["Rule", "Rules"]

Parts = Mapping[str, str]
MOST_MADE = 1_000
"""How many limits that a function made are kept; beyond that the one unused for longest starts anew."""
_numbers = itertools.count(1)


class Rule(Spec):
    """One limit for the requests that match.

    Args:
        limit: a limit, several by name, or a function of the request's parts that gives one (a tenant's own, say).
        match: parts that a request must have, `{"operation": "search", "role": "free"}`. Default: all match.
        per: the parts by which requests are counted apart, `("user",)`. Default: those of the `Rules`.
        cost: a whole number, one for each limit by name, or a function of the parts. Default 1.

    Raises:
        ConfigError: a setting is wrong.
    """

    __slots__ = ("limit", "match", "per", "cost")

    limit: LimitSpec | Mapping[str, LimitSpec] | Callable[[Parts], LimitSpec | Mapping[str, LimitSpec]]
    match: Parts
    per: tuple[str, ...] | None
    cost: Cost | Callable[[Parts], Cost]

    def __init__(
        self,
        limit: LimitSpec | Mapping[str, LimitSpec] | Callable[[Parts], LimitSpec | Mapping[str, LimitSpec]],
        match: Parts | None = None,
        *,
        per: Sequence[str] | None = None,
        cost: Cost | Callable[[Parts], Cost] = 1,
        name: str | None = None,
    ) -> None:
        matched = {} if match is None else dict(match)
        if not all(isinstance(part, str) and isinstance(value, str) for part, value in matched.items()):  # pyright: ignore[reportUnnecessaryIsInstance]  # callers without a type checker
            raise ConfigError(f"Rule(match={match!r}): expected texts by text")
        if isinstance(per, str):
            raise ConfigError(f"Rule(per={per!r}): expected a tuple of names, such as ({per!r},)")
        if callable(limit):
            check_predicate(limit, "Rule(limit)", "a limit, or a function of the request's parts")
        if callable(cost):
            check_predicate(cost, "Rule(cost)", "a whole number, or a function of the request's parts")
        shown = "+".join(f"{part}={value}" for part, value in sorted(matched.items())) or "any"
        self._init(name or shown, limit=limit, match=matched, per=None if per is None else tuple(per), cost=cost)

    def matches(self, parts: Parts) -> bool:
        """Whether the request has all that this rule asks for."""
        return all(parts.get(part) == value for part, value in self.match.items())


class Rules:
    """Limits by rules: the most specific rule that matches decides; among equals the first.

    Args:
        rules: in any order.
        per: the parts by which requests are counted apart, unless a rule says otherwise.
        otherwise: what becomes of a request that no rule matches: "admit" (default) or "refuse".
        name, store, shadow: as for `Limiter`.

    Raises:
        ConfigError: a setting is wrong; at a call: a part that is counted by is missing, which would put everybody
            into one bucket.

    Example:
        >>> from seawall import Rule, Rules, TokenBucket
        >>> api = Rules(
        ...     Rule(TokenBucket("1/s"), {"operation": "search", "role": "free"}),
        ...     Rule(TokenBucket("100/s"), {"operation": "search"}),
        ...     per=("user",),
        ...     name="api",
        ... )
        >>> request = {"operation": "search", "role": "free", "user": "42"}
        >>> [bool(api.hit(request)) for _ in range(2)]
        [True, False]

    In the manner of the descriptors of Envoy's rate limit service.
    """

    def __init__(
        self,
        *rules: Rule,
        per: Sequence[str] = (),
        otherwise: Literal["admit", "refuse"] = "admit",
        name: str | None = None,
        store: Store | None = None,
        shadow: bool = False,
    ) -> None:
        if not rules or not all(isinstance(rule, Rule) for rule in rules):  # pyright: ignore[reportUnnecessaryIsInstance]  # callers without a type checker
            raise ConfigError(f"Rules{rules!r}: expected at least one Rule(...)")
        if otherwise not in ("admit", "refuse"):
            raise ConfigError(f'Rules(otherwise={otherwise!r}): expected "admit" or "refuse"')
        if isinstance(per, str):
            raise ConfigError(f"Rules(per={per!r}): expected a tuple of names, such as ({per!r},)")
        names = [rule.name for rule in rules]
        twice = sorted({rule for rule in names if names.count(rule) > 1})
        if twice:
            raise ConfigError(f"Rules: {', '.join(twice)}: more than one rule of that name")
        self.name = f"rules-{next(_numbers)}" if name is None else name
        self.rules = tuple(sorted(rules, key=lambda rule: -len(rule.match)))
        self._per = tuple(per)
        self._otherwise = otherwise
        self.shadow = flag_of(shadow, "Rules(shadow)")
        self._settings: dict[str, Any] = {"store": store, "shadow": shadow}
        self._limiters = {rule.name: self._limiter(rule, rule.limit) for rule in rules if not callable(rule.limit)}
        for rule in rules:
            if rule.name in self._limiters and not callable(rule.cost):
                self._limiters[rule.name].check_cost(rule.cost)
        self._made: OrderedDict[tuple[str, str], Limiter] = OrderedDict()
        self._lock = threading.RLock()
        forks.renew_after_fork(self)

    def renew_after_fork(self) -> None:
        self._lock = threading.RLock()

    def _limiter(self, rule: Rule, limit: Any) -> Limiter:
        return Limiter(limit, name=f"{self.name}/{rule.name}", **self._settings)

    def find(self, parts: Parts) -> Rule | None:
        """The rule for a request; None if there is none."""
        return next((rule for rule in self.rules if rule.matches(parts)), None)

    def hit(self, parts: Parts, cost: Cost | None = None) -> Decision:
        """Take the cost of the rule (or `cost`) now, or be refused."""
        found = self._found(parts, cost)
        return found if isinstance(found, Decision) else found[0].hit(found[1], found[2])

    async def ahit(self, parts: Parts, cost: Cost | None = None) -> Decision:
        """As `hit`."""
        found = self._found(parts, cost)
        return found if isinstance(found, Decision) else await found[0].ahit(found[1], found[2])

    def take(self, parts: Parts, cost: Cost | None = None, *, max_wait: Duration | None = None) -> Decision:
        """Take the cost of the rule, and wait for it, as `Limiter.take` does."""
        found = self._found(parts, cost)
        if isinstance(found, Decision):
            return self._admitted(found)
        return found[0].take(found[1], found[2], max_wait=max_wait)

    async def atake(self, parts: Parts, cost: Cost | None = None, *, max_wait: Duration | None = None) -> Decision:
        """As `take`."""
        found = self._found(parts, cost)
        if isinstance(found, Decision):
            return self._admitted(found)
        return await found[0].atake(found[1], found[2], max_wait=max_wait)

    def limiter_for(self, parts: Parts) -> tuple[Limiter, str, Cost] | None:
        """The limiter, the key and the cost for a request; None if no rule matches."""
        rule = self.find(parts)
        if rule is None:
            return None
        cost = rule.cost(parts) if callable(rule.cost) else rule.cost
        return self._limiter_of(rule, parts), self._key(rule, parts), cost

    def _found(self, parts: Parts, cost: Cost | None) -> tuple[Limiter, str, Cost] | Decision:
        found = self.limiter_for(parts)
        if found is None:
            return Limiter.unlimited(self.name, allowed=self._otherwise == "admit")
        return found if cost is None else (found[0], found[1], cost)

    def _admitted(self, decision: Decision) -> Decision:
        if not decision.allowed:
            raise RateLimited("no rule matches the request", policy=self.name)
        return decision

    def _limiter_of(self, rule: Rule, parts: Parts) -> Limiter:
        if not callable(rule.limit):
            return self._limiters[rule.name]
        limit = rule.limit(parts)
        made = (rule.name, repr(limit))
        with self._lock:
            limiter = self._made.get(made)
            if limiter is None:
                limiter = self._made[made] = self._limiter(rule, limit)
                while len(self._made) > MOST_MADE:
                    self._made.popitem(last=False)
            self._made.move_to_end(made)
            return limiter

    def _key(self, rule: Rule, parts: Parts) -> str:
        per = self._per if rule.per is None else rule.per
        missing = [part for part in per if not isinstance(parts.get(part), str)]
        if missing:
            raise ConfigError(f"{self.name}: the request has no {', '.join(missing)}, by which {rule.name} counts")
        # Lengths keep parts apart whatever characters are in them.
        return "".join(f"{len(parts[part])}:{parts[part]}" for part in per)

    def snapshot(self) -> dict[str, Any]:
        """The state of each rule's limiter as JSON-ready values."""
        return {"rules": self.name, "limiters": {name: each.snapshot() for name, each in self._limiters.items()}}
