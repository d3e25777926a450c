"""Shows a running demo: lines redrawn in place on a terminal, one plain line a phase elsewhere."""

import os
import shutil
from typing import Final, TextIO

from seawall.demo.measure import PhaseResult, Tally
from seawall.demo.report import GREEN, PLAIN, RED, YELLOW

NARROWEST: Final = 80
SHORTEST_BAR, LONGEST_BAR = 10, 40
LEGEND: Final = "# served ~ degraded x error . waiting"
"""The bar tells by its marks; the colours only repeat it."""


def wants_colour(stream: TextIO) -> bool:
    """Colours only on a terminal that can show them, and not where NO_COLOR asks for none (no-color.org)."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


class Lines:
    """One plain line for each phase that has ended."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def starting(self, processes: int) -> None:
        """Say what the first seconds are for."""
        print(f"starting both shops, {processes} processes on free ports of 127.0.0.1", file=self._stream, flush=True)

    def update(self, result: PhaseResult, elapsed: float) -> None:
        """Say nothing while a phase runs."""

    def done(self, result: PhaseResult) -> None:
        """Print the phase and what users got in it."""
        print(
            f"{result.phase.name:<11}  {result.plain.arrived} users; "
            f"plain {_short(result.plain)}; seawall {_short(result.seawall)}",
            file=self._stream,
            flush=True,
        )

    def close(self) -> None:
        """Nothing to clear."""


class Live:
    """Three lines redrawn in place while a phase runs, and one that stays when it has ended."""

    def __init__(self, stream: TextIO, colour: bool) -> None:
        self._stream = stream
        self._colour = colour
        self._plain = Lines(stream)
        self._drawn = 0

    def starting(self, processes: int) -> None:
        """Say what the first seconds are for; the first phase takes the place of it."""
        self._plain.starting(processes)
        self._drawn = 1

    def update(self, result: PhaseResult, elapsed: float) -> None:
        """Redraw the phase, in one write so that nothing flickers."""
        room = shutil.get_terminal_size().columns - 1  # a line that wraps could not be cleared
        head = f"{result.phase.name}: {min(elapsed, result.seconds):.1f} of {result.seconds:g} s, {result.rate:g}/s"
        counts = max(len(_counts(tally)) for tally in (result.plain, result.seawall))
        width = max(SHORTEST_BAR, min(LONGEST_BAR, room - len("  seawall  ") - 2 - counts))
        lines = (
            f"{head}  {LEGEND}"[:room],
            f"  plain    {self._bar(result.plain, width)}",
            f"  seawall  {self._bar(result.seawall, width)}",
        )
        self._stream.write(self._clearing() + "\n".join(lines) + "\n")
        self._stream.flush()
        self._drawn = len(lines)

    def done(self, result: PhaseResult) -> None:
        """Leave one line behind."""
        self.close()
        self._plain.done(result)

    def close(self) -> None:
        """Clear what was drawn, so that nothing half-drawn stays above a table or a message."""
        self._stream.write(self._clearing())
        self._stream.flush()
        self._drawn = 0

    def _clearing(self) -> str:
        return f"\x1b[{self._drawn}A\x1b[J" if self._drawn else ""

    def _bar(self, tally: Tally, width: int) -> str:
        parts = (
            ("#", GREEN, tally.served),
            ("~", YELLOW, tally.degraded),
            ("x", RED, tally.errors),
            (".", "", tally.waiting),
        )
        bar, filled, seen = "", 0, 0
        for mark, paint, count in parts:
            seen += count
            upto = round(width * seen / tally.arrived) if tally.arrived else 0
            part = mark * (upto - filled)
            bar += f"{paint}{part}{PLAIN}" if self._colour and paint and part else part
            filled = upto
        return f"{bar}{' ' * (width - filled)}  {_counts(tally)}"


def _counts(tally: Tally) -> str:
    return f"{tally.served} served, {tally.degraded} degraded, {tally.errors} errors"


def _short(tally: Tally) -> str:
    parts = ((tally.degraded, "degraded"), (tally.errors, "errors"))
    return ", ".join(f"{count} {what}" for count, what in parts if count) or "all served"


def progress_on(stream: TextIO) -> Lines | Live:
    """What suits the stream: redrawn lines need a terminal, wide enough that none of them wraps."""
    wide = shutil.get_terminal_size().columns >= NARROWEST
    if stream.isatty() and wide and os.environ.get("TERM") != "dumb":
        return Live(stream, wants_colour(stream))
    return Lines(stream)
