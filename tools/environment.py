"""Makes the virtual environment that `./dev` works in, only when something changed, and prints where it is.

Run by a bare interpreter: the standard library only. Progress goes to stderr, the path alone to stdout.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TextIO

ROOT = Path(__file__).resolve().parent.parent
OLDEST = (3, 11)


def main() -> int:
    """Print the environment's folder; 1 when it could not be made."""
    if sys.version_info < OLDEST:
        return _complain("Seawall needs Python 3.11 or later; name another interpreter: PYTHON=python3.12 ./dev ...")
    extra = os.environ.get("EXTRA") or "dev"
    folder = ROOT / _folder_name(extra)
    stamp = folder / "seawall-stamp"
    wanted = _fingerprint(folder, extra)
    with _lock(folder):
        if not stamp.is_file() or stamp.read_text() != wanted:
            failure = _build(folder, extra)
            if failure is not None:
                return _complain(failure)
            stamp.write_text(wanted)
    print(folder)
    return 0


def _folder_name(extra: str) -> str:
    parts = [".venv"]
    if os.environ.get("PYTHON"):
        parts.append(f"{sys.version_info.major}.{sys.version_info.minor}")
    if extra != "dev":
        parts.append(extra)
    return "-".join(parts)


def _fingerprint(folder: Path, extra: str) -> str:
    # The folder is part of it, since an environment does not survive a move.
    import tomllib  # noqa: PLC0415  # absent from the interpreters that are turned away above

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    # The settings of linters and tests, which change more often, need no new environment.
    packaging = [project.get("build-system"), project["project"], project["tool"]["setuptools"]]
    parts = [sys.version, sys.executable, str(folder), extra, repr(packaging), (ROOT / "constraints.txt").read_text()]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def _lock(folder: Path) -> TextIO:
    """A lock file held until closed: two commands started together do not build into each other."""
    import fcntl  # noqa: PLC0415  # absent on Windows, where ./dev does not run; the message above should still come

    handle = folder.with_name(folder.name + ".lock").open("w")
    fcntl.flock(handle, fcntl.LOCK_EX)
    return handle


def _build(folder: Path, extra: str) -> str | None:
    """Build anew; return what went wrong, with the full output."""
    started = time.monotonic()
    version = ".".join(map(str, sys.version_info[:3]))
    print(f"Setting up {folder.name} (Python {version}, extra {extra}) ...", end="", flush=True, file=sys.stderr)
    python = folder / "bin" / "python"
    # pip warns of its own age and of running as root; neither concerns an environment of one's own.
    quiet = {"PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_ROOT_USER_ACTION": "ignore", "PIP_NO_INPUT": "1"}
    install = [str(python), "-m", "pip", "install", "-e", f".[{extra}]", "-c", "constraints.txt"]
    for command in ([sys.executable, "-m", "venv", "--clear", str(folder)], install):
        done = subprocess.run(
            command,
            cwd=ROOT,
            env={**os.environ, **quiet},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            print(" failed", file=sys.stderr)
            remedy = "" if command is install else "\nOn Debian and Ubuntu: apt-get install python3-venv"
            return f"{done.stdout}\n{' '.join(command)}: exit code {done.returncode}{remedy}"
    print(f" done in {time.monotonic() - started:.0f} s", file=sys.stderr)
    return None


def _complain(what: str) -> int:
    print(what, file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
