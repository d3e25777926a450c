"""`BadAnswer`: a response that means failure, on its way through policies and strategies, which know errors only."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from seawall.machines.verdict import Verdict
from seawall.policies.classify import Judged
from seawall.record import Record

if TYPE_CHECKING:
    from seawall.cluster.endpoint import Endpoint

__all__ = ["BadAnswer", "Served"]


class BadAnswer(Judged):
    """A response with a status that is a failure (5xx, 408) or asks for patience (429).

    Inside a cluster it is an error: breakers and strategies see it, events show it, the functions of `Failsafe` and
    `Fallback` are called with it. Who sent the request never meets it: he gets the response. `status`, `response` (the
    client's own), `endpoint`, `retry_after` in seconds or None; `final`: the quota is spent, and no repetition helps.
    """

    def __init__(
        self,
        status: int,
        response: Any,
        *,
        verdict: Verdict = Verdict.FAIL,
        endpoint: Endpoint | None = None,
        retry_after: float | None = None,
        final: bool = False,
    ) -> None:
        super().__init__(status)
        self.status = status
        self.response = response
        self.verdict = verdict
        self.endpoint = endpoint
        self.retry_after = retry_after
        self.final = final
        self.settled = False
        """Whether the response is in somebody's hands, or closed."""

    def __str__(self) -> str:
        try:
            phrase = f" {HTTPStatus(self.status).phrase}"
        except ValueError:
            phrase = ""
        return f"{self.status}{phrase}" + ("" if self.endpoint is None else f" from {self.endpoint}")

    def take(self) -> Any:
        """The response, for whoever sent the request: from now on nobody closes it for him."""
        self.settled = True
        return self.response


class Served(Record):
    """How a request was served: `endpoint` gave the response, after `attempts` in all; `degraded`: it is a lesser
    answer, made by a `Failsafe` or `Fallback`."""

    cluster: str
    endpoint: Endpoint | None
    attempts: int
    degraded: bool
