"""`seawall demo`: a small shop whose replicas die, hang and lie, with and without Seawall, side by side."""

import argparse
import asyncio
import json
import math
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from seawall.demo.measure import Run
    from seawall.demo.run import Progress

DEFAULT_SECONDS = 5.0


def add_to(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:  # pyright: ignore[reportPrivateUsage]  # it has no public name
    """Add the command to the command line."""
    parser = commands.add_parser(
        "demo",
        help="watch a shop whose services fail, with and without Seawall",
        description="Starts a small shop twice, each service a process of its own on 127.0.0.1, and sends the same "
        "users to both: one front calls its services plainly, the other through Seawall. Replicas are killed, hang, "
        "fail and slow down; then twice as many users come as the shop can serve. It takes about a minute. "
        "Needs aiohttp: pip install 'seawall[demo]'.",
    )
    parser.add_argument(
        "--seconds",
        type=_seconds,
        default=DEFAULT_SECONDS,
        help="length of each phase (default %(default)g, at least 1)",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything measured to FILE")
    parser.add_argument(
        "--seed", default="1", help="seed of the users and of the services' errors (default %(default)s)"
    )
    parser.add_argument(
        "--stay", action="store_true", help="leave the shop running until Ctrl-C, and print its addresses"
    )
    parser.set_defaults(run=run)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 1 <= seconds <= 3600:
        raise argparse.ArgumentTypeError(f"must be a number of seconds from 1 to 3600, not {text!r}")
    return seconds


def run(options: argparse.Namespace) -> int:
    """Run the demo; 0 when it completed, 1 when it could not start or failed, 130 after Ctrl-C."""
    try:
        import aiohttp  # noqa: F401, PLC0415  # pyright: ignore[reportUnusedImport]  # the extra `demo`; the other commands do without it
    except ImportError:
        return _fail("it needs aiohttp, which is not installed; run: pip install 'seawall[demo]'")
    from seawall.demo.measure import Run  # noqa: PLC0415  # not before aiohttp is known to be there
    from seawall.demo.processes import StartError  # noqa: PLC0415
    from seawall.demo.progress import progress_on  # noqa: PLC0415

    if options.json is not None and (why := _unwritable(options.json)):
        return _fail(f"cannot write {options.json}: {why}")
    results = Run(seconds=options.seconds, seed=options.seed)
    progress = progress_on(sys.stderr)
    code = 0
    try:
        asyncio.run(_run(results, progress, options))
    except KeyboardInterrupt:
        if results.complete and options.stay:
            print("\nBoth shops are closed.", file=sys.stderr)
            return 0  # that is how it is meant to end; everything is told already
        results.error, code = "interrupted; all its processes are stopped", 130
    except (StartError, OSError) as error:
        results.error, code = str(error) or type(error).__name__, 1
    except Exception as error:  # noqa: BLE001  # whatever it is: a message, the results so far, and exit code 1
        results.error, code = f"it failed, which is a fault of the demo: {type(error).__name__}: {error}", 1
    progress.close()
    if results.error:
        _fail(results.error)
    return _tell(results, options.json) or code


async def _run(results: "Run", progress: "Progress", options: argparse.Namespace) -> None:
    from seawall.demo.run import heal, open_shops, run_phases  # noqa: PLC0415  # not before aiohttp is known to be there
    from seawall.demo.stay import addresses  # noqa: PLC0415

    async with open_shops(results, progress) as shops:
        await run_phases(shops, results, progress)
        if options.stay:
            _tell(results, options.json)
            await heal(shops)
            print("", addresses(shops), sep="\n", flush=True)
            await asyncio.Event().wait()


def _tell(results: "Run", file: Path | None) -> int:
    from seawall.demo import report  # noqa: PLC0415
    from seawall.demo.progress import wants_colour  # noqa: PLC0415
    from seawall.demo.words import words  # noqa: PLC0415

    if results.results:
        parts = (
            report.table(results.results, wants_colour(sys.stdout)),
            words(results.results),
            report.settings(results),
            report.reading(),
        )
        print("", "\n\n".join(parts), sep="\n", flush=True)
    if file is not None:
        try:
            file.write_text(json.dumps(report.as_json(results), indent=2) + "\n", encoding="utf-8")
        except OSError as error:
            return _fail(f"cannot write {file}: {error.strerror or error}")
        print(f"Everything measured is in {file}", file=sys.stderr)
    return 0


def _unwritable(file: Path) -> str:
    # Asked before the run: a minute is long to wait for "no such directory".
    if file.is_dir():
        return "it is a directory"
    if not file.parent.is_dir():
        return f"there is no directory {file.parent}"
    if not os.access(file if file.exists() else file.parent, os.W_OK):
        return "permission denied"
    return ""


def _fail(message: str) -> int:
    print(f"seawall demo: {message}", file=sys.stderr)
    return 1
