"""The calls of a simulated world: who calls what, when, in which form, with what patience."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from random import Random
from typing import Any, NamedTuple

from seawall import Criticality, Policy, criticality, deadline
from seawall.errors import Rejected
from tests.simulation.endpoints import Endpoint
from tests.simulation.shapes import Shape

__all__ = ["Plan", "Work", "by_form", "causes", "outcome_of", "plan"]

Work = Callable[[Policy, Endpoint, int], Awaitable[int]]


class Plan(NamedTuple):
    """One call, decided before the world begins."""

    number: int
    shape: Shape
    endpoint: int
    pause: float
    """Seconds after the call before it."""
    form: str
    deadline: float | None
    criticality: Criticality
    cancel_after: float | None


def plan(random: Random, shapes: list[Shape], number: int) -> Plan:
    shape = random.choice(shapes)
    return Plan(
        number=number,
        shape=shape,
        endpoint=random.randrange(2),
        pause=random.choice((0, 0, 0.01, 0.05, 0.3)),
        form=random.choice(("acall", "acall", "decorated", "arun", *shape.by_block)),
        deadline=random.choice((None, None, None, 0, 0.1, 1)),
        criticality=random.choice(list(Criticality)),
        cancel_after=random.choice((None, None, None, 0, 0.005, 0.05, 0.25, 0.5)),
    )


async def by_form(each: Plan, form: str | None, work: Work, endpoint: Endpoint) -> Any:
    """Make the call as the plan says; `form` replaces the forms that are given a function."""
    policy = each.shape.policy.for_key(each.number % 3) if each.shape.keyed else each.shape.policy
    chosen = form if form is not None and each.form not in ("guard", "attempts") else each.form

    async def serve(endpoint: Endpoint, number: int) -> int:
        return await work(policy, endpoint, number)

    patience = contextlib.nullcontext() if each.deadline is None else deadline(each.deadline)
    with criticality(each.criticality), patience:
        return await FORMS[chosen](policy, serve, endpoint, each.number)


async def _acall(policy: Policy, serve: Any, *arguments: Any) -> Any:
    return await policy.acall(serve, *arguments)


async def _decorated(policy: Policy, serve: Any, *arguments: Any) -> Any:
    return await policy(serve)(*arguments)


async def _arun(policy: Policy, serve: Any, *arguments: Any) -> Any:
    return (await policy.arun(serve, *arguments)).unwrap()


async def _guard(policy: Policy, serve: Any, *arguments: Any) -> Any:
    async with policy.guard():
        return await serve(*arguments)


async def _attempts(policy: Policy, serve: Any, *arguments: Any) -> Any:
    result = None
    async for attempt in policy.attempts():
        with attempt:
            result = await serve(*arguments)
    return result


FORMS = {"acall": _acall, "decorated": _decorated, "arun": _arun, "guard": _guard, "attempts": _attempts}


async def outcome_of(call: Awaitable[Any]) -> str:
    """How a call ended, in the words of the meter, with all that its caller can see of it."""
    try:
        return f"ok {await call}"
    except Exception as error:
        seen = [type(each).__name__ for each in causes(error)]
        kind = "rejected" if isinstance(error, Rejected) else "failed"
        return f"{kind} {seen} {error} {getattr(error, '__notes__', [])}"


def causes(error: BaseException | None) -> list[BaseException]:
    found: list[BaseException] = []
    while error is not None and error not in found:
        found.append(error)
        error = error.__cause__
    return found
