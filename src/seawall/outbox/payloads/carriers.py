"""Who carries a type that plain JSON cannot: msgspec, or pydantic for its own models and for what msgspec cannot.

Each is imported only here, and only when an annotation needs it.
"""

from __future__ import annotations

import re
from typing import Any, Protocol, cast

from seawall.errors import ConfigError
from seawall.outbox.payloads.codec import Unfit
from seawall.outbox.payloads.hints import mentions_pydantic, named

__all__ = ["Carrier", "carrier_of"]

MOST_TEXT = 200
PYDANTIC_SINCE = (2, 11)


class Carrier(Protocol):
    """Writes and reads values of one type. Both raise `Unfit`, which tells no more of a value than it must."""

    def write(self, value: Any) -> bytes: ...
    def read(self, fragment: bytes) -> Any: ...


def carrier_of(operation: str, name: str, hint: Any) -> Carrier:
    """The carrier of a parameter. Raises `ConfigError` if there is none, or what it needs is not installed."""
    field = f"operation({operation!r}): parameter {name}: {named(hint)}"
    if mentions_pydantic(hint):
        try:
            return _PydanticCarrier(hint)
        except ImportError:
            raise _missing(field, "pydantic") from None
        except Exception as error:  # pydantic raises of many kinds, and so may hooks of the user's
            raise ConfigError(f"{field}: {_refusal(error)}; give the operation a codec") from error
    try:
        return _MsgspecCarrier(hint)
    except ImportError:
        raise _missing(field, "msgspec") from None
    except Exception as error:  # noqa: BLE001  # as above
        reason = _refusal(error)
    # Pydantic knows more types: paths, addresses, unions of several classes.
    try:
        return _PydanticCarrier(hint)
    except ImportError:
        also = "; seawall[pydantic], which carries more, is not installed"
    except Exception as error:  # noqa: BLE001  # as above
        also = f", and pydantic cannot either: {_refusal(error)}"
    raise ConfigError(f"{field}: msgspec cannot carry it: {reason}{also}; give the operation a codec")


def _missing(field: str, package: str) -> ConfigError:
    extra = f"seawall[{package}]"
    return ConfigError(f"{field}: needs {package}: install {extra}, or give the operation a codec")


def _refusal(error: BaseException) -> str:
    first = str(error).strip().partition("\n")[0]
    return _bounded(first or type(error).__name__)


def _bounded(text: str) -> str:
    return text if len(text) <= MOST_TEXT else text[: MOST_TEXT - 3] + "..."


class _MsgspecCarrier:
    """Dataclasses, Structs, TypedDicts, NamedTuples, datetimes, Decimals, UUIDs, enums, tuples, sets, bytes, unions."""

    def __init__(self, hint: Any) -> None:
        import msgspec  # noqa: PLC0415  # not before an annotation needs it

        _refuse_unknown(hint)
        self._encoder = msgspec.json.Encoder()
        self._decoder: Any = msgspec.json.Decoder(hint)
        self._error = msgspec.MsgspecError

    def write(self, value: Any) -> bytes:
        try:
            return self._encoder.encode(value)
        except RecursionError:
            raise Unfit("nested too deeply, or inside itself", ValueError) from None
        except (TypeError, ValueError, OverflowError) as error:
            raise Unfit(_refusal(error), TypeError if isinstance(error, TypeError) else ValueError) from None

    def read(self, fragment: bytes) -> Any:
        try:
            return self._decoder.decode(fragment)
        except RecursionError:
            raise Unfit("nested too deeply", ValueError) from None
        except Exception as error:  # noqa: BLE001  # msgspec's, or what a __post_init__ raises
            text = str(error) if isinstance(error, self._error) else f"{type(error).__name__}: {error}"
            found, place = _PLACE.fullmatch(text), ""
            if found is not None:
                text, place = found.groups()
            refusal = Unfit(_bounded(text), ValueError)
            refusal.path.append(_bounded(place))
        raise refusal


_PLACE = re.compile(r"(.*?) - at `(?:key in )?\$(.*)`", re.DOTALL)


def _refuse_unknown(hint: Any) -> None:
    """Raises `TypeError` if msgspec would leave part of this type to hooks, since there are none."""
    from msgspec import inspect  # noqa: PLC0415  # as above

    waiting: list[Any] = [inspect.type_info(hint)]
    seen: set[int] = set()
    while waiting:
        node = waiting.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, inspect.CustomType):
            raise TypeError(f"it does not know {named(node.cls)}")
        for name in getattr(cast("Any", type(node)), "__struct_fields__", ()):
            part = getattr(node, name)
            parts: list[Any] = [*part] if type(part) is tuple else [part]
            waiting += [each for each in parts if isinstance(each, (inspect.Type, inspect.Field))]


class _PydanticCarrier:
    """Models, and whatever else pydantic knows."""

    def __init__(self, hint: Any) -> None:
        import pydantic  # noqa: PLC0415  # not before an annotation needs it
        from pydantic.json_schema import GenerateJsonSchema  # noqa: PLC0415  # as above

        if tuple(int(part) for part in pydantic.VERSION.split(".")[:2]) < PYDANTIC_SINCE:
            raise TypeError(f"pydantic {pydantic.VERSION} is too old: 2.11 is needed")

        class Silent(GenerateJsonSchema):
            ignored_warning_kinds = {"skipped-choice", "non-serializable-default", "skipped-discriminator"}  # noqa: RUF012  # as in its base

        self._adapter: Any = pydantic.TypeAdapter(hint)
        # What has no schema is no data: functions, generators, classes that pydantic only checks to be such.
        self._adapter.json_schema(mode="serialization", schema_generator=Silent)
        self._error = pydantic.ValidationError

    def write(self, value: Any) -> bytes:
        try:
            # By the names of the fields: an alias may be for one direction only.
            found: bytes = self._adapter.dump_json(value, round_trip=True, by_alias=False, warnings="error")
        except RecursionError:
            raise Unfit("nested too deeply, or inside itself", ValueError) from None
        except Exception as error:  # noqa: BLE001  # of many kinds, and so may serializers of the user's
            refusal = Unfit(_refusal(error), TypeError if isinstance(error, TypeError) else ValueError)
        else:
            return found
        raise refusal

    def read(self, fragment: bytes) -> Any:
        try:
            return self._adapter.validate_json(fragment, strict=True, by_alias=False, by_name=True)
        except RecursionError:
            raise Unfit("nested too deeply", ValueError) from None
        except self._error as error:
            # The text of the error as a whole has the values in it.
            faults = error.errors(include_url=False, include_context=False, include_input=False)
            first, more = faults[0], f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
            refusal = Unfit(_bounded(first["msg"]) + more, ValueError)
            place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"])
            refusal.path.append(_bounded(place))
        except Exception as error:  # noqa: BLE001  # what a validator of the user's raises
            refusal = Unfit(_bounded(f"{type(error).__name__}: {error}"), ValueError)
        raise refusal
