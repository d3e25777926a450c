"""What was really charged and really audited on one side, written by the services themselves.

A file without a name: it outlives a service that is killed, as a database would, and vanishes with the last process.
"""

import os
import re
import tempfile
from typing import Final, Literal

Entry = Literal["charged", "audited"]
ORDER: Final = re.compile("[A-Za-z0-9-]{1,64}")
"""What an order's number looks like; it stands in URLs and in lines of this file."""
CHUNK: Final = 1 << 16


class Ledger:
    """The file of one side, as the demo reads it. Close it when the services are gone."""

    def __init__(self) -> None:
        # Opened for appending: the services share it, and each line must go to the end, wherever that is by then.
        self._file = tempfile.TemporaryFile(mode="a+b")  # noqa: SIM115  # closed by `close`

    @property
    def fileno(self) -> int:
        """The descriptor that the services inherit."""
        return self._file.fileno()

    def orders(self, entry: Entry, prefix: str) -> set[str]:
        """The orders that begin with `prefix` and have such an entry; a repeated one counts once."""
        content, at = b"", 0
        while chunk := os.pread(self.fileno, CHUNK, at):
            content, at = content + chunk, at + len(chunk)
        lines = (line.partition(" ") for line in content.decode("ascii").splitlines())
        return {order for what, _, order in lines if what == entry and order.startswith(prefix)}

    def close(self) -> None:
        """Let the file go."""
        self._file.close()


def write(fileno: int, entry: Entry, order: str) -> None:
    """Note an order, in a service. One system call, so that lines of several services never mix."""
    os.write(fileno, f"{entry} {order}\n".encode("ascii"))
