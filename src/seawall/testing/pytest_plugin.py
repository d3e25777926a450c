"""Fixtures and one option for pytest; costs nothing to a test run that does not use them.

- `seawall_clock`: virtual time for a synchronous test; sleeps return at once and are recorded.
- `seawall_no_waiting`: policies work, but retries do not pause.
- `seawall_off`: policies only call the function.
- `seawall_waiting = off` in the configuration, or `--seawall-waiting=off`: no pauses between retries in the whole run.
  A test that asks for `seawall_clock` sees them all the same, as virtual time.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from seawall.testing.clock import VirtualClock

__all__: list[str] = []


def pytest_addoption(parser: pytest.Parser) -> None:
    said = "whether retries pause between attempts: on (default) or off"
    parser.addini("seawall_waiting", said, default="on")
    parser.getgroup("seawall").addoption("--seawall-waiting", choices=("on", "off"), help=said)


def pytest_configure(config: pytest.Config) -> None:
    waiting = config.getoption("--seawall-waiting") or config.getini("seawall_waiting")
    if waiting not in ("on", "off"):
        raise pytest.UsageError(f"seawall_waiting={waiting!r}: expected on or off")
    if waiting == "off":
        restore = ExitStack()
        restore.enter_context(_switches(waiting=True))
        config.add_cleanup(restore.close)


@contextmanager
def _switches(*, waiting: bool | None = None, everything: bool | None = None) -> Generator[None]:
    """Set the library's off switches (True is off), and put back what was: `enable()` would undo the run's own too."""
    from seawall.runtime import off

    before = off.waiting, off.everything
    off.waiting = before[0] if waiting is None else waiting
    off.everything = before[1] if everything is None else everything
    try:
        yield
    finally:
        off.waiting, off.everything = before


@pytest.fixture
def seawall_clock() -> Generator[VirtualClock]:
    """A `VirtualClock` in place of the library's clock for this test."""
    from seawall.testing.clock import VirtualClock

    with _switches(waiting=False), VirtualClock() as clock:
        yield clock


@pytest.fixture
def seawall_no_waiting() -> Generator[None]:
    """No pauses between retries in this test."""
    with _switches(waiting=True):
        yield


@pytest.fixture
def seawall_off() -> Generator[None]:
    """Every policy is switched off in this test."""
    with _switches(everything=True):
        yield
