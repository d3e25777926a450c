"""The pytest plugin switches for one test or one run, puts back what was, and loads nothing before it is used."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from seawall import runtime

pytest_plugins = ["pytester"]

OPTIONS = ("-p", "seawall.testing.pytest_plugin", "-p", "no:cacheprovider")


@pytest.fixture(autouse=True)
def only_this_plugin(monkeypatch: pytest.MonkeyPatch) -> None:
    # Where Seawall is installed its entry point would load the plugin a second time.
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.setenv("PYTHONPATH", str(Path(str(runtime.__file__)).parents[2]))


def test_the_fixtures_hold_for_their_test_only(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        from seawall.runtime import clock, off

        def test_clock(seawall_clock):
            clock.sleep_ns(10**9)
            assert seawall_clock.sleeps == [1.0]

        def test_no_waiting(seawall_no_waiting):
            assert off.waiting and not off.everything

        def test_off(seawall_off):
            assert off.everything

        def test_nothing_is_left():
            assert not off.waiting and not off.everything
            assert clock.now_ns() > 2 * 10**9
        """
    )
    pytester.runpytest_subprocess(*OPTIONS).assert_outcomes(passed=4)


INSIDE = """
    from seawall.runtime import off

    def test_waiting_is_off():
        assert off.waiting and not off.everything

    def test_the_clock_shows_pauses_all_the_same(seawall_clock):
        assert not off.waiting

    def test_waiting_is_off_again():
        assert off.waiting
"""


def test_waiting_is_off_for_the_whole_run_by_ini(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(INSIDE)
    pytester.makeini("[pytest]\nseawall_waiting = off\n")
    pytester.runpytest_subprocess(*OPTIONS).assert_outcomes(passed=3)


def test_the_command_line_goes_before_the_ini(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(INSIDE)
    pytester.makeini("[pytest]\nseawall_waiting = on\n")
    pytester.runpytest_subprocess(*OPTIONS, "--seawall-waiting=off").assert_outcomes(passed=3)
    pytester.runpytest_subprocess(*OPTIONS).assert_outcomes(passed=1, failed=2)


def test_a_wrong_setting_is_named(pytester: pytest.Pytester) -> None:
    pytester.makeini("[pytest]\nseawall_waiting = maybe\n")
    result = pytester.runpytest_subprocess(*OPTIONS)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*seawall_waiting='maybe'*on or off*"])


def test_the_plugin_loads_neither_asyncio_nor_the_rest_of_the_package() -> None:
    code = (
        "import sys, pytest; before = set(sys.modules)\n"
        "import seawall.testing.pytest_plugin\n"
        "print(*sorted(name for name in set(sys.modules) - before if name.startswith(('asyncio', 'seawall.testing'))))"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown.split() == ["seawall.testing", "seawall.testing.pytest_plugin"]


def test_every_public_name_is_there_and_no_other() -> None:
    from seawall import testing

    for name in testing.__all__:
        assert getattr(testing, name) is not None
    assert set(testing.__all__) <= set(dir(testing))
    with pytest.raises(AttributeError, match="nonsense"):
        _ = testing.nonsense
