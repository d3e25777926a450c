"""Who is calling: the keys by which limits at an entrance tell callers apart.

A key function takes a `Request` and gives a text, or None if it cannot tell. Each begins with a word of its own, so
that nobody can take another's place by a cleverly chosen name.
"""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address

from seawall.errors import ConfigError
from seawall.http.peers import Peers, Trusted
from seawall.http.request import Request
from seawall.units import count_of

__all__ = ["ClientAddress", "KeyOf", "api_key", "first_of"]

KeyOf = Callable[[Request], str | None]
MOST_HOPS = 32
LONGEST_HEADER = 4_096


class ClientAddress:
    """The address of the client, behind proxies that you trust.

    X-Forwarded-For is read from the right: each trusted proxy vouches for the address before its own, and the first
    that is not trusted is the client. So what a client writes into the header himself is never reached. Without trusted
    proxies it is the address at the other end of the connection. IPv6 clients are counted by their network, since each
    has 2**64 addresses.

    Args:
        trusted: the proxies, as for `SeawallMiddleware`. Default: none.
        ipv6_prefix: 1 to 128. Default 64.

    Raises:
        ConfigError: a setting is wrong.

    Example:
        >>> from seawall.http import ClientAddress, Request
        >>> client = ClientAddress(trusted=["10.0.0.0/8"])
        >>> sent = {"x-forwarded-for": ["1.1.1.1, 203.0.113.7, 10.0.0.2"]}
        >>> client(Request("GET", "/", "10.0.0.1", lambda name: sent.get(name, []), None))
        'address:203.0.113.7'
    """

    def __init__(self, *, trusted: Trusted = (), ipv6_prefix: int = 64) -> None:
        self._peers = Peers(trusted, "ClientAddress(trusted)")
        self._prefix = count_of(ipv6_prefix, "ClientAddress(ipv6_prefix)", most=128)

    def __call__(self, request: Request) -> str:
        peer = request.peer
        if self._peers.trusts(peer):
            peer = self._behind(request, peer)
        return f"address:{self._shown(peer)}"

    def _behind(self, request: Request, peer: str | None) -> str | None:
        text = ",".join(request.headers("x-forwarded-for"))[-LONGEST_HEADER:]
        for entry in list(reversed(text.split(",")))[:MOST_HOPS]:
            address = _address(entry.strip())
            if address is None:
                return peer  # what a trusted proxy did not write as an address says nothing
            peer = str(address)
            if not self._peers.trusts(peer):
                return peer
        return peer

    def _shown(self, peer: str | None) -> str:
        if peer is None:
            return "unix"
        address = _address(peer)
        if address is None:
            return "unknown"
        if isinstance(address, IPv6Address) and self._prefix < 128:
            return str(IPv6Network((int(address), self._prefix), strict=False))
        return str(address)


def _address(text: str) -> IPv4Address | IPv6Address | None:
    """An address as proxies write it: bare, with a port, or in brackets."""
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return address.ipv4_mapped or address if isinstance(address, IPv6Address) else address


def api_key(header: str = "X-API-Key") -> KeyOf:
    """The key that a caller sends in a header. Check elsewhere that it is a valid one: a limit only counts by it.

    >>> from seawall.http import Request, api_key
    >>> api_key()(Request("GET", "/", None, lambda name: ["k-17"] if name == "x-api-key" else [], None))
    'key:k-17'
    """
    if not header or not header.isascii():
        raise ConfigError(f"api_key(header={header!r}): expected the name of a header")

    def key(request: Request) -> str | None:
        value = request.header(header)
        return f"key:{value}" if value else None

    return key


def first_of(*keys: KeyOf) -> KeyOf:
    """The first key function that can tell who calls: `first_of(user, ClientAddress())`."""
    if not keys:
        raise ConfigError("first_of(): expected at least one key function")

    def key(request: Request) -> str | None:
        return next((found for each in keys if (found := each(request)) is not None), None)

    return key
