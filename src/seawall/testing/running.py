"""One call that runs an async function in virtual time."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from seawall.testing.loop import Main, VirtualLoop

__all__ = ["run"]

T = TypeVar("T")


def run(
    main: Main[T],
    *,
    seed: int | None = 0,
    max_steps: int = 5_000_000,
    allow_pending: bool = False,
    after_step: Callable[[], object] | None = None,
) -> T:
    """Run an async function in virtual time and return its result.

    `main` takes no argument (a coroutine will do). The other arguments, and what is raised, are those of `VirtualLoop`
    and its `run`. An error that escapes carries a note with the seed; the same seed replays the run exactly.

    >>> import asyncio
    >>> async def main():
    ...     async with asyncio.timeout(2):
    ...         await asyncio.sleep(1.5)
    ...     return asyncio.get_running_loop().time()
    >>> run(main, seed=42)
    1.5
    """
    loop = VirtualLoop(seed=seed, max_steps=max_steps, allow_pending=allow_pending, after_step=after_step)
    try:
        return loop.run(main)
    except BaseException as error:
        error.add_note(f"seed {seed}; replay: seawall.testing.run(..., seed={seed})")
        raise
