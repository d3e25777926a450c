"""`Valkey`: limits that a whole cluster shares, decided on the server by one atomic script."""

from __future__ import annotations

import re
from collections.abc import Mapping
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from seawall.errors import ConfigError
from seawall.machines.limit import Limit
from seawall.policies.circuit_breaker import CircuitBreaker
from seawall.runtime.blocking import drive
from seawall.units import Duration, count_of, duration_ns

if TYPE_CHECKING:
    from seawall.machines.leases import LeaseRules
    from seawall.stores.valkey.doctor import Finding
    from seawall.stores.valkey.leases import ValkeyLeases
    from seawall.stores.valkey.table import ValkeyTable

__all__ = ["Valkey"]

PREFIX = re.compile(r"[A-Za-z0-9_.:/-]{1,64}")
BREAKER = CircuitBreaker(None, consecutive=5, open_for="1s", probes=1)
NEEDS = "Valkey needs redis-py, which is not installed; run: pip install 'seawall[valkey]'"


class Valkey:
    """Keep the states on a Valkey 8 or Redis 7 server, or a later one: stand-alone, with Sentinel, or a cluster.

    A decision is one trip; many that are wanted at the same time share one. It comes within `connect_timeout` plus
    `timeout`, whatever the server does. Times are those of the server's clock. Made here, it opens no connection: the
    first decision does.

    Args:
        url: `valkey://user:password@host:6379/0` (or `redis://`), `valkeys://` (or `rediss://`) for TLS,
            `unix:///path`, `valkey+sentinel://host1,host2/service`, `valkey+cluster://host1,host2`; or a client of
            redis-py, whose settings are taken. Names that resolve slowly are beyond any timeout in threads: give
            addresses, or names that are resolved at once.
        prefix: begins all keys; 1 to 64 of letters, digits and `_.:/-`. Default "seawall".
        secret: keys of callers are stored as hashes under it; the same in all processes. Default: a known one, so that
            a key can be found again by who knows it.
        connect_timeout: for connecting and signing in. Default 50 ms.
        timeout: for a call on a connection that stands. Default 25 ms.
        on_outage: while the store cannot be asked, `"local"` (each process keeps to its share), `"open"` or
            `"closed"`. Default "local". Wrong passwords, missing rights and the like are no outage, but an error.
        nodes: how many processes share a limit while it is out, if no more were seen. Default 1.
        breaker: leaves a server alone that does not answer. Default: 5 failures in a row, for 1 s; None for none.
        connections: calls to one server that may be on their way from one loop at once. Default 2.
        options: settings of the connections, as redis-py has them: `ssl_ca_certs`, `credential_provider`, ...

    Raises:
        ConfigError: a setting is wrong.
        ImportError: redis-py is not there: `pip install 'seawall[valkey]'`.

    Example:
        >>> from seawall import Limiter, TokenBucket, Valkey
        >>> store = Valkey("valkey://127.0.0.1:6379", nodes=8)
        >>> search = Limiter(TokenBucket("100/s"), name="search", store=store)
        >>> store
        Valkey('valkey://127.0.0.1:6379', prefix='seawall', on_outage='local')
    """

    def __init__(
        self,
        url: Any,
        *,
        prefix: str = "seawall",
        secret: str | bytes | None = None,
        connect_timeout: Duration = "50ms",
        timeout: Duration = "25ms",
        on_outage: str = "local",
        nodes: int = 1,
        breaker: CircuitBreaker | None = BREAKER,
        connections: int = 2,
        **options: Any,
    ) -> None:
        try:
            import redis  # noqa: F401, PLC0415  # pyright: ignore[reportUnusedImport]  # an extra, loaded by whoever uses it
        except ImportError as error:
            raise ImportError(NEEDS) from error
        from seawall.stores.valkey.core import Core  # noqa: PLC0415  # not before redis-py is known to be there
        from seawall.stores.valkey.exchange import Pace  # noqa: PLC0415
        from seawall.stores.valkey.outage import MODES  # noqa: PLC0415
        from seawall.stores.valkey.site import site_of  # noqa: PLC0415

        if not isinstance(prefix, str) or PREFIX.fullmatch(prefix) is None:  # pyright: ignore[reportUnnecessaryIsInstance]  # callers without a type checker
            raise ConfigError(f"Valkey(prefix={str(prefix)[:80]!r}): expected 1 to 64 of letters, digits and _.:/-")
        if on_outage not in MODES:
            raise ConfigError(f"Valkey(on_outage={on_outage!r}): expected 'local', 'open' or 'closed'")
        if breaker is not None and not isinstance(breaker, CircuitBreaker):  # pyright: ignore[reportUnnecessaryIsInstance]  # callers without a type checker
            raise ConfigError(f"Valkey(breaker={breaker!r}): expected CircuitBreaker(...) or None")
        self._core = Core(
            site_of(url, options),
            prefix=prefix,
            secret=_secret_of(secret),
            pace=Pace(
                duration_ns(connect_timeout, "Valkey(connect_timeout)", zero=False),
                duration_ns(timeout, "Valkey(timeout)", zero=False),
            ),
            on_outage=on_outage,
            nodes=count_of(nodes, "Valkey(nodes)", most=1_000_000),
            rules=None if breaker is None else breaker.rules(),
            connections=count_of(connections, "Valkey(connections)", most=64),
        )

    def open(self, limiter: str, limits: Mapping[str, Limit[Any]]) -> ValkeyTable:
        """Raises `ConfigError` for a limit that a server cannot keep, and for a limiter without a name of its own."""
        from seawall.stores.valkey.table import ValkeyTable  # noqa: PLC0415  # needs redis-py

        _check_name(limiter)
        return ValkeyTable(self._core, limiter, limits)

    def open_leases(self, limiter: str, rules: LeaseRules) -> ValkeyLeases:
        """Raises `ConfigError` for a limit without a name of its own."""
        from seawall.stores.valkey.leases import ValkeyLeases  # noqa: PLC0415  # needs redis-py

        _check_name(limiter)
        return ValkeyLeases(self._core, limiter, rules)

    def close(self) -> None:
        """Close the connections of threads. They are opened again when they are wanted."""
        drive(self._core.close(is_async=False))

    async def aclose(self) -> None:
        """Close the connections of the running loop, which otherwise happens when it shuts down."""
        await self._core.close(is_async=True)

    def examine(self) -> list[Finding]:
        """Look at the servers and tell what is right and what is wrong with them, as `seawall doctor` does."""
        from seawall.stores.valkey.doctor import examine  # noqa: PLC0415  # needs redis-py

        return drive(examine(self._core))

    def snapshot(self) -> dict[str, Any]:
        """Whether it answers, and what was decided without it, as JSON-ready values."""
        return self._core.snapshot()

    def __repr__(self) -> str:
        core = self._core
        return f"Valkey({core.label!r}, prefix={core.prefix.decode()!r}, on_outage={core.on_outage!r})"


def _check_name(limiter: str) -> None:
    made_up = re.fullmatch(r"(limiter|concurrency)-\d+", limiter)
    if made_up:
        what = "Limiter" if made_up[1] == "limiter" else "ConcurrencyLimit"
        raise ConfigError(
            f"{what}(store=Valkey(...)) without a name would be {limiter!r} here and another one elsewhere: "
            "expected name=, by which processes share it"
        )


def _secret_of(secret: str | bytes | None) -> bytes:
    if secret is None:
        return b"seawall"
    if not isinstance(secret, str | bytes) or not secret:  # pyright: ignore[reportUnnecessaryIsInstance]  # callers without a type checker
        raise ConfigError("Valkey(secret=...): expected a text or bytes that are not empty")
    data = secret.encode("utf-8", "surrogatepass") if isinstance(secret, str) else secret
    return blake2b(data, digest_size=32).digest()
