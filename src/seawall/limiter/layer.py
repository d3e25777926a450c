"""`RateLimit`: a limiter as a layer of a policy, and around functions and blocks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any

from seawall.errors import ConfigError, RateLimited
from seawall.limiter.asking import Cost, Key
from seawall.limiter.limiter import Limiter
from seawall.limiter.specs import LimitSpec
from seawall.policies.functions import check_predicate
from seawall.policies.layer import Call, Lane, Live, MustWait, Site
from seawall.policies.spec import Spec
from seawall.stores.decision import Decision
from seawall.units import Duration, duration_ns

__all__ = ["RateLimit", "RateLimitGuard"]


class RateLimit(Spec):
    """Refuse calls beyond a limit with `RateLimited`, or let them wait for it. Belongs outside a retry.

    Args:
        limiter: a `Limiter`, which may be shared; or a limit (`TokenBucket("100/s")`): then every policy has a limiter
            of its own.
        key: a function of the call's arguments that tells callers apart. Default: one limit for all.
        cost: a whole number, or a function of the call's arguments. Default 1.
        max_wait: wait for so long; None means until the deadline of the call. Default 0: refuse at once.

    Raises:
        ConfigError: a setting is wrong.

    Example:
        >>> from seawall import Policy, RateLimit, RateLimited, TokenBucket
        >>> reports = Policy(RateLimit(TokenBucket("1/min"), key=lambda user: user), name="reports")
        >>> for user in ("ann", "bob", "ann"):
        ...     try: print(reports.call(lambda user: f"report for {user}", user))
        ...     except RateLimited as error: print(error)
        report for ann
        report for bob
        reports: limit 'TokenBucket' reached (1 of 1 used, 1 more asked); retry in 60 s
    """

    __slots__ = ("limiter", "key", "cost", "max_wait")

    limiter: Limiter | LimitSpec
    key: Callable[..., Key] | None
    cost: Cost | Callable[..., Cost]
    max_wait: Duration | None

    def __init__(
        self,
        limiter: Limiter | LimitSpec,
        *,
        key: Callable[..., Key] | None = None,
        cost: Cost | Callable[..., Cost] = 1,
        max_wait: Duration | None = 0,
        name: str | None = None,
    ) -> None:
        if not isinstance(limiter, (Limiter, LimitSpec)):  # pyright: ignore[reportUnnecessaryIsInstance]  # callers without a type checker
            hint = "; for a ConcurrencyLimit there is Concurrency(...)" if hasattr(limiter, "slot") else ""
            raise ConfigError(
                f"RateLimit(limiter={limiter!r}): expected a Limiter, or a limit such as TokenBucket(...){hint}"
            )
        check_predicate(key, "RateLimit(key)", "a function of the call's arguments")
        if callable(cost):
            check_predicate(cost, "RateLimit(cost)", "a whole number, or a function of the call's arguments")
        if max_wait is not None:
            duration_ns(max_wait, "RateLimit(max_wait)")
        self._init(name, limiter=limiter, key=key, cost=cost, max_wait=max_wait)

    def bind(self, site: Site) -> Sequence[Live]:
        return (RateLimitGuard(site, self),)


class RateLimitGuard(Live):
    """A limiter at work in a policy."""

    kind = "rate_limit"

    def __init__(self, site: Site, spec: RateLimit) -> None:
        super().__init__(site, spec)
        own = isinstance(spec.limiter, LimitSpec)
        self.limiter = Limiter(spec.limiter, name=site.policy) if isinstance(spec.limiter, LimitSpec) else spec.limiter
        self._only_looks = self.shadow and not own
        """A policy that only watches must not take what others share."""
        self._key, self._cost = spec.key, spec.cost
        if not callable(spec.cost):
            self.limiter.check_cost(spec.cost)
        self._waits = spec.max_wait is None or duration_ns(spec.max_wait, "max_wait") > 0
        self._max_wait = spec.max_wait
        self.refused = 0

    def lane(self, *, is_async: bool) -> Lane:
        if self._key is None and not callable(self._cost):
            return Lane(lambda: self._enter((), {}), None)
        return Lane(self._enter, None, takes_call=True)

    def _ask(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Key, Cost]:
        key = "" if self._key is None else self._key(*args, **kwargs)
        return key, self._cost(*args, **kwargs) if callable(self._cost) else self._cost

    def _enter(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if not self.limiter.answers_at_once:
            raise MustWait
        key, cost = self._ask(args, kwargs)
        if self._waits and not self.shadow:
            decision = self.limiter.try_now(key, cost)
            if not decision.allowed:
                raise MustWait
        elif self._only_looks:
            decision, cost = self.limiter.peek(key, cost), 0
        else:
            # In a policy that only watches nobody reached a limit: that he would have is told by the layer.
            decision = self.limiter.try_now(key, cost) if self.shadow else self.limiter.hit(key, cost)
        return (key, cost, decision) if decision.allowed else self._refuse(key, cost, decision)

    def _refuse(self, key: Key, cost: Cost, decision: Decision) -> Any:
        self.refused += 1
        self.emit_refused(RateLimited.reason)
        if self.shadow:
            return key, 0, decision
        error = decision.error()
        error.policy = self.policy
        raise error

    async def wait(self, call: Call) -> Any:
        key, cost = self._ask(call.args, call.kwargs)
        limiter = self.limiter
        if self._waits and not self.shadow:
            try:
                if call.runtime.is_async:
                    return key, cost, await limiter.atake(key, cost, max_wait=self._max_wait)
                return key, cost, limiter.take(key, cost, max_wait=self._max_wait)
            except RateLimited as error:
                self.refused += 1
                self.emit_refused(RateLimited.reason)
                error.policy = self.policy
                raise
        if self._only_looks:
            decision = await limiter.apeek(key, cost) if call.runtime.is_async else limiter.peek(key, cost)
            cost = 0
        else:
            decision = await limiter.ahit(key, cost) if call.runtime.is_async else limiter.hit(key, cost)
        return (key, cost, decision) if decision.allowed else self._refuse(key, cost, decision)

    def note(self, call: Call, token: Any, error: BaseException) -> None:
        if not call.attempts:
            self.undo(token)  # a layer further inside refused: the function was not called

    def undo(self, token: Any) -> None:
        key, cost, decision = token
        self.limiter.give_back(key, cost, decision)

    def snapshot(self) -> dict[str, Any]:
        return {"refused": self.refused, **self.limiter.snapshot()}

    def explain(self) -> str:
        if self._key is not None:
            return f"The rate limit {self.limiter.name} counts each key apart."
        decision = self.limiter.peek() if self.limiter.answers_at_once else None
        if decision is None:
            return f"The rate limit {self.limiter.name} is kept in a store."
        left = f"{decision.remaining} of {decision.capacity} are left"
        end = "let the call through" if decision.allowed else "refuse the call"
        return f"The rate limit {self.limiter.name}: {left}; it would {end}."


class LimitedBlock:
    """`with limiter.guard(key):`, or `async with`: take, or raise `RateLimited` before the block."""

    __slots__ = ("_cost", "_key", "_limiter", "_max_wait")

    def __init__(self, limiter: Limiter, key: Key, cost: Cost, max_wait: Duration | None) -> None:
        self._limiter = limiter
        self._key = key
        self._cost = cost
        self._max_wait = max_wait

    def __enter__(self) -> Decision:
        return self._limiter.take(self._key, self._cost, max_wait=self._max_wait)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    async def __aenter__(self) -> Decision:
        return await self._limiter.atake(self._key, self._cost, max_wait=self._max_wait)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None
