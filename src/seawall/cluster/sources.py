"""Where the endpoints of a cluster come from: a list, a function, DNS or a file."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Any, Protocol, cast

from seawall.cluster.endpoint import MOST_ENDPOINTS, Endpoint, check_text, endpoints_of
from seawall.errors import ConfigError
from seawall.policies.functions import check_predicate, is_coroutine_function
from seawall.policies.spec import Spec
from seawall.units import Duration, duration_ns, given

__all__ = ["Dns", "Endpoints", "File", "Lookup", "Source", "source_of"]

LARGEST_FILE = 1_000_000
LONGEST_NAME = 253
"""Of a host, in DNS."""


class Source(Protocol):
    """A place to ask for endpoints, every now and then."""

    @property
    def every(self) -> Duration: ...
    def read(self) -> tuple[Endpoint, ...]:
        """The endpoints now; may block, for it runs on a thread of its own. Raises what it likes."""
        ...


Endpoints = Iterable[str | Endpoint] | Callable[[], Iterable[str | Endpoint]] | Source
"""What a cluster takes for its endpoints."""


class Lookup(Spec):
    """Ask a function for the endpoints, `every` so often (default 10 s). It runs on a thread of its own and may block.

    A bare function given to `Cluster` is the same as `Lookup(function)`.

    Raises:
        ConfigError: not a plain function, or not a duration.

    Example:
        >>> from seawall import Cluster, Lookup
        >>> known = ["http://10.0.0.1:80"]
        >>> stock = Cluster("stock", Lookup(lambda: known, every="5s"))
    """

    __slots__ = ("function", "every")

    function: Callable[[], Iterable[str | Endpoint]]
    every: Duration

    def __init__(
        self, function: Callable[[], Iterable[str | Endpoint]], *, every: Duration = 10, name: str | None = None
    ) -> None:
        check_predicate(function, "Lookup(function)", "a function without arguments")
        if not callable(function) or is_coroutine_function(function):
            raise ConfigError(f"Lookup(function={function!r}): expected a plain function that returns addresses")
        duration_ns(every, "Lookup(every)", zero=False)
        self._init(name, function=function, every=every)

    def read(self) -> tuple[Endpoint, ...]:
        found: Any = self.function()
        if hasattr(found, "__await__"):
            getattr(found, "close", int)()  # nobody will ever await it
            raise ConfigError("what Lookup(function) gave has to be awaited; expected a list of addresses")
        return endpoints_of(found, "what Lookup(function) gave")


class Dns(Spec):
    """Ask the system's resolver for the addresses of a name, `every` so often. Default 10 s.

    Args:
        target: a URL, `"http://inventory.internal:8080"`, or `"inventory.internal:8080"`. Each address takes the place
            of the name; the name stays the endpoint's `host`, which HTTP sends and TLS checks.

    Raises:
        ConfigError: no name or no port can be read from it, or not a duration.

    Example:
        >>> from seawall import Cluster, Dns
        >>> stock = Cluster("stock", Dns("http://inventory.internal:8080"))
    """

    __slots__ = ("target", "every")

    target: str
    every: Duration

    def __init__(self, target: str, *, every: Duration = 10, name: str | None = None) -> None:
        self._init(name, target=target, every=every)
        self._parts()
        duration_ns(every, "Dns(every)", zero=False)

    def _parts(self) -> tuple[str, str, int, str]:
        """What stands before the name, the name, the port, and what follows."""
        check_text(self.target, "Dns(target)")
        scheme, there, rest = self.target.partition("://")
        if not there:
            scheme, rest = "", self.target
        place, slash, path = rest.partition("/")
        host, colon, port = place.rpartition(":")
        if not colon:
            host, port = place, {"http": "80", "https": "443"}.get(scheme, "")
        numbered = port.isascii() and port.isdigit() and len(port) <= 5 and 0 < int(port) < 65_536
        named = 0 < len(host) <= LONGEST_NAME and not set(host) & set("@:?#[]%\\")
        if not numbered or not named or bool(scheme) != bool(there):
            raise ConfigError(f'{given("Dns(target)", self.target)}: expected "http://name:port" or "name:port"')
        return scheme + there, host, int(port), slash + path

    def read(self) -> tuple[Endpoint, ...]:
        import socket  # noqa: PLC0415  # only those who ask the resolver pay for it

        before, host, port, after = self._parts()
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        addresses = dict.fromkeys(str(entry[4][0]) for entry in found)
        return tuple(
            Endpoint(f"{before}{_bracketed(address)}:{port}{after}", host=host)
            for address in list(addresses)[:MOST_ENDPOINTS]
        )


def _bracketed(address: str) -> str:
    return f"[{address}]" if ":" in address else address


class File(Spec):
    """Read the endpoints from a file, one a line, looked at `every` so often. Default 1 s.

    A line is an address, perhaps followed by `weight=N` and `host=NAME`; what follows `#` is a comment. Write a new
    file and rename it over the old one, so that no half-written one is ever read. A file with a line that is none of
    these is not taken; the error names the line. At most 1 MB.

    Raises:
        ConfigError: not a path, or not a duration.

    Example:
        >>> from seawall import Cluster, File
        >>> stock = Cluster("stock", File("/etc/myservice/stock.endpoints"))
    """

    __slots__ = ("path", "every")

    path: str
    every: Duration

    def __init__(self, path: str | os.PathLike[str], *, every: Duration = 1, name: str | None = None) -> None:
        duration_ns(every, "File(every)", zero=False)
        place = os.fspath(path) if isinstance(path, (str, os.PathLike)) else ""  # pyright: ignore[reportUnnecessaryIsInstance]  # callers without a type checker
        if not isinstance(place, str) or not place or "\0" in place:  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ConfigError(f"{given('File(path)', path)}: expected a path, as text")
        self._init(name, path=place, every=every)

    def read(self) -> tuple[Endpoint, ...]:
        with open(self.path, encoding="utf-8-sig") as file:  # some editors begin a file with a mark
            try:
                text = file.read(LARGEST_FILE + 1)
            except UnicodeDecodeError as error:
                raise ConfigError(f"{self.path}: not UTF-8: {error.reason} at byte {error.start}") from None
        if len(text) > LARGEST_FILE:
            raise ConfigError(f"{self.path}: more than {LARGEST_FILE} characters")
        found: dict[str, Endpoint] = {}
        for number, line in enumerate(text.split("\n"), 1):
            words = line.partition("#")[0].split()
            if words:
                endpoint = _endpoint_of(words, f"{self.path}:{number}")
                if endpoint.address in found:
                    raise ConfigError(f"{self.path}:{number}: {endpoint.address} is given twice")
                if len(found) == MOST_ENDPOINTS:
                    raise ConfigError(f"{self.path}:{number}: more than {MOST_ENDPOINTS} endpoints")
                found[endpoint.address] = endpoint
        return tuple(found.values())


def _endpoint_of(words: list[str], where: str) -> Endpoint:
    address, *settings = words
    known: dict[str, str] = {}
    for setting in settings:
        name, _, value = setting.partition("=")
        if name not in ("weight", "host") or not value or name in known:
            expected = "expected weight=N or host=NAME after the address, each at most once"
            raise ConfigError(f"{where}: {given('setting', setting)}: {expected}")
        known[name] = value
    weight = known.get("weight", "1")
    if not (weight.isascii() and weight.isdigit() and len(weight) <= 4):
        raise ConfigError(f"{where}: {given('weight', weight)}: expected a whole number from 1 to 1000")
    try:
        return Endpoint(address, int(weight), known.get("host"))
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None


def source_of(endpoints: Endpoints) -> tuple[Endpoint, ...] | Source:
    """A fixed list, or a source to be asked. Raises `ConfigError` for anything else."""
    if hasattr(endpoints, "read") and hasattr(endpoints, "every"):
        return cast("Source", endpoints)
    if callable(endpoints):
        return Lookup(endpoints)
    if not isinstance(endpoints, Iterable):
        expected = "addresses, a function that returns them, Dns(...), File(...) or Lookup(...)"
        raise ConfigError(f"Cluster(endpoints={endpoints!r}): expected {expected}")
    return endpoints_of(endpoints, "Cluster(endpoints)")
