"""The `seawall` command: it reads the command line and hands over; one file a command."""

import argparse
import os
import sys
from collections.abc import Sequence

from seawall import __version__
from seawall.cli import demo, doctor, outbox, worker

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command that `argv` (default: the process's arguments) names; return the exit code."""
    parser = argparse.ArgumentParser(prog="seawall", description="Keeps services standing when what they call fails.")
    parser.add_argument("--version", action="version", version=f"seawall {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    demo.add_to(commands)
    doctor.add_to(commands)
    worker.add_to(commands)
    outbox.add_to(commands)
    options, more = parser.parse_known_args(argv)
    if more and (not hasattr(options, "args") or any(text.startswith("-") for text in more)):
        parser.error(f"unrecognized arguments: {' '.join(more)}")
    elif more:
        options.args += more  # argparse gives up on a list of arguments at the first option between them
    try:
        code: int = options.run(options)
        if sys.stdout is not None:  # None: it was closed before the start
            sys.stdout.flush()
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader (`| head`) has left. Python would complain once more when it flushes at exit.
        if sys.stdout is not None:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return code
