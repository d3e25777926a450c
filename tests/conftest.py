"""For all tests: which of them say the same on any interpreter; no threads that outlive a test; and ears for Ctrl-C."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.policies.worlds import workers_go_home

__all__ = ["workers_go_home"]

HERE = Path(__file__).parent
ONCE = {"cli_outbox", "demo", "docs", "house", "outbox_amqp", "outbox_valkey", "peers", "process_outbox"}
"""Folders whose subject are servers, processes, files and pages, all of it marked `once`."""

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell starts its background jobs deaf to SIGINT, and every process below inherits that: the tests of Ctrl-C would
    # wait for ever when .ci/run runs interpreters side by side.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: Sequence[pytest.Item]) -> None:
    """Marks what stands in these folders."""
    for item in items:
        if item.path.is_relative_to(HERE) and item.path.relative_to(HERE).parts[0] in ONCE:
            item.add_marker(pytest.mark.once)
