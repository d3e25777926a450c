"""`Endpoint`: the address of one replica, as a value."""

from __future__ import annotations

from collections.abc import Iterable

from seawall.errors import ConfigError
from seawall.record import Record
from seawall.units import count_of, given

__all__ = ["MOST_ENDPOINTS", "Endpoint", "check_text", "endpoints_of"]

LONGEST_ADDRESS = 2048
MOST_ENDPOINTS = 10_000
"""How many a cluster may have."""


class Endpoint(Record):
    """One replica of a service. Two endpoints with one address are the same endpoint.

    Args:
        address: whatever your function needs to reach it; for HTTP a base URL, `"http://10.0.0.1:80"`. Text without
            blanks, at most 2,048 characters.
        weight: its share of the traffic beside the others; whole number from 1 to 1,000. Default 1.
        host: the name it serves under, if the address does not show it: HTTP sends it as `Host` and checks it in TLS.

    Raises:
        ConfigError: a setting is outside its range.

    Example:
        >>> from seawall import Cluster, Endpoint
        >>> stock = Cluster("stock", ["http://10.0.0.1:80", Endpoint("http://10.0.0.2:80", weight=3)])
        >>> [(str(endpoint), endpoint.weight) for endpoint in stock.endpoints]
        [('http://10.0.0.1:80', 1), ('http://10.0.0.2:80', 3)]
    """

    address: str
    weight: int = 1
    host: str | None = None

    def __init__(self, address: str, weight: int = 1, host: str | None = None) -> None:
        check_text(address, "Endpoint(address)")
        if host is not None:
            check_text(host, "Endpoint(host)")
        super().__init__(address, count_of(weight, "Endpoint(weight)", most=1_000), host)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Endpoint) and other.address == self.address

    def __hash__(self) -> int:
        return hash(self.address)

    def __str__(self) -> str:
        return self.address


def check_text(text: str, field: str) -> None:
    """Raise `ConfigError` for what is no address or name: not text, too long, with blanks or control characters."""
    good = isinstance(text, str) and 0 < len(text) <= LONGEST_ADDRESS and text.isprintable() and " " not in text  # pyright: ignore[reportUnnecessaryIsInstance]  # callers without a type checker
    if not good:
        allowed = f"text without blanks, 1 to {LONGEST_ADDRESS} characters"
        raise ConfigError(f"{given(field, text)}: expected {allowed}")


def endpoints_of(given_ones: Iterable[str | Endpoint], field: str) -> tuple[Endpoint, ...]:
    """Addresses as endpoints, in order.

    Raises `ConfigError` for one that is given twice, or is none, and for more than `MOST_ENDPOINTS`.
    """
    found: dict[str, Endpoint] = {}
    if isinstance(given_ones, (str, bytes)):
        raise ConfigError(f"{given(field, given_ones)}: expected a list of addresses, not one text")
    if not isinstance(given_ones, Iterable):  # pyright: ignore[reportUnnecessaryIsInstance]  # callers without a type checker
        raise ConfigError(f"{given(field, given_ones)}: expected a list of addresses")
    for each in given_ones:
        endpoint = each if isinstance(each, Endpoint) else Endpoint(each)
        if endpoint.address in found:
            raise ConfigError(f"{field}: {endpoint.address} is given twice")
        if len(found) == MOST_ENDPOINTS:
            raise ConfigError(f"{field}: more than {MOST_ENDPOINTS} endpoints")
        found[endpoint.address] = endpoint
    return tuple(found.values())
