"""How the arguments of an operation become bytes and come back: the contract of codecs, and strict JSON. Never pickle.

Strict means that what comes back is what went in: a tuple would come back as a list, a number as a key as a string,
NaN not at all, so all of these are refused when the call is made, not when a worker finds them hours later.
"""

from __future__ import annotations

import inspect
import json
import math
from collections.abc import Callable, Mapping
from typing import Any, Protocol, cast

__all__ = ["Arguments", "Codec", "Json", "Parameters"]

Arguments = Mapping[str, Any]
"""The arguments of an operation by the names of its parameters; those of `*args` as a list, of `**kwargs` as a dict."""

DEEPEST = 100
MOST_VALUES = 1_000_000
MOST_BITS = 8_192
PLAIN = "give str, int, float, bool, None, list or dict, or the operation a codec"
_PLAIN = frozenset({str, bool, type(None)})


class Parameters:
    """What an operation takes, without the endpoint that a cluster puts first."""

    def __init__(self, operation: str, function: Callable[..., Any], *, takes_endpoint: bool = False) -> None:
        self.operation = operation
        self.function = function
        signature = inspect.signature(function)
        if takes_endpoint:
            signature = _without_first(signature, operation)
        self.signature = signature
        self.plan: object = None
        """Where a codec keeps what it found out about them; `Typed` does."""

    def bind(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Arguments:
        """The arguments of one call by name. Raises `TypeError` where the call itself would."""
        try:
            bound = self.signature.bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(f"{self.operation}: {error}") from None
        return {
            name: list(cast("tuple[Any, ...]", value)) if self._is_rest(name) else value
            for name, value in bound.arguments.items()
        }

    def unbind(self, arguments: Arguments) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Back to positions and keywords. Raises `TypeError` if they do not fit what the function takes now."""
        known = self.signature.parameters
        strange = [name for name in arguments if name not in known]
        missing = [name for name, kind in known.items() if name not in arguments and _is_required(kind)]
        if strange or missing:
            what = f"has {strange[0]!r}, which" if strange else f"lacks {missing[0]!r}, which"
            verb = "does not take" if strange else "needs"
            raise TypeError(f"{self.operation}: the record {what} the function {verb}; was its signature changed?")
        bound = inspect.BoundArguments(self.signature, cast("Any", {}))
        for name in known:
            if name in arguments:
                bound.arguments[name] = tuple(arguments[name]) if self._is_rest(name) else arguments[name]
        return bound.args, bound.kwargs

    def _is_rest(self, name: str) -> bool:
        return self.signature.parameters[name].kind is inspect.Parameter.VAR_POSITIONAL


def _without_first(signature: inspect.Signature, operation: str) -> inspect.Signature:
    parameters = list(signature.parameters.values())
    if parameters and parameters[0].kind is inspect.Parameter.VAR_POSITIONAL:
        return signature
    if not parameters or parameters[0].kind not in (
        inspect.Parameter.POSITIONAL_ONLY,
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
    ):
        from seawall.errors import ConfigError  # noqa: PLC0415  # for this one mistake

        raise ConfigError(f"operation({operation!r}): through a cluster, its function takes the endpoint first")
    return signature.replace(parameters=parameters[1:])


def _is_required(parameter: inspect.Parameter) -> bool:
    rest = parameter.kind in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return parameter.default is inspect.Parameter.empty and not rest


class Codec(Protocol):
    """Turns arguments into bytes and back.

    `encode` is called before the first attempt, in the caller's call: it raises `TypeError` or `ValueError` for what
    would not come back the same. `decode` gets bytes that may come from another program, version or hand: it raises
    any `Exception` for what it cannot read. Types, if it needs them, are those of `parameters.signature`.

    A codec may have a `check(parameters)` too: it is called when an operation is registered, and raises `ConfigError`
    for parameters that it could never carry.
    """

    def encode(self, arguments: Arguments, parameters: Parameters, /) -> bytes: ...
    def decode(self, payload: bytes, parameters: Parameters, /) -> Arguments: ...


class Json:
    """Strict JSON: str, int, float, bool, None, and lists and dicts of them with strings as keys, of these very types.

    Raises `TypeError` for other types, `ValueError` for NaN, infinities, and what is beyond 100 levels or a million
    values; both name the operation and the argument.
    """

    def encode(self, arguments: Arguments, parameters: Parameters, /) -> bytes:
        """The arguments as one JSON object in ASCII."""
        walk = Walk()
        for name, value in arguments.items():
            try:
                walk.check(value, 0)
            except Unfit as refusal:
                raise refusal.at(parameters.operation, name) from None
        return dumped(dict(arguments))

    def decode(self, payload: bytes, parameters: Parameters, /) -> Arguments:
        """The arguments again. Raises `ValueError` for anything that `encode` does not write."""
        return loaded(payload, parameters.operation)

    def __repr__(self) -> str:
        return "Json()"


def dumped(value: Any) -> bytes:
    """JSON in ASCII, without blanks."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False).encode("ascii")


def loaded(payload: bytes, operation: str) -> Arguments:
    """The JSON object that a payload of this operation is. Raises `ValueError` for anything else."""
    try:
        found: object = json.loads(payload, parse_constant=_refuse_constant, object_pairs_hook=_each_key_once)
    except RecursionError:
        raise ValueError(f"{operation}: the payload is nested too deeply") from None
    except ValueError as error:
        raise ValueError(f"{operation}: the payload is not JSON: {error}") from None
    if not isinstance(found, dict):
        raise ValueError(f"{operation}: the payload is no JSON object")
    return cast("Arguments", found)


class Unfit(Exception):
    """On its way up from a value that cannot be kept, it gathers the path to it."""

    def __init__(self, reason: str, kind: type[Exception] = TypeError) -> None:
        super().__init__(reason)
        self.reason = reason
        self.kind = kind
        self.path: list[str] = []
        """Innermost first."""

    def at(self, operation: str, name: str) -> Exception:
        """The error that the caller gets, with the place of the value."""
        return self.kind(f"{operation}({name}{''.join(reversed(self.path))}): {self.reason}")


class Walk:
    """Looks at every value once; bounded in depth and number, so that a circle ends."""

    def __init__(self, remedy: str = PLAIN) -> None:
        self._seen = 0
        self._remedy = remedy

    def check(self, value: Any, depth: int) -> None:
        kind = cast("Any", type(value))
        if kind in _PLAIN:
            return
        if kind is int:
            if value.bit_length() > MOST_BITS:
                raise Unfit("a number of thousands of digits", ValueError)
        elif kind is float:
            if not math.isfinite(value):
                raise Unfit(f"JSON has no {value!r}", ValueError)
        elif kind is list or kind is dict:
            self._check_inside(value, depth)
        else:
            raise Unfit(_refusal(value, self._remedy))

    def _check_inside(self, value: list[Any] | dict[Any, Any], depth: int) -> None:
        self._seen += len(value)
        if depth >= DEEPEST:
            raise Unfit(f"more than {DEEPEST} levels deep, or inside itself", ValueError)
        if self._seen > MOST_VALUES:
            raise Unfit(f"more than {MOST_VALUES} values", ValueError)
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, item in items:
            try:
                if type(key) is not str and isinstance(value, dict):
                    raise Unfit("JSON has only strings as keys; this would come back as one")
                self.check(item, depth + 1)
            except Unfit as refusal:
                refusal.path.append(f"[{shown(key)}]")
                raise


def shown(key: object) -> str:
    text = repr(key)
    return text if len(text) <= 40 else text[:37] + "..."


def _refusal(value: object, remedy: str) -> str:
    kind = type(value)
    if kind is tuple:
        return "a tuple would come back as a list; give a list"
    if isinstance(value, (str, int, float, list, dict)):
        base = next(base.__name__ for base in kind.__mro__ if base in (str, int, float, list, dict))
        return f"{kind.__name__} would come back as plain {base}; convert it"
    return f"{kind.__name__} is not JSON; {remedy}"


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _each_key_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key stands twice in one object")
    return found
