"""What is taken from the client's own package, httpx or httpx2: the same names in both, found when they are needed."""

from __future__ import annotations

import sys
from functools import cache
from typing import Any

from seawall.errors import ConfigError
from seawall.http.exchange import Client

__all__ = ["PACKAGES", "Kit", "kit_named", "kit_of"]

PACKAGES = ("httpx", "httpx2")


class Kit:
    """One of the packages. Attributes of the same names as there are its classes."""

    def __init__(self, name: str) -> None:
        package: Any = sys.modules[name]
        self.name = name
        self.Request: Any = package.Request
        self.Response: Any = package.Response
        self.ByteStream: Any = package.ByteStream
        self.SyncByteStream: Any = package.SyncByteStream
        self.AsyncByteStream: Any = package.AsyncByteStream
        self.HTTPTransport: Any = package.HTTPTransport
        self.AsyncHTTPTransport: Any = package.AsyncHTTPTransport
        self.ReadTimeout: Any = package.ReadTimeout
        self.RemoteProtocolError: Any = package.RemoteProtocolError
        self.TimeoutException: Any = package.TimeoutException
        self.client = Client(
            never_left=(package.ConnectError, package.ConnectTimeout),
            blameless=(package.PoolTimeout, package.LocalProtocolError, package.UnsupportedProtocol),
            late=package.ReadTimeout,
            refused=package.TransportError,
            response=package.Response,
            unsupported=lambda _, text: package.UnsupportedProtocol(text),
        )


kit_named = cache(Kit)
"""The kit of an imported package."""


def kit_of(request: Any) -> Kit:
    """The kit of the package that this request is from. Raises `ConfigError` if it is neither."""
    for kind in type(request).__mro__:
        name = kind.__module__.partition(".")[0]
        if name in PACKAGES:
            return kit_named(name)
    raise ConfigError(f"{request!r} is a request of neither {' nor '.join(PACKAGES)}")
