"""WSGI as the middlewares above it need it: who asks, and how a refusal is sent."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from seawall.http.problem import Problem
from seawall.http.request import Request

if TYPE_CHECKING:
    from wsgiref.types import WSGIEnvironment

__all__ = ["peer_of", "request_of", "status_line", "values_in"]


def peer_of(environ: WSGIEnvironment) -> str | None:
    """The address at the other end; `None` for a Unix socket, and empty if the server does not tell it."""
    address = environ.get("REMOTE_ADDR")
    if address:
        return str(address)
    # Servers behind a Unix socket leave the address empty (and take a port from the Host header), or leave out both.
    return "" if address is None and environ.get("SERVER_PORT") else None


def values_in(environ: Mapping[str, Any]) -> Callable[[str], Sequence[str]]:
    """The headers. One that was sent twice has one value here, joined by a comma."""

    def values(name: str) -> Sequence[str]:
        spelled = name.upper().replace("-", "_")
        key = spelled if spelled in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{spelled}"
        return [environ[key]] if key in environ else []

    return values


def request_of(environ: WSGIEnvironment, native: Any = None, operation: str | None = None) -> Request:
    """The request, for key functions; `native` is a framework's own, if there is one."""
    # PEP 3333: the bytes of the path, each as a character of latin-1.
    path = environ.get("PATH_INFO", "").encode("latin-1", "replace").decode("utf-8", "replace") or "/"
    return Request(
        environ.get("REQUEST_METHOD", "GET"),
        path,
        peer_of(environ),
        values_in(environ),
        environ if native is None else native,
        operation,
    )


def status_line(problem: Problem) -> str:
    """Status and phrase, as WSGI wants them."""
    try:
        return f"{problem.status} {HTTPStatus(problem.status).phrase}"
    except ValueError:
        return f"{problem.status} Refused"
