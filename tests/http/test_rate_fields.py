"""What a server says of its limits is read exactly or not at all, never raises, and is bounded in size and time."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seawall import LeakyBucket, Limiter, SlidingWindow, TokenBucket
from seawall.http import Announced, announced
from seawall.http.rate_fields import LONGEST_SECONDS, MOST_CHARACTERS, wait_announced, wish
from seawall.runtime import clock
from seawall.stores.fields import fields_of, legacy_fields_of
from tests.machines.effort import QUICK

NOW = 1_900_000_000


def read(**fields: str) -> tuple[Announced, ...]:
    return announced({name.lower().replace("_", "-"): value for name, value in fields.items()}.get)


# -- what is read ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limits", "policies", "found"),
    [
        ('"default";r=50;t=30', '"default";q=100;w=60', [("default", 50, 30, 100)]),
        ('"default";r=50;t=30', None, [("default", 50, 30, None)]),
        ("default;r=50;t=30", "default;q=100", [("default", 50, 30, 100)]),
        ('"a";r=1;t=2, "b";r=3;t=4', '"b";q=9;w=1,"a";q=8', [("a", 1, 2, 8), ("b", 3, 4, 9)]),
        ('"a";r=1', '"a";q=10;w=60', [("a", 1, 60, 10)]),
        (' "a" '.strip(" ") + ';r=0;t=0;pk=:c2Vh:;x="\\"";y;z=?0;d=-1.5', None, [("a", 0, 0, None)]),
        ('"a\\"\\\\";r=1;t=1', '"a\\"\\\\";q=4', [('a"\\', 1, 1, 4)]),
        ('"a"; r=1;  t=1', None, [("a", 1, 1, None)]),
        ('"a";r=1;t=1 \t, \t"b";r=2;t=2', None, [("a", 1, 1, None), ("b", 2, 2, None)]),
        ('"a";r=1;t=999999999999999', None, [("a", 1, LONGEST_SECONDS, None)]),
        ('"a";r=1;t=1, "b";r=1;t=1', '"b";q=99;qu="content-bytes"', [("a", 1, 1, None)]),
        ('"a";r=1;t=1', '"a";q=2;qu="requests"', [("a", 1, 1, 2)]),
        ('"a";r=1, "b";r=2;t=2', None, [("b", 2, 2, None)]),
        ('"a";r=1;t=1', "nonsense;;", [("a", 1, 1, None)]),
        ("limit=100, remaining=42, reset=7", None, [("", 42, 7, 100)]),
        ("limit=100,remaining=42 ,\treset=7", "100;w=60", [("", 42, 7, 100)]),
        ("remaining=42, reset=7", None, [("", 42, 7, None)]),
    ],
)
def test_the_draft_is_read(limits: str, policies: str | None, found: list[Any]) -> None:
    fields = {"RateLimit": limits} | ({} if policies is None else {"RateLimit_Policy": policies})
    assert read(**fields) == tuple(Announced(*facts) for facts in found)


@pytest.mark.parametrize("family", ["RateLimit", "X_RateLimit"])
@pytest.mark.parametrize(
    ("remaining", "reset", "limit", "found"),
    [
        ("42", "7", "100", (42, 7, 100)),
        ("42", "7", None, (42, 7, None)),
        (" 42\t", " 7", " 100 ", (42, 7, 100)),
        ("599.0", "6.2", "100, 100;w=60", (599, 7, 100)),
        ("0", "0", "10;w=1", (0, 0, 10)),
        ("1", "999999999", None, (1, 999_999_999, None)),
        ("1", str(NOW + 30), None, (1, 30, None)),
        ("1", f"{NOW + 29}.5", None, (1, 30, None)),
        ("1", str((NOW + 30) * 1000 - 1), None, (1, 30, None)),
        ("1", str(NOW - 30), None, (1, 0, None)),
        ("1", "999999999999999", None, (1, 999_999_999_999_999 // 1000 + 1 - NOW, None)),
    ],
)
def test_the_older_fields_are_read(
    family: str, remaining: str, reset: str, limit: str | None, found: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clock, "wall_time", lambda: NOW + 0.5)
    fields = {f"{family}_Remaining": remaining, f"{family}_Reset": reset}
    fields |= {} if limit is None else {f"{family}_Limit": limit}
    left, seconds, quota = found
    assert read(**fields) == (Announced("", left, min(seconds, LONGEST_SECONDS), quota),)


def test_a_time_is_counted_from_the_servers_own_clock() -> None:
    date = "Sun, 09 Sep 2001 01:46:40 GMT"  # 10**9
    fields = {"X_RateLimit_Remaining": "3", "X_RateLimit_Reset": str(10**9 + 20), "Date": date}
    assert read(**fields)[0].seconds == 20


def test_the_newer_fields_are_believed_before_the_older_unless_they_are_nonsense() -> None:
    older = {"X_RateLimit_Remaining": "9", "X_RateLimit_Reset": "9"}
    assert read(RateLimit='"a";r=1;t=2', **older)[0].left == 1
    assert read(RateLimit='"a";r=1;;t=2', **older)[0].left == 9
    assert read(RateLimit_Remaining="5", RateLimit_Reset="5", **older)[0].left == 5
    assert read(RateLimit_Remaining="5", **older)[0].left == 9


@pytest.mark.parametrize("spec", [TokenBucket("60/min", burst=10), SlidingWindow("5/s"), LeakyBucket("4/s", queue=3)])
def test_what_an_entrance_writes_is_what_is_read(spec: Any) -> None:
    name = 'odd, "name"; \\ r=7'
    limiter = Limiter({name: spec})
    for _ in range(12):
        decision = limiter.hit()
        for write, shown in ((fields_of, name), (legacy_fields_of, "")):
            found = announced({key.lower(): value for key, value in write(decision).items()}.get)
            assert [(one.name, one.left, one.quota) for one in found] == [
                (shown, decision.remaining, decision.capacity)
            ]
            assert decision.allowed or found[0].seconds >= decision.retry_after


# -- what is not -------------------------------------------------------------------------------------------------------

NONSENSE = [
    *("", " ", ",", ";", '"', '"a', '"a"', "a", '"a";', '"a";r', '"a";r=', '"a";t=1', "r=1;t=1", '"a";r=1;t', "nan"),
    *('"a";r=-1;t=1', '"a";r=1;t=-1', '"a";r=1.0;t=1', '"a";r=1;t=1.5', '"a";r=+1;t=1', '"a";r=NaN;t=1'),
    *('"a";r=1e3;t=1', '"a";r=0x1;t=1', '"a";r=1_0;t=1', '"a";r="1";t=1', '"a";r=:MQ==:;t=1', '"a";r=?1;t=1'),
    *('"a";r=1000000000000000;t=1', '"a";r=1;t=1000000000000000', f'"a";r={"9" * 5_000};t=1'),
    *('"a";r=\u0661;t=1', '"a";r=1;t=\uff11', '"\u00e4";r=1;t=1', '"a";r=1;t=1\n', '"a";r=1\x00;t=1'),
    *('"a";r=1;r=2;t=1', '"a";r=1;t=1;t=2', '"a";r=1;t=1, "a";r=2;t=2', '"a";r=1;t=1,', ',"a";r=1;t=1'),
    *('"a";r=1;t=1 "b";r=1;t=1', '"a";R=1;T=1', '"a" ;r=1;t=1', '"a";r =1;t=1', '("a" "b");r=1;t=1', "1;r=1;t=1"),
    ", ".join(f'"{number}";r=1;t=1' for number in range(9)),
    '"a";r=1;t=1' + "".join(f";p{number}" for number in range(15)),
    f'"{"a" * MOST_CHARACTERS}";r=1;t=1',
    *(
        "limit=1",
        "limit=1, remaining=1",
        "remaining=1, remaining=2, reset=1",
        "remaining=-1, reset=1",
        "remaining=1;reset=1",
    ),
    *('"a";r=1;t=1, "b";r=x;t=1', '"a";r=1;t=1, "b";t=1'),
]


@pytest.mark.parametrize("text", NONSENSE)
def test_nonsense_in_the_draft_is_ignored_as_a_whole(text: str) -> None:
    assert read(RateLimit=text) == ()


@pytest.mark.parametrize(
    "text",
    [*("", " ", "-1", "+1", "1.", ".5", "1,1", "1, 1", "1 1", "1e3", "0x1", "1_0", "NaN", "inf", "soon", "\u0661", "\uff11"),
     *("1" * 16, "9" * 100_000, "1." + "0" * 10, "1\n", "1;w=1")],
)  # fmt: skip
@pytest.mark.parametrize("which", ["Remaining", "Reset"])
@pytest.mark.parametrize("family", ["RateLimit", "X_RateLimit"])
def test_nonsense_in_the_older_fields_is_ignored_as_a_whole(family: str, which: str, text: str) -> None:
    fields = {f"{family}_Remaining": "1", f"{family}_Reset": "1", f"{family}_{which}": text}
    assert read(**fields) == ()


@pytest.mark.parametrize("text", ["", "x", "-1", "1" * 16, "1 1", "1" + " " * 5_000])
def test_a_limit_that_is_nonsense_spoils_the_older_fields(text: str) -> None:
    assert read(X_RateLimit_Remaining="1", X_RateLimit_Reset="1", X_RateLimit_Limit=text) == ()


PIECES = st.sampled_from(
    [*'",;=\\ \t-.:?()', "r", "t", "q", "w", "pk", "=1", ";r=1", ";t=1", '"a"', ", ", "9" * 20, "limit=1", "reset=1",
     "remaining=1", "\u0661", "\x00", "NaN"]
)  # fmt: skip
TEXT = st.none() | st.lists(PIECES, max_size=20).map("".join) | st.text(max_size=40)
NAMES = (
    *("ratelimit", "ratelimit-policy", "date", "retry-after"),
    *(f"{family}-{field}" for family in ("ratelimit", "x-ratelimit") for field in ("limit", "remaining", "reset")),
)


@QUICK
@given(st.fixed_dictionaries(dict.fromkeys(NAMES, TEXT)))
def test_whatever_stands_there_is_bounded_and_no_error(fields: dict[str, str | None]) -> None:
    for limit in announced(fields.get):
        assert 0 <= limit.left < 10**15
        assert 0 <= limit.seconds <= LONGEST_SECONDS
        assert limit.quota is None or 0 <= limit.quota < 10**15
    asked = wish(429, fields.get)
    assert asked is None or 0 <= asked <= LONGEST_SECONDS


NUMBERS = st.integers(0, 10**15 - 1)


@QUICK
@given(
    st.dictionaries(
        st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=12),
        st.tuples(NUMBERS, NUMBERS, NUMBERS),
        min_size=1,
        max_size=8,
    )
)
def test_whatever_is_written_properly_is_read(limits: dict[str, tuple[int, int, int]]) -> None:
    quoted = {name: '"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"' for name in limits}
    state = ", ".join(f"{quoted[name]};r={left};t={seconds}" for name, (left, seconds, _) in limits.items())
    policy = ", ".join(f"{quoted[name]};q={quota};w=60" for name, (_, _, quota) in reversed(limits.items()))
    wanted = [
        Announced(name, left, min(seconds, LONGEST_SECONDS), quota) for name, (left, seconds, quota) in limits.items()
    ]
    assert announced({"ratelimit": state, "ratelimit-policy": policy}.get) == tuple(wanted)


@pytest.mark.parametrize(
    "text",
    [
        *('"' * 100_000, "\\" * 100_000, ";" * 100_000, " " * 100_000, '"a"' + ";a" * 1_000, '"a";r=1;t=1' + " " * 2_000 + "x"),
        *('"' + '\\"' * 1_000, '"a"' + "; " * 1_000, '"a";r=1;t=1' + ", " * 1_000, "limit=1" + " ," * 1_000, "a" * 2_000),
        '"a";x=' + "1" * 2_000,
    ],
)  # fmt: skip
def test_the_longest_nonsense_costs_little(text: str) -> None:
    fields = dict.fromkeys(NAMES, text)
    begun = time.process_time()
    for _ in range(20):
        assert announced(fields.get) == ()
    assert time.process_time() - begun < 1


# -- what counts as Retry-After ----------------------------------------------------------------------------------------


def test_of_what_is_spent_the_longest_wait_counts() -> None:
    limits = (Announced("a", 0, 7), Announced("b", 0, 9), Announced("c", 1, 99))
    assert wait_announced(limits) == 9
    assert wait_announced(limits[2:]) is None
    assert wait_announced(()) is None


@pytest.mark.parametrize("status", [429, 503])
def test_without_a_retry_after_a_limit_of_which_nothing_is_left_counts_as_one(status: int) -> None:
    spent = {"ratelimit": '"a";r=0;t=30'}
    assert wish(status, spent.get) == 30
    assert wish(status, {"x-ratelimit-remaining": "0", "x-ratelimit-reset": "12"}.get) == 12
    assert wish(status, {"ratelimit": '"a";r=1;t=30'}.get) is None
    assert wish(status, (spent | {"retry-after": "4"}).get) == 4, "it is the server's own word"
    assert wish(status, (spent | {"retry-after": "soon"}).get) == 30
    assert wish(status, {}.get) is None


@pytest.mark.parametrize("status", [200, 404, 500, 408])
def test_other_answers_ask_for_no_patience(status: int) -> None:
    assert wish(status, {"ratelimit": '"a";r=0;t=30', "retry-after": "3"}.get) is None
