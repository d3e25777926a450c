"""`Fallback`: another, lesser answer now, instead of an error. (`Failback`, by contrast, does the same work later.)"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from seawall import events
from seawall.errors import ConfigError
from seawall.policies.classify import PROGRAMMING, Errors, matcher
from seawall.policies.functions import is_coroutine_function
from seawall.policies.layer import Again, Call, Ending, Live, Site
from seawall.policies.spec import Spec
from seawall.policies.switch import Switch, SwitchGuard

__all__ = ["Fallback", "FallbackDriver", "same_args"]


class SameArgs:
    """Marks a fallback that wants the arguments of the call instead of the error."""

    __slots__ = ("function",)

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function

    def __repr__(self) -> str:
        return f"same_args({self.function!r})"


def same_args(function: Callable[..., Any]) -> SameArgs:
    """A fallback that is called with the arguments of the call: another source, an older copy, a local guess.

    >>> from seawall import Policy, Fallback, same_args
    >>> prices = Policy(Fallback(same_args(lambda sku: f"list price of {sku}")))
    >>> @prices
    ... def price(sku): raise ConnectionError("refused")
    >>> price("A7")
    'list price of A7'
    """
    if not callable(function):
        raise ConfigError(f"same_args({function!r}): expected a function")
    return SameArgs(function)


class Fallback(Spec):
    """Answer something useful when what lies inside fails or is refused.

    Breaking is the means, degradation is the end: put it outermost. Programming errors are not hidden, unless `on`
    names them. `outcome.degraded` and the event `FellBack` tell that an answer is a lesser one.

    Args:
        answers: tried in order until one does not raise. A value is the answer; a function is called with the
            error; `same_args(function)` is called with the arguments of the call. Async functions work in async calls.
        on: exception types or a predicate. Default: every `Exception`, refusals of Seawall's guards included.
        when: a `Switch`: while it is on, the fallback answers and no call is made.

    Raises:
        ConfigError: no answer is given, or one is of the wrong form.

    Example:
        >>> from seawall import Policy, Fallback
        >>> quotes = Policy(Fallback(lambda error: f"cached, because: {error}"))
        >>> def live(): raise ConnectionError("refused")
        >>> quotes.call(live)
        'cached, because: refused'
    """

    __slots__ = ("answers", "on", "when")

    answers: tuple[object, ...]
    on: Errors
    when: Switch | None

    def __init__(
        self,
        *answers: Callable[[Exception], Any] | SameArgs | object,
        on: Errors = Exception,
        when: Switch | None = None,
        name: str | None = None,
    ) -> None:
        if not answers:
            raise ConfigError(
                "Fallback(): expected at least one answer: a value, a function of the error, or same_args(function)"
            )
        for answer in answers:
            if isinstance(answer, (type, BaseException)):
                hint = "a class would be called with the error, an exception returned instead of raised"
                raise ConfigError(f"Fallback({answer!r}): {hint}; say what you mean by a function of the error")
        matcher(on, "Fallback(on)", refusals=True)
        if when is not None and not isinstance(when, Switch):  # pyright: ignore[reportUnnecessaryIsInstance]  # callers without a type checker
            raise ConfigError(f"Fallback(when={when!r}): expected a Switch")
        self._init(name, answers=answers, on=on, when=when)

    def replace(self, **changes: Any) -> Fallback:
        fields: dict[str, Any] = {"on": self.on, "when": self.when, "name": self.name, **changes}
        return Fallback(*fields.pop("answers", self.answers), **fields)

    def bind(self, site: Site) -> Sequence[Live]:
        driver = FallbackDriver(site, self)
        return (driver,) if self.when is None else (driver, SwitchGuard(site, self, self.when))


class FallbackDriver(Live):
    """A fallback at work."""

    kind = "fallback"
    is_guard = False
    replaces = True

    def __init__(self, site: Site, spec: Fallback) -> None:
        super().__init__(site, spec)
        self._answers = spec.answers
        self._means = matcher(spec.on, "Fallback(on)", refusals=True)
        self.fell_back = 0

    def check(self, *, is_async: bool) -> None:
        for answer in self._answers:
            function = answer.function if isinstance(answer, SameArgs) else answer
            if not is_async and callable(function) and is_coroutine_function(function):
                raise ConfigError(f"{self.policy}: the async fallback {function!r} cannot answer a synchronous call")

    async def failed(self, call: Call, token: None, error: BaseException, again: Again) -> Ending:
        if not self._means(error):
            return None, error
        if self.shadow:
            self._announce(error)
            return None, error
        last = error
        for answer in self._answers:
            try:
                value = await self._ask(answer, error, call)
            except PROGRAMMING:
                raise
            except Exception as raised:  # noqa: BLE001  # the next answer takes its turn
                if raised is not last and raised.__cause__ is None:
                    BaseException.__dict__["__cause__"].__set__(raised, last)  # also where errors are frozen
                last = raised
            else:
                call.degraded = True
                self._announce(error)
                return value, None
        try:
            return None, last
        finally:
            del last  # it knows this frame: see Chain.attempt

    async def _ask(self, answer: Any, error: BaseException, call: Call) -> Any:
        value: Any
        if isinstance(answer, SameArgs):
            value = answer.function(*call.args, **call.kwargs)
        elif callable(answer):
            value = answer(error)
        else:
            return answer
        if getattr(value, "__await__", None) is None:
            return value
        if call.runtime.is_async:
            return await value
        if hasattr(value, "close"):
            value.close()
        raise ConfigError(f"{self.policy}: an async fallback answers async calls only; this call is synchronous")

    def _announce(self, error: BaseException) -> None:
        self.fell_back += not self.shadow
        if events.sinks:
            events.emit(events.FellBack(policy=self.policy, layer=self.name, error=error, shadow=self.shadow))

    def snapshot(self) -> dict[str, Any]:
        return {"answers": len(self._answers), "fell_back": self.fell_back}

    def explain(self) -> str:
        count = len(self._answers)
        return f"If the call fails, the fallback answers{f' ({count} answers, tried in order)' if count > 1 else ''}."
