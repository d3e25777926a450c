"""The middlewares fit the frameworks' own types. Never run: only what the type checkers say counts."""

from __future__ import annotations

from ipaddress import ip_network
from wsgiref.simple_server import make_server
from wsgiref.types import WSGIApplication

from fastapi import FastAPI

from seawall.integrations import asgi, wsgi

app = FastAPI()
app.add_middleware(asgi.SeawallMiddleware, trusted=["10.0.0.0/8", ip_network("::1/128"), "unix"], deadline="10s")
asgi.SeawallMiddleware(app, trusted=lambda address: address is None, max_deadline=30)


def from_wsgi(application: WSGIApplication) -> None:
    make_server("", 8000, wsgi.SeawallMiddleware(application, trusted=["10.0.0.0/8"], deadline="10s"))


asgi.SeawallMiddleware(app, trusted=7)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
asgi.SeawallMiddleware(app, deadline=[])  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
