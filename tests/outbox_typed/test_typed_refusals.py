"""What would not come back the same is refused in the caller's call; what cannot be read says where, and no more."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import PurePosixPath
from typing import Any, Literal
from uuid import UUID
from zoneinfo import ZoneInfo

import msgspec
import pydantic
import pytest

from seawall.outbox import MemoryOutbox, Parameters, Typed
from tests.outbox_typed.shop import Address, Box, GiftLine, Heavy, Home, Letter, Line, Order, Parcel, Person, Point

AT = datetime(2026, 1, 1, tzinfo=UTC)
GIFT = GiftLine("tea", 1, Decimal(1))
PARCEL = Parcel(UUID(int=1), 1.0, b"", (1, 2, 3))


class Secret(pydantic.BaseModel):
    word: pydantic.SecretStr


class Hidden(pydantic.BaseModel):
    name: str
    word: str = pydantic.Field(default="", exclude=True)


class Fancy(int): ...


@dataclass
class Lossy:
    seen: int

    def __post_init__(self) -> None:
        self.seen += 1


def loop() -> Box[Any]:
    box = Box[Any](None)
    box.content = box
    return box


def parameters_of(hint: Any) -> Parameters:
    def take(value: Any) -> None: ...

    take.__annotations__ = {"value": hint}
    return Parameters("order.ship", take)


REFUSED: list[tuple[Any, Any, type[Exception], str]] = [
    (Line, GIFT, TypeError, r"order\.ship\(value\): GiftLine would come back as Line, and what it adds be lost"),
    (
        Order,
        Order(1, AT, [Line("a", 1, Decimal(1)), GIFT]),
        TypeError,
        r"value\.lines\[1\]\): GiftLine would come back",
    ),
    (Parcel, Heavy(UUID(int=1), 1.0, b"", (1, 2, 3)), TypeError, "Heavy would come back as Parcel"),
    (Address, Home(street="a", zipCode="1"), (TypeError, ValueError), "Home would come back as Address|Unexpected"),
    (
        Person,
        Person(name="A", addresses=(Home(street="a", zipCode="1", bell="b"),)),
        (TypeError, ValueError),
        "Home",
    ),
    (
        Order,
        {"number": 1, "at": "2026-01-01T00:00:00", "lines": []},
        TypeError,
        "dict would come back as Order; give Order",
    ),
    (Order, 5, ValueError, r"order\.ship\(value\): Expected `object`, got `int`"),
    (Order, None, ValueError, r"order\.ship\(value\): Expected `object`, got `null`"),
    (Order, Order("1", AT, []), ValueError, r"order\.ship\(value\.number\): Expected `int`, got `str`"),  # type: ignore[arg-type]
    (Order, Order(True, AT, []), ValueError, r"value\.number\): Expected `int`, got `bool`"),
    (Order, Order(Fancy(1), AT, []), (TypeError, ValueError), "Fancy"),
    (Order, Order(1, AT, (Line("a", 1, Decimal(1)),)), TypeError, r"value\.lines\): tuple would come back as list"),  # type: ignore[arg-type]
    (Order, Order(1, AT, [], extra={"at": AT}), TypeError, r"value\.extra\['at'\]\): datetime would come back as str"),
    (Order, Order(1, AT, [], extra={"f": float("nan")}), TypeError, r"value\.extra\['f'\]\): float would come back as"),
    (Order, Order(1, AT, [], tags={"a"}), TypeError, r"value\.tags\): set would come back as frozenset"),  # type: ignore[arg-type]
    (Order, Order(1, AT, [], extra=defaultdict(dict)), TypeError, r"defaultdict would come back as dict"),
    (Box[float], Box(float("nan")), ValueError, r"value\.content\): Expected `float`, got `null`"),
    (Box[float], Box(float("inf")), ValueError, r"value\.content\): Expected `float`, got `null`"),
    (Box[float], Box(2**53 + 1), TypeError, "int would come back as float"),
    (set[float], {1, 2.5}, None, ""),
    (set[int], [1, 2], TypeError, "list would come back as set"),
    (tuple[int, int], (1, 2, 3), ValueError, "Expected `array` of length 2"),
    (Point, (1, 2.0), TypeError, "tuple would come back as Point"),
    (datetime, date(2026, 1, 1), ValueError, "Invalid RFC3339"),
    (
        datetime,
        AT.astimezone(ZoneInfo("Europe/Berlin")),
        ValueError,
        "only the offset would come back; convert it to UTC",
    ),
    (datetime, AT.astimezone(ZoneInfo("UTC")), None, ""),
    (datetime, AT.replace(tzinfo=timezone(timedelta(seconds=3_601))), ValueError, "would come back as another value"),
    (datetime, datetime(2026, 1, 1, fold=1), ValueError, "would come back as another value"),  # noqa: DTZ001
    (str | datetime, AT, TypeError, "datetime would come back as str"),
    (Box[Any], loop(), ValueError, r"order\.ship\(value\): nested too deeply, or inside itself"),
    (bytes, "text", TypeError, "str would come back as bytes"),
    (Lossy, Lossy(1), ValueError, r"value\.seen\): this int would come back as another value"),
    (dict[int, str], {"1": "a"}, ValueError, "this dict would come back as another value"),
    (Literal["a"], 1j, TypeError, "complex is not JSON; annotate the parameter"),
    (Secret, Secret(word="x"), ValueError, "would come back as another value"),  # type: ignore[arg-type]
    (Hidden, Hidden(name="a", word="w"), ValueError, r"value\.word\): this str would come back as another value"),
    (Hidden, Hidden(name="a"), None, ""),
    (Person, Person.model_construct(name=5), ValueError, "order.ship"),  # type: ignore[arg-type]
    (Letter, Letter(to="Ann", pages=1), (TypeError, ValueError), "order.ship"),  # type: ignore[arg-type]
    (Box[str], Box("\ud800"), ValueError, "surrogates"),
    (Any, Line("a", 1, Decimal(1)), TypeError, "Line is not JSON; annotate the parameter with its type, or give str"),
    (list[str], ("a",), TypeError, "a tuple would come back as a list; give a list"),
]


@pytest.mark.parametrize(("hint", "value", "kind", "message"), REFUSED)
def test_what_would_not_come_back_is_refused_in_the_call(hint: Any, value: Any, kind: Any, message: str) -> None:
    parameters = parameters_of(hint)
    if kind is None:
        Typed().encode({"value": value}, parameters)
        return
    with pytest.raises(kind, match=message) as caught:
        Typed().encode({"value": value}, parameters)
    assert len(str(caught.value)) < 400 and str(caught.value).startswith("order.ship(value")


def test_what_is_too_deep_or_too_much_ends_in_an_error() -> None:
    deep: Any = None
    for _ in range(150):
        deep = Box(deep)
    parameters = parameters_of(Box[Any])
    with pytest.raises((TypeError, ValueError), match="order.ship"):
        Typed().encode({"value": deep}, parameters)

    endless = parameters_of(Order)
    parent = None
    for number in range(101):
        parent = Order(number, AT, [], parent=parent)
    with pytest.raises(ValueError, match="more than 100 levels deep"):
        Typed().encode({"value": parent}, endless)


UNREADABLE: list[tuple[Any, bytes, str]] = [
    (
        Order,
        b'{"value":{"number":"HUSH","at":"2026-01-01T00:00:00Z","lines":[]}}',
        r"order\.ship\(value\.number\): Expected",
    ),
    (Order, b'{"value":{"number":1,"at":"HUSH","lines":[]}}', r"order\.ship\(value\.at\): Invalid RFC3339"),
    (Order, b'{"value":{"at":"2026-01-01T00:00:00Z","lines":["HUSH"]}}', r"order\.ship\(value(\.lines\[0\])?\): "),
    (Person, b'{"value":{"name":7,"born":"HUSH"}}', r"order\.ship\(value\.name\): .*\(and 1 more\)"),
    (Person, b'{"value":{"name":["HUSH"]}}', r"order\.ship\(value\.name\): Input should be a valid string"),
    (set[int], b'{"value":{"__class__":"os.system"}}', "Expected `array`, got `object`"),
    (Order, b'{"value":', "the payload is not JSON"),
    (Order, b'{"value":' + b"[" * 100_000, "nested too deeply|not JSON"),
    (Order, b'{"value":{"number":NaN}}', "not JSON"),
    (Order, b'{"value":{"number":1,"number":2}}', "a key stands twice"),
    (Order, b"[]", "no JSON object"),
    (Order, b"\x80\x04K\x01.", "not JSON"),
]


@pytest.mark.parametrize(("hint", "payload", "message"), UNREADABLE)
def test_what_cannot_be_read_names_the_place_and_does_not_show_the_value(
    hint: Any, payload: bytes, message: str
) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        Typed().decode(payload, parameters_of(hint))
    assert "HUSH" not in str(caught.value) and len(str(caught.value)) < 400
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None or caught.value.__suppress_context__


def test_an_error_of_a_validator_of_the_users_is_cut_and_names_the_place() -> None:
    class Loud(msgspec.Struct):
        n: int

        def __post_init__(self) -> None:
            raise ValueError("x" * 5_000)

    parameters = parameters_of(Loud)
    with pytest.raises(ValueError, match=r"order\.ship\(value\): x{100}") as caught:
        Typed().decode(b'{"value":{"n":1}}', parameters)
    assert len(str(caught.value)) < 300


def test_what_a_worker_cannot_read_ends_as_a_record_with_that_error() -> None:
    outbox = MemoryOutbox()
    old = outbox.operation("path.clean", attempts=1)

    def before(value: str) -> None: ...
    def after(value: Line) -> None: ...

    old(before)
    outbox.put(before, "x")
    outbox.operation("path.clean", attempts=1)(after)
    outbox.worker().drain()
    (letter,) = outbox.records("dead")
    assert "path.clean(value): Expected `object`, got `str`" in letter.last_error


def test_types_of_other_kinds_are_compared_by_equality() -> None:
    parameters = parameters_of(PurePosixPath)
    Typed().encode({"value": PurePosixPath("/a")}, parameters)
    with pytest.raises((TypeError, ValueError), match=r"order\.ship\(value\)"):
        Typed().encode({"value": "/a"}, parameters)
