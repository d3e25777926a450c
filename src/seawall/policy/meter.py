"""The outermost layer of every policy: counts its calls by how they ended."""

from __future__ import annotations

import itertools
from typing import Any

from seawall.errors import Rejected
from seawall.policies.layer import Call, Fast, Lane, Live, Site
from seawall.policies.spec import Spec
from seawall.runtime import forks
from seawall.runtime.section import Section

__all__ = ["Meter"]


class MeterSpec(Spec):
    """The description of a meter; there is nothing to set."""

    __slots__ = ()

    def __init__(self) -> None:
        self._init("meter")


class Meter(Live):
    """Counts without a lock on the healthy path: drawing a number is atomic, and reading draws one and takes it off
    again."""

    kind = "meter"
    undoable = False
    by_hand = False

    def __init__(self, site: Site) -> None:
        super().__init__(site, MeterSpec())
        self._ticks = itertools.count()
        self._reads = 0
        self._lock = Section()
        self.failed_calls = self.rejected = self.cancelled = 0
        forks.renew_after_fork(self)

    def lane(self, *, is_async: bool) -> Lane:
        return Lane(leave=self._count, fast=Fast(leave=("next($ticks)",), names={"ticks": self._ticks}))

    def _count(self, token: object, now_ns: int, result: object) -> None:
        with self._lock:
            next(self._ticks)

    def note(self, call: Call, token: None, error: BaseException) -> None:
        if self._lock.put_off(lambda: self.note(call, token, error)):
            return
        with self._lock:
            if isinstance(error, Rejected):
                self.rejected += 1
            elif isinstance(error, Exception):
                self.failed_calls += 1
            else:
                self.cancelled += 1

    def snapshot(self) -> dict[str, Any]:
        with self._lock:
            ok = next(self._ticks) - self._reads
            self._reads += 1
            ended = {"ok": ok, "failed": self.failed_calls, "rejected": self.rejected, "cancelled": self.cancelled}
        return {"calls": sum(ended.values()), **ended}

    def renew_after_fork(self) -> None:
        self._lock = Section()
