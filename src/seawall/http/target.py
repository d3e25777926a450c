"""Where an endpoint is, as HTTP needs it: the URL before a request's own path, the Host header, the name TLS checks."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from seawall.errors import ConfigError
from seawall.record import Record

if TYPE_CHECKING:
    from seawall.cluster.endpoint import Endpoint

__all__ = ["Target", "target_of"]

DEFAULT_PORTS = {"http": 80, "https": 443}
_HOST = re.compile(r"(?P<name>[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::(?P<port>[0-9]{1,5}))?")


class Target(Record):
    """`prefix` comes before the path of a request; `authority` is the Host header; `server_name`, if the address does
    not show it, is the name for TLS."""

    scheme: str
    host: str
    port: int | None
    prefix: str
    authority: str
    server_name: str | None

    @property
    def origin(self) -> str:
        """Scheme, host and port, as it stands in URLs."""
        return f"{self.scheme}://{_with_port(self.host, self.port, self.scheme)}"

    def named(self, location: str, origin: str) -> str:
        """A Location that leads back to this endpoint, as one that leads to `origin` (`"http://inventory"`).

        A server that builds absolute URLs from the Host header would lead its caller past the cluster.
        """
        for authority in {self.authority, _with_port(self.host, self.port, self.scheme)}:
            start = f"{self.scheme}://{authority}"
            rest = location[len(start) :]
            if location.startswith(start) and (not rest or rest[0] in "/?#"):
                inside = rest[len(self.prefix) :]
                cut = self.prefix and rest.startswith(self.prefix) and (not inside or inside[0] in "/?#")
                return origin + (inside if cut else rest)
        return location


def target_of(endpoint: Endpoint) -> Target:
    """The target of an endpoint. Raises `ConfigError` if its address is no base URL."""
    return _parsed(endpoint.address, endpoint.host)


@lru_cache(maxsize=4096)
def _parsed(address: str, host: str | None) -> Target:
    try:
        parts = urlsplit(address if "://" in address else f"http://{address}")
        name, port = parts.hostname, parts.port
    except ValueError:
        name, port = None, None
        parts = urlsplit("")
    plain = "@" not in parts.netloc and not parts.query and not parts.fragment and address.isascii()
    if not name or parts.scheme not in DEFAULT_PORTS or port == 0 or not plain:
        raise ConfigError(f'Endpoint(address={address!r}): for HTTP expected a base URL such as "http://10.0.0.1:8080"')
    authority, server_name = _with_port(name, port, parts.scheme), None
    if host is not None:
        match = _HOST.fullmatch(host)
        if match is None:
            raise ConfigError(f'Endpoint(host={host!r}): for HTTP expected a name such as "inventory.internal"')
        server_name = match["name"]
        authority = host if match["port"] else _with_port(server_name, port, parts.scheme)
    return Target(parts.scheme, name, port, parts.path.rstrip("/"), authority, server_name)


def _with_port(host: str, port: int | None, scheme: str) -> str:
    """As it stands in a Host header: the port only if it is not the usual one."""
    shown = f"[{host}]" if ":" in host and not host.startswith("[") else host
    return shown if port is None or port == DEFAULT_PORTS[scheme] else f"{shown}:{port}"
