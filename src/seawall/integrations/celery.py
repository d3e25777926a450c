"""Limits for Celery's tasks: one beyond the limit goes back to its queue until it is worth trying, and no worker waits.

from seawall.integrations.celery import limited

@app.task
@limited(provider)
def send(mail_id: int) -> None: ...
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, NoReturn, ParamSpec, TypeVar

from seawall.errors import ConfigError, RateLimited
from seawall.http.entrance import check_limiter
from seawall.limiter import Limiter, Rules
from seawall.limiter.asking import Cost, Key
from seawall.limiter.limiter import NO_LIMIT
from seawall.policies.functions import check_predicate, is_coroutine_function
from seawall.runtime import chance
from seawall.stores.decision import Decision
from seawall.units import Duration, count_of, duration_ns

try:
    from celery import current_task  # type: ignore[import-untyped]  # pyright: ignore[reportMissingTypeStubs]
    from celery.exceptions import Reject, Retry  # type: ignore[import-untyped]  # pyright: ignore[reportMissingTypeStubs]
except ImportError as error:
    raise ImportError('seawall.integrations.celery needs Celery: pip install "seawall[celery]"') from error

__all__ = ["limited"]

P = ParamSpec("P")
T = TypeVar("T")

SECOND = 1_000_000_000
MILLISECOND = SECOND // 1_000
SHORTEST = 10 * MILLISECOND
"""A queue is no timer for less."""
REQUEUES = "seawall_requeues"
WAITED = "seawall_waited_ms"
"""The headers of a message that say how often limits have put it back, and for how long in all."""


def limited(
    limiter: Limiter | Rules,
    *,
    key: Callable[..., Key | Mapping[str, str]] | None = None,
    cost: Cost | Callable[..., Cost] | None = None,
    max_delay: Duration = "10min",
    max_requeues: int | None = None,
) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """A decorator for tasks, below `@app.task`: next to the function.

    A task beyond the limit is sent again with a countdown, under its own id, with links, chords and headers; its state
    is RETRY meanwhile. That is none of the task's own retries: `max_retries` counts those alone. The countdown is the
    time until the limit admits one more, and by chance up to half as long again as that, or as the task has waited
    already: so a thousand of them do not come back all at once, and again and again.

    Called directly, or eagerly, there is no queue: `RateLimited` is raised.

    Args:
        limiter: a `Limiter`, or `Rules`. The processes of a worker need a store that they share.
        key: a function of the task's arguments that gives the key; for `Rules`, the parts (`operation` is the name of
            the task, unless you give it). Default: one limit for all.
        cost: a whole number, or a function of the task's arguments. Default 1, or that of the rule.
        max_delay: the longest countdown; then it is asked again. Keep it below the visibility timeout of the broker
            (an hour with Redis), or tasks run twice. Default 10 minutes.
        max_requeues: how often a message may come back before the task fails with `RateLimited`. Default None: as often
            as it takes; Celery's `expires` ends it too.

    Raises:
        ConfigError: a setting is wrong; or what is decorated is a task already, where it would do nothing.
    """
    check_limiter(limiter, "limited(limiter)", rules=True)
    check_predicate(key, "limited(key)", "a function of the task's arguments")
    if callable(cost):
        check_predicate(cost, "limited(cost)", "a whole number, or a function of the task's arguments")
    most_ns = duration_ns(max_delay, "limited(max_delay)", zero=False)
    if max_requeues is not None:
        count_of(max_requeues, "limited(max_requeues)", least=0)
    ask = _asking(limiter, key, cost)

    def decorate(function: Callable[P, T]) -> Callable[P, T]:
        # By the class itself: a task that is not made yet would be made by looking at it.
        if not issubclass(type(function), type(decorate)):
            raise ConfigError(
                f"@limited stands above @app.task: got {type(function).__name__}, which has the function as it is, and "
                "it would never be limited. Put @limited below, next to the function"
            )
        if is_coroutine_function(function):
            raise ConfigError(f"@limited: got {function!r}: Celery does not await tasks")

        @functools.wraps(function)
        def run(*args: P.args, **kwargs: P.kwargs) -> T:
            task = _task_of(run)
            decision = ask(task, args, kwargs)
            if not decision.allowed:
                _put_back(task, decision, most_ns, max_requeues)
            return function(*args, **kwargs)

        # Celery checks the arguments of a call by it, and does not look behind decorators.
        vars(run)["__signature__"] = inspect.signature(function)
        return run

    return decorate


def _asking(limiter: Any, key: Any, cost: Any) -> Callable[[Any, tuple[Any, ...], Mapping[str, Any]], Decision]:
    """How the limiter is asked for one run."""
    by_rules = isinstance(limiter, Rules)

    def ask(task: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Decision:
        found: Any = key(*args, **kwargs) if key is not None else {} if by_rules else ""
        price = cost(*args, **kwargs) if callable(cost) else cost
        if by_rules:
            name = {} if task is None else {"operation": task.name}
            return limiter.hit({**name, **found}, price)  # type: ignore[no-any-return]
        return limiter.hit(found, 1 if price is None else price)  # type: ignore[no-any-return]

    return ask


def _task_of(run: Callable[..., Any]) -> Any:
    """The task that a worker runs by this very function; None if it was called in any other way."""
    task: Any = current_task
    if not task or task.request.called_directly or task.request.is_eager:
        return None
    behind: Any = task.run
    while behind is not None:
        if getattr(behind, "__func__", behind) is run:
            return task
        behind = getattr(behind, "__wrapped__", None)
    return None


def _put_back(task: Any, decision: Decision, most_ns: int, most: int | None) -> NoReturn:
    error = decision.error()
    if task is None or decision.limit is NO_LIMIT:
        raise error
    headers: dict[str, Any] = dict(task.request.headers or {})
    count, waited = _count_in(headers, REQUEUES), _count_in(headers, WAITED)
    if most is not None and count >= most:
        raise error
    delay_ns = _delay_ns(decision.retry_after_ns, waited * MILLISECOND, most_ns)
    headers |= {REQUEUES: count + 1, WAITED: waited + delay_ns // MILLISECOND}
    again = task.signature_from_request(
        task.request, countdown=delay_ns / 1e9, retries=task.request.retries, headers=headers
    )
    try:
        again.apply_async()
    except Exception as failure:
        # With late acknowledgement the message is still the broker's; else only a failure keeps it from being lost.
        if task.acks_late:
            raise Reject(failure, requeue=True) from failure
        raise
    # A plain copy: what a backend stores must not hold the limiter.
    told = RateLimited(error.detail, policy=error.policy, retry_after=error.retry_after)
    raise Retry(exc=told, when=round(delay_ns / 1e9, 3), sig=again)


def _count_in(headers: Mapping[str, Any], name: str) -> int:
    """A number that a message carries; 0 for whatever else stands there."""
    value = headers.get(name)
    return value if type(value) is int and 0 <= value < 10**12 else 0


def _delay_ns(wait_ns: int, waited_ns: int, most_ns: int) -> int:
    least = max(wait_ns, SHORTEST)
    spread = max(least, waited_ns) // 2
    if least + spread > most_ns:
        # Drawn below the cap: what is cut off at it comes back all at once.
        least = min(least, most_ns // 2)
        spread = most_ns - least
    return least + int(chance.random() * spread)
