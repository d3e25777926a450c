"""`Cluster`: the replicas of a service behind one name, and what a failure of one of them should mean."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, TypeVar, cast, overload

from seawall.cluster.balancers import Balancer, PowerOfTwo
from seawall.cluster.broadcast import Broadcast
from seawall.cluster.calls import Calls
from seawall.cluster.core import Core
from seawall.cluster.decorating import dressed, refuse_undecoratable
from seawall.cluster.ejection import Ejection
from seawall.cluster.endpoint import Endpoint, endpoints_of
from seawall.cluster.failover import Failover
from seawall.cluster.sources import Endpoints
from seawall.cluster.strategy import Strategy
from seawall.errors import ConfigError
from seawall.policies.classify import Errors
from seawall.policies.functions import is_coroutine_function
from seawall.policies.registry import Registry, registry
from seawall.policies.spec import Spec
from seawall.policy import Policy
from seawall.policy.outcome import Outcome

if TYPE_CHECKING:
    from seawall.policy.lint import Finding

__all__ = ["Cluster"]

P = ParamSpec("P")
T = TypeVar("T")
D = TypeVar("D")
S_co = TypeVar("S_co", bound=Strategy[Any], covariant=True)
S2 = TypeVar("S2", bound=Strategy[Any])


class Cluster(Generic[S_co]):
    """The replicas of one service. A call is `function(endpoint, ...)`: the cluster chooses the endpoint.

    The balancer picks among endpoints whose health allows it, the endpoint's own policy (`each`) guards the attempt,
    and the strategy decides what a failure means. A deadline of the caller holds for all of it.

    Args:
        name: appears in errors, events and snapshots; HTTP transports find the cluster by it.
        endpoints: addresses or `Endpoint`s; or a function that returns them, `Dns(...)`, `File(...)`, `Lookup(...)`.
            An empty or failing answer of these keeps the last good list.
        strategy: `Failover()` by default; `Failfast`, `Failsafe`, `Failsilent`, `Failback`, `Forking`, `Broadcast`.
        each: layers around each attempt; every endpoint has a live policy of its own made from them. A `Policy` among
            them is shared by all endpoints. Usual: `(CircuitBreaker(), Bulkhead(20), Timeout("500ms"))`.
        around: layers around the whole call: a `Fallback`, a total `Timeout`.
        balancer: `PowerOfTwo()` by default; `RoundRobin()`, `Random()`.
        ejection: `Ejection(...)` takes endpoints that keep failing out of the traffic. Default: none.
        on: exception types or a predicate: what counts as a failure of an endpoint. Any other error is an answer,
            raised at once. Default: every `Exception` but errors of the program and refusals from further inside.
        max_threads: how many threads parallel attempts of synchronous calls may take. Default 64.
        names: the registry in which it is found by its name. Default: the one of this process.

    Raises:
        ConfigError: a setting is wrong, or the list of endpoints is empty.

    Example:
        >>> from seawall import Cluster, CircuitBreaker, Failover, Timeout
        >>> stock = Cluster(
        ...     "stock",
        ...     ["http://10.0.0.1:80", "http://10.0.0.2:80"],
        ...     strategy=Failover(retries=2),
        ...     each=(CircuitBreaker(), Timeout("500ms")),
        ... )
        >>> def level(endpoint, sku): return f"asked {endpoint.address[:16]}... for {sku}"
        >>> stock.call(level, "A-7")
        'asked http://10.0.0.... for A-7'
    """

    _core: Core
    _calls: Calls
    strategy: S_co
    """What a failure means; a value."""

    @overload
    def __init__(
        self: Cluster[Failover],
        name: str,
        endpoints: Endpoints,
        *,
        each: Sequence[Spec | Policy] = (),
        around: Sequence[Spec | Policy] = (),
        balancer: Balancer = ...,
        ejection: Ejection | None = None,
        on: Errors | None = None,
        max_threads: int = 64,
        names: Registry = registry,
    ) -> None: ...
    @overload
    def __init__(
        self,
        name: str,
        endpoints: Endpoints,
        *,
        strategy: S_co,
        each: Sequence[Spec | Policy] = (),
        around: Sequence[Spec | Policy] = (),
        balancer: Balancer = ...,
        ejection: Ejection | None = None,
        on: Errors | None = None,
        max_threads: int = 64,
        names: Registry = registry,
    ) -> None: ...
    def __init__(
        self,
        name: str,
        endpoints: Endpoints,
        *,
        strategy: Any = Failover(),  # noqa: B008  # a frozen value
        each: Sequence[Spec | Policy] = (),
        around: Sequence[Spec | Policy] = (),
        balancer: Balancer = PowerOfTwo(),  # noqa: B008  # a frozen value
        ejection: Ejection | None = None,
        on: Errors | None = None,
        max_threads: int = 64,
        names: Registry = registry,
    ) -> None:
        core = Core(
            name,
            endpoints,
            each=each,
            around=around,
            balancer=balancer,
            ejection=ejection,
            on=on,
            max_threads=max_threads,
        )
        self._take(core, strategy)
        names.clusters[core.name] = self

    def _take(self, core: Core, strategy: Any) -> None:
        if not isinstance(strategy, Strategy):
            raise ConfigError(f"{core.name}: strategy={strategy!r}: expected Failover(...), Forking(...) or the like")
        self._core = core
        self._calls = core.calls_for(cast("Any", strategy))
        # The healthy path is one frame shorter if the bound method of the calls stands in the place of the method here.
        vars(self).update(strategy=strategy, call=self._calls.call, acall=self._calls.acall)

    @property
    def name(self) -> str:
        return self._core.name

    # -- calling -------------------------------------------------------------------------------------------------

    @overload
    def call(
        self: Cluster[Broadcast], function: Callable[Concatenate[Endpoint, P], T], /, *args: P.args, **kwargs: P.kwargs
    ) -> Mapping[Endpoint, T]: ...
    @overload
    def call(
        self: Cluster[Strategy[D]],
        function: Callable[Concatenate[Endpoint, P], T],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T | D: ...
    def call(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """Call `function(endpoint, *args, **kwargs)` by the strategy. Raises what it lets through."""
        raise AssertionError("replaced by the calls of the strategy")

    @overload
    async def acall(
        self: Cluster[Broadcast],
        function: Callable[Concatenate[Endpoint, P], Awaitable[T]],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> Mapping[Endpoint, T]: ...
    @overload
    async def acall(
        self: Cluster[Strategy[D]],
        function: Callable[Concatenate[Endpoint, P], Awaitable[T]],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T | D: ...
    async def acall(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """Call the async `function(endpoint, *args, **kwargs)` by the strategy, and await it."""
        raise AssertionError("replaced by the calls of the strategy")

    @overload
    def run(
        self: Cluster[Broadcast], function: Callable[Concatenate[Endpoint, P], T], /, *args: P.args, **kwargs: P.kwargs
    ) -> Outcome[Mapping[Endpoint, T]]: ...
    @overload
    def run(
        self: Cluster[Strategy[D]],
        function: Callable[Concatenate[Endpoint, P], T],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> Outcome[T | D]: ...
    def run(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """As `call`, but the end comes back as an `Outcome`, with the endpoint and the number of attempts."""
        return self._calls.run(function, args, kwargs)

    @overload
    async def arun(
        self: Cluster[Broadcast],
        function: Callable[Concatenate[Endpoint, P], Awaitable[T]],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> Outcome[Mapping[Endpoint, T]]: ...
    @overload
    async def arun(
        self: Cluster[Strategy[D]],
        function: Callable[Concatenate[Endpoint, P], Awaitable[T]],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> Outcome[T | D]: ...
    async def arun(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """As `acall`, but the end comes back as an `Outcome`, with the endpoint and the number of attempts."""
        return await self._calls.arun(function, args, kwargs)

    def broadcast(
        self, function: Callable[Concatenate[Endpoint, P], T], /, *args: P.args, **kwargs: P.kwargs
    ) -> Mapping[Endpoint, T]:
        """Call every endpoint, whatever the strategy: short for `using(Broadcast()).call(...)`."""
        return self.using(Broadcast()).call(function, *args, **kwargs)

    async def abroadcast(
        self, function: Callable[Concatenate[Endpoint, P], Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs
    ) -> Mapping[Endpoint, T]:
        """Call every endpoint, whatever the strategy: short for `using(Broadcast()).acall(...)`."""
        return await self.using(Broadcast()).acall(function, *args, **kwargs)

    @overload
    # The more special ones come first, and are meant.
    def __call__(  # type: ignore[overload-overlap]  # pyright: ignore[reportOverlappingOverload]
        self: Cluster[Broadcast], function: Callable[Concatenate[Endpoint, P], Coroutine[Any, Any, T]], /
    ) -> Callable[P, Coroutine[Any, Any, Mapping[Endpoint, T]]]: ...
    @overload
    def __call__(  # type: ignore[overload-overlap]  # the same
        self: Cluster[Broadcast], function: Callable[Concatenate[Endpoint, P], T], /
    ) -> Callable[P, Mapping[Endpoint, T]]: ...
    @overload
    def __call__(
        self: Cluster[Strategy[D]], function: Callable[Concatenate[Endpoint, P], Coroutine[Any, Any, T]], /
    ) -> Callable[P, Coroutine[Any, Any, T | D]]: ...
    @overload
    def __call__(
        self: Cluster[Strategy[D]], function: Callable[Concatenate[Endpoint, P], T], /
    ) -> Callable[P, T | D]: ...
    def __call__(self, function: Callable[..., Any], /) -> Callable[..., Any]:
        """Decorate a function whose first parameter is the endpoint; callers leave it out.

        Raises `TypeError` for what cannot be protected: methods (whose first parameter is `self`), classes, generators.

        >>> from seawall import Cluster
        >>> stock = Cluster("stock", ["a:80"])
        >>> @stock
        ... def level(endpoint, sku: str) -> str: return f"{sku} at {endpoint}"
        >>> level("A-7")
        'A-7 at a:80'
        """
        refuse_undecoratable(function)
        calls = self._calls
        if is_coroutine_function(function):

            async def aprotected(*args: Any, **kwargs: Any) -> Any:
                return await calls.acall(function, *args, **kwargs)

            return dressed(aprotected, function)

        def protected(*args: Any, **kwargs: Any) -> Any:
            return calls.call(function, *args, **kwargs)

        return dressed(protected, function)

    # -- the same replicas, otherwise ------------------------------------------------------------------------------

    def using(self, strategy: S2) -> Cluster[S2]:
        """The same replicas, with all they know, under another strategy.

        Equal strategies share their state (budgets, latencies), so a view may be made anew for each call.

        >>> from seawall import Cluster, Failfast
        >>> stock = Cluster("stock", ["a:80", "b:80"])
        >>> stock.using(Failfast()).call(lambda endpoint: "done")
        'done'
        """
        view: Cluster[S2] = object.__new__(cast("type[Cluster[S2]]", Cluster))
        view._take(self._core, strategy)
        return view

    def twin(self, strategy: S2, *, name: str) -> Cluster[S2]:
        """A cluster of the same specs and endpoints with a state of its own: work there does not disturb this one."""
        core = self._core
        return Cluster(
            name,
            core.given_endpoints,
            strategy=strategy,
            each=core.each,
            around=core.around_specs,
            balancer=core.balancer,
            ejection=core.ejection,
            on=core.on,
            max_threads=core.pool.limit,
            names=Registry(),
        )

    # -- endpoints ---------------------------------------------------------------------------------------------------

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        """The endpoints now; empty before the first answer of a source."""
        return tuple(member.endpoint for member in self._core.directory.members)

    def update(self, endpoints: Iterable[str | Endpoint]) -> bool:
        """Take a new list of endpoints, and tell whether it changed anything.

        Those that stay keep their state; those that leave keep it for a while; calls in flight there go on. An empty
        list is refused: the old one stays. Raises `ConfigError` for what is no endpoint.
        """
        return self._core.directory.update(endpoints_of(endpoints, "update(endpoints)"))

    def refresh(self) -> tuple[Endpoint, ...]:
        """Ask the source of endpoints now, in this thread (it may block), and return the endpoints."""
        self._core.directory.lookup()
        return self.endpoints

    def __getitem__(self, endpoint: Endpoint | str) -> Policy:
        """The live policy of one endpoint, to be worked by hand: `stock["http://10.0.0.1:80"][CircuitBreaker]`.

        Raises `KeyError` if there is none of that address.
        """
        return self._core.directory.member(str(endpoint)).policy

    # -- looking -----------------------------------------------------------------------------------------------------

    def snapshot(self) -> dict[str, Any]:
        """The state of the cluster and its endpoints as JSON-ready values."""
        return self._core.snapshot(self._calls)

    def explain(self) -> str:
        """A readable paragraph: what would happen to the next call, and why."""
        from seawall.cluster.explain import explain  # noqa: PLC0415  # for operators, not for start-up

        return explain(self._core, self._calls)

    def lint(self, *, calls_per_second: float | None = None) -> list[Finding]:
        """What is odd about this cluster; empty if nothing is. See `seawall.cluster.lint` for the rules.

        `calls_per_second` is the traffic you expect on the whole cluster.
        """
        from seawall.cluster.lint import lint  # noqa: PLC0415  # for developers, not for start-up

        return lint(self._core, self.strategy, calls_per_second=calls_per_second)

    @property
    def calls(self) -> Calls:
        """Makes the calls; for edges and integrations, not for users."""
        return self._calls

    def __repr__(self) -> str:
        return f"Cluster({self.name!r}, {[str(endpoint) for endpoint in self.endpoints]}, strategy={self.strategy!r})"
