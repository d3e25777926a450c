"""Every example in README.md, docs/ and the docstrings runs, and none of them really sleeps.

A page reads as one session: its ```python blocks share one namespace, in order, and may `await` outside a function. A
block after the comment `<!-- not run: reason -->` is only compiled. Time is virtual and goes on from block to block;
each block that awaits has a loop of its own. In docstrings the lines after `>>>` run, and may await too.
"""

from __future__ import annotations

import ast
import asyncio
import contextlib
import doctest
import inspect
import io
import re
import sys
import time
import traceback
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import CodeType
from typing import Any

import pytest

from seawall.testing import VirtualClock, VirtualLoop

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src"
PAGES = [page for page in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))] if page.is_file()]

FENCE = re.compile(r"^(?P<indent> *)```(?P<language>[a-z]*)[^\n]*\n(?P<code>.*?)^ *```\s*$", re.MULTILINE | re.DOTALL)
NOT_RUN = re.compile(r"<!-- not run: \S.*?-->\s*\Z", re.DOTALL)
OPTIONS = doctest.ELLIPSIS


@dataclass(frozen=True)
class Block:
    """One ```python block, or one that is a dialogue of `>>>` lines."""

    code: str
    first_line: int
    runs: bool


class Session:
    """A namespace, and virtual time that goes on from one piece of code to the next."""

    def __init__(self, names: dict[str, Any]) -> None:
        self.names = names
        self.clock = VirtualClock()

    def execute(self, code: CodeType) -> None:
        """Run compiled code; drive what awaits on a loop of its own."""
        result = eval(code, self.names)
        if code.co_flags & inspect.CO_COROUTINE:
            self.drive(result)

    def drive(self, main: Coroutine[Any, Any, Any], **_: object) -> Any:
        """`asyncio.run` in this session's time."""
        loop = VirtualLoop(allow_pending=True)
        begun = self.clock.now_ns
        loop.block_ns(begun)
        try:
            return loop.run(main)
        finally:
            self.clock.advance(f"{loop.now_ns - begun}ns")


@pytest.fixture
def session(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[[dict[str, Any]], Session]]:
    """Starts a session in which neither the library nor the example itself can really sleep, or leave files behind."""
    (tmp_path / "var").mkdir()
    monkeypatch.chdir(tmp_path)
    with contextlib.ExitStack() as stack:

        def start(names: dict[str, Any]) -> Session:
            it = Session(names)
            stack.enter_context(it.clock)
            monkeypatch.setattr(time, "sleep", it.clock.advance)
            monkeypatch.setattr(asyncio, "run", it.drive)
            return it

        yield start
        enable = getattr(sys.modules["seawall"], "enable", None)
        if enable is not None:
            enable()
        bus = sys.modules.get("seawall.events")
        if bus is not None:
            bus.sinks = ()  # a page may listen to its end


def blocks_of(text: str) -> Iterator[Block]:
    """The Python blocks of a page, in order."""
    for match in FENCE.finditer(text):
        if match["language"] not in ("python", "pycon", "py"):
            continue
        width = len(match["indent"])
        code = "".join(line[width:] if line.strip() else line for line in match["code"].splitlines(keepends=True))
        first_line = text.count("\n", 0, match.start("code")) + 1
        yield Block(code, first_line, runs=NOT_RUN.search(text[: match.start()]) is None)


def compiled(source: str, filename: str, first_line: int, mode: str = "exec") -> CodeType:
    """Compile with top-level await; tracebacks then name the line of the page."""
    padding = "\n" * (first_line - 1)
    flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    code: CodeType = compile(padding + source, filename, mode, flags, dont_inherit=True)
    return code


def replay(test: doctest.DocTest, session: Session) -> None:
    """Run a dialogue and compare what it prints, as `doctest` does, but with `await` and in virtual time."""
    checker = doctest.OutputChecker()
    for example in test.examples:
        options = OPTIONS
        for option, is_on in example.options.items():
            options = options | option if is_on else options & ~option
        if options & doctest.SKIP:
            continue
        line = (test.lineno or 0) + example.lineno + 1
        got = _output_of(example, options, test.filename or test.name, line, session)
        if not checker.check_output(example.want, got, options):
            difference = checker.output_difference(example, got, options)
            pytest.fail(f"{test.filename}:{line}: {example.source}{difference}", pytrace=False)


def _output_of(example: doctest.Example, options: int, filename: str, line: int, session: Session) -> str:
    printed = io.StringIO()
    shown = sys.displayhook
    sys.displayhook = sys.__displayhook__
    try:
        with contextlib.redirect_stdout(printed):
            session.execute(compiled(example.source, filename, line, "single"))
    except Exception as error:
        if example.exc_msg is None:
            error.add_note(f"in the example at {filename}:{line}: {example.source.rstrip()}")
            raise
        # The module of an error may be left out, as in a page's text.
        message = traceback.format_exception_only(error)[-1]
        brief = message.removeprefix(f"{type(error).__module__}.")
        checker = doctest.OutputChecker()
        matches = any(checker.check_output(example.exc_msg, text, options) for text in (message, brief))
        return example.want if matches else message
    finally:
        sys.displayhook = shown
    return printed.getvalue()


@pytest.mark.parametrize("page", [pytest.param(page, id=page.relative_to(ROOT).as_posix()) for page in PAGES])
def test_the_examples_of_a_page_run(page: Path, session: Callable[[dict[str, Any]], Session]) -> None:
    # `__main__`, as for someone who types the page into a file.
    it = session({"__name__": "__main__"})
    name = page.relative_to(ROOT).as_posix()
    for block in blocks_of(page.read_text(encoding="utf-8")):
        if block.code.lstrip().startswith(">>>"):
            dialogue = doctest.DocTestParser().get_doctest(block.code, it.names, name, name, block.first_line - 1)
            dialogue.globs = it.names
            if block.runs:
                replay(dialogue, it)
            continue
        code = compiled(block.code, name, block.first_line)
        if block.runs:
            it.execute(code)


def docstring_examples() -> Iterator[Any]:
    """One test for each docstring of the library that holds an example."""
    finder = doctest.DocTestFinder(exclude_empty=True)
    for path in sorted(SOURCE.rglob("*.py")):
        if ">>> " not in path.read_text(encoding="utf-8"):
            continue
        parts = path.relative_to(SOURCE).with_suffix("").parts
        module = import_module(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
        for test in finder.find(module):
            if test.examples:
                test.filename = path.relative_to(ROOT).as_posix()
                yield pytest.param(test, id=test.name)


@pytest.mark.parametrize("example", list(docstring_examples()))
def test_the_example_of_a_docstring_runs(
    example: doctest.DocTest, session: Callable[[dict[str, Any]], Session]
) -> None:
    replay(example, session(dict(example.globs)))
