"""Test resilient code without waiting and without luck: virtual time, seeded order, cancellation everywhere, faults.

- `run(main, seed=...)`: an async function in virtual time; deadlocks, lost errors and forgotten tasks fail the test.
- `VirtualClock()`: the same for synchronous code.
- `cancel_everywhere(scenario)`: proves that a coroutine leaks nothing, wherever it is cancelled.
- `Script(...)`, `Flaky(...)`, `hang`, `slow(...)`, `returns(...)`: functions that fail to order.
- pytest fixtures `seawall_clock`, `seawall_no_waiting`, `seawall_off`: see `seawall.testing.pytest_plugin`.

>>> import asyncio
>>> from seawall.testing import Script, run, slow
>>> fetch = Script(ConnectionError, slow("30s", "an answer"))
>>> async def main():
...     for attempt in range(2):
...         try:
...             return await fetch.aio("/stock")
...         except ConnectionError:
...             await asyncio.sleep(10)
>>> run(main), fetch.times
('an answer', [0.0, 10.0])
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from seawall.testing.cancel import Victim, cancel_everywhere
    from seawall.testing.clock import VirtualClock
    from seawall.testing.failures import (
        Deadlock,
        RunFailure,
        SwallowedCancellation,
        TasksLeft,
        TooManySteps,
        Unhandled,
    )
    from seawall.testing.faults import CannotHang, Flaky, Script, hang, returns, slow
    from seawall.testing.loop import VirtualLoop
    from seawall.testing.running import run

__all__ = [
    "CannotHang",
    "Deadlock",
    "Flaky",
    "RunFailure",
    "Script",
    "SwallowedCancellation",
    "TasksLeft",
    "TooManySteps",
    "Unhandled",
    "Victim",
    "VirtualClock",
    "VirtualLoop",
    "cancel_everywhere",
    "hang",
    "returns",
    "run",
    "slow",
]

_HOMES = {
    "cancel": ("Victim", "cancel_everywhere"),
    "clock": ("VirtualClock",),
    "failures": ("Deadlock", "RunFailure", "SwallowedCancellation", "TasksLeft", "TooManySteps", "Unhandled"),
    "faults": ("CannotHang", "Flaky", "Script", "hang", "returns", "slow"),
    "loop": ("VirtualLoop",),
    "running": ("run",),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}


# Imported at first use: pytest imports this package in every run where the plugin is installed.
def __getattr__(name: str) -> Any:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{home}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
