"""A decorated function keeps its exact type: sync, async, function, method. Read by the type checkers, never run."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar, assert_type

from seawall import Policy

T = TypeVar("T")
pay = Policy(name="payments")


@dataclass
class Order:
    total: int


@dataclass
class Receipt:
    order: Order


@pay
def charge(order: Order, *, note: str = "") -> Receipt:
    return Receipt(order)


@pay
async def refund(order: Order, *, note: str = "") -> Receipt:
    return Receipt(order)


@pay
def first(items: list[T]) -> T:
    return items[0]


class Till:
    @pay
    def charge(self, order: Order) -> Receipt:
        return Receipt(order)

    @pay
    async def refund(self, order: Order) -> Receipt:
        return Receipt(order)

    @staticmethod
    @pay
    def fee(order: Order) -> int:
        return order.total // 100

    @classmethod
    @pay
    def open(cls, order: Order) -> "Till":
        return cls() if order.total else Till()

    @property
    @pay
    def balance(self) -> int:
        return 0


def functions(order: Order) -> None:
    assert_type(charge(order), Receipt)
    assert_type(charge(order=order, note="gift"), Receipt)
    assert_type(first(["a"]), str)
    takes_the_same: Callable[[Order], Receipt] = charge
    takes_the_same(order)

    charge("an order")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    charge()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    charge(order, "gift")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


def methods(till: Till, order: Order) -> None:
    assert_type(till.charge(order), Receipt)
    assert_type(till.fee(order), int)
    assert_type(Till.open(order), Till)
    assert_type(till.balance, int)

    till.charge(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def coroutines(till: Till, order: Order) -> None:
    assert_type(await refund(order, note="late"), Receipt)
    assert_type(await till.refund(order), Receipt)

    await refund(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
