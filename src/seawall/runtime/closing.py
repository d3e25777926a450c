"""What nobody wants any more is closed: the response of an attempt that lost, or of one that is tried again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = ["closer_of"]


def closer_of(
    ending: tuple[Any, BaseException | None], *, is_async: bool, kept: object = None
) -> Callable[[], Any] | None:
    """What closes the value, or what the error holds; None if there is nothing to close.

    In async `aclose` is preferred, and the result may have to be awaited; in sync only `close` will do. `kept` is what
    the winner brought: attempts may share one object. A class has its methods for its instances.
    """
    value, error = ending
    unwanted = value if error is None else error
    if unwanted is None or unwanted is kept or isinstance(unwanted, type):
        return None
    try:
        close = getattr(unwanted, "aclose", None) if is_async else None
        if close is None:
            close = getattr(unwanted, "close", None)
    except Exception:  # noqa: BLE001  # an odd object: there is no telling what would close it
        return None
    return close if callable(close) else None
