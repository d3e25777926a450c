"""What closes a value that nobody wants, or what an error holds: `aclose` in async where there is one, else `close`."""

from __future__ import annotations

from typing import Any

import pytest

from seawall.runtime.closing import closer_of


class Closes:
    def close(self) -> str:
        return "closed"


class ClosesBoth(Closes):
    async def aclose(self) -> str:
        return "aclosed"


class ClosesAsync:
    async def aclose(self) -> str:
        return "aclosed"


class HoldsNothing:
    close = True
    aclose = None


class Odd:
    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(name)


class Failure(Closes, OSError):
    pass


@pytest.mark.parametrize(
    ("what", "in_sync", "in_async"),
    [
        (Closes(), "close", "close"),
        (ClosesBoth(), "close", "aclose"),
        (ClosesAsync(), None, "aclose"),
        (HoldsNothing(), None, None),
        (Odd(), None, None),
        (None, None, None),
        (0, None, None),
        ("value", None, None),
    ],
    ids=repr,
)
def test_what_closes_a_value(what: Any, in_sync: str | None, in_async: str | None) -> None:
    for is_async, wanted in ((False, in_sync), (True, in_async)):
        close = closer_of((what, None), is_async=is_async)
        assert (None if close is None else close.__name__) == wanted


def test_what_an_error_holds_is_closed_and_not_the_value_beside_it() -> None:
    failure = Failure()
    assert closer_of((Closes(), failure), is_async=False) == failure.close
    assert closer_of((Closes(), OSError()), is_async=False) is None
