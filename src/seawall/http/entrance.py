"""The limit at an entrance: who is exempt, by what key and at what cost a request is counted, what its answer says."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

from seawall.errors import ConfigError, RateLimited
from seawall.http.callers import KeyOf
from seawall.http.problem import Problem, problem_for
from seawall.http.request import Request
from seawall.limiter import Limiter, Rules
from seawall.limiter.asking import Cost
from seawall.limiter.limiter import NO_LIMIT
from seawall.policies.functions import check_predicate
from seawall.stores.decision import Decision
from seawall.stores.fields import fields_of, legacy_fields_of

__all__ = ["Entrance", "Exempt", "Fields"]

Exempt = Iterable[str] | Callable[[Request], object]
"""Paths (`"/health"`, or `"/static/*"` for all that begin so), or a predicate of the request."""
Fields = Literal["draft", "legacy", "both", "none"]


class Entrance:
    """What the limits of all kinds of servers have in common. `owner` names the one of them in errors.

    `key` gives the key of a request, for a `Limiter`; for `Rules` it gives the parts, as a mapping.
    """

    def __init__(
        self,
        owner: str,
        limiter: Limiter | Rules,
        key: KeyOf | Callable[[Request], Mapping[str, str]] | None,
        cost: Cost | Callable[[Request], Cost] | None,
        exempt: Exempt,
        fields: Fields,
    ) -> None:
        if not isinstance(limiter, (Limiter, Rules)):  # pyright: ignore[reportUnnecessaryIsInstance]  # callers without a type checker
            raise ConfigError(f"{owner}(limiter={limiter!r}): expected a Limiter or Rules")
        if isinstance(limiter, Rules) and key is None:
            raise ConfigError(f"{owner}(key=None): Rules need a function that gives the parts of a request")
        check_predicate(key, f"{owner}(key)", "a function of the request")
        if callable(cost):
            check_predicate(cost, f"{owner}(cost)", "a whole number, or a function of the request")
        if fields not in ("draft", "legacy", "both", "none"):
            raise ConfigError(f'{owner}(fields={fields!r}): expected "draft", "legacy", "both" or "none"')
        self._limiter: Any = limiter
        self._by_rules = isinstance(limiter, Rules)
        self._key: Any = key
        self._cost: Any = cost
        self._fields = fields
        self._exact, self._prefixes, self._predicate = _exempt(owner, exempt)

    def exempts(self, request: Request) -> bool:
        """Whether the request is not counted at all."""
        if self._predicate is not None:
            return bool(self._predicate(request))
        return request.path in self._exact or (bool(self._prefixes) and request.path.startswith(self._prefixes))

    def _ask(self, request: Request) -> tuple[Any, Any]:
        key = "" if self._key is None else self._key(request)
        cost = self._cost(request) if callable(self._cost) else self._cost
        if cost is None:
            cost = None if self._by_rules else 1
        return key, cost

    def decide(self, request: Request) -> Decision:
        """Take the cost of the request, or be refused."""
        decision: Decision = self._limiter.hit(*self._ask(request))
        return decision

    async def adecide(self, request: Request) -> Decision:
        """As `decide`."""
        decision: Decision = await self._limiter.ahit(*self._ask(request))
        return decision

    def fields(self, decision: Decision) -> dict[str, str]:
        """What the answer to a request tells of the limit."""
        if self._fields == "none" or decision.limit is NO_LIMIT:
            return {}
        found: dict[str, str] = {}
        if self._fields in ("draft", "both"):
            found.update(fields_of(decision))
        if self._fields in ("legacy", "both"):
            found.update(legacy_fields_of(decision))
        return found

    def refusal(self, decision: Decision) -> Problem:
        """The answer to a request that is refused."""
        problem = problem_for(RateLimited(retry_after=decision.retry_after))
        assert problem is not None, "a refusal is Seawall's own to answer"
        told = {name: value for name, value in self.fields(decision).items() if name != "Retry-After"}
        return problem.replace(headers=(*problem.headers, *told.items()))


def _exempt(owner: str, exempt: Exempt) -> tuple[frozenset[str], tuple[str, ...], Callable[[Request], object] | None]:
    if callable(exempt):
        check_predicate(exempt, f"{owner}(exempt)", "paths, or a predicate of the request")
        return frozenset(), (), exempt
    if isinstance(exempt, (str, bytes)):
        raise ConfigError(f"{owner}(exempt={exempt!r}): expected a tuple of paths, such as ({exempt!r},)")
    paths = list(exempt)
    if not all(isinstance(path, str) and path.startswith("/") for path in paths):  # pyright: ignore[reportUnnecessaryIsInstance]  # callers without a type checker
        raise ConfigError(f'{owner}(exempt={exempt!r}): expected paths such as "/health" or "/static/*"')
    exact = frozenset(path for path in paths if not path.endswith("*"))
    prefixes = tuple(path[:-1] for path in paths if path.endswith("*"))
    return exact, prefixes, None
