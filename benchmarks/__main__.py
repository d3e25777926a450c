"""Runs the chosen sections in one process and prints Seawall beside its peers: ``python -m benchmarks [sections]``."""

from __future__ import annotations

import argparse
import logging
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

from . import (
    clusters,
    entrance,
    failing,
    fused,
    growth,
    imports,
    layers,
    limiter_memory,
    limiters,
    memory,
    ours,
    outbox_amqp,
    outbox_sqlite,
    outbox_valkey,
    report,
    targets,
    transports,
    valkey,
)
from .measure import FULL, QUICK, Effort
from .tables import Table

SECTIONS: dict[str, Callable[[Effort], list[Table]]] = {
    "retry": layers.retry,
    "breaker": layers.breaker,
    "bulkhead": layers.bulkhead,
    "timeout": layers.timeout,
    "fused": fused.fused,
    "failing": failing.failing,
    "cluster": clusters.cluster,
    "transport": transports.transport,
    "limiter": limiters.limiter,
    "valkey": valkey.valkey,
    "asgi": entrance.asgi,
    "outbox_sqlite": outbox_sqlite.outbox_sqlite,
    "outbox_valkey": outbox_valkey.outbox_valkey,
    "outbox_amqp": outbox_amqp.outbox_amqp,
    "growth": growth.growth,
    "memory": memory.memory,
    "import": imports.imports,
    "limiter_memory": limiter_memory.limiter_memory,
}
ON_REQUEST = frozenset({"limiter_memory"})
"""Sections that take minutes and give the same figures on any machine."""


def main(arguments: list[str]) -> int:
    """Exit code 0, or 1 with `--strict` when a target of the sections that ran is missed."""
    options = _options(arguments)
    # Peers log and warn on the paths that are timed; how a terminal scrolls is not the question.
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")

    usual = [name for name in SECTIONS if name not in ON_REQUEST]
    chosen = [name for name in SECTIONS if name in options.sections] or usual
    command = _command(options)
    _print(report.heading(command))
    _print(report.versions())
    if reason := ours.unavailable():
        _print(f"NOTE: {reason}")

    tables: list[Table] = []
    for name in chosen:
        for table in SECTIONS[name](QUICK if options.quick else FULL):
            tables.append(table)
            _print(report.table_text(table, markdown=options.markdown))
    checked = targets.check(tables)
    if checked:
        _print(report.targets_text(checked, markdown=options.markdown))
    if options.json is not None:
        report.write_json(options.json, command, tables, checked)
    return 1 if options.strict and not all(one.met for one in checked) else 0


def _options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Costs of Seawall and its peers, measured in one run, as ratios to a bare call and to each other.",
    )
    told = f"any of: {', '.join(SECTIONS)} (default: all but {', '.join(ON_REQUEST)})"
    parser.add_argument("sections", nargs="*", metavar="section", help=told)
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds; under 40 s")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures to FILE")
    parser.add_argument("--markdown", action="store_true", help="print Markdown, for docs/performance.md")
    parser.add_argument("--strict", action="store_true", help="exit with 1 if a target is missed")
    options = parser.parse_args(arguments)
    unknown = [name for name in options.sections if name not in SECTIONS]
    if unknown:
        parser.error(f"unknown section {', '.join(unknown)}; there are {', '.join(SECTIONS)}")
    return options


def _command(options: argparse.Namespace) -> str:
    """What a reader types to repeat the run; where the JSON went is not part of it."""
    flags = ["--quick"] * options.quick + ["--markdown"] * options.markdown
    return " ".join(["python -m benchmarks", *options.sections, *flags])


def _print(text: str) -> None:
    print(text, end="\n\n", flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
