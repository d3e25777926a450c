"""What goes into a record comes back the same, or is refused when the call is made: by name, with a remedy."""

from __future__ import annotations

import enum
import json
from collections import OrderedDict, defaultdict
from datetime import datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seawall.errors import ConfigError
from seawall.outbox.payloads.codec import Json, Parameters
from tests.machines.effort import QUICK

LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(st.characters(), max_size=8),
)
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4)
)


def entry(value: Any, *rest: Any, flag: bool = False, **more: Any) -> None: ...


ENTRY = Parameters("audit.write", entry)


def there_and_back(*args: Any, **kwargs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    codec = Json()
    payload = codec.encode(ENTRY.bind(args, kwargs), ENTRY)
    return ENTRY.unbind(codec.decode(payload, ENTRY))


def typed(value: Any) -> Any:
    """A value with the types of all its parts: 1 == True == 1.0 are three."""
    if isinstance(value, list):
        return [typed(each) for each in value]
    if isinstance(value, dict):
        return {key: typed(each) for key, each in value.items()}
    return (type(value), repr(value))


@QUICK
@given(VALUES, st.lists(VALUES, max_size=2), st.booleans(), st.dictionaries(st.sampled_from(["a", "b"]), VALUES))
def test_what_went_in_comes_back_with_the_same_types(
    value: Any, rest: list[Any], flag: bool, more: dict[str, Any]
) -> None:
    args, kwargs = there_and_back(value, *rest, flag=flag, **more)
    assert typed(list(args)) == typed([value, *rest])
    assert typed(kwargs) == typed({"flag": flag, **more})


def test_the_payload_is_readable_and_by_name() -> None:
    payload = Json().encode(ENTRY.bind(({"user": 7},), {"flag": True}), ENTRY)
    assert json.loads(payload) == {"value": {"user": 7}, "flag": True}


class Colour(enum.IntEnum):
    RED = 1


class Name(str):
    __slots__ = ()


circle: list[Any] = []
circle.append(circle)
wide: list[Any] = []
for _ in range(60):
    wide = [wide, wide]


@pytest.mark.parametrize(
    ("value", "kind", "message"),
    [
        ({"when": datetime(2026, 1, 1)}, TypeError, r"audit\.write\(value\['when'\]\): datetime is not JSON"),  # noqa: DTZ001
        ([1, (2, 3)], TypeError, r"audit\.write\(value\[1\]\): a tuple would come back as a list"),
        ({"a": [{"b": {1, 2}}]}, TypeError, r"audit\.write\(value\['a'\]\[0\]\['b'\]\): set is not JSON"),
        ({1: "x"}, TypeError, r"audit\.write\(value\[1\]\): JSON has only strings as keys"),
        ({True: "x"}, TypeError, r"value\[True\]\): JSON has only strings as keys"),
        (b"bytes", TypeError, "bytes is not JSON"),
        (Decimal(1), TypeError, "Decimal is not JSON"),
        (1j, TypeError, "complex is not JSON"),
        (object(), TypeError, "give str, int, float, bool, None, list or dict, or the operation a codec"),
        (Colour.RED, TypeError, "Colour would come back as plain int; convert it"),
        (Name("x"), TypeError, "Name would come back as plain str; convert it"),
        (OrderedDict(a=1), TypeError, "OrderedDict would come back as plain dict"),
        (defaultdict(list), TypeError, "defaultdict would come back as plain dict"),
        (float("nan"), ValueError, r"audit\.write\(value\): JSON has no nan"),
        ([float("inf")], ValueError, r"audit\.write\(value\[0\]\): JSON has no inf"),
        ([10**5_000], ValueError, r"audit\.write\(value\[0\]\): a number of thousands of digits"),
        (circle, ValueError, "more than 100 levels deep, or inside itself"),
        (wide, ValueError, "more than 1000000 values"),
    ],
)
def test_what_would_not_come_back_is_refused_by_name(value: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        Json().encode(ENTRY.bind((value,), {}), ENTRY)


def test_arguments_that_the_function_does_not_take_are_refused_by_name() -> None:
    def strict(a: int, *, b: int) -> None: ...

    parameters = Parameters("mail.send", strict)
    with pytest.raises(TypeError, match=r"mail\.send: missing a required .*argument: 'b'"):
        parameters.bind((1,), {})
    with pytest.raises(TypeError, match=r"mail\.send: too many positional"):
        parameters.bind((1, 2), {"b": 3})


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"\xff\xfe\x00", "not JSON"),
        (b"[1]", "no JSON object"),
        (b'{"value":NaN}', "NaN is not JSON"),
        (b'{"value":-Infinity}', "Infinity is not JSON"),
        (b'{"value":1,"value":2}', "a key stands twice"),
        (b"[" * 200_000, "nested too deeply|not JSON"),
        (b'{"value":' * 200_000, "nested too deeply|not JSON"),
        (b'{"value":' + b"1" * 10_000 + b"}", "not JSON"),
    ],
)
def test_bytes_of_unknown_origin_end_in_one_kind_of_error(payload: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Json().decode(payload, ENTRY)


def test_a_signature_that_has_changed_is_named() -> None:
    def now(user: int, *, reason: str = "") -> None: ...

    parameters = Parameters("audit.write", now)
    with pytest.raises(TypeError, match="the record has 'person', which the function does not take"):
        parameters.unbind({"person": 7})
    with pytest.raises(TypeError, match="the record lacks 'user', which the function needs"):
        parameters.unbind({"reason": "x"})
    assert parameters.unbind({"user": 7}) == ((7,), {})


def test_positional_only_and_rest_parameters_come_back_in_their_places() -> None:
    def odd(a: int, /, b: int = 2, *rest: int, c: int = 3, **more: int) -> None: ...

    parameters = Parameters("odd", odd)
    for args, kwargs in [((1,), {}), ((1, 5, 6, 7), {"c": 8, "d": 9}), ((1,), {"b": 4})]:
        found = parameters.unbind(Json().decode(Json().encode(parameters.bind(args, kwargs), parameters), parameters))
        arguments = parameters.signature.bind(*found[0], **found[1]).arguments
        assert arguments == parameters.signature.bind(*args, **kwargs).arguments


def test_the_endpoint_of_a_cluster_is_none_of_the_arguments() -> None:
    def write(endpoint: object, entry: dict[str, Any]) -> None: ...
    def starred(*args: object) -> None: ...
    def only(*, entry: str) -> None: ...

    assert list(Parameters("w", write, takes_endpoint=True).signature.parameters) == ["entry"]
    assert list(Parameters("w", starred, takes_endpoint=True).signature.parameters) == ["args"]
    for nothing in (lambda: None, only):
        with pytest.raises(ConfigError, match=r"operation\('w'\): through a cluster, its function takes the endpoint"):
            Parameters("w", nothing, takes_endpoint=True)
