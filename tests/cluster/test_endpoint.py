"""`Endpoint` and lists of them: a value by its address, and errors that name field, value and what is allowed."""

from __future__ import annotations

import copy
import itertools
import pickle
from fractions import Fraction
from typing import Any

import pytest

from seawall import Cluster, ConfigError, Endpoint
from seawall.cluster.endpoint import MOST_ENDPOINTS, endpoints_of
from seawall.policies.registry import Registry


def test_an_endpoint_is_a_value_known_by_its_address() -> None:
    one, other = Endpoint("a:80", 3, "a.example"), Endpoint("a:80")
    assert one == other and hash(one) == hash(other) and one != Endpoint("b:80") and one != "a:80"
    assert (one.address, one.weight, one.host, str(one)) == ("a:80", 3, "a.example", "a:80")
    assert (other.weight, other.host) == (1, None)
    with pytest.raises(AttributeError, match="frozen"):
        one.weight = 4  # type: ignore[misc]


@pytest.mark.parametrize("made", [copy.copy, copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))])
def test_a_copy_has_all_of_it(made: Any) -> None:
    twin = made(Endpoint("a:80", 3, "a.example"))
    assert vars(twin) == {"address": "a:80", "weight": 3, "host": "a.example"}


def test_a_changed_copy_is_checked() -> None:
    assert vars(Endpoint("a:80").replace(weight=7)) == {"address": "a:80", "weight": 7, "host": None}
    with pytest.raises(ConfigError, match=r"Endpoint\(weight=0\)"):
        Endpoint("a:80").replace(weight=0)


BAD_TEXTS: list[Any] = [
    "",
    " ",
    "a b",
    "a\n:80",
    "a:80\r\nX-Injected: 1",
    "a\0:80",
    "a\t:80",
    "a\x7f:80",
    "a\u2028:80",
    "a\u00a0:80",
    "\ufeffa:80",
    "\u202ea:80",
    "a\ud800:80",
    "a" * 2_049,
    "a" * 1_000_000,
    b"a:80",
    80,
    None,
    True,
    float("nan"),
    ["a:80"],
]


THOUSANDS = 10**5_000


def short(value: object) -> str:
    return ascii(value)[:20] if value != THOUSANDS else "thousands of digits"


@pytest.mark.parametrize("bad", BAD_TEXTS, ids=short)
@pytest.mark.parametrize("field", ["address", "host"])
def test_what_is_no_address_is_refused_in_a_short_line(field: str, bad: Any) -> None:
    if field == "host" and bad is None:
        return
    with pytest.raises(ConfigError) as caught:
        Endpoint(**{"address": "a:80", field: bad})
    text = str(caught.value)
    assert text.startswith(f"Endpoint({field}=") and "expected text without blanks, 1 to 2048 characters" in text
    assert len(text) < 250 and text.isprintable(), "what is bad must not get into logs as it is"


@pytest.mark.parametrize("good", ["a", "a" * 2_048, "http://[::1]:80/base", "unix:/run/a.sock", "büro.example:80"])
def test_any_other_text_is_an_address(good: str) -> None:
    assert str(Endpoint(good)) == good


@pytest.mark.parametrize(
    "weight", [True, False, 0, -1, 1.0, 2.5, 1_001, 10**30, THOUSANDS, "3", None, float("nan"), Fraction(2)], ids=short
)
def test_a_weight_is_a_whole_number_from_1_to_1000(weight: Any) -> None:
    with pytest.raises(ConfigError, match=r"^Endpoint\(weight=.*\): expected a whole number from 1 to 1000$"):
        Endpoint("a:80", weight)


# -- lists ------------------------------------------------------------------------------------------------------------


def made(endpoints: Any) -> Cluster[Any]:
    return Cluster("stock", endpoints, names=Registry())


@pytest.mark.parametrize("kind", [list, tuple, iter, dict.fromkeys])
def test_addresses_and_endpoints_may_be_mixed_and_their_order_stays(kind: Any) -> None:
    cluster = made(kind(["b:80", Endpoint("a:80", 2)]))
    assert [(str(endpoint), endpoint.weight) for endpoint in cluster.endpoints] == [("b:80", 1), ("a:80", 2)]


@pytest.mark.parametrize("empty", [[], (), {}, set(), iter(())], ids=repr)
def test_an_empty_list_at_the_start_is_an_error(empty: Any) -> None:
    with pytest.raises(ConfigError, match=r"^Cluster\('stock', endpoints=\[\]\): expected at least one endpoint$"):
        made(empty)


@pytest.mark.parametrize(
    "twice", [["a:80", "b:80", "a:80"], [Endpoint("a:80"), "a:80"], [Endpoint("a:80"), Endpoint("a:80", 2)]], ids=short
)
def test_one_that_is_given_twice_is_an_error(twice: Any) -> None:
    with pytest.raises(ConfigError, match=r"^Cluster\(endpoints\): a:80 is given twice$"):
        made(twice)


@pytest.mark.parametrize("text", ["a:80", b"a:80", ""], ids=repr)
def test_one_text_is_no_list(text: Any) -> None:
    """Its letters would be endpoints."""
    with pytest.raises(ConfigError, match="expected a list of addresses, not one text"):
        made(text)


@pytest.mark.parametrize("other", [5, None, 1.5, True, Endpoint("a:80")], ids=repr)
def test_what_is_no_list_is_refused_with_what_would_do(other: Any) -> None:
    with pytest.raises(ConfigError, match=r"endpoints=.*expected addresses, a function that returns them, Dns"):
        made(other)


@pytest.mark.parametrize("item", [5, None, b"a:80", ["a:80"], ("a:80", 2), "a b", "a\n"], ids=repr)
def test_an_item_that_is_none_is_named(item: Any) -> None:
    with pytest.raises(ConfigError, match=r"^Endpoint\(address="):
        made(["a:80", item])


def test_a_list_without_end_is_refused_and_not_stored() -> None:
    endless = (f"e{number}:80" for number in itertools.count())
    with pytest.raises(ConfigError, match=f"more than {MOST_ENDPOINTS} endpoints"):
        made(endless)
    assert next(endless) == f"e{MOST_ENDPOINTS + 1}:80"
    assert len(endpoints_of((f"e{number}" for number in range(MOST_ENDPOINTS)), "x")) == MOST_ENDPOINTS


@pytest.mark.parametrize("bad", ["a:80", 5, None, ["a:80", "a:80"], ["a b"]], ids=repr)
def test_a_bad_update_is_refused_and_changes_nothing(bad: Any) -> None:
    cluster = made(["a:80", "b:80"])
    with pytest.raises(ConfigError):
        cluster.update(bad)
    assert [str(endpoint) for endpoint in cluster.endpoints] == ["a:80", "b:80"]
    assert cluster.snapshot()["failed_lookups"] == 0
