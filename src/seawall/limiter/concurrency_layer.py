"""`Concurrency`: a concurrency limit as a layer of a policy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from seawall.errors import ConfigError, RateLimited
from seawall.limiter.asking import Key
from seawall.limiter.concurrency import ConcurrencyLimit
from seawall.policies.functions import check_predicate
from seawall.policies.layer import Again, Call, Ending, Live, Site
from seawall.policies.spec import Spec
from seawall.units import Duration, duration_ns

__all__ = ["Concurrency", "ConcurrencyGuard"]


class Concurrency(Spec):
    """Let a call run in a slot of a `ConcurrencyLimit`, or refuse it with `RateLimited`.

    Inside a retry each attempt takes a slot of its own; outside, one slot lasts for all of them. While it waits, what
    layers outside of it have given out is held: with `max_wait` it belongs outside a bulkhead. Around blocks there is
    `limit.slot(key)` instead: `guard()` and `attempts()` refuse it.

    Args:
        limit: the `ConcurrencyLimit`, which may be shared.
        key: a function of the call's arguments that tells callers apart. Default: one key for all.
        max_wait: wait for so long; None means until the deadline of the call. Default 0: refuse at once.

    Raises:
        ConfigError: a setting is wrong.

    Example:
        >>> from seawall import Concurrency, ConcurrencyLimit, Policy, Timeout
        >>> exports = ConcurrencyLimit(2, name="exports")
        >>> export = Policy(Timeout("60s"), Concurrency(exports, key=lambda user: user), name="export")
        >>> export.call(lambda user: f"{exports.peek(user).remaining} more for {user}", "ann")
        '1 more for ann'
    """

    __slots__ = ("limit", "key", "max_wait")

    limit: ConcurrencyLimit
    key: Callable[..., Key] | None
    max_wait: Duration | None

    def __init__(
        self,
        limit: ConcurrencyLimit,
        *,
        key: Callable[..., Key] | None = None,
        max_wait: Duration | None = 0,
        name: str | None = None,
    ) -> None:
        if not isinstance(limit, ConcurrencyLimit):  # pyright: ignore[reportUnnecessaryIsInstance]  # callers without a type checker
            raise ConfigError(f"Concurrency(limit={limit!r}): expected a ConcurrencyLimit(...)")
        check_predicate(key, "Concurrency(key)", "a function of the call's arguments")
        if max_wait is not None:
            duration_ns(max_wait, "Concurrency(max_wait)")
        self._init(name, limit=limit, key=key, max_wait=max_wait)

    def bind(self, site: Site) -> Sequence[Live]:
        return (ConcurrencyGuard(site, self),)


class ConcurrencyGuard(Live):
    """A concurrency limit at work in a policy."""

    kind = "concurrency"
    is_guard = False  # it waits with what lies outside in hand, as a hedge does: there is nothing to undo
    wraps = True

    def __init__(self, site: Site, spec: Concurrency) -> None:
        super().__init__(site, spec)
        self.limit = spec.limit
        self._key = spec.key
        self._max_wait = spec.max_wait
        self.refused = 0

    async def around(self, call: Call, again: Again) -> Ending:
        key = "" if self._key is None else self._key(*call.args, **call.kwargs)
        if self.shadow:
            # A policy that only watches must not take what others share.
            limit = self.limit
            decision = await limit.apeek(key) if call.runtime.is_async else limit.peek(key)
            if not decision.allowed:
                self._refuse()
            return await again()
        block = self.limit.slot(key, max_wait=self._max_wait)
        try:
            if call.runtime.is_async:
                await block.__aenter__()
            else:
                block.__enter__()
        except RateLimited as error:
            self._refuse()
            error.policy = self.policy
            raise
        try:
            return await again()
        finally:
            if call.runtime.is_async:
                await block.__aexit__(None, None, None)
            else:
                block.__exit__(None, None, None)

    def _refuse(self) -> None:
        self.refused += 1
        self.emit_refused(RateLimited.reason)

    def snapshot(self) -> dict[str, Any]:
        return {**self.limit.snapshot(), "refused": self.refused}

    def explain(self) -> str:
        return f"The concurrency limit {self.limit.name} lets at most {self.limit.limit} of one key run at a time."
