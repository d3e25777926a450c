"""Files open with their promise, stay small enough to read, and carry nothing of the machine they were written on."""

from __future__ import annotations

import ast
import io
import re
import subprocess
import tokenize
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted((ROOT / "src").rglob("*.py"))
MOST_LINES = 400
MOST_LINES_OF_CODE = 300
"""Without docstrings, comments and empty lines. Most files have less than half of it."""
LAYOUT = {
    tokenize.COMMENT,
    tokenize.DEDENT,
    tokenize.ENDMARKER,
    tokenize.INDENT,
    tokenize.NEWLINE,
    tokenize.NL,
}
# A root folder that only exists on somebody's machine, not preceded by what makes it part of another path or of a URL.
MACHINE_PATH = re.compile(r"(?<![\w.~$}*/-])/(?:home|root|Users|work|opt|mnt)/[\w.]|\b[A-Z]:\\Users\\")


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def lines_of_code(text: str) -> int:
    code: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in LAYOUT:
            code.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            code.difference_update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return len(code)


@pytest.mark.parametrize("path", [pytest.param(path, id=name_of(path)) for path in SOURCES])
def test_a_file_opens_with_one_line_that_states_its_promise(path: Path) -> None:
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    assert docstring, "open the file with a docstring"
    first, _, rest = docstring.partition("\n")
    assert first.rstrip(" )\"'`").endswith((".", ":", "!", "?")), "the first line is a whole sentence"
    assert not rest or rest.startswith("\n"), "an empty line follows the promise"


@pytest.mark.parametrize("path", [pytest.param(path, id=name_of(path)) for path in SOURCES])
def test_a_file_stays_small(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= MOST_LINES, "split it: one file, one thing"
    assert lines_of_code(text) <= MOST_LINES_OF_CODE, "split it: one file, one thing"


def committed_files() -> list[Path]:
    """What git has or would add; without git, every file that is not hidden."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode == 0:
        return [ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]
    return [path for path in ROOT.rglob("*") if path.is_file() and not any(p.startswith(".") for p in path.parts)]


def test_no_file_names_a_path_of_a_machine() -> None:
    found: list[str] = []
    for path in committed_files():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        found += [
            f"{name_of(path)}:{number}: {line.strip()[:120]}"
            for number, line in enumerate(text.splitlines(), 1)
            if MACHINE_PATH.search(line) or str(ROOT) in line
        ]
    assert not found
