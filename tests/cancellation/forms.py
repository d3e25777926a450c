"""The forms in which one call of a policy can be written, and the function they call."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from seawall import Policy
from seawall.testing import Script

__all__ = ["FORMS", "KEY", "Counted", "Form"]


class Counted(Script):
    """A script that also counts how its calls ended, and how many calls of a policy began with it."""

    answered = failed = begun = 0

    async def aio(self, *args: Any, **kwargs: Any) -> Any:
        try:
            result = await super().aio(*args, **kwargs)
        except Exception:
            self.failed += 1
            raise
        self.answered += 1
        return result


Form = Callable[[Policy, Counted], Awaitable[Any]]
KEY = "tenant"


async def by_acall(policy: Policy, function: Counted) -> Any:
    return await policy.acall(function.aio, KEY)


async def by_decorator(policy: Policy, function: Counted) -> Any:
    @policy
    async def decorated(key: str) -> Any:
        return await function.aio(key)

    return await decorated(KEY)


async def by_arun(policy: Policy, function: Counted) -> Any:
    return (await policy.arun(function.aio, KEY)).unwrap()


async def by_guard(policy: Policy, function: Counted) -> Any:
    async with policy.guard():
        return await function.aio(KEY)


async def by_attempts(policy: Policy, function: Counted) -> Any:
    result = None
    async for attempt in policy.attempts():
        with attempt:
            result = await function.aio(KEY)
    return result


FORMS: dict[str, Form] = {
    "acall": by_acall,
    "decorated": by_decorator,
    "arun": by_arun,
    "guard": by_guard,
    "attempts": by_attempts,
}
