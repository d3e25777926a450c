"""A cluster as a decorator: callers leave the endpoint out, and what cannot be protected is refused."""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from seawall import Broadcast, Cluster, Endpoint, Failfast, Failover, Failsafe, Forking
from seawall.testing import run
from tests.cluster.service import Dead, Service

CLUSTER: Cluster[Any] = Service(3).cluster(Failfast())


def level(endpoint: Endpoint, sku: str, *, fresh: bool = False) -> str:
    """The level of an item."""
    return f"{sku} at {endpoint}, fresh: {fresh}"


async def alevel(endpoint: Endpoint, sku: str, *, fresh: bool = False) -> str:
    """The level of an item."""
    return f"{sku} at {endpoint}, fresh: {fresh}"


def test_callers_leave_the_endpoint_out() -> None:
    decorated = CLUSTER(level)
    assert decorated("A-7", fresh=True).startswith("A-7 at e")
    assert decorated(sku="A-7").endswith("fresh: False")
    assert run(lambda: CLUSTER(alevel)("A-7", fresh=True)).endswith("fresh: True")


@pytest.mark.parametrize("function", [level, alevel])
def test_it_looks_like_the_function_without_the_endpoint(function: Any) -> None:
    decorated = CLUSTER(function)
    assert decorated.__name__ == function.__name__
    assert decorated.__doc__ == "The level of an item."
    assert decorated.__wrapped__ is function
    assert str(inspect.signature(decorated)) == "(sku: 'str', *, fresh: 'bool' = False) -> 'str'"
    assert inspect.iscoroutinefunction(decorated) == inspect.iscoroutinefunction(function)


def test_wrong_arguments_are_an_error_of_the_caller_and_are_not_tried_elsewhere() -> None:
    asked: list[str] = []

    @Service(3).cluster(Failover())
    def one(endpoint: Endpoint, sku: str) -> None:
        asked.append(sku)

    with pytest.raises(TypeError, match="sku"):
        one()
    assert asked == []


def test_the_strategy_is_that_of_the_cluster() -> None:
    service = Service(3).all_do(Dead)

    def work(endpoint: Endpoint) -> Any:
        return service(endpoint)

    assert service.cluster(Failsafe("lost"))(work)() == "lost"
    with pytest.raises(ExceptionGroup):
        service.cluster(Forking("all"))(work)()
    service.all_do("well")
    answers = service.cluster(Broadcast())(work)()
    assert {str(endpoint): answer for endpoint, answer in answers.items()} == dict.fromkeys(service.addresses, "well")


def test_a_parameter_that_takes_all_positions_stays() -> None:
    @CLUSTER
    def anything(*args: Any, **kwargs: Any) -> tuple[Any, ...]:
        return args

    assert str(inspect.signature(anything)) == "(*args: 'Any', **kwargs: 'Any') -> 'tuple[Any, ...]'"
    assert anything(1)[1:] == (1,)


def test_partials_and_callable_objects() -> None:
    assert CLUSTER(functools.partial(level, fresh=True))("A-7").endswith("fresh: True")
    assert run(lambda: CLUSTER(functools.partial(alevel, fresh=True))("A-7")).endswith("fresh: True")

    class Level:
        def __call__(self, endpoint: Endpoint, sku: str) -> str:
            return sku

    class Later:
        async def __call__(self, endpoint: Endpoint, sku: str) -> str:
            return sku

    assert CLUSTER(Level())("A-7") == "A-7"
    assert run(lambda: CLUSTER(Later())("A-7")) == "A-7"


def test_a_function_without_a_readable_signature() -> None:
    decorated = CLUSTER(max)  # type: ignore[type-var]
    assert decorated.__name__ == "max"
    assert decorated(Endpoint("a:80"), key=str)


class Shop:
    def method(self, endpoint: Endpoint) -> str:
        return str(endpoint)

    @classmethod
    def of_the_class(cls, endpoint: Endpoint) -> str:
        return str(endpoint)

    @staticmethod
    def of_nobody(endpoint: Endpoint) -> str:
        return str(endpoint)


def test_methods_are_refused_for_their_first_parameter_is_no_endpoint() -> None:
    for method in (Shop.method, Shop().method, Shop.of_the_class):
        with pytest.raises(TypeError, match=r"a method.*cluster\.call\(self\.method"):
            CLUSTER(method)
    with pytest.raises(TypeError, match="a method"):

        class Inner:
            @CLUSTER
            def method(self, endpoint: Endpoint) -> str:
                return str(endpoint)

    assert CLUSTER.call(Shop().method) in ("e0:80", "e1:80", "e2:80"), "that way it works"


def generator(endpoint: Endpoint) -> Iterator[int]:
    yield 1


async def async_generator(endpoint: Endpoint) -> AsyncIterator[int]:
    yield 1


@pytest.mark.parametrize("function", [generator, async_generator])
def test_generators_are_refused(function: Any) -> None:
    with pytest.raises(TypeError, match="a generator function"):
        CLUSTER(function)


def nobody() -> None: ...


def by_name(*, endpoint: Endpoint) -> None: ...


@pytest.mark.parametrize("function", [Shop, int, 7, None, "name", nobody, by_name], ids=repr)
def test_what_takes_no_endpoint_is_refused(function: Any) -> None:
    with pytest.raises(TypeError, match="expected a function whose first parameter is the endpoint"):
        CLUSTER(function)


def test_the_wrong_kind_of_call_says_so() -> None:
    with pytest.raises(TypeError, match="acall"):
        CLUSTER.call(alevel, "A-7")
    with pytest.raises(TypeError) as caught:
        run(lambda: CLUSTER.acall(level, "A-7"))
    assert any("awaits what the function returns" in note for note in caught.value.__notes__)
