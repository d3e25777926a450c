"""Every script in examples/ says what it shows, runs by itself, and prints what it promises."""

from __future__ import annotations

import ast
import runpy
from pathlib import Path

import pytest

from seawall import registry
from seawall.testing import VirtualClock

EXAMPLES = sorted((Path(__file__).resolve().parents[2] / "examples").glob("*.py"))
PRINTED = {
    "block_with_attempts": [
        "sync attempt 1",
        "sync attempt 2",
        "async attempt 1",
        "async attempt 2",
        "async attempt 3",
        "time is left",
        "seawall: fetch did not retry: the next attempt in 10 ms would miss the deadline",
    ],
    "broadcast_invalidation": [
        "caches: 2 of 3 endpoints succeeded, 3 had to (http://10.0.5.2:80: DeadlineExceeded",
        "done: ['http://10.0.5.1:80', 'http://10.0.5.3:80']",
        "not done: ['http://10.0.5.2:80']",
        "a majority will do: 2 of 3",
        "the second time: 3 of 3",
    ],
    "bulkheads_per_tenant": [
        "first refusal: exports[acme]: bulkhead full (2 of 2 permits in use); retry in 1 s",
        "acme: done 2",
        "acme: refused 8",
        "globex: done 1",
        "initech: done 1",
    ],
    "cluster_failover": [
        "30 calls, 30 answers",
        "the dead replica was asked 3 times, until its breaker opened",
        "2 of 3 endpoints are usable",
        "all dead: {'ConnectionRefusedError': ",
        "'NoEndpoints': ",
        "stock: 3 endpoints refuse (the last: stock[http://10.0.0.",
    ],
    "degradation_switch": [
        "before: ['chosen for ada']",
        "during the sale: ['bestsellers']",
        "after: ['chosen for ada']",
    ],
    "fastapi_tiers": [
        "bob searches: [200, 200, 200, 200, 200, 429, 429]",
        "bob exports: [200, 200, 429]",
        "ann searches: [200, 200, 200, 200, 200, 200, 200]",
        "a stranger: [401]",
        "'title': 'Too many requests', 'status': 429, 'retry_after': 12",
        'ann is told: RateLimit-Policy: "paid";q=60;w=60, RateLimit: "paid";r=52;t=8',
    ],
    "forking_reads": [
        "one replica each: 9 attempts for 9 calls, the slowest took over 90 ms",
        "forking: ",
        "'stagger': 0.01",
    ],
    "llm_tokens": [
        "an answer to 'what is a seawall': 504 tokens; left: {'requests': 59, 'tokens': 8496}",
        "after four at once: {'requests': 55, 'tokens': 6484}",
        "of six at once 3 were admitted; the others: llm: limit 'tokens' reached (",
        "the provider hung up: as before: True",
        "another team has its own: {'requests': 60, 'tokens': 9000}",
    ],
    "polite_scraper": [
        "pace=False: {200: 5, 429: 7} in 0 s",
        "pace=Pace(polite, max_wait=15 s, cap=60 s): {200: 12} in 21 s",
        "3 pages at once, then: pace: https://b.example has no room for 3.3 s, which is over 0 ms; retry in 3.33 s",
        "12 pages of two sites that say nothing in 1.25 s",
        "scraper: limit 'LeakyBucket' reached (",
        "; retry in 60 s",
    ],
    "protect_a_function": [
        "a good day: 10 answers, 0 of them lesser ones, for 12 calls of the service",
        "a bad day: 10 answers, 10 of them lesser ones, for 5 calls of the service",
        "The breaker is open (5 calls failed in a row)",
        "after the reset: {'price': 7.5, 'stale': False}",
    ],
}
"""Lines, or parts of them, in the order in which they are printed."""


@pytest.mark.parametrize("script", [pytest.param(script, id=script.stem) for script in EXAMPLES])
def test_an_example_says_what_it_shows(script: Path) -> None:
    docstring = ast.get_docstring(ast.parse(script.read_text(encoding="utf-8")))
    assert docstring and len(docstring.splitlines()) == 1


@pytest.mark.parametrize("script", [pytest.param(script, id=script.stem) for script in EXAMPLES])
def test_an_example_runs(script: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "switches", {})
    monkeypatch.setattr(registry, "clusters", {})
    # Those for asyncio wait for real, for a few hundredths of a second: their loop is not ours to choose.
    if "asyncio" in script.read_text(encoding="utf-8"):
        runpy.run_path(str(script), run_name="__main__")
    else:
        with VirtualClock():
            runpy.run_path(str(script), run_name="__main__")
    printed = capsys.readouterr().out
    place = 0
    for expected in PRINTED[script.stem]:
        found = printed.find(expected, place)
        assert found >= 0, f"{expected!r} is missing, or not in its place, in:\n{printed}"
        place = found + len(expected)
