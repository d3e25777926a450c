"""Requests to one server, spread by what it said of them: so many are left for so long.

State
    `windows`   what the newest answer announced: `left` requests until `end`; less those that were sent since, and
                those that were on their way when it came and may not be in its count.
    `flying`    the requests on their way, by number, with the time at which each was sent.
Rules
    - An answer replaces the windows if no request that was sent later has announced any: answers may overtake each
      other, and whatever was on its way was taken off already.
    - While more than half of what a window grants is left, requests go at once. From there on they are spread: with r
      left until `end`, the next goes (end - last) / (r + 1) after the last; with none left, at `end`.
    - Nothing holds a request for longer than `cap_ns`, counted from the last request or the last announcement.
    - Behind the end of a window, and before the first answer, nobody knows how much may be sent: one request goes, and
      the others wait for its answer, but no longer than `SETTLE_NS`. (Before the first answer all go then; behind the
      end of a window one more goes each `SETTLE_NS`.)
    - A server whose answers announce nothing is left alone.
Guarantee
    after an answer that announced r for t <= cap at most r minus those on their way are sent until t has passed, or
    until a newer answer; and there is always a time, at most `cap_ns` and the answers of those on their way ahead, at
    which the next may go. Both hold whatever the server says, in whatever order.

A server is taken to have counted a request `SETTLE_NS` after it was sent, if it has not been answered by then.
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["SETTLE_NS", "Pacing"]

SETTLE_NS = 1_000_000_000


class Window:
    """What is left of one limit of the server, until when; spread from `low` on."""

    __slots__ = ("end", "left", "low")

    def __init__(self, left: int, end: int, low: int) -> None:
        self.left = left
        self.end = end
        self.low = low


class Pacing:
    """See above. Times are whole nanoseconds of a clock that never goes back."""

    __slots__ = ("_alone_ns", "_heard_ns", "_largest", "_last_ns", "_newest", "_next", "cap_ns", "flying", "windows")

    def __init__(self, cap_ns: int) -> None:
        self.cap_ns = cap_ns
        self.windows: list[Window] | None = None
        """None before the first answer."""
        self.flying: dict[int, int] = {}
        self._next = 0
        self._newest = -1
        self._heard_ns = 0
        self._last_ns = 0
        self._alone_ns = 0
        self._largest = 0

    def wait(self, now: int) -> int:
        """Nanoseconds until the next request may go, if nothing is heard until then."""
        windows = self.windows
        if windows is None:
            return max(0, self._alone_ns + SETTLE_NS - now) if self.flying else 0
        wait = self.least(now)
        # By then a window may have ended behind which nobody knows.
        if self.flying and any(window.end <= now + wait for window in windows):
            wait = max(wait, next(reversed(self.flying.values())) + SETTLE_NS - now)
        return wait

    def least(self, now: int, ahead: int = 0) -> int:
        """Nanoseconds for which the server has announced no room for the next request, with others `ahead` of it."""
        due = now
        for window in self.windows or ():
            if window.end > now:
                due = max(due, self._due(window, now, ahead))
        return due - now

    def _due(self, window: Window, now: int, ahead: int) -> int:
        free = max(0, window.left - window.low)
        if ahead < free:
            return now
        left = min(max(0, window.left), window.low) if free else max(0, window.left)
        base = now if free else self._last_ns
        step = ahead - free + 1
        due = window.end if step > left else base + -(-step * (window.end - base) // (left + 1))
        return min(due, max(self._last_ns, self._heard_ns) + step * self.cap_ns)

    def send(self, now: int) -> int:
        """A request goes; returns its number, with which its end is told."""
        number = self._next
        self._next += 1
        if not self.flying:
            self._alone_ns = now
        self.flying[number] = now
        self._last_ns = now
        for window in self.windows or ():
            window.left -= 1
        return number

    def answered(self, number: int, now: int, told: Sequence[tuple[int, int, int | None]]) -> None:
        """The answer is here. `told`: for each limit the requests left, for how many nanoseconds, of how many (None if
        that was not said)."""
        if self.flying.pop(number, None) is None or number < self._newest:
            return
        if not told:
            self.windows = [window for window in self.windows or () if window.end > now]
            return
        self._newest, self._heard_ns = number, now
        # The latest stand at the end. A copy, for a finalizer may end one of them here.
        hidden = 0
        for sent in reversed(list(self.flying.values())):
            if now - sent >= SETTLE_NS:
                break
            hidden += 1
        self._largest = max(self._largest, *(left for left, _, _ in told))
        self.windows = [
            Window(left - hidden, now + for_ns, (self._largest if quota is None else quota) // 2)
            for left, for_ns, quota in told
        ]

    def lost(self, number: int) -> None:
        """It was sent, and there will be no answer; the server may have counted it."""
        self.flying.pop(number, None)

    def give_back(self, number: int) -> None:
        """It was not sent after all."""
        sent = self.flying.pop(number, None)
        if sent is not None and self._heard_ns - sent < SETTLE_NS:
            for window in self.windows or ():
                window.left += 1

    def idle(self, now: int) -> bool:
        """Whether it may be forgotten: nothing is on its way, and nothing that was said still holds."""
        return not self.flying and all(window.end <= now for window in self.windows or ())
