"""Prints what lies in an outbox: texts that came from outside reach the terminal as text, and tables fit it."""

import io
import json
import shutil
import sys
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime

from seawall.context import Criticality

__all__ = ["age", "as_json", "columns", "fail", "instant", "print_anything", "safe", "say", "sheet", "table", "width"]

ELLIPSIS = "…"


def print_anything() -> None:
    """What the output cannot show is written out, instead of ending the command."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def safe(text: str) -> str:
    """`text` on one line, with everything that could steer a terminal, or turn its direction, written out."""
    return "".join(char if char.isprintable() else _written(char) for char in text)


def _written(char: str) -> str:
    code = ord(char)
    return {"\n": "\\n", "\t": "\\t", "\r": "\\r"}.get(char) or (
        f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
    )


def say(line: str) -> None:
    """Tell people something that is not the result; a stream that is closed is no reason to stop."""
    if sys.stderr is None:  # None: it was closed before the start
        return
    try:
        print(line, file=sys.stderr, flush=True)
    except (OSError, ValueError):
        return


def fail(command: str, message: str, code: int = 2) -> int:
    """Say why it failed; returns the exit code."""
    say(f"seawall {command}: {safe(message)}")
    return code


def age(seconds: float) -> str:
    """A span as people read it: `"850 ms"`, `"12 s"`, `"5 min"`, `"3.5 h"`, `"2 d"`."""
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}" if seconds < 1_000 * size else f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s" if seconds >= 1 else f"{seconds * 1e3:.0f} ms"


def instant(nanoseconds: int) -> str:
    """A civil instant in UTC, to the second."""
    try:
        return datetime.fromtimestamp(nanoseconds // 1_000_000_000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (OverflowError, ValueError, OSError):
        return f"{nanoseconds} ns"


def width(text: str) -> int:
    """How many columns it takes."""
    return sum(
        0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text
    )


def columns() -> int | None:
    """How wide the output is; None if it is no terminal, where nothing needs to be cut."""
    return shutil.get_terminal_size().columns if sys.stdout is not None and sys.stdout.isatty() else None


def table(head: Sequence[str], rows: Iterable[Sequence[str]], room: int | None) -> str:
    """Columns side by side; the last one is cut where the terminal ends, and the second last of them before it."""
    lines = [list(head), *([safe(cell) for cell in row] for row in rows)]
    widths = [max(width(line[index]) for line in lines) for index in range(len(head))]
    if room is not None:
        for index in (len(head) - 1, 1):
            excess = sum(widths) + 2 * (len(widths) - 1) - room
            if excess > 0:
                widths[index] = max(min(widths[index], 8), widths[index] - excess)
    return "\n".join("  ".join(map(_fitted, line, widths)).rstrip() for line in lines)


def _fitted(text: str, room: int) -> str:
    if width(text) <= room:
        return text + " " * (room - width(text))
    while text and width(text) > room - 1:
        text = text[:-1]
    return text + ELLIPSIS + " " * (room - 1 - width(text))


def sheet(told: Mapping[str, object]) -> str:
    """One record, a line for each field, and its payload below them."""
    fields = {key: value for key, value in told.items() if not key.startswith("payload") and not key.endswith("_ns")}
    matters = fields.get("criticality")
    if isinstance(matters, int) and matters in set(Criticality):
        fields["criticality"] = Criticality(matters).name
    room = max(map(len, fields))
    lines = [f"{key:<{room}}  {'-' if value in (None, '') else safe(str(value))}" for key, value in fields.items()]
    if "payload_base64" in told:
        return "\n".join([*lines, "payload, in base64:", f"    {told['payload_base64']}"])
    text = str(told.get("payload", ""))
    return "\n".join([*lines, "payload:", *(f"    {safe(line)}" for line in text.split("\n"))])


def as_json(value: object) -> str:
    """`value` as JSON in ASCII, so that it may be printed anywhere."""
    return json.dumps(value, indent=2)
