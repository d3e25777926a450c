"""Operations are registered by name; what a worker could not call again is refused when it is registered or called."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import pytest

from seawall import Cluster, ConfigError, Policy, Retry
from seawall.errors import NotQueued
from seawall.outbox import Json, MemoryOutbox, MemoryStore, Outbox
from seawall.policies.registry import Registry


def cluster(name: str = "audit") -> Cluster[Any]:
    return Cluster(name, ["a:80"], names=Registry())


def send(address: str) -> None: ...


async def asend(address: str) -> None: ...


class Mailer:
    def send(self, address: str) -> None: ...

    async def asend(self, address: str) -> None: ...

    @staticmethod
    def plain(address: str) -> None: ...


def test_a_function_stays_as_it_is() -> None:
    outbox = MemoryOutbox()
    assert outbox.operation("mail.send")(send) is send
    assert outbox.operation("mail.asend")(asend) is asend
    assert [operation.name for operation in outbox.operations.all()] == ["mail.send", "mail.asend"]
    assert [operation.is_async for operation in outbox.operations.all()] == [False, True]


def test_a_name_registered_again_is_replaced() -> None:
    """A module that is loaded again registers new functions; the old ones are operations no more."""
    outbox = MemoryOutbox()

    @outbox.operation("mail.send")
    def old(address: str) -> None: ...

    @outbox.operation("mail.send", priority=9)
    def new(address: str) -> None: ...

    (operation,) = outbox.operations.all()
    assert (operation.function, operation.priority) == (new, 9)
    assert outbox.operations.of(new) is operation
    with pytest.raises(ConfigError, match="old is no operation"):
        outbox.put(old, "ann@example.org")


def test_a_function_has_one_name() -> None:
    outbox = MemoryOutbox()
    outbox.operation("mail.send")(send)
    with pytest.raises(ConfigError, match=r"operation\('mail\.other'\): .*is registered as 'mail\.send' already"):
        outbox.operation("mail.other")(send)
    assert [operation.name for operation in outbox.operations.all()] == ["mail.send"]


def test_outboxes_know_nothing_of_each_other() -> None:
    one, other = MemoryOutbox(name="one"), MemoryOutbox(name="other")
    one.operation("mail.send")(send)
    with pytest.raises(ConfigError, match="other: send is no operation, so it cannot be queued; register it"):
        other.put(send, "ann@example.org")


# -- what cannot be registered -------------------------------------------------------------------------------------


def generator() -> Iterator[int]:
    yield 1


class Unhashable:
    __hash__ = None  # type: ignore[assignment]

    def __call__(self) -> None: ...


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (Mailer, "expected a function"),
        (7, "function=7: expected a function"),
        (None, "expected a function"),
        (property(send), "expected a function"),
        (generator, "a generator function runs only while it is iterated"),
        (staticmethod(send), "put the decorator of the outbox under it"),
        (classmethod(send), "put the decorator of the outbox under it"),
        (Unhashable(), "cannot be hashed"),
    ],
)
def test_what_cannot_be_called_again_is_refused(function: Any, message: str) -> None:
    outbox = MemoryOutbox()
    with pytest.raises(ConfigError, match=rf"operation\('x'\): .*{message}"):
        outbox.operation("x")(function)
    assert outbox.operations.all() == []


def test_a_decorator_without_a_name_says_how_to_give_one() -> None:
    bare: Any = MemoryOutbox().operation
    with pytest.raises(ConfigError, match=r'as in @outbox\.operation\("mail\.send"\)'):

        @bare
        def send() -> None: ...


@pytest.mark.parametrize("name", ["", " ", "mail send", "mail\n", "ma\0il", "mäil", "x" * 256, None, 7, b"mail"])
def test_names_are_fit_for_headers_and_stores(name: Any) -> None:
    with pytest.raises(ConfigError, match=r"operation\(name=.*expected 1 to 255 visible ASCII characters"):
        MemoryOutbox().operation(name)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"priority": 10}, r"priority=10: expected a whole number from 0 to 9"),
        ({"priority": -1}, "priority=-1"),
        ({"priority": True}, "priority=True"),
        ({"attempts": 0}, "attempts=0: expected a whole number from 1"),
        ({"attempts": 2.5}, "attempts=2.5"),
        ({"max_age": 0}, "max_age=0: expected seconds"),
        ({"max_age": float("nan")}, "max_age=nan"),
        ({"base": "2s", "cap": "1s"}, "base='2s': more than cap='1s'"),
        ({"base": -1}, "base=-1"),
        ({"final": ()}, r"final=\(\): expected at least one exception type"),
        ({"final": KeyboardInterrupt}, "expected subclasses of Exception"),
        ({"through": "http://a:80"}, "through='http://a:80': expected a Cluster or a Policy"),
        ({"through": Retry(on=OSError)}, "expected a Cluster or a Policy"),
        ({"key": "user"}, "key='user': expected a function of the call's arguments"),
        ({"order": asend}, "expected a function of the call's arguments that is not async"),
    ],
)
def test_wrong_settings_are_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=rf"operation\('mail\.send'\).*{message}"):
        MemoryOutbox().operation("mail.send", **settings)(send)


def test_through_a_cluster_the_function_takes_the_endpoint_first() -> None:
    with pytest.raises(ConfigError, match="its function takes the endpoint first"):
        MemoryOutbox().operation("mail.send", through=cluster())(lambda: None)


# -- what is no operation when it is called --------------------------------------------------------------------------


def test_methods_are_told_apart_from_the_functions_of_their_class() -> None:
    outbox, mailer = MemoryOutbox(), Mailer()
    with pytest.raises(ConfigError, match=r"Mailer\.send is no operation.*a method is found again only if"):
        outbox.put(mailer.send, "ann@example.org")
    outbox.operation("mail.function")(Mailer.send)
    with pytest.raises(ConfigError, match="is the function in the class, not this method of one instance"):
        outbox.put(mailer.send, "ann@example.org")


def test_the_method_of_one_long_lived_object_may_be_registered() -> None:
    seen: list[str] = []

    class Recorder:
        def send(self, address: str) -> None:
            seen.append(address)

    outbox, recorder = MemoryOutbox(), Recorder()
    outbox.operation("mail.send")(recorder.send)
    outbox.put(recorder.send, "ann@example.org")
    with pytest.raises(ConfigError, match="no operation"):
        outbox.put(Recorder().send, "ann@example.org")
    assert outbox.worker().drain() == 1
    assert seen == ["ann@example.org"]


def test_a_wrapper_of_an_operation_is_not_the_operation() -> None:
    """A worker would run the inner function, without what the wrapper adds: so the order of decorators is refused."""
    outbox = MemoryOutbox()

    @Policy(Retry(on=OSError))
    @outbox.operation("mail.send")
    def wrapped(address: str) -> None: ...

    with pytest.raises(ConfigError, match=r"put @outbox\.operation above the other decorators"):
        outbox.put(wrapped, "ann@example.org")
    with pytest.raises(ConfigError, match=r"put @outbox\.operation above the other decorators"):
        outbox.put(functools.partial(wrapped.__wrapped__, "ann@example.org"))  # type: ignore[attr-defined]


@pytest.mark.parametrize("function", [lambda: None, print, Unhashable(), None, 7])
def test_anything_else_is_told_how_to_become_one(function: Any) -> None:
    with pytest.raises(ConfigError, match=r"is no operation, so it cannot be queued; register it: @outbox\.operation"):
        MemoryOutbox().put(function)


def test_a_codec_belongs_to_the_operation_or_else_to_the_outbox() -> None:
    class Other(Json):
        pass

    mine, own = Other(), Other()
    outbox = MemoryOutbox(codec=mine)
    outbox.operation("a")(send)
    outbox.operation("b", codec=own)(asend)
    assert [operation.codec for operation in outbox.operations.all()] == [mine, own]


@pytest.mark.parametrize(
    ("store", "said"),
    [
        ("sqlit:///x.db", "sqlite:///"),
        ("outbox.db", "write sqlite:///outbox.db"),
        ("/var/outbox.db", "write sqlite:////var/outbox.db"),
        (7, "expected a URL or a store"),
        ("memory://host", "neither address nor settings"),
    ],
)
def test_a_store_that_nobody_knows_is_refused_with_those_that_are_known(store: object, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Outbox(store)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # that is the mistake


def test_the_password_of_a_url_is_not_told() -> None:
    with pytest.raises(ConfigError) as caught:
        Outbox("mysql://root:secret@host/db")
    assert "secret" not in str(caught.value)


def test_an_outbox_by_url_has_the_settings_given_beside_it() -> None:
    outbox = Outbox("memory://", backlog=1, when_full="reject")
    outbox.operation("note")(print)
    assert not outbox.put(print, "one").durable
    with pytest.raises(NotQueued, match="1 of 1"):
        outbox.put(print, "two")
    with pytest.raises(ConfigError, match="give it to the store"):
        Outbox(MemoryStore(), backlog=1)
