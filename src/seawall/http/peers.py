"""Whom to believe: the peers that the user named, told by the address at the other end of the connection and no other.

Addresses in headers (X-Forwarded-For and its kin) are whatever their sender wrote. They play no part here.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from seawall.errors import ConfigError
from seawall.policies.functions import check_predicate
from seawall.units import given

__all__ = ["Peers", "Trusted"]

Network = IPv4Network | IPv6Network
Trusted = Iterable[str | IPv4Address | IPv6Address | IPv4Network | IPv6Network] | Callable[[str | None], object]
"""Addresses and networks (`"10.0.0.0/8"`, `"::1"`), `"unix"`; or a predicate of the peer's address."""

EXPECTED = 'a list of addresses, networks such as "10.0.0.0/8", or "unix"; or a predicate of the address'


class Peers:
    """The peers that are trusted. `trusts(address)` is asked with `None` for a peer on a Unix socket.

    Raises `ConfigError` for what is neither a list of addresses nor a predicate.
    """

    def __init__(self, trusted: Trusted, field: str) -> None:
        self.spec: object = trusted
        self._predicate: Callable[[str | None], object] | None = None
        self._unix = False
        self._networks: list[Network] = []
        if callable(trusted):
            check_predicate(trusted, field, EXPECTED)
            self._predicate = trusted
            return
        # A lone string is a sequence of strings as well, and would be taken letter by letter.
        if isinstance(trusted, (str, bytes)) or not hasattr(trusted, "__iter__"):
            raise ConfigError(f"{given(field, trusted)}: expected {EXPECTED}")
        self.spec = entries = tuple(trusted)
        for entry in entries:
            if entry == "unix":
                self._unix = True
            else:
                self._networks.append(_network(entry, field))

    def trusts(self, address: str | None) -> bool:
        """Whether the peer at `address` is one of them. An address that cannot be read is nobody's."""
        if self._predicate is not None:
            try:
                return bool(self._predicate(address))
            except Exception:
                logging.getLogger("seawall.http").exception("the predicate of trusted peers failed on %r", address)
                return False
        if address is None:
            return self._unix
        peer = _address(address)
        return peer is not None and any(peer in network for network in self._networks)


def _network(entry: object, field: str) -> Network:
    if isinstance(entry, (str, IPv4Address, IPv6Address, IPv4Network, IPv6Network)):
        try:
            return ip_network(entry)
        except ValueError as error:
            hint = f": {error}" if "host bits" in str(error) else ""
            raise ConfigError(f"{given(field, entry)}: expected {EXPECTED}{hint}") from None
    raise ConfigError(f"{given(field, entry)}: expected {EXPECTED}")


def _address(text: str) -> IPv4Address | IPv6Address | None:
    try:
        address = ip_address(text)
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address
