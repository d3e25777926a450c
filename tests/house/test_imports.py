"""What is imported where: machines are pure, the core needs the standard library only, `import seawall` stays light."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[2] / "src"
PACKAGE = SOURCE / "seawall"
IMPURE = {"asyncio", "os", "random", "socket", "threading", "time"}
OWN_TIME = {"cli", "demo", "runtime", "testing"}
INTEGRATIONS = {
    "aiohttp": {"aiohttp", "multidict", "yarl"},
    "celery": {"celery"},
    "django": {"asgiref", "django"},
    "fastapi": {"fastapi", "starlette"},
    "flask": {"flask", "werkzeug"},
    "httpx": {"httpx", "httpx2"},
    "sqlalchemy": {"sqlalchemy"},
}
"""What each integration may import besides: its own framework."""
THIRD_PARTY = {
    "demo": {"aiohttp"},
    "cli": {"aiohttp"},
    "outbox": {"aiormq", "msgspec", "pydantic"},
    "integrations": set[str]().union(*INTEGRATIONS.values()),
    "stores": {"redis"},
    "testing": {"pytest"},
}
"""Where other people's packages may be imported, and which; each is an extra, or there whenever the module is used."""


def imports_of(path: Path) -> Iterator[tuple[int, str]]:
    """Every import of a file, inside functions too: its line, and the outermost package."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name.partition(".")[0]) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None and node.level == 0:
            yield node.lineno, node.module.partition(".")[0]


def test_machines_know_no_clock_loop_thread_chance_or_io() -> None:
    found = [
        f"{path.relative_to(SOURCE)}:{line} imports {name}"
        for path in sorted((PACKAGE / "machines").rglob("*.py"))
        for line, name in imports_of(path)
        if name in IMPURE
    ]
    assert not found, "a machine takes `now` and random numbers as arguments"


def test_only_the_runtime_reads_clocks_and_draws_random_numbers() -> None:
    found = [
        f"{path.relative_to(PACKAGE)}:{line} imports {name}"
        for path in sorted(PACKAGE.rglob("*.py"))
        if path.relative_to(PACKAGE).parts[0] not in OWN_TIME
        for line, name in imports_of(path)
        if name in ("time", "random")
    ]
    assert not found, "ask seawall.runtime.clock and seawall.runtime.chance: tests put virtual time in their place"


def test_third_party_packages_stay_in_their_places() -> None:
    found: list[str] = []
    for path in sorted(PACKAGE.rglob("*.py")):
        inside = path.relative_to(PACKAGE)
        allowed = THIRD_PARTY.get(inside.parts[0], set()) | {"seawall"} | sys.stdlib_module_names
        found += [f"{inside}:{line} imports {name}" for line, name in imports_of(path) if name not in allowed]
    assert not found


def test_an_integration_imports_no_framework_but_its_own() -> None:
    found: list[str] = []
    for path in sorted((PACKAGE / "integrations").rglob("*.py")):
        name = path.relative_to(PACKAGE / "integrations").parts[0].removesuffix(".py")
        allowed = INTEGRATIONS.get(name, set()) | {"seawall"} | sys.stdlib_module_names
        found += [f"{name}:{line} imports {module}" for line, module in imports_of(path) if module not in allowed]
    assert not found


@pytest.mark.parametrize(
    "statement",
    [
        "import seawall",
        "from seawall import Policy, Retry, CircuitBreaker, Bulkhead, Timeout, Fallback, Hedge",
        "import seawall; seawall.Policy(seawall.Retry(on=OSError), seawall.CircuitBreaker()).call(int)",
        "import seawall.testing.pytest_plugin",
    ],
)
def test_importing_seawall_loads_the_standard_library_only_and_no_asyncio(statement: str) -> None:
    plugin = "pytest" if "pytest" in statement else "sys"
    code = (
        f"import sys, {plugin}; before = set(sys.modules)\n{statement}\n"
        "print(*{name.partition('.')[0] for name in set(sys.modules) - before})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=50)
    loaded = set(done.stdout.split())
    assert "seawall" in loaded
    assert "asyncio" not in loaded
    assert loaded - sys.stdlib_module_names == {"seawall"}
