"""A server's edge: whom a request's headers are believed from, how long the request gets, what refusals look like."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from seawall.context import CURRENT, Context, derive
from seawall.errors import ConfigError, DeadlineExceeded
from seawall.http.peers import Peers, Trusted
from seawall.http.problem import Problem, problem_for
from seawall.http.propagation import inward
from seawall.runtime import clock
from seawall.units import Duration, duration_ns, given

__all__ = ["Edge"]


class Edge:
    """What the middlewares of all kinds of servers have in common. `owner` names the one of them in errors.

    Counters: `believed`, requests with headers from a trusted peer; `untrusted`, those with headers from others;
    `malformed`, headers of trusted peers that could not be read; `refused` and `late`, requests answered with a
    problem for a refusal, and for a deadline that had passed.
    """

    def __init__(self, owner: str, trusted: Trusted, deadline: Duration | None, max_deadline: Duration | None) -> None:
        self._peers = Peers(trusted, f"{owner}(trusted)")
        self._default_ns = _limit(deadline, f"{owner}(deadline)")
        self._most_ns = _limit(max_deadline, f"{owner}(max_deadline)")
        if self._default_ns is not None and self._most_ns is not None and self._default_ns > self._most_ns:
            raise ConfigError(f"{given(f'{owner}(deadline)', deadline)}: more than max_deadline={max_deadline!r}")
        self.believed = self.untrusted = self.malformed = self.refused = self.late = 0

    def context(
        self, found: Mapping[str, Sequence[str]], peer: Callable[[], str | None], *, limited: bool = True
    ) -> Context:
        """The context for a request with these headers of ours, from the peer whose address `peer()` gives.

        Not `limited` is what lasts as long as it likes, such as a WebSocket: only a deadline that arrived holds there.
        """
        outer = CURRENT.get()
        left_ns = self._default_ns if limited else None
        changes: dict[str, Any] = {}
        if found:
            if self._peers.trusts(peer()):
                arrived = inward(found)
                self.believed += 1
                self.malformed += arrived.malformed
                left_ns = left_ns if arrived.left_ns is None else arrived.left_ns
                if arrived.criticality is not None:
                    changes["criticality"] = arrived.criticality
                if arrived.attempt is not None:
                    changes["attempt"] = arrived.attempt
            else:
                self.untrusted += 1
        most_ns = self._most_ns if limited else None
        if most_ns is not None and (left_ns is None or left_ns > most_ns):
            left_ns = most_ns
        if left_ns is not None:
            due = clock.now_ns() + left_ns
            # The application may itself have been called under a deadline, in this process: the nearer one holds.
            changes["deadline_ns"] = due if outer.deadline_ns is None else min(due, outer.deadline_ns)
        # Always one of its own, so that the middleware may lift its deadline when the answer is out.
        return derive(outer, **changes)

    def refuse_late(self, context: Context) -> None:
        """Raise `DeadlineExceeded` if there is no time left for the request at all."""
        if context.deadline_ns is not None and context.deadline_ns <= clock.now_ns():
            raise DeadlineExceeded("the deadline of the request has passed", inherited=True)

    def answer(self, error: BaseException) -> Problem | None:
        """The answer to what the application raised; `None` if that is not Seawall's to answer."""
        problem = problem_for(error)
        if problem is not None:
            if problem.status == 504:
                self.late += 1
            else:
                self.refused += 1
        return problem

    def snapshot(self) -> dict[str, Any]:
        """The counters as JSON-ready values."""
        return {
            "believed": self.believed,
            "untrusted": self.untrusted,
            "malformed": self.malformed,
            "refused": self.refused,
            "late": self.late,
        }


def _limit(time: Duration | None, field: str) -> int | None:
    return None if time is None else duration_ns(time, field, zero=False)
