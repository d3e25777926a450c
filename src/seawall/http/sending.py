"""`sending`: what the caller knows about the requests in a block, and their method does not show."""

from __future__ import annotations

from contextvars import ContextVar, Token
from types import TracebackType

from seawall.record import Record
from seawall.units import flag_of

__all__ = ["SENDING", "Sending", "sending"]


class Sending(Record):
    """The caller's word on his requests."""

    idempotent: bool | None = None
    stream: bool = False


SENDING: ContextVar[Sending] = ContextVar("seawall_sending", default=Sending())  # noqa: B039  # a frozen value


class sending:  # noqa: N801  # reads as a verb in `with sending(idempotent=True):`
    """Say of the requests in the block, sent through clusters by whichever client, what their method does not show.

    Args:
        idempotent: True: they may be sent twice, whatever their method is, because the service knows them again; False:
            they must not, not even a GET. An `Idempotency-Key` header says the same for one request.
        stream: True: what comes back may take its time: a `Timeout` of the cluster holds until the response begins, and
            only the caller's own deadline while it is read; its size has no limit.

    An inner block changes only what it names. Raises `ConfigError` for anything but True or False.

    Example:
        >>> from seawall.http import sending
        >>> with sending(idempotent=True):
        ...     pass  # client.post("http://payments/charges", json={"order": "A-7"})
    """

    def __init__(self, *, idempotent: bool | None = None, stream: bool | None = None) -> None:
        self._idempotent = None if idempotent is None else flag_of(idempotent, "sending(idempotent)")
        self._stream = None if stream is None else flag_of(stream, "sending(stream)")
        self._entered: list[Token[Sending]] = []

    def __enter__(self) -> None:
        outer = SENDING.get()
        idempotent = outer.idempotent if self._idempotent is None else self._idempotent
        stream = outer.stream if self._stream is None else self._stream
        self._entered.append(SENDING.set(Sending(idempotent, stream)))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:  # noqa: SIM105  # as context.restore does: an abandoned generator may be closed in another context
            SENDING.reset(self._entered.pop())
        except ValueError:
            pass
