"""What a limit at an entrance may ask of a request, whatever server it came through."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

__all__ = ["Request"]


class Request:
    """A request, for functions that give its key, its cost or its parts.

    `method`, `path` (decoded); `peer`, the address at the other end of the connection (None for a Unix socket, empty
    if unknown); `header(name)`, `headers(name)`; `operation`, the name of the route or view, where the framework knows
    it already; `native`, what the server or framework has: the ASGI scope, the WSGI environment, a framework's own
    request.
    """

    __slots__ = ("_operation", "_values", "method", "native", "path", "peer")

    def __init__(
        self,
        method: str,
        path: str,
        peer: str | None,
        values: Callable[[str], Sequence[str]],
        native: Any = None,
        operation: str | Callable[[], str | None] | None = None,
    ) -> None:
        self.method = method
        self.path = path
        self.peer = peer
        self._values = values
        self.native = native
        self._operation = operation

    @property
    def operation(self) -> str | None:
        """The name of the route or view that will serve the request; None if that is not known yet."""
        operation = self._operation
        if callable(operation):  # worked out for those who ask
            operation = self._operation = operation()
        return operation

    def headers(self, name: str) -> Sequence[str]:
        """All values of a header, in order; the name in any spelling."""
        return self._values(name.lower())

    def header(self, name: str) -> str | None:
        """The value of a header that was sent once; None if it is missing, or was sent more than once."""
        values = self._values(name.lower())
        return values[0] if len(values) == 1 else None

    def __repr__(self) -> str:
        return f"Request({self.method} {self.path} from {self.peer})"
