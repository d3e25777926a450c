"""Writes records as lines of JSON; a file appears under its name only when it is whole."""

import contextlib
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from seawall.cli.outbox_print import fail, say
from seawall.cli.outbox_progress import Progress

if TYPE_CHECKING:
    from seawall.cli.outbox_records import Records

__all__ = ["export"]


def export(records: "Records", state: str, operation: str | None, limit: int | None, output: str | None) -> int:
    """Write records to a file, or to standard output; the exit code."""
    if output is None or output == "-":
        if sys.stdout is None:
            return fail("outbox export", "standard output is closed", 1)
        count = _write(records, state, operation, limit, sys.stdout)
        say(_counted(count))
        return 0
    file = Path(output)
    try:
        if file.exists() and not file.is_file():
            # A device or a pipe is written to, never replaced; a directory is refused by the system.
            with file.open("w", encoding="ascii") as stream:
                count = _write(records, state, operation, limit, stream)
        else:
            count = _write_whole(records, state, operation, limit, file.resolve())
    except OSError as error:
        return fail("outbox export", f"cannot write {file}: {error.strerror or error}", 1)
    say(f"{_counted(count)} in {file}")
    return 0


def _counted(count: int) -> str:
    return f"{count:,} record{'s' * (count != 1)}"


def _write_whole(records: "Records", state: str, operation: str | None, limit: int | None, file: Path) -> int:
    half = file.with_name(f"{file.name}.{os.getpid()}.part")
    try:
        # What is in it is for nobody else to read.
        with os.fdopen(os.open(half, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as stream:
            count = _write(records, state, operation, limit, stream)
            stream.flush()
            os.fsync(stream.fileno())
        half.replace(file)
    finally:
        with contextlib.suppress(OSError):
            half.unlink(missing_ok=True)
    return count


def _write(records: "Records", state: str, operation: str | None, limit: int | None, stream: TextIO) -> int:
    count = 0
    with Progress("exporting", None) as progress:
        for work in records.each(state, operation, limit):
            stream.write(json.dumps(records.told(work, state, payload=True)) + "\n")
            count += 1
            if stream is not sys.stdout or not stream.isatty():
                progress.at(count)
    return count
