"""Runs every check of `./dev check` in order, one line each, and fails at the end if any failed."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent

CHECKS: dict[str, list[str]] = {
    "format": [str(BIN / "ruff"), "format", "--check"],
    "lint": [str(BIN / "ruff"), "check", "--output-format", "concise"],
    "mypy": [str(BIN / "mypy")],
    "pyright": [str(BIN / "basedpyright"), "--pythonpath", sys.executable],
    "imports": [str(BIN / "lint-imports"), "--no-logo"],
    "api": [sys.executable, "tools/api_snapshot.py"],
    "examples": [sys.executable, "-m", "pytest", "-q", "--tb=short", "tests/docs"],
}
"""Name -> command, run in the repository."""


def main(names: list[str]) -> int:
    """Run the checks named, or all; 1 if one failed."""
    unknown = [name for name in names if name not in CHECKS]
    if unknown:
        print(f"no such check: {', '.join(unknown)}; there are {', '.join(CHECKS)}", file=sys.stderr)
        return 2
    failed = [name for name in names or CHECKS if not _passes(name)]
    if failed:
        print(f"\n{len(failed)} failed: {', '.join(failed)}    (again, alone: ./dev check {failed[0]})")
        return 1
    print("all ok")
    return 0


def _passes(name: str) -> bool:
    print(f"{name:10}", end="", flush=True)
    started = time.monotonic()
    done = subprocess.run(
        CHECKS[name],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    took = time.monotonic() - started
    print(f"{'ok' if done.returncode == 0 else 'FAILED':6} {took:5.1f} s", flush=True)
    if done.returncode != 0:
        print("".join(f"    {line}\n" for line in done.stdout.rstrip().splitlines()), flush=True)
    return done.returncode == 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
