"""The final table, what Seawall did in plain words, and the same as JSON."""

import platform
from collections import Counter
from collections.abc import Sequence

from seawall import __version__
from seawall.demo.measure import PhaseResult, Run, Tally, percentile
from seawall.demo.policy import SETTINGS
from seawall.demo.service import CAPACITY, WORK_SECONDS, WORKERS
from seawall.demo.shop import USER_TIMEOUT_SECONDS
from seawall.demo.traffic import ERROR_RATE, PHASES

HEADINGS = ("phase", "client", "users", "served", "degraded", "errors", "p50", "p99", "attempts sent")
LATE_SECONDS = 0.1
GREEN, YELLOW, RED, BOLD, PLAIN = "\x1b[32m", "\x1b[33m", "\x1b[31m", "\x1b[1m", "\x1b[0m"


def table(results: Sequence[PhaseResult], colour: bool = False) -> str:
    """Two rows a phase, aligned, at most 100 columns wide; colours change nothing but colours."""
    rows: list[Sequence[str]] = [HEADINGS]
    for result in results:
        rows.append((result.phase.title, "plain", *_cells(result.plain)))
        rows.append(("", "seawall", *_cells(result.seawall)))
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADINGS))]
    lines = [_line(row, widths, colour and number > 0) for number, row in enumerate(rows)]
    if colour:
        lines[0] = f"{BOLD}{lines[0]}{PLAIN}"
    lines.insert(1, "-" * (sum(widths) + 2 * (len(widths) - 1)))
    return "\n".join(lines)


def _cells(tally: Tally) -> tuple[str, ...]:
    p50, p99 = (_milliseconds(percentile(tally.waits, share)) for share in (0.50, 0.99))
    return str(tally.arrived), str(tally.served), str(tally.degraded), str(tally.errors), p50, p99, str(tally.attempts)


def _milliseconds(seconds: float) -> str:
    shown = seconds * 1e3
    return f"{shown:.1f} ms" if shown < 9.95 else f"{shown:.0f} ms"


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


def words(results: Sequence[PhaseResult]) -> str:
    """What Seawall did, counted from its own events."""
    deeds: Counter[str] = Counter()
    for result in results:
        deeds.update(result.deeds)
    plain_errors = sum(result.plain.errors for result in results)
    errors = sum(result.seawall.errors for result in results)
    lines = [f"The plain client showed {_count(plain_errors, 'error')} to its users, Seawall {errors}."]
    if again := deeds["retries"]:
        lines.append(
            f"  - {_count(again, 'failed attempt')} {_was(again)} repeated; the retry budget stopped "
            f"{deeds['gave up: budget']} more, so that retries stay few;"
        )
    if opened := deeds["breaker open"]:
        lines.append(
            f"  - the breaker opened {_count(opened, 'time')} and kept "
            f"{_count(deeds['refused circuit_open'], 'attempt')} away from a service that could not answer;"
        )
    if full := deeds["refused bulkhead_full"]:
        lines.append(f"  - the bulkhead kept {_count(full, 'attempt')} away from a service that was full;")
    if lesser := deeds["fallbacks"]:
        lines.append(f"  - {_count(lesser, 'user')} got popular items in place of an error.")
    lines.extend(
        f'  - its price: in "{result.phase.title}" it served {_count(fewer, "user")} less than the plain client,\n'
        "    as an open breaker asks again only after a pause."
        for result in results
        if (fewer := result.plain.served - result.seawall.served) > 0 and result.deeds.get("breaker open")
    )
    late = max((result.late_p99 for result in results), default=0.0)
    if late > LATE_SECONDS:
        lines.append(
            f"Note: this machine was busy: it sent users up to {late * 1e3:.0f} ms late (p99) on both sides,\n"
            "so the load was lower than it should have been. Run it again when the machine is idle."
        )
    return "\n".join(lines)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _was(number: int) -> str:
    return "was" if number == 1 else "were"


def settings(run: Run) -> str:
    """What the run was set to: the service, the plain client, and what is not Seawall's default."""
    work = f"{WORKERS} requests at a time, {WORK_SECONDS * 1e3:.0f} ms each, so {CAPACITY:g}/s"
    given = "Seawall: its defaults, and what it was given here:"
    lines = [
        f"Settings: {run.seconds:g} s a phase, seed {run.seed}; a service for each client, the same users to both.",
        f"Service: {work}; it queues the rest.",
        f"Plain client: aiohttp, total timeout {USER_TIMEOUT_SECONDS:g} s. {given}",
    ]
    width = max(len(_given(layer, argument)) for layer, argument, _ in SETTINGS)
    lines += [f"  {_given(layer, argument).ljust(width)}  {reason}" for layer, argument, reason in SETTINGS]
    return "\n".join(lines)


def _given(layer: str, argument: str) -> str:
    return f"{layer}({argument})"


def as_json(run: Run) -> dict[str, object]:
    """Everything measured and everything set, ready for JSON."""
    return {
        "seawall": __version__,
        "python": platform.python_version(),
        "complete": run.complete,
        "error": run.error,
        "seed": run.seed,
        "seconds_per_phase": run.seconds,
        "service": {"workers": WORKERS, "work_seconds": WORK_SECONDS, "capacity_per_second": CAPACITY},
        "error_rate": ERROR_RATE,
        "user_timeout_seconds": USER_TIMEOUT_SECONDS,
        "settings": [setting._asdict() for setting in SETTINGS],
        "service_pids": run.pids,
        "phases_planned": [phase.key for phase in PHASES],
        "phases": [_phase_as_json(result) for result in run.results],
    }


def _phase_as_json(result: PhaseResult) -> dict[str, object]:
    return {
        "key": result.phase.key,
        "title": result.phase.title,
        "users_per_second": result.rate,
        "steps": [{"at": step.at, "order": step.order} for step in result.phase.steps],
        "plain": result.plain.as_json(),
        "seawall": result.seawall.as_json(),
        "seawall_did": result.deeds,
        "seawall_snapshot": result.snapshot,
        "sent_late_p99_ms": round(result.late_p99 * 1e3, 3),
    }
