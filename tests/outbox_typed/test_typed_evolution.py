"""Records outlive releases: what old ones say to new types, and what plain JSON wrote to annotations."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seawall.outbox import Json, Parameters, Typed
from tests.machines.effort import QUICK
from tests.outbox_typed.shop import Address, Order


@dataclass
class Before:
    name: str
    gone: int


@dataclass
class After:
    name: str
    added: str = "new"


class StructAfter(msgspec.Struct):
    name: str
    added: str = "new"


class ModelAfter(pydantic.BaseModel):
    name: str
    added: str = "new"


class StrictAfter(msgspec.Struct, forbid_unknown_fields=True):
    name: str


class Needy(msgspec.Struct):
    name: str
    needed: int


def parameters_of(**hints: Any) -> Parameters:
    def take(value: Any, more: Any = None) -> None: ...

    take.__annotations__ = hints
    return Parameters("user.save", take)


OLD = Typed().encode({"value": Before("Ann", 5)}, parameters_of(value=Before))


@pytest.mark.parametrize("kind", [After, StructAfter, ModelAfter])
def test_a_new_field_with_a_default_reads_old_records_and_a_removed_one_is_passed_over(kind: Any) -> None:
    found = Typed().decode(OLD, parameters_of(value=kind))
    assert found == {"value": kind(name="Ann", added="new")}


def test_a_removed_field_is_an_error_where_the_type_forbids_unknown_ones() -> None:
    with pytest.raises(ValueError, match=r"user\.save\(value\): Object contains unknown field `gone`"):
        Typed().decode(OLD, parameters_of(value=StrictAfter))


def test_a_new_field_without_a_default_cannot_read_old_records() -> None:
    with pytest.raises(ValueError, match=r"user\.save\(value\): Object missing required field `needed`"):
        Typed().decode(OLD, parameters_of(value=Needy))


def test_a_new_parameter_with_a_default_reads_old_records() -> None:
    parameters = parameters_of(value=Before, more=datetime)
    assert parameters.unbind(Typed().decode(OLD, parameters)) == ((Before("Ann", 5),), {})


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
)


@QUICK
@given(JSON, JSON)
def test_for_plain_types_it_writes_and_reads_the_very_bytes_of_json(value: Any, more: Any) -> None:
    arguments = {"value": value, "more": more}
    for parameters in (parameters_of(), parameters_of(value=Any, more=dict[str, Any])):
        payload = Json().encode(arguments, parameters)
        assert Typed().encode(arguments, parameters) == payload
        assert Typed().decode(payload, parameters) == Json().decode(payload, parameters) == arguments


def test_records_that_json_wrote_are_read_when_parameters_get_types_later() -> None:
    old = Json().encode(
        {"value": {"number": 1, "at": "2026-01-01T00:00:00Z", "lines": []}, "more": ["a"]}, parameters_of()
    )
    found = Typed().decode(old, parameters_of(value=Order, more=set[str]))
    assert type(found["value"]) is Order and found["value"].at.year == 2026 and found["more"] == {"a"}


def test_fields_of_models_are_stored_by_their_names_so_that_aliases_may_change() -> None:
    payload = Typed().encode({"value": Address(street="a", zipCode="1")}, parameters_of(value=Address))
    assert json.loads(payload) == {"value": {"street": "a", "zip": "1", "since": None}}
