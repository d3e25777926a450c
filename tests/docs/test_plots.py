"""The pictures in docs/plots/ show what the limits admit now, and can be read by everybody."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from seawall import Limiter, limiter
from seawall.limiter.specs import LimitSpec
from seawall.machines.token_bucket import TokenBucket
from seawall.testing import VirtualClock
from seawall.units import SECOND
from tools import plots

PAGE = Path(plots.__file__).resolve().parent.parent / "docs" / "limits.md"
SVG = "{http://www.w3.org/2000/svg}"
each_picture = pytest.mark.parametrize("name", plots.TRAFFICS)


def test_every_picture_is_up_to_date(capsys: pytest.CaptureFixture[str]) -> None:
    assert plots.main(["--check"]) == 0, capsys.readouterr().out
    assert {path.stem for path in plots.PLOTS.iterdir()} == set(plots.TRAFFICS), "and there are no others"


def test_a_limit_that_admits_otherwise_makes_a_picture_stale(monkeypatch: pytest.MonkeyPatch) -> None:
    strict = TokenBucket.take
    monkeypatch.setattr(TokenBucket, "take", lambda *args: strict(*args) if args[2] % (5 * SECOND) else None)
    assert plots.main([]) == 0, "no request comes in the very beginning of a second"
    monkeypatch.setattr(TokenBucket, "take", lambda *args: strict(*args) if args[2] // SECOND % 5 else None)
    assert plots.main([]) == 1


@each_picture
def test_every_limit_is_in_every_picture(name: str) -> None:
    kinds = {kind for kind in vars(limiter).values() if isinstance(kind, type) and issubclass(kind, LimitSpec)}
    shown = {type(limit) for limit in plots.TRAFFICS[name].limits}
    assert shown == kinds - {LimitSpec} and len(shown) == 5


@each_picture
def test_a_limiter_admits_what_is_drawn(name: str) -> None:
    traffic = plots.TRAFFICS[name]
    requests = sorted(traffic.requests())
    for limit in traffic.limits:
        if getattr(limit, "queue", 0):
            continue  # who stands in its queue is shown when he starts, which `hit` does not do
        with VirtualClock() as clock:
            tried = Limiter(limit, name="drawn")
            begun = [moment for moment, client in requests if at(clock, moment) and tried.hit(f"{client}").allowed]
        assert begun == plots.starts(limit, requests)


def at(clock: VirtualClock, moment: int) -> bool:
    clock.advance((moment - round(clock.now * SECOND)) / SECOND)
    return True


@each_picture
def test_a_picture_says_in_words_what_it_shows(name: str) -> None:
    root = ET.fromstring((plots.PLOTS / f"{name}.svg").read_text(encoding="utf-8"))
    assert root.get("role") == "img" and root.get("aria-labelledby") == "title desc"
    said = {child.get("id"): child.text or "" for child in root if child.tag in (f"{SVG}title", f"{SVG}desc")}
    assert said["title"].startswith(plots.TRAFFICS[name].title)
    words = " ".join(text.text or "" for text in root.iter(f"{SVG}text"))
    for limit in plots.TRAFFICS[name].limits:
        assert plots.written(limit) in said["desc"] and plots.written(limit) in words
    assert all(word in words for word in ("asked", "admitted", "border", "180 s", "/s", "requests a second"))
    alternative = re.search(rf"!\[([^\]]+)\]\(plots/{name}\.svg\)", PAGE.read_text(encoding="utf-8"))
    assert alternative and len(alternative[1]) > 80


@each_picture
def test_a_picture_brings_its_own_background_and_colours_for_the_dark(name: str) -> None:
    text = (plots.PLOTS / f"{name}.svg").read_text(encoding="utf-8")
    light, _, dark = text.partition("prefers-color-scheme: dark")
    for kind in ("page", "asked", "admitted", "edge", "faint"):
        assert f".{kind} {{" in light and f".{kind} {{" in dark
    assert '<rect class="page"' in text


@pytest.mark.parametrize(("moments", "most"), [([], 0), ([0, 1, 2], 3), ([0, SECOND], 1), ([0, SECOND - 1, SECOND], 2)])
def test_the_fullest_span_is_half_open(moments: Any, most: int) -> None:
    assert plots.fullest(moments, 1) == most
