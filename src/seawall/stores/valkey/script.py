"""The script that decides on the server, put together from its parts in stores/lua."""

from __future__ import annotations

from functools import cache
from hashlib import sha1
from importlib.resources import files

__all__ = ["PARTS", "Script", "script"]

PARTS = ("clock", "spans", "buckets", "windows", "log", "holds", "leases", "units")
"""The parts, in order. The first reads the clock: tests put another in its place."""


class Script:
    """A text, and the name under which servers keep it."""

    __slots__ = ("sha", "text")

    def __init__(self, parts: tuple[str, ...]) -> None:
        # The first line makes a replica refuse it as a whole, instead of answering from what it has.
        self.text = b"#!lua\n" + "".join(parts).encode()
        self.sha = sha1(self.text, usedforsecurity=False).hexdigest().encode()


def part(name: str) -> str:
    """The text of one part."""
    return files("seawall.stores").joinpath("lua", f"{name}.lua").read_text(encoding="utf-8")


@cache
def script() -> Script:
    """The script of this version, read at its first use."""
    return Script(tuple(part(name) for name in PARTS))
