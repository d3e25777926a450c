"""The address of a client behind proxies: read from the right, where those that are trusted wrote it."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address

from seawall.errors import ConfigError
from seawall.http.peers import Peers, Trusted
from seawall.http.request import Request
from seawall.units import count_of

__all__ = ["ClientAddress"]

MOST_HOPS = 32
"""What stands further left in the header is left in one piece, which is no address."""
LONGEST = 64
"""Characters of an address, with a zone, brackets and a port. What is longer is none."""
MOST_KNOWN = 4_096
"""Addresses whose reading is remembered; beyond that it is forgotten and read again."""
TRANSLATED = IPv6Network("64:ff9b::/96")
"""IPv4 clients as seen through a translator (RFC 6052): all in one network of 64 bits."""


class ClientAddress:
    """The address of the client, behind proxies that you trust.

    X-Forwarded-For is read from the right: each trusted proxy vouches for the address before its own, and the first
    that is not trusted is the client. So what a client writes into the header himself is never reached. Without trusted
    proxies it is the address at the other end of the connection. IPv6 clients are counted by their network, since each
    has 2**64 addresses.

    Args:
        trusted: the proxies: addresses and networks such as `"10.0.0.0/8"`, and `"unix"` for whoever comes through a
            Unix socket; or a predicate of the address (`None` for a Unix socket). Default: none.
        ipv6_prefix: 1 to 128. Default 64.
        header: another one, such as `"CF-Connecting-IP"`, which the trusted proxies set. Default "X-Forwarded-For".

    Raises:
        ConfigError: a setting is wrong.

    Example:
        >>> from seawall.http import ClientAddress, Request
        >>> client = ClientAddress(trusted=["10.0.0.0/8"])
        >>> sent = {"x-forwarded-for": ["1.1.1.1, 203.0.113.7, 10.0.0.2"]}
        >>> client(Request("GET", "/", "10.0.0.1", lambda name: sent.get(name, [])))
        'address:203.0.113.7'
    """

    def __init__(self, *, trusted: Trusted = (), ipv6_prefix: int = 64, header: str = "X-Forwarded-For") -> None:
        self._peers = Peers(trusted, "ClientAddress(trusted)")
        self._prefix = count_of(ipv6_prefix, "ClientAddress(ipv6_prefix)", most=128)
        if not isinstance(header, str) or not header or not header.isascii():  # pyright: ignore[reportUnnecessaryIsInstance]  # callers without a type checker
            raise ConfigError(f"ClientAddress(header={header!r}): expected the name of a header")
        self._header = header.lower()
        self._remembers = not callable(self._peers.spec)  # a predicate may change its mind
        self._known: dict[str | None, tuple[str, bool]] = {}

    def __call__(self, request: Request) -> str:
        key, is_trusted = self._known.get(request.peer) or self._read(request.peer)
        return self._behind(request, key) if is_trusted else key

    def _behind(self, request: Request, key: str) -> str:
        """The key of whoever stands behind the trusted peer whose own key this is."""
        entries = ",".join(request.headers(self._header)).rsplit(",", MOST_HOPS)
        for entry in reversed(entries):
            text = entry.strip()
            if not text:
                continue
            found = self._known.get(text)
            if found is None:
                address = _address(text)
                if address is None:
                    return key  # what a trusted proxy did not write as an address says nothing
                found = self._remember(text, str(address), address)
            key, is_trusted = found
            if not is_trusted:
                return key
        return key

    def _read(self, peer: str | None) -> tuple[str, bool]:
        return self._remember(peer, peer, None if peer is None else _address(peer))

    def _remember(
        self, text: str | None, peer: str | None, address: IPv4Address | IPv6Address | None
    ) -> tuple[str, bool]:
        found = f"address:{self._shown(peer, address)}", self._peers.trusts(peer)
        if self._remembers and (text is None or len(text) <= LONGEST):
            if len(self._known) >= MOST_KNOWN:
                self._known.clear()
            self._known[text] = found
        return found

    def _shown(self, peer: str | None, address: IPv4Address | IPv6Address | None) -> str:
        if address is None:
            return "unix" if peer is None else "unknown"
        if isinstance(address, IPv6Address) and self._prefix < 128:
            return str(IPv6Network((int(address), self._prefix), strict=False))
        return str(address)


def _address(text: str) -> IPv4Address | IPv6Address | None:
    """An address as proxies write it: bare, with a port, or in brackets; with a zone, which is left off."""
    try:
        address = ip_address(_host(text))
    except ValueError:
        return None
    if isinstance(address, IPv4Address):
        return address
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address in TRANSLATED:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return IPv6Address(int(address)) if address.scope_id else address


def _host(text: str) -> str:
    """What stands before the port; raises `ValueError` if it is none."""
    if len(text) > LONGEST:
        raise ValueError
    host, colon, port = text, "", ""
    if text.startswith("["):
        host, closed, rest = text[1:].partition("]")
        colon, port = rest[:1], rest[1:]
        if not closed or (rest and colon != ":"):
            raise ValueError
    elif text.count(":") == 1:
        host, colon, port = text.partition(":")
    if colon and not (port.isascii() and port.isdigit() and len(port) <= 5):
        raise ValueError
    return host
