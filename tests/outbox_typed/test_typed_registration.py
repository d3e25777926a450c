"""Whether the types of an operation can be carried is known when it is registered, not when a worker finds a record."""

from __future__ import annotations

import functools
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple, TypedDict, TypeVar

import pydantic
import pytest

from seawall import Cluster
from seawall.errors import ConfigError
from seawall.outbox import Failback, Json, MemoryOutbox, Parameters, Typed
from seawall.outbox.payloads.hints import hints_of, is_plain
from tests.outbox_typed.shop import Line, Order, Person, PlainNote

if TYPE_CHECKING:
    from seawall import Endpoint

S = TypeVar("S", bound=str)
A = TypeVar("A")


class Handle:
    """Of no kind that anybody carries."""


class Holder(NamedTuple):
    handle: Handle


class Odd(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(arbitrary_types_allowed=True)
    handle: Handle


def refusal_of(hint: Any) -> str:
    def take(value: Any) -> None: ...

    take.__annotations__ = {"value": hint}
    with pytest.raises(ConfigError) as caught:
        MemoryOutbox().operation("order.ship")(take)
    return str(caught.value)


@pytest.mark.parametrize(
    "hint",
    [
        Handle,
        list[Handle],
        dict[str, Handle],
        Handle | None,
        Holder,
        Odd,
        Callable[[], int],
        Iterator[Order],
        type,
        threading.Lock,
    ],
    ids=str,
)
def test_a_type_that_nobody_carries_is_refused_at_the_decorator(hint: Any) -> None:
    text = refusal_of(hint)
    assert text.startswith("operation('order.ship'): parameter value: ")
    assert text.endswith("give the operation a codec")


def test_a_name_that_cannot_be_resolved_is_refused_at_the_decorator() -> None:
    with pytest.raises(
        ConfigError, match=r"parameter value: Nowhere cannot be resolved \(NameError.*not only under TYPE_CH"
    ):

        @MemoryOutbox().operation("order.ship")
        def take(value: Nowhere) -> None: ...  # type: ignore[name-defined]  # noqa: F821


def test_annotations_of_the_endpoint_and_the_result_are_nobodys_concern() -> None:
    outbox = MemoryOutbox()
    audit = Cluster("audit", ["http://10.0.0.9:80"], strategy=Failback(outbox))

    @outbox.operation("audit.write", through=audit)
    def write(endpoint: Endpoint, order: Order) -> Nothing: ...  # type: ignore[name-defined]  # noqa: F821

    assert set(outbox.operations.of(write).parameters.plan) == {"order"}


def test_a_codec_of_the_operation_takes_what_the_annotations_cannot_say() -> None:
    outbox = MemoryOutbox()

    @outbox.operation("a", codec=Json())
    def take(value: Handle) -> None: ...

    outbox.put(take, "x")


@pytest.mark.parametrize(
    "hint",
    [
        Any, object, str, int, float, bool, None, list, dict, list[int], dict[str, Any], str | None, list[dict[str, float]],
        Sequence[str], Mapping[str, Any], PlainNote, S, A, "list[str]", "dict[str, list[int | None]]",
    ],
    ids=str,
)  # fmt: skip
def test_plain_json_needs_no_carrier(hint: Any) -> None:
    def take(value: Any) -> None: ...

    take.__annotations__ = {"value": hint}
    assert is_plain(hints_of(Parameters("t", take))["value"])


@pytest.mark.parametrize("hint", [datetime, set, tuple, list[datetime], dict[int, str], bytes, Order, Person], ids=str)
def test_other_types_need_one(hint: Any) -> None:
    assert not is_plain(hint)


class Options(TypedDict):
    at: datetime


def test_types_are_found_behind_wrappers_partials_methods_and_callable_objects() -> None:
    def take(order: Order, line: Line) -> None: ...

    @functools.wraps(take)
    def wrapper(*args: Any, **kwargs: Any) -> None:
        take(*args, **kwargs)

    class Shop:
        def take(self, order: Order, line: Line) -> None: ...
        def __call__(self, order: Order, line: Line) -> None: ...

    for function in (take, wrapper, functools.partial(take), Shop().take, Shop()):
        assert hints_of(Parameters("t", function)) == {"order": Order, "line": Line}


def test_rest_parameters_have_the_types_of_their_parts() -> None:
    def take(*lines: Line, **options: datetime) -> None: ...

    assert hints_of(Parameters("t", take)) == {"lines": list[Line], "options": dict[str, datetime]}


def test_keywords_may_be_those_of_a_typed_dict() -> None:
    from typing_extensions import Unpack as Spread

    def take(**options: Any) -> None: ...

    take.__annotations__ = {"options": Spread[Options]}
    assert hints_of(Parameters("t", take)) == {"options": Options}


def run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=50).stdout


def test_msgspec_and_pydantic_are_imported_only_where_an_annotation_needs_them() -> None:
    code = """
import sys
from seawall.outbox import MemoryOutbox
from datetime import datetime
box = MemoryOutbox()
@box.operation("a")
def plain(a: str, b: dict[str, list[int]], *c: float, d=None): ...
box.put(plain, "a", {"b": [1]}, 1.0)
box.worker().drain()
print("msgspec" in sys.modules, "pydantic" in sys.modules)
@box.operation("b")
def typed(a: datetime): ...
print("msgspec" in sys.modules, "pydantic" in sys.modules)
"""
    assert run(code).split() == ["False", "False", "True", "False"]


@pytest.mark.parametrize(("hidden", "hint"), [("msgspec", "datetime"), ("pydantic", "Model")])
def test_a_package_that_is_missing_is_named_with_its_extra_at_the_decorator(hidden: str, hint: str) -> None:
    code = f"""
import sys
from datetime import datetime
class Model:
    __pydantic_validator__ = None
sys.modules[{hidden!r}] = None
from seawall.outbox import MemoryOutbox
def take(value: {hint}): ...
try:
    MemoryOutbox().operation("a")(take)
except ValueError as error:
    print(error)
"""
    assert f"needs {hidden}: install seawall[{hidden}], or give the operation a codec" in run(code)


def test_a_codec_may_be_used_without_having_been_asked_to_check() -> None:
    def take(line: Line) -> None: ...

    parameters = Parameters("t", take)
    with pytest.raises(ValueError, match=r"t\(line\): Expected"):
        Typed().decode(b'{"line":1}', parameters)
