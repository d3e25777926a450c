"""Who is calling: the keys by which limits at an entrance tell callers apart.

A key function takes a `Request` and gives a text, or None if it cannot tell. Each of those here begins its keys with a
word of its own, so that nobody can take another's place by a cleverly chosen name. Where the framework awaits, a key
function may be async; one that can do both has an `acall` beside its call, and says `awaits = True`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID

from seawall.errors import ConfigError
from seawall.http.request import Request
from seawall.policies.functions import check_predicate, is_coroutine_function

__all__ = ["Caller", "KeyOf", "api_key", "awaits", "first_of", "found_by", "text_of", "user_key"]

Caller = str | bytes | int | UUID | None
"""What tells a caller apart: a text, or a number or UUID that is taken as one; None if that is not known."""
KeyOf = Callable[[Request], Caller | Awaitable[Caller]]


def text_of(caller: object) -> object:
    """A whole number or a UUID as text; anything else as it is, for the limiter to judge."""
    return (
        str(caller)
        if (isinstance(caller, int) and not isinstance(caller, bool)) or isinstance(caller, UUID)
        else caller
    )


def awaits(key: object) -> bool:
    """Whether a key function has, or is, a form that must be awaited."""
    return bool(getattr(key, "awaits", False)) or (callable(key) and is_coroutine_function(key))


async def found_by(key: Callable[[Request], Any], request: Request) -> Any:
    """What a key function finds, awaited if it must be."""
    if not awaits(key):
        return key(request)
    return await getattr(key, "acall", key)(request)


def api_key(header: str = "X-API-Key") -> Callable[[Request], str | None]:
    """The key that a caller sends in a header. Check elsewhere that it is a valid one: a limit only counts by it.

    A header that was sent twice is nobody's. Long keys are kept as a hash.

    >>> from seawall.http import Request, api_key
    >>> api_key()(Request("GET", "/", None, lambda name: ["k-17"] if name == "x-api-key" else []))
    'key:k-17'
    """
    if not isinstance(header, str) or not header or not header.isascii():  # pyright: ignore[reportUnnecessaryIsInstance]  # callers without a type checker
        raise ConfigError(f"api_key(header={header!r}): expected the name of a header")

    def key(request: Request) -> str | None:
        value = request.header(header)
        return f"key:{value}" if value else None

    return key


def user_key(of: Callable[[Request], str | int | UUID | None]) -> Callable[[Request], str | None]:
    """The user whose name or number a function finds; it stands inside whatever authenticates.

    >>> from seawall.http import Request, user_key
    >>> user = user_key(lambda request: request.native["session"].get("user"))
    >>> user(Request("GET", "/", None, lambda name: [], {"session": {"user": 42}}))
    'user:42'
    """
    check_predicate(of, "user_key(of)", "a function of the request")
    if not callable(of):
        raise ConfigError(f"user_key(of={of!r}): expected a function of the request")

    def key(request: Request) -> str | None:
        user = of(request)
        return None if user is None or user == "" else f"user:{text_of(user)}"

    return key


def first_of(*keys: KeyOf) -> KeyOf:
    """The first key function that can tell who calls: `first_of(api_key(), ClientAddress())`."""
    if not keys or not all(callable(key) for key in keys):
        raise ConfigError(f"first_of{keys!r}: expected key functions, at least one")
    return FirstOf(keys)


class FirstOf:
    """Key functions in order, and the answer of the first that has one."""

    __slots__ = ("_keys", "awaits")

    def __init__(self, keys: tuple[KeyOf, ...]) -> None:
        self._keys = keys
        self.awaits = any(map(awaits, keys))

    def __call__(self, request: Request) -> Any:
        return next((found for key in self._keys if (found := key(request)) is not None), None)

    async def acall(self, request: Request) -> Any:
        """As a call, where a key function has to be awaited."""
        for key in self._keys:
            found = await found_by(key, request)
            if found is not None:
                return found
        return None
