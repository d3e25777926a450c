"""Where the store is, from a URL or a ready client: addresses, and how to connect to them."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

from seawall.errors import ConfigError
from seawall.record import Record

__all__ = ["Address", "Mode", "Site", "site_of"]

Address = tuple[str, int]
"""Host and port; of a unix socket its path, and -1."""
Mode = str
"""`"single"`, `"sentinel"` or `"cluster"`."""

SCHEMES = {"valkey": False, "redis": False, "valkeys": True, "rediss": True}
FORMS = (
    "valkey://user:password@host:6379/0, valkeys:// or rediss:// for TLS, unix:///path, "
    "valkey+sentinel://host1,host2/service, valkey+cluster://host1,host2"
)
PORTS = {"single": 6379, "sentinel": 26379, "cluster": 6379}
CARRIED = (
    "client_name",
    "credential_provider",
    "db",
    "encoding",
    "encoding_errors",
    "password",
    "redis_connect_func",
    "socket_keepalive",
    "socket_keepalive_options",
    "socket_read_size",
    "socket_type",
    "username",
)
"""What a connection may be given besides where to go, and `ssl_...`. Times, retries and the protocol are ours."""


class Site(Record):
    """Where the store is."""

    mode: Mode
    addresses: tuple[Address, ...]
    """Of the server, of the sentinels, or of some nodes of the cluster."""
    service: str
    """The name under which sentinels know it."""
    tls: bool
    settings: dict[str, Any]
    """For each connection to a server that keeps data."""
    sentinel_settings: dict[str, Any]

    @property
    def label(self) -> str:
        """The place without user, password and options."""
        if self.addresses[0][1] < 0:
            return f"unix://{self.addresses[0][0]}"
        hosts = ",".join(f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in self.addresses)
        kind = "" if self.mode == "single" else f"+{self.mode}"
        return f"valkey{'s' if self.tls else ''}{kind}://{hosts}" + (f"/{self.service}" if self.service else "")


def site_of(where: Any, options: dict[str, Any]) -> Site:
    """Raises `ConfigError` for what is no URL or client of redis-py, and for options that connections do not have."""
    wrong = [name for name in options if name not in CARRIED and not name.startswith("ssl_")]
    if wrong:
        known = ", ".join((*CARRIED, "ssl_..."))
        raise ConfigError(f"Valkey({wrong[0]}=...): expected settings of the store, or of its connections: {known}")
    site = _of_url(where) if isinstance(where, str) else _of_client(where)
    settings = {**site.settings, **options}
    ssl_given = [name for name in settings if name.startswith("ssl_")]
    if ssl_given and not site.tls:
        raise ConfigError(f"Valkey({ssl_given[0]}=...): only with TLS: valkeys:// or rediss://")
    sentinels = {
        **{name: value for name, value in settings.items() if name.startswith("ssl_")},
        **site.sentinel_settings,
    }
    return site.replace(settings=settings, sentinel_settings=sentinels)


def _of_url(text: str) -> Site:
    # The URL holds the password, so no error shows it as a whole.
    scheme, mark, rest = text.partition("://")
    base, _, form = scheme.lower().partition("+")
    if mark and (base == "unix" or form == "unix"):
        return _plain(f"unix://{rest}")
    mode = form or "single"
    if not mark or base not in SCHEMES or mode not in PORTS:
        raise ConfigError(f"Valkey(url) of scheme {scheme[:20]!r}: expected {FORMS}")
    where, slash, tail = rest.partition("/")
    where, question, query = where.partition("?") if "?" in where else (where, "", "")
    tail = f"{slash}{tail}{question}{query}"
    user, at, hosts = where.rpartition("@")
    addresses = tuple(_address(host, PORTS[mode]) for host in hosts.split(","))
    path, _, query = tail.partition("?")
    service = unquote(path.strip("/")) if mode == "sentinel" else ""
    if mode == "sentinel" and not service:
        raise ConfigError("Valkey(url): expected the name of the service: valkey+sentinel://host1,host2/service")
    if mode == "single" and len(addresses) > 1:
        raise ConfigError(f"Valkey(url) with {len(addresses)} hosts: expected valkey+cluster:// or valkey+sentinel://")
    pairs = parse_qsl(query, keep_blank_values=True)
    sentinel = {name.removeprefix("sentinel_"): value for name, value in pairs if name.startswith("sentinel_")}
    query = urlencode([pair for pair in pairs if not pair[0].startswith("sentinel_")], quote_via=quote)
    path = "" if mode == "sentinel" else path
    plain = f"{'rediss' if SCHEMES[base] else 'redis'}://{user}{at}host{path}" + (f"?{query}" if query else "")
    site = _plain(plain)
    if mode == "cluster" and site.settings.get("db"):
        raise ConfigError("Valkey(url): a cluster has database 0 only")
    wrong = [name for name in sentinel if name not in ("username", "password")]
    if wrong:
        raise ConfigError(f"Valkey(url): sentinel_{wrong[0]}: expected sentinel_username or sentinel_password")
    return site.replace(mode=mode, addresses=addresses, service=service, sentinel_settings=sentinel)


def _address(text: str, port: int) -> Address:
    try:
        split = urlsplit(f"//{text}")
        host, given = split.hostname, split.port
    except ValueError as error:
        raise ConfigError(f"Valkey(url) with host {text!r}: {error}") from None
    if not host:
        raise ConfigError(f"Valkey(url) without a host: expected {FORMS}")
    return unquote(host), port if given is None else given


def _plain(url: str) -> Site:
    from redis import connection  # noqa: PLC0415  # an extra, and nothing that `import seawall` should pay for

    parse: Any = vars(connection)["parse_url"]  # it has no types
    try:
        parsed: dict[str, Any] = dict(parse(url))
    except (ValueError, TypeError) as error:
        raise ConfigError(f"Valkey(url): {error}") from None
    path = parsed.pop("path", None)
    tls = url.startswith("rediss:")
    for name in ("connection_class", "host", "port"):
        parsed.pop(name, None)
    wrong = [name for name in parsed if name not in CARRIED and not name.startswith("ssl_")]
    if wrong:
        raise ConfigError(f"Valkey(url) with {wrong[0]}=...: expected {', '.join(CARRIED)} or ssl_...")
    if url.startswith("unix:") and not path:
        raise ConfigError("Valkey(url): expected the path of the socket: unix:///run/valkey.sock")
    return Site("single", ((path, -1) if path else ("localhost", 6379),), "", tls, parsed, {})


def _of_client(client: Any) -> Site:
    """The settings of a ready client are taken; its connections stay its own."""
    pool = getattr(client, "connection_pool", None)
    nodes = getattr(client, "nodes_manager", None)
    if pool is not None and hasattr(pool, "sentinel_manager"):
        kwargs = dict(pool.connection_kwargs)
        sentinels = [dict(one.connection_pool.connection_kwargs) for one in pool.sentinel_manager.sentinels]
        addresses = tuple((str(one["host"]), int(one["port"])) for one in sentinels)
        return Site(
            "sentinel", addresses, str(pool.service_name), _has_tls(pool), _carried(kwargs), _carried(sentinels[0])
        )
    if pool is not None and hasattr(pool, "connection_kwargs"):
        kwargs = dict(pool.connection_kwargs)
        path = kwargs.get("path")
        address = (str(path), -1) if path else (str(kwargs.get("host", "localhost")), int(kwargs.get("port", 6379)))
        return Site("single", (address,), "", _has_tls(pool), _carried(kwargs), {})
    if nodes is not None and hasattr(nodes, "startup_nodes"):
        kwargs = dict(getattr(nodes, "connection_kwargs", None) or getattr(client, "connection_kwargs", {}))
        addresses = tuple((str(node.host), int(node.port)) for node in nodes.startup_nodes.values())
        tls = bool(kwargs.get("ssl")) or any(name.startswith("ssl_") for name in kwargs)
        return Site("cluster", addresses, "", tls, _carried(kwargs), {})
    raise ConfigError(f"Valkey({type(client).__name__}): expected a URL, or a client of redis-py: {FORMS}")


def _has_tls(pool: Any) -> bool:
    return any(
        kind.__name__ in ("SSLConnection", "SentinelManagedSSLConnection") for kind in pool.connection_class.__mro__
    )


def _carried(kwargs: dict[str, Any]) -> dict[str, Any]:
    """Without what is not set, and what is ours."""
    return {
        name: value
        for name, value in kwargs.items()
        if value is not None and (name in CARRIED or name.startswith("ssl_"))
    }
