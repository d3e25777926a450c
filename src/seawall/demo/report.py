"""The table of a run, its settings, and everything as JSON."""

import platform
from collections.abc import Sequence
from dataclasses import asdict
from textwrap import fill
from typing import Final

from seawall import __version__
from seawall.demo import front, plain
from seawall.demo.layout import CAPACITY, SERVICES, SIDES, USER_PATIENCE
from seawall.demo.measure import PhaseResult, Run, Tally
from seawall.demo.phases import PHASES, USUAL_LOAD
from seawall.demo.service import ERROR_RATE, SLOW_SECONDS

HEADINGS: Final = ("phase", "front", "users", "served", "degraded", "errors", "p50 ms", "p99 ms", "attempts")
WIDTH: Final = 79
"""No line is longer, so that an 80-column terminal breaks none."""
GREEN, YELLOW, RED, BOLD, PLAIN = "\x1b[32m", "\x1b[33m", "\x1b[31m", "\x1b[1m", "\x1b[0m"


def table(results: Sequence[PhaseResult], colour: bool = False) -> str:
    """Two rows a phase, aligned; colours change nothing but colours."""
    rows: list[Sequence[str]] = [HEADINGS]
    for result in results:
        rows += [(result.phase.name if side == SIDES[0] else "", side, *_cells(result.tally(side))) for side in SIDES]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADINGS))]
    lines = [_line(row, widths, colour and number > 0) for number, row in enumerate(rows)]
    if colour:
        lines[0] = f"{BOLD}{lines[0]}{PLAIN}"
    lines.insert(1, "-" * (sum(widths) + 2 * (len(widths) - 1)))
    return "\n".join(lines)


def _cells(tally: Tally) -> tuple[str, ...]:
    counts = (tally.arrived, tally.served, tally.degraded, tally.errors)
    return (*map(str, counts), _milliseconds(tally.p50), _milliseconds(tally.p99), str(tally.attempts))


def _milliseconds(seconds: float) -> str:
    shown = seconds * 1e3
    return f"{shown:.1f}" if shown < 9.95 else f"{shown:.0f}"


def _line(row: Sequence[str], widths: Sequence[int], colour: bool) -> str:
    cells = [
        cell.ljust(width) if column < 2 else cell.rjust(width)
        for column, (cell, width) in enumerate(zip(row, widths, strict=True))
    ]
    if colour:
        for column, paint in ((3, GREEN), (4, YELLOW), (5, RED)):
            if row[column] != "0":
                cells[column] = f"{paint}{cells[column]}{PLAIN}"
    return "  ".join(cells).rstrip()


def settings(run: Run) -> str:
    """What the run was set to: the shop, its users, and what both fronts have in common."""
    services = ", ".join(f"{name} x{plan.replicas}" for name, plan in SERVICES.items())
    timeouts = ", ".join(f"{name} {plan.timeout * 1e3:.0f} ms" for name, plan in SERVICES.items())
    highest = max(phase.load for phase in PHASES) * CAPACITY
    shop = (
        f"Settings: {run.seconds:g} s a phase, seed {run.seed}. Each front has services of its own ({services}), every "
        "replica a process; the same users come to both at the same moments."
    )
    users = (
        f"Users: {USUAL_LOAD * CAPACITY:g}/s, in the last phase {highest:g}/s; a shop can serve {CAPACITY:g}/s. "
        f"A user waits {USER_PATIENCE:g} s at most."
    )
    fronts = (
        f"Both fronts end an attempt after the same time: {timeouts}. The plain one asks replicas in turn, once, and "
        "an error is its user's. Attempts are the requests that a front sent to services."
    )
    return "\n".join(fill(text, WIDTH, subsequent_indent="  ") for text in (shop, users, fronts))


def reading() -> str:
    """Where to read on."""
    return (
        f"Read how it is done: {front.__file__}\n"
        f"and the plain front:  {plain.__file__}\n"
        "Play with the shop:   the same command with --stay leaves it open"
    )


def as_json(run: Run) -> dict[str, object]:
    """Everything measured and everything set, ready for JSON."""
    return {
        "seawall": __version__,
        "python": platform.python_version(),
        "complete": run.complete,
        "error": run.error,
        "seed": run.seed,
        "seconds_per_phase": run.seconds,
        "services": {name: {**asdict(plan), "users_per_second": plan.capacity} for name, plan in SERVICES.items()},
        "capacity_users_per_second": CAPACITY,
        "user_patience_seconds": USER_PATIENCE,
        "error_rate": ERROR_RATE,
        "slow_seconds": SLOW_SECONDS,
        "pids": run.pids,
        "phases_planned": [phase.key for phase in PHASES],
        "phases": [_phase_as_json(result) for result in run.results],
    }


def _phase_as_json(result: PhaseResult) -> dict[str, object]:
    return {
        "key": result.phase.key,
        "title": result.phase.title,
        "users_per_second": result.rate,
        "steps": [asdict(step) for step in result.phase.steps],
        "plain": result.plain.as_json(),
        "seawall": result.seawall.as_json(),
        "seawall_did": result.deeds,
        "seawall_backlog": result.backlog,
        "seawall_snapshot": result.snapshot,
        "sent_late_p99_ms": round(result.late_p99 * 1e3, 3),
    }
