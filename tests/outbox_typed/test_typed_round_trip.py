"""Whatever the annotations describe comes back with the same types and values, whoever carries it."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from ipaddress import IPv4Address
from pathlib import Path
from typing import Annotated, Any, Literal, NewType
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seawall.outbox import MemoryOutbox, Parameters
from tests.machines.effort import QUICK
from tests.outbox_typed.shop import (
    EVERYTHING,
    Address,
    Box,
    Colour,
    Letter,
    Line,
    Note,
    Order,
    Parcel,
    Person,
    Point,
    Size,
    shape,
    there_and_back,
)

ZONES = st.sampled_from([None, UTC, timezone(timedelta(hours=5, minutes=30)), timezone(timedelta(hours=-9))])
MOMENTS = st.datetimes(min_value=datetime(2, 1, 1), max_value=datetime(9998, 1, 1), timezones=ZONES).map(  # noqa: DTZ001
    lambda at: at.replace(fold=0)
)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
MONEY = st.decimals(allow_nan=False, allow_infinity=False)
FLOATS = st.floats(allow_nan=False, allow_infinity=False)
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | FLOATS | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)
LINES = st.builds(Line, TEXTS, st.integers(), MONEY)
ORDERS = st.recursive(
    st.builds(
        Order,
        st.integers(),
        MOMENTS,
        st.lists(LINES, max_size=2),
        st.frozensets(TEXTS, max_size=3),
        st.sampled_from(Colour),
        extra=st.dictionaries(TEXTS, PLAIN, max_size=2),
    ),
    lambda inner: st.builds(Order, st.integers(), MOMENTS, st.just([]), parent=inner),
    max_leaves=3,
)
PARCELS = st.builds(
    Parcel,
    st.uuids(),
    FLOATS,
    st.binary(max_size=5),
    st.tuples(st.integers(), st.integers(), st.integers()),
    st.none() | st.dates(),
    st.dictionaries(st.sampled_from(Size), st.integers(), max_size=2),
)
ADDRESSES = st.builds(Address, street=TEXTS, zip=TEXTS, since=st.none() | st.dates())
PEOPLE = st.builds(
    Person,
    name=TEXTS,
    addresses=st.lists(ADDRESSES, max_size=2).map(tuple),
    born=st.none() | st.datetimes(timezones=st.just(UTC)),
    balance=MONEY,
)
NOTES = st.fixed_dictionaries({"text": TEXTS, "at": MOMENTS})


@QUICK
@given(st.data())
def test_what_went_in_comes_back_with_the_same_types_and_values(data: st.DataObject) -> None:
    draw = data.draw
    args = [
        draw(ORDERS),
        draw(PARCELS),
        draw(PEOPLE),
        draw(st.builds(Letter, PEOPLE, st.integers())),
        draw(st.builds(Point, st.integers(), FLOATS)),
        draw(NOTES),
        draw(st.builds(Box, st.sets(st.integers(), max_size=3))),
        draw(st.times()).replace(fold=0),
        draw(st.timedeltas(min_value=timedelta(days=-900_000), max_value=timedelta(days=900_000))),
        draw(st.none() | st.integers() | st.uuids()),
        *draw(st.lists(st.tuples(TEXTS, st.binary(max_size=4)), max_size=2)),
    ]
    kwargs = {"size": draw(st.sampled_from(Size)), "entry": draw(st.dictionaries(TEXTS, PLAIN, max_size=2))}
    kwargs |= draw(st.dictionaries(st.sampled_from(["a", "b"]), MOMENTS))
    back = there_and_back(EVERYTHING, *args, **kwargs)
    assert shape(back) == shape((tuple(args), kwargs))


UserId = NewType("UserId", int)

CASES: list[tuple[Any, Any]] = [
    (Order | None, None),
    (Annotated[Order, "a remark"], Order(1, datetime(2026, 1, 1, tzinfo=UTC), [])),
    (set[tuple[int, str]], {(1, "a"), (2, "b")}),
    (dict[int, list[Decimal]], {1: [Decimal("1.00")]}),
    (dict[UUID, Point], {UUID(int=5): Point(1, 2.0)}),
    (list[Point | None], [Point(1), None]),
    (tuple[int, ...], (1, 2)),
    (bytearray, bytearray(b"\x00\xff")),
    (Note | None, None),
    (Annotated[int, msgspec.Meta(ge=0)], 3),
    (list[Colour], [Colour.BLUE]),
    (Person | None, Person(name="Ann")),
    (list[Person | Address], [Person(name="Ann"), Address(street="a", zipCode="1")]),
    (Path, Path("/var/x")),
    (IPv4Address, IPv4Address("10.0.0.1")),
    (Order | Line, Line("a", 1, Decimal(1))),
    (date | timedelta, date(2026, 1, 1)),
    (float, 5),
    (Box[float], Box(2.5)),
    (UserId, 7),
    (Literal["a", "b"], "a"),
]


@pytest.mark.parametrize(("hint", "value"), CASES, ids=[str(hint)[-40:] for hint, _ in CASES])
def test_a_type_of_this_kind_is_carried(hint: Any, value: Any) -> None:
    def take(value: Any) -> None: ...

    take.__annotations__ = {"value": hint}
    (back,), _ = there_and_back(Parameters("take", take), value)
    assert shape(back) == shape(value)


def test_an_int_will_do_where_a_float_is_annotated_and_comes_back_as_one() -> None:
    def take(value: Box[float]) -> None: ...

    (back,), _ = there_and_back(Parameters("take", take), Box(5))
    assert type(back.content) is float and back.content == 5


def test_a_worker_gives_the_function_what_the_caller_gave() -> None:
    outbox, seen = MemoryOutbox(), []

    @outbox.operation("order.ship")
    def ship(order: Order, at: datetime, *, tags: set[str]) -> None:
        seen.append((order, at, tags))

    order, at = Order(7, datetime(2026, 1, 1), [Line("tea", 2, Decimal("3.50"))]), datetime(2026, 2, 1, tzinfo=UTC)  # noqa: DTZ001
    outbox.put(ship, order, at, tags={"gift"})
    assert outbox.worker().drain() == 1
    assert shape(seen) == shape([(order, at, {"gift"})])


def test_records_hold_readable_json_and_no_names_of_classes() -> None:
    outbox = MemoryOutbox()

    @outbox.operation("person.greet")
    def greet(person: Person, at: datetime, note: dict[str, Any]) -> None: ...

    outbox.put(
        greet, Person(name="Änn", addresses=(Address(street="s", zipCode="1"),)), datetime(2026, 1, 1, tzinfo=UTC), {}
    )
    (record,) = outbox.records("waiting")
    found = msgspec.json.decode(record.payload)
    assert found == {
        "person": {
            "name": "Änn",
            "addresses": [{"street": "s", "zip": "1", "since": None}],
            "born": None,
            "balance": "0",
        },
        "at": "2026-01-01T00:00:00Z",
        "note": {},
    }
