"""An integration is light: it loads nobody's package but that of the client it is used with."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("statement", "allowed"),
    [
        ("import seawall.http, seawall.integrations.asgi, seawall.integrations.wsgi", set()),
        ("from seawall.integrations.httpx import AsyncTransport, Transport; AsyncTransport(); Transport()", set()),
    ],
)
def test_it_loads_the_standard_library_only(statement: str, allowed: set[str]) -> None:
    code = (
        f"import sys; before = set(sys.modules)\n{statement}\n"
        "print(*{name.partition('.')[0] for name in set(sys.modules) - before})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=50)
    assert set(done.stdout.split()) - sys.stdlib_module_names == {"seawall"} | allowed


def test_a_missing_client_is_named_with_the_extra_to_install() -> None:
    code = "import sys; sys.modules['aiohttp'] = None; import seawall.integrations.aiohttp"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=50)
    assert "needs aiohttp: pip install 'seawall[aiohttp]'" in done.stderr
