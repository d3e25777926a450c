"""Section `import`: what an import adds to the start of a fresh, isolated interpreter."""

from __future__ import annotations

import importlib.util
import statistics
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter_ns

from .measure import Effort, Role, quartiles
from .tables import Row, Table

SEAWALL = "import seawall"
SEAWALL_NAMES = "from seawall import Policy, Retry, CircuitBreaker, Bulkhead, Timeout, Fallback"

# Each peer by the statement its documentation opens with; hyx has no single one.
_PEERS = (
    "import tenacity",
    "import stamina",
    "import backoff",
    "import pybreaker",
    "import circuitbreaker",
    "import aiobreaker",
    "import purgatory",
    "import hyx.retry, hyx.circuitbreaker, hyx.bulkhead, hyx.timeout",
    "import pyresilience",
)


@dataclass(slots=True)
class _Import:
    statement: str
    role: Role
    prelude: str
    milliseconds: list[float]
    error: str | None = None
    note: str = ""


def imports(effort: Effort) -> list[Table]:
    """One table. Each round starts one interpreter for each statement and one that does nothing."""
    prelude = _find_seawall()
    subjects = [
        _Import(SEAWALL, "ours", prelude, []),
        _Import(SEAWALL_NAMES, "ours", prelude, []),
        _Import("import typing", "peer", "", [], note="standard library; the heaviest that Seawall needs itself"),
        _Import("import asyncio", "peer", "", [], note="standard library; what an eager asyncio costs"),
        _Import("import dataclasses", "peer", "", [], note="standard library; most of it is `inspect`"),
        *(_Import(statement, "peer", "", []) for statement in _PEERS),
    ]
    for subject in subjects:
        # The first start may compile to bytecode, and tells whether there is anything to time.
        subject.error = _start(subject.prelude + subject.statement)[1]
    for _ in range(effort.import_rounds):
        nothing, _error = _start("pass")
        for subject in subjects:
            if subject.error is None:
                spent, subject.error = _start(subject.prelude + subject.statement)
                subject.milliseconds.append((spent - nothing) / 1e6)
    title = f"Import, net of starting the interpreter: median of {effort.import_rounds} fresh ones"
    return [Table("import", title, _rows(subjects), unit="ms", bare="")]


def _rows(subjects: list[_Import]) -> list[Row]:
    # The statement a user writes is the one to compare with: a package may put its work off until a name is asked for.
    ours = next((s for s in subjects if s.statement == SEAWALL_NAMES and s.error is None), None)
    base = statistics.median(ours.milliseconds) if ours and ours.milliseconds else None
    rows = []
    for subject in subjects:
        row = Row(subject.statement, subject.role, error=subject.error, note=subject.note)
        if subject.error is None:
            row.low, row.middle, row.high = quartiles(subject.milliseconds)
            if base and base > 0 and subject.role == "peer":
                row.of_first = row.middle / base
        rows.append(row)
    return rows


def _find_seawall() -> str:
    """A statement that makes Seawall importable under `-I`, which ignores PYTHONPATH: a checkout is found too."""
    spec = importlib.util.find_spec("seawall")
    if spec is None or spec.origin is None:
        return ""
    return f"import sys; sys.path.insert(0, {str(Path(spec.origin).parents[1])!r}); "


def _start(code: str) -> tuple[int, str | None]:
    begin = perf_counter_ns()
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=False)
    spent = perf_counter_ns() - begin
    if done.returncode == 0:
        return spent, None
    last = done.stderr.strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
    return spent, last[0][:120]
