"""Types of many kinds, as an application would have them, and functions that take them."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, Generic, NamedTuple, TypedDict, TypeVar
from uuid import UUID

import msgspec
import pydantic

from seawall.outbox import Parameters, Typed

T = TypeVar("T")


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Size(enum.IntEnum):
    S = 1
    L = 2


class Point(NamedTuple):
    x: int
    y: float = 0.5


@dataclass
class Line:
    article: str
    count: int
    price: Decimal


@dataclass
class GiftLine(Line):
    paper: str = "plain"


@dataclass(eq=False)
class Order:
    """Without a comparison of its own."""

    number: int
    at: datetime
    lines: list[Line]
    tags: frozenset[str] = frozenset()
    colour: Colour = Colour.RED
    parent: Order | None = None
    extra: dict[str, Any] = field(default_factory=dict)


class Parcel(msgspec.Struct):
    id: UUID
    weight: float
    seal: bytes
    box: tuple[int, int, int]
    due: date | None = None
    sizes: dict[Size, int] = {}


class Heavy(Parcel):
    crane: str = "no"


class Note(TypedDict):
    text: str
    at: datetime


class PlainNote(TypedDict, total=False):
    text: str
    stars: int


@dataclass
class Box(Generic[T]):
    content: T


class Address(pydantic.BaseModel):
    street: str
    zip: str = pydantic.Field(alias="zipCode")
    since: date | None = None

    model_config = pydantic.ConfigDict(validate_by_name=True)


class Home(Address):
    bell: str = ""


class Person(pydantic.BaseModel):
    name: str
    addresses: tuple[Address, ...] = ()
    born: datetime | None = None
    balance: Decimal = Decimal(0)

    @pydantic.computed_field
    @property
    def shout(self) -> str:
        return self.name.upper()


@dataclass
class Letter:
    """A dataclass with a model in it."""

    to: Person
    pages: int


def everything(
    order: Order,
    parcel: Parcel,
    person: Person,
    letter: Letter,
    point: Point,
    note: Note,
    boxed: Box[set[int]],
    moment: time,
    pause: timedelta,
    either: UUID | int | None,
    *more: tuple[str, bytes],
    size: Size,
    entry: dict[str, Any],
    **others: datetime,
) -> None: ...


EVERYTHING = Parameters("order.everything", everything)


def there_and_back(parameters: Parameters, *args: Any, **kwargs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    codec = Typed()
    payload = codec.encode(parameters.bind(args, kwargs), parameters)
    return parameters.unbind(codec.decode(payload, parameters))


def shape(value: Any) -> Any:  # noqa: PLR0911  # one for each kind of value
    """A value with the types of all its parts, comparable."""
    kind = type(value)
    if isinstance(value, enum.Enum):
        return kind, value.name
    if isinstance(value, dict):
        return kind, {key: (shape(key), shape(each)) for key, each in value.items()}
    if isinstance(value, (set, frozenset)):
        return kind, sorted(map(repr, map(shape, value)))
    if isinstance(value, (list, tuple)):
        return kind, [shape(each) for each in value]
    if isinstance(value, (datetime, time)):
        return kind, value.isoformat(), value.utcoffset()
    names = list(getattr(kind, "__dataclass_fields__", ())) or getattr(kind, "__struct_fields__", ())
    names = names or list(getattr(kind, "__pydantic_fields__", ()))
    if names:
        return kind, {name: shape(getattr(value, name)) for name in names}
    return kind, repr(value)
