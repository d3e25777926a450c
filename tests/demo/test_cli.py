"""The command line: clear messages, right exit codes, nothing left running when something is wrong."""

import re
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

import seawall
from seawall import cli
from seawall.demo import processes


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"seawall {seawall.__version__}\n"


@pytest.mark.parametrize("seconds", ["0.9", "0", "-1", "nan", "inf", "soon", ""])
def test_seconds_out_of_range_are_refused(seconds: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["demo", f"--seconds={seconds}"])
    assert ended.value.code == 2
    assert "--seconds: must be a number of seconds from 1 to 3600" in capsys.readouterr().err


def test_no_command_is_refused() -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main([])
    assert ended.value.code == 2


def test_without_aiohttp_the_extra_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "aiohttp", None)
    assert cli.main(["demo", "--seconds", "1"]) == 1
    assert "pip install 'seawall[demo]'" in capsys.readouterr().err


def test_a_file_that_cannot_be_written_is_told_before_the_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["demo", "--json", str(tmp_path / "none" / "x.json")]) == 1
    assert "there is no directory" in capsys.readouterr().err
    assert cli.main(["demo", "--json", str(tmp_path)]) == 1
    assert "it is a directory" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("program", "told"),
    [
        ("import sys; sys.exit('no module of that name')", "(exit code 1): no module of that name"),
        ("print('{}')", "(exit code 0): it said nothing"),
        ("print('hello', flush=True); import time; time.sleep(60)", "did not start"),
    ],
)
def test_a_service_that_does_not_start_is_a_message(
    program: str, told: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(module: str, arguments: Sequence[str]) -> list[str]:
        return [sys.executable, "-c", program]

    monkeypatch.setattr(processes, "command", broken)
    assert cli.main(["demo", "--seconds", "1"]) == 1
    captured = capsys.readouterr()
    assert re.search(r"^seawall demo: (plain|seawall) \w+ \d did not start", captured.err, re.MULTILINE)
    assert told in captured.err
    assert captured.out == ""


def test_a_program_that_is_not_there_is_a_message(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def missing(module: str, arguments: Sequence[str]) -> list[str]:
        return ["/nonexistent/python"]

    monkeypatch.setattr(processes, "command", missing)
    assert cli.main(["demo", "--seconds", "1"]) == 1
    assert "could not be started" in capsys.readouterr().err


def test_a_service_that_is_silent_is_given_up(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def silent(module: str, arguments: Sequence[str]) -> list[str]:
        return [sys.executable, "-c", "import time; time.sleep(60)"]

    monkeypatch.setattr(processes, "command", silent)
    monkeypatch.setattr(processes, "START_SECONDS", 0.3)
    assert cli.main(["demo", "--seconds", "1"]) == 1
    assert "did not start within 0.3 s" in capsys.readouterr().err
