"""What all tables of one store share in a process: its clients, what it knows, and how long it waits."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Protocol

from seawall.errors import BackendUnavailable
from seawall.machines.breaker import Rules
from seawall.runtime import forks
from seawall.stores.valkey.breakers import Breakers
from seawall.stores.valkey.exchange import Exchange, Pace
from seawall.stores.valkey.faults import Outage
from seawall.stores.valkey.lines import BlockingLine
from seawall.stores.valkey.parcels import Parcel
from seawall.stores.valkey.routes import Routes
from seawall.stores.valkey.site import Site
from seawall.stores.valkey.standing import Standing
from seawall.stores.valkey.threads import ThreadClient

if TYPE_CHECKING:
    import asyncio

    from seawall.runtime.protocol import Runtime
    from seawall.stores.valkey.tasks import TaskClient

__all__ = ["Core"]


LEFT_TO_THE_PARENT: list[object] = []


class Client(Protocol):
    """Carries parcels, for threads or for the tasks of a loop."""

    async def carry(self, parcel: Parcel) -> None:
        """Have it settled, in time."""
        ...

    async def deliver(self, parcel: Parcel, orphaned: Callable[[], object] | None = None) -> None:
        """As `carry`, whatever becomes of the caller; if he is gone by then, `orphaned` is called."""
        ...

    async def post(self, parcel: Parcel) -> None:
        """Have it sent; do not wait."""
        ...


class Core:
    """One for each store and process; a forked child begins anew."""

    def __init__(
        self,
        site: Site,
        *,
        prefix: str,
        secret: bytes,
        pace: Pace,
        on_outage: str,
        nodes: int,
        rules: Rules | None,
        connections: int,
    ) -> None:
        self.site = site
        self.label = site.label
        self.prefix = prefix.encode()
        self.on_outage = on_outage
        self.pace = pace
        self.standing = Standing(prefix, nodes)
        self._secret = secret
        self._rules = rules
        self._connections = connections
        self.renew_after_fork()
        forks.renew_after_fork(self)

    def renew_after_fork(self) -> None:
        # The parent's connections stay its own. Those of threads are closed when they are collected, without a word to
        # the server. Those of loops are kept as they are: a loop and its child share what watches over its sockets, and
        # a socket that is closed here would go deaf there.
        if getattr(self, "_loops", None):
            LEFT_TO_THE_PARENT.append(self._loops)
        self._lock = threading.Lock()
        self.routes = Routes(self.site)
        self.breakers = Breakers(self.label, self._rules)
        self.standing.renew()
        self._threads: ThreadClient | None = None
        self._loops: dict[asyncio.AbstractEventLoop, TaskClient] = {}
        self._latest: tuple[asyncio.AbstractEventLoop, TaskClient, Callable[[], asyncio.AbstractEventLoop]] | None = (
            None
        )

    def patient(self, patience_ns: int) -> Core:
        """The same, but in no hurry, without a breaker, and with keys of its own."""
        return Core(
            self.site,
            prefix=f"{self.prefix.decode()}:doctor",
            secret=self._secret,
            pace=Pace(patience_ns, patience_ns),
            on_outage="closed",
            nodes=1,
            rules=None,
            connections=1,
        )

    def subject(self, key: str) -> bytes:
        """The hash under which a server knows a key: nobody who reads it there can tell whose it is."""
        data = key.encode("utf-8", "surrogatepass")
        return blake2b(data, key=self._secret, digest_size=16).hexdigest().encode()

    # -- there and back ----------------------------------------------------------------------------------------------

    def client(self, runtime: Runtime) -> Client:
        """The client for the caller's way of waiting."""
        if self.standing.doubt is not None:
            self._warn(self.standing.doubt)
        return self._tasks() if runtime.is_async else self.threads()

    def outage(self, error: Exception) -> Outage:
        """The outage, or it raises what is wrong with the store."""
        if isinstance(error, Outage):
            return error
        # Many may wait for one call: each gets an error with a traceback of his own.
        raise BackendUnavailable(str(error)) from error.__cause__

    def _warn(self, doubt: str) -> None:
        self.standing.doubt = None
        warnings.warn(f"{self.label}: {doubt}", RuntimeWarning, stacklevel=2)

    def wait_ns(self, slot: int) -> int:
        """How long the server of a slot is left alone."""
        return self.breakers.wait_ns(self.routes.address_of(slot))

    def unavailable(self, outage: Outage) -> BackendUnavailable:
        """The error for those whom `on_outage` does not concern."""
        error = BackendUnavailable(f"{self.label}: {outage.why}")
        error.__cause__ = outage.error
        return error

    # -- clients -----------------------------------------------------------------------------------------------------

    def threads(self) -> ThreadClient:
        """The one client of all threads."""
        if self._threads is None:
            with self._lock:
                if self._threads is None:
                    self._threads = ThreadClient(
                        self._exchange(BlockingLine), self.routes, self.breakers, self.pace, self.standing.more
                    )
        return self._threads

    def _tasks(self) -> TaskClient:
        """The client of the running loop."""
        latest = self._latest
        if latest is not None and latest[2]() is latest[0]:
            return latest[1]
        from asyncio import get_running_loop  # noqa: PLC0415  # loaded by whoever comes here

        loop = get_running_loop()
        with self._lock:
            client = self._loops.get(loop)
            if client is None:
                from seawall.stores.valkey.aio_lines import TaskLine  # noqa: PLC0415  # not before the first async use
                from seawall.stores.valkey.tasks import TaskClient  # noqa: PLC0415  # as above

                for old in [old for old in self._loops if old.is_closed()]:
                    del self._loops[old]
                shared = self.routes, self.breakers, self.pace, self.standing.more
                client = TaskClient(self._exchange(TaskLine), *shared, self._connections)
                self._loops[loop] = client
            self._latest = loop, client, get_running_loop
        return client

    def _exchange(self, line: Any) -> Exchange:
        return Exchange(self.site, self.routes, self.breakers, self.pace, line, self.standing)

    async def close(self, *, is_async: bool) -> None:
        """Close the connections of all threads, or of the running loop."""
        if not is_async:
            with self._lock:
                threads, self._threads = self._threads, None
            if threads is not None:
                await threads.close()
            return
        from asyncio import get_running_loop  # noqa: PLC0415  # loaded by whoever comes here

        with self._lock:
            client = self._loops.pop(get_running_loop(), None)
            self._latest = None
        if client is not None:
            await client.close()

    def snapshot(self) -> dict[str, Any]:
        """For people."""
        standing = self.standing
        return {
            "store": self.label,
            "seen": standing.seen,
            "nodes": standing.nodes,
            "breakers": self.breakers.states(),
            "without_store": {what: standing.decided[what] for what in ("admitted", "refused")},
        }
