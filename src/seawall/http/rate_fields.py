"""What a server says of its limits: `RateLimit` of the IETF's draft, and the older fields; nothing, if it is nonsense.

Four families are known, and the first that can be read is believed:

    RateLimit: "search";r=42;t=7, "day";r=900;t=3600      draft-ietf-httpapi-ratelimit-headers-08 and later
    RateLimit-Policy: "search";q=100;w=60, "day";q=1000
    RateLimit: limit=100, remaining=42, reset=7           draft 07
    RateLimit-Limit: 100, RateLimit-Remaining: 42, RateLimit-Reset: 7         the drafts before
    X-RateLimit-Limit: 100, X-RateLimit-Remaining: 42, X-RateLimit-Reset: 7   as everybody does it

`X-RateLimit-Reset` is seconds from now, or a time: from 10**9 on it is read as seconds since 1970, from 10**12 on as
milliseconds, against the server's own clock if the answer has a Date. The writer is `seawall.stores.fields`.

A family with anything in it that is not exactly as it should be is ignored as a whole.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from seawall.http.retry_after import http_date, retry_after
from seawall.record import Record
from seawall.runtime import clock
from seawall.units import LONGEST, SECOND

__all__ = ["Announced", "announced", "wait_announced", "wish"]

Get = Callable[[str], str | None]
"""The value of a header of an answer, by its name in small letters; several joined by commas, None for none."""
MOST_CHARACTERS = 2_048
MOST_LIMITS = 8
MOST_PARAMETERS = 16
LONGEST_SECONDS = LONGEST // SECOND
EPOCH_SECONDS = 1_000_000_000
EPOCH_MILLISECONDS = 1_000_000_000_000

# RFC 9651: keys, integers and the bare items that a parameter may have.
_KEY = r"[a-z*][a-z0-9_.*-]*"
_STRING = r'"(?:[ !#-\[\]-~]|\\["\\])*"'
_VALUE = (
    rf"-?[0-9]{{1,15}}(?:\.[0-9]{{1,3}})?|{_STRING}|[A-Za-z*][A-Za-z0-9:/!#$%&'*+.^_`|~-]*|:[A-Za-z0-9+/=]*:|\?[01]"
)
_NAME = re.compile(rf"(?P<name>{_STRING}|[A-Za-z*][A-Za-z0-9:/!#$%&'*+.^_`|~-]*)")
_PARAMETER = re.compile(rf"; *(?P<key>{_KEY})(?:=(?P<value>{_VALUE}))?")
_COMMA = re.compile(r"[ \t]*,[ \t]*")
_INTEGER = re.compile(r"[0-9]{1,15}")
_NUMBER = re.compile(r"([0-9]{1,15})(?:\.([0-9]{1,9}))?")
_LIMIT = re.compile(r"([0-9]{1,15})[ \t]*(?:[,;].*)?", re.DOTALL)
_DRAFT_07 = re.compile(r"(limit|remaining|reset)=([0-9]{1,15})")


class Announced(Record):
    """One limit of a server: `left` requests may follow for `seconds`, of `quota` in all (None: it did not say). `name`
    is the server's own; empty, if limits have none there."""

    name: str
    left: int
    seconds: int
    quota: int | None = None


def announced(get: Get) -> tuple[Announced, ...]:
    """The limits of an answer whose headers `get` gives: by name in small letters, several joined by commas.

    Numbers are bounded: at most 15 digits, times at most 100 years. Never an error, whatever stands there.

    >>> announced({"ratelimit": '"search";r=42;t=7', "ratelimit-policy": '"search";q=100;w=60'}.get)
    (Announced(name='search', left=42, seconds=7, quota=100),)
    >>> announced({"x-ratelimit-remaining": "0", "x-ratelimit-reset": "30"}.get)
    (Announced(name='', left=0, seconds=30, quota=None),)
    >>> announced({"ratelimit": '"search";r=-1;t=7'}.get)
    ()
    """
    draft = get("ratelimit")
    if draft is not None:
        found = _of_draft(draft, get("ratelimit-policy")) or _of_draft_07(draft)
        if found:
            return found
    return _of_three(get, "ratelimit") or _of_three(get, "x-ratelimit")


def wait_announced(limits: Sequence[Announced]) -> float | None:
    """The seconds for which nothing is left by one of these limits at least; None if all have something left."""
    waits = [float(limit.seconds) for limit in limits if limit.left == 0]
    return max(waits, default=None)


def wish(status: int, get: Get) -> float | None:
    """The seconds that an answer asks to be left alone for, if it is a 429 or 503: by its Retry-After, and without one
    that can be read by the limits it names of which nothing is left."""
    if status not in (429, 503):
        return None
    asked = retry_after(get("retry-after"), date=get("date"))
    return wait_announced(announced(get)) if asked is None else asked


# -- the draft ---------------------------------------------------------------------------------------------------------


def _of_draft(limits: str, policies: str | None) -> tuple[Announced, ...]:
    quotas: dict[str, dict[str, str]] = {}
    if policies is not None:
        quotas = _listed(policies) or {}
    found: list[Announced] = []
    for name, parameters in (_listed(limits) or {}).items():
        policy = quotas.get(name, {})
        if policy.get("qu", '"requests"') != '"requests"':
            continue  # bytes, or those at the same time: not for us to count
        left, seconds = _integer(parameters.get("r")), _integer(parameters.get("t", policy.get("w")))
        if left is None or ("t" in parameters and seconds is None):
            return ()
        if seconds is not None:  # a limit without a time says nothing of when
            found.append(Announced(name, left, min(seconds, LONGEST_SECONDS), _integer(policy.get("q"))))
    return tuple(found)


def _listed(text: str) -> dict[str, dict[str, str]] | None:
    """A list of names with parameters; None if it is none, or too long, or has a name twice."""
    text = text.strip(" \t")
    if len(text) > MOST_CHARACTERS:
        return None
    found: dict[str, dict[str, str]] = {}
    place = 0
    while True:
        match = _NAME.match(text, place)
        if match is None or len(found) == MOST_LIMITS:
            return None
        place = match.end()
        name, parameters = _unquoted(match["name"]), dict[str, str]()
        while (match := _PARAMETER.match(text, place)) is not None:
            # A key that stands there twice: the later one counts, says RFC 9651. Who writes so is not believed here.
            if match["key"] in parameters or len(parameters) == MOST_PARAMETERS:
                return None
            parameters[match["key"]] = match["value"] or "?1"
            place = match.end()
        if name in found:
            return None
        found[name] = parameters
        if place == len(text):
            return found
        comma = _COMMA.match(text, place)
        if comma is None:
            return None
        place = comma.end()


def _unquoted(name: str) -> str:
    return re.sub(r"\\(.)", r"\1", name[1:-1]) if name.startswith('"') else name


def _integer(text: str | None) -> int | None:
    return int(text) if text is not None and _INTEGER.fullmatch(text) else None


# -- before it ---------------------------------------------------------------------------------------------------------


def _of_draft_07(text: str) -> tuple[Announced, ...]:
    if len(text) > MOST_CHARACTERS:
        return ()
    found: dict[str, int] = {}
    for part in text.split(","):
        match = _DRAFT_07.fullmatch(part.strip(" \t"))
        if match is None or match[1] in found:
            return ()
        found[match[1]] = int(match[2])
    if "remaining" not in found or "reset" not in found:
        return ()
    return (Announced("", found["remaining"], min(found["reset"], LONGEST_SECONDS), found.get("limit")),)


def _of_three(get: Get, family: str) -> tuple[Announced, ...]:
    remaining, reset, limit = (get(f"{family}-{field}") for field in ("remaining", "reset", "limit"))
    if remaining is None or reset is None:
        return ()
    left, until = _number(remaining), _number(reset)
    if left is None or until is None:
        return ()
    quota: int | None = None
    if limit is not None:
        match = _LIMIT.fullmatch(limit.strip(" \t")) if len(limit) <= MOST_CHARACTERS else None
        if match is None:
            return ()
        quota = int(match[1])
    seconds = until[1]
    if seconds >= EPOCH_SECONDS:
        whole = -(-seconds // 1000) if seconds >= EPOCH_MILLISECONDS else seconds
        sent = http_date((get("date") or "").strip(" \t"))
        seconds = max(0, whole - int(clock.wall_time() if sent is None else sent))
    return (Announced("", left[0], min(seconds, LONGEST_SECONDS), quota),)


def _number(text: str) -> tuple[int, int] | None:
    """A number that need not be whole, rounded down and up; None if it is none."""
    match = _NUMBER.fullmatch(text.strip(" \t")) if len(text) <= 64 else None
    if match is None:
        return None
    whole = int(match[1])
    return whole, whole + (bool(match[2]) and bool(match[2].strip("0")))
