"""The limit at an entrance: who is exempt, by what key and at what cost a request is counted, what its answer says."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from functools import lru_cache
from typing import Any, Literal, cast

from seawall.errors import ConfigError, RateLimited
from seawall.http.callers import KeyOf, awaits, found_by, text_of
from seawall.http.problem import Problem, problem_for
from seawall.http.request import Request
from seawall.limiter import Limiter, Rules
from seawall.limiter.asking import Cost
from seawall.limiter.limiter import NO_LIMIT
from seawall.policies.functions import check_predicate
from seawall.stores.decision import Decision
from seawall.stores.fields import fields_of, legacy_fields_of, wire_fields_of

__all__ = ["CostOf", "Entrance", "Exempt", "Fields", "PartsOf", "check_limiter", "messages_of", "tell"]

PartsOf = Callable[[Request], Mapping[str, Any] | Awaitable[Mapping[str, Any]]]
"""What `Rules` decide by: the parts of a request."""
CostOf = Callable[[Request], Cost]
Exempt = Iterable[str] | Callable[[Request], object]
"""Paths (`"/health"`, or `"/static/*"` for all that begin so), or a predicate of the request."""
Fields = Literal["draft", "legacy", "both", "none"]
SECOND = 1_000_000_000
LEFT = "X-RateLimit-Remaining"


class Entrance:
    """What the limits of all kinds of servers have in common. `owner` names the one of them in errors.

    `key` gives the key of a request, for a `Limiter`; for `Rules` it gives the parts, as a mapping. With `is_async` it
    may have to be awaited. With `named`, what is exempt may be said by the names of routes as well.
    """

    def __init__(
        self,
        owner: str,
        limiter: Limiter | Rules,
        key: KeyOf | PartsOf | None,
        cost: Cost | CostOf | None = None,
        exempt: Exempt = (),
        fields: Fields = "draft",
        *,
        is_async: bool = False,
        named: bool = False,
    ) -> None:
        check_limiter(limiter, f"{owner}(limiter)", rules=True)
        if isinstance(limiter, Rules) and key is None:
            raise ConfigError(f"{owner}(key=None): Rules need a function that gives the parts of a request")
        if not (is_async and callable(key)):
            check_predicate(key, f"{owner}(key)", "a function of the request")
        if callable(cost):
            check_predicate(cost, f"{owner}(cost)", "a whole number, or a function of the request")
        if fields not in ("draft", "legacy", "both", "none"):
            raise ConfigError(f'{owner}(fields={fields!r}): expected "draft", "legacy", "both" or "none"')
        self._owner = owner
        self._limiter: Any = limiter
        self._by_rules = isinstance(limiter, Rules)
        self._key: Any = key
        self._awaits_key = is_async and awaits(key)
        self._cost: Any = cost
        self._fields = fields
        self._exact, self._prefixes, self._names, self._predicate = _exempt(owner, exempt, named=named)
        self.has_exempt = bool(self._exact or self._prefixes or self._names or self._predicate)
        self.answers_at_once = not self._awaits_key and getattr(limiter, "answers_at_once", False)
        """Whether `decide` awaits nobody, and may be called where others have to be awaited."""
        self.tells = fields != "none" and not limiter.shadow
        """Whether answers carry fields. What a limit in shadow would say could slow down those who believe it."""
        self.refused = 0

    def exempts(self, request: Request) -> bool:
        """Whether the request is not counted at all."""
        if self._predicate is not None:
            return bool(self._predicate(request))
        if request.path in self._exact or (bool(self._prefixes) and request.path.startswith(self._prefixes)):
            return True
        return bool(self._names) and request.operation in self._names

    def find(self, request: Request) -> Any:
        """The key of the request; its parts, for `Rules`."""
        return "" if self._key is None else self._key(request)

    async def afind(self, request: Request) -> Any:
        """As `find`."""
        return await found_by(self._key, request) if self._awaits_key else self.find(request)

    def decide(self, request: Request) -> Decision:
        """Take the cost of the request, or be refused."""
        return self.decide_by(request, self.find(request))

    async def adecide(self, request: Request) -> Decision:
        """As `decide`."""
        return await self.adecide_by(request, await self.afind(request))

    def decide_by(self, request: Request, found: Any) -> Decision:
        """As `decide`, with what `find` found."""
        return self._counted(self._limiter.hit(*self._ask(request, found)))

    async def adecide_by(self, request: Request, found: Any) -> Decision:
        """As `decide_by`."""
        return self._counted(await self._limiter.ahit(*self._ask(request, found)))

    def admitting(self, request: Request, found: Any) -> Callable[[], Awaitable[bool]]:
        """A function that takes the cost once more each time it is called, for what one connection sends."""

        async def admit() -> bool:
            return (await self.adecide_by(request, found)).allowed

        return admit

    def _counted(self, decision: Decision) -> Decision:
        if not decision.allowed:
            self.refused += 1
        return decision

    def _ask(self, request: Request, found: Any) -> tuple[Any, Any]:
        cost = self._cost(request) if callable(self._cost) else self._cost
        if self._by_rules:
            return self._parts(request, found), cost
        if found.__class__ is not str:
            found = text_of(found)
            if found is None:
                raise ConfigError(
                    f"{self._owner}(key): nobody to count for {request!r}: the function gave None. Exempt such "
                    "requests, or say who else is counted: first_of(..., ClientAddress())"
                )
        return found, 1 if cost is None else cost

    def _parts(self, request: Request, found: Any) -> dict[str, Any]:
        if not isinstance(found, Mapping):
            raise ConfigError(f"{self._owner}(key): gave {found!r}: Rules need the parts of a request, as a mapping")
        given = cast("Mapping[str, Any]", found)
        parts = {part: text_of(value) for part, value in given.items() if value is not None}
        if "operation" not in parts and request.operation is not None:
            parts["operation"] = request.operation
        for part, value in parts.items():
            if not isinstance(value, str):
                raise ConfigError(f"{self._owner}(key): gave {value!r} as {part}: expected a text")
        return parts

    def fields(self, decision: Decision) -> dict[str, str]:
        """What the answer to a request tells of the limit."""
        if not self.tells or decision.limit is NO_LIMIT:
            return {}
        found: dict[str, str] = {}
        if self._fields in ("draft", "both"):
            found.update(fields_of(decision))
        if self._fields in ("legacy", "both"):
            found.update(legacy_fields_of(decision))
        return found

    def wire_fields(self, decision: Decision) -> list[tuple[bytes, bytes]]:
        """The same as bytes, names in small letters; for an answer that is not a refusal."""
        if self._fields == "draft" and self.tells and decision.limit is not NO_LIMIT:
            return wire_fields_of(decision)
        return [(name.lower().encode(), value.encode()) for name, value in self.fields(decision).items()]

    def refusal(self, decision: Decision) -> Problem:
        """The answer to a request that is refused."""
        never = decision.limit is NO_LIMIT  # no rule for it, and none will come
        problem = _refusal(None if never else max(1, -(-decision.retry_after_ns // SECOND)))
        told = [(name, value) for name, value in self.fields(decision).items() if name != "Retry-After"]
        return problem.replace(headers=(*problem.headers, *told)) if told else problem


@lru_cache(maxsize=256)
def _refusal(seconds: int | None) -> Problem:
    problem = problem_for(RateLimited(retry_after=seconds))
    assert problem is not None, "a refusal is Seawall's own to answer"
    return problem


def tell(headers: MutableMapping[str, str], fields: Mapping[str, str]) -> None:
    """Put the fields among headers that may hold those of another limit.

    Lists of the draft are joined. The older fields have room for one limit: the one that has less left.
    """
    for name in ("RateLimit-Policy", "RateLimit"):
        if name in fields:
            before = headers.get(name)
            headers[name] = f"{before}, {fields[name]}" if before else fields[name]
    left = fields.get(LEFT)
    if left is not None:
        before = headers.get(LEFT, "")
        if not (before.isascii() and before.isdigit()) or int(left) < int(before):
            for name, value in fields.items():
                if name.startswith("X-"):
                    headers[name] = value


def messages_of(owner: str, limiter: Limiter | Rules, messages: Limiter | Rules | None) -> Entrance | None:
    """The limit for what WebSockets receive, by the keys that are found for `limiter`; None if there is none."""
    if messages is None:
        return None
    check_limiter(messages, f"{owner}(messages)", rules=True)
    if isinstance(messages, Rules) != isinstance(limiter, Rules):
        raise ConfigError(f"{owner}(messages={messages!r}): expected Rules beside Rules, or a Limiter beside a Limiter")
    return Entrance(owner, messages, lambda _request: {}, fields="none")


def check_limiter(limiter: object, field: str, *, rules: bool = False) -> None:
    """Raise `ConfigError` for what is no `Limiter`; with `rules`, `Rules` will do as well."""
    if not isinstance(limiter, (Limiter, Rules) if rules else Limiter):
        name = field[:-1]  # without the bracket
        raise ConfigError(f"{name}={limiter!r}): expected a Limiter{' or Rules' if rules else ''}")


def _exempt(
    owner: str, exempt: Exempt, *, named: bool
) -> tuple[frozenset[str], tuple[str, ...], frozenset[str], Callable[[Request], object] | None]:
    if callable(exempt):
        check_predicate(exempt, f"{owner}(exempt)", "paths, or a predicate of the request")
        return frozenset(), (), frozenset(), exempt
    what = 'paths such as "/health" or "/static/*"' + (", or names of endpoints" if named else "")
    if isinstance(exempt, (str, bytes)):
        raise ConfigError(f"{owner}(exempt={exempt!r}): expected a tuple of {what}: ({exempt!r},)")
    entries = list(exempt)
    for entry in entries:
        if not isinstance(entry, str) or not (entry.startswith("/") or (named and entry)):  # pyright: ignore[reportUnnecessaryIsInstance]  # callers without a type checker
            raise ConfigError(f"{owner}(exempt={entries!r}): expected {what}")
    paths = [entry for entry in entries if entry.startswith("/")]
    exact = frozenset(path for path in paths if not path.endswith("*"))
    prefixes = tuple(path[:-1] for path in paths if path.endswith("*"))
    return exact, prefixes, frozenset(entries) - frozenset(paths), None
