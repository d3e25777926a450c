"""State by key: a bounded map of live things, and the layer that keeps one live layer for each key of the call."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from functools import partial
from typing import Any, Generic, Protocol, TypeVar

from seawall.errors import ConfigError
from seawall.policies.functions import check_predicate
from seawall.policies.layer import Call, Lane, Live, Site
from seawall.policies.spec import Spec
from seawall.runtime import forks
from seawall.units import count_of

__all__ = ["Keyed", "KeyedMap", "Per"]

MOST_KEYS = 10_000


class Keepable(Protocol):
    @property
    def busy(self) -> bool: ...


K = TypeVar("K", bound=Keepable)


class KeyedMap(Generic[K]):
    """At most `most` live things by key. The one unused for longest makes room, unless it is busy.

    If too many are busy to make room, newcomers share one `overflow`: memory stays bounded, and they are guarded.
    """

    TRIES = 8

    def __init__(self, make: Callable[[Hashable], K], most: int) -> None:
        self._make = make
        self._most = most
        self._kept: OrderedDict[Hashable, K] = OrderedDict()
        self._overflow: K | None = None
        self._lock = threading.RLock()
        forks.renew_after_fork(self)

    def get(self, key: Hashable) -> K:
        """The live thing of `key`, made at its first use. Raises `ConfigError` for None."""
        if key is None:
            raise ConfigError("key=None: expected a value that tells callers apart")
        with self._lock:
            found = self._kept.get(key)
            if found is None:
                if len(self._kept) >= self._most and not self._make_room():
                    if self._overflow is None:
                        self._overflow = self._make("*")
                    return self._overflow
                found = self._kept[key] = self._make(key)
            self._kept.move_to_end(key)
            return found

    def keeps(self, key: Hashable, thing: K) -> bool:
        """Whether `thing` is still what `get(key)` gives."""
        return self._kept.get(key) is thing or self._overflow is thing

    def _make_room(self) -> bool:
        for _ in range(min(self.TRIES, len(self._kept))):
            key, candidate = next(iter(self._kept.items()))
            if not candidate.busy:
                del self._kept[key]
                return True
            # Busy ones go to the back of the line, so that the next search does not meet them first.
            self._kept.move_to_end(key)
        return False

    def items(self) -> list[tuple[Hashable, K]]:
        """What is kept now, the overflow last."""
        with self._lock:
            extra = [] if self._overflow is None else [("*", self._overflow)]
            return [*self._kept.items(), *extra]

    def renew_after_fork(self) -> None:
        self._lock = threading.RLock()


class Per(Spec):
    """A layer with state of its own for each key of the call: compartments, so that one full or broken one leaves the
    rest alone.

    Made by `.per(key)` of a `Bulkhead` or `CircuitBreaker`. `key` is a function of the call's arguments.

    Example:
        >>> from seawall import Policy, Bulkhead
        >>> by_tenant = Policy(Bulkhead(20).per(lambda tenant, *rest: tenant), name="reports")
        >>> by_tenant.call(lambda tenant, day: f"{tenant} {day}", "acme", "monday")
        'acme monday'
    """

    __slots__ = ("layer", "key", "most")  # in the order in which they are read, in repr() too

    layer: Spec
    key: Callable[..., Hashable]
    most: int

    def __init__(
        self, layer: Spec, key: Callable[..., Hashable], *, most: int = MOST_KEYS, name: str | None = None
    ) -> None:
        check_predicate(key, "per(key)", "a function of the call's arguments")
        if not callable(key):
            raise ConfigError(
                f"per({key!r}): expected a function of the call's arguments, as in per(lambda tenant: tenant)"
            )
        count_of(most, "per(most)", most=1_000_000)
        self._init(name or layer.name, layer=layer, key=key, most=most)

    def bind(self, site: Site) -> Sequence[Live]:
        return (Keyed(site, self),)


class Keyed(Live):
    """One live layer for each key, behind the face of a single one."""

    def __init__(self, site: Site, spec: Per) -> None:
        super().__init__(site, spec)
        self._key = spec.key
        self._layer = spec.layer
        self._site = site
        self.layers: KeyedMap[_Cell] = KeyedMap(self._make, spec.most)
        self.kind = self._bind(site).kind

    def _bind(self, site: Site) -> Live:
        layers = self._layer.bind(site)
        if len(layers) != 1 or not layers[0].is_guard:
            raise ConfigError(f"per(): {type(self._layer).__name__} cannot be kept by key")
        return layers[0]

    def _make(self, key: Hashable) -> _Cell:
        return _Cell(self._bind(self._site.replace(policy=f"{self.policy}[{key}]")))

    def of(self, key: Hashable) -> Any:
        """The live layer of one key, for operators: `policy[Per].of("acme").resize(5)`."""
        return self.layers.get(key).live

    def lane(self, *, is_async: bool) -> Lane:
        return Lane(partial(self._enter, is_async), _leave, takes_call=True)

    def _enter(self, is_async: bool, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Live, Lane, Any]:
        key = self._key(*args, **kwargs)
        while True:
            cell = self.layers.get(key)
            lane = cell.lane(is_async)
            assert lane.enter is not None, "every guard has a way in"
            token = lane.enter()
            if self.layers.keeps(key, cell):
                return cell.live, lane, token
            # It made room for another key before it was entered, and this key may have a new one by now.
            cell.live.undo(token)

    async def wait(self, call: Call) -> tuple[Live, Lane, Any]:
        cell = self.layers.get(self._key(*call.args, **call.kwargs))
        return cell.live, cell.lane(call.runtime.is_async), await cell.live.wait(call)

    def note(self, call: Call, token: tuple[Live, Lane, Any], error: BaseException) -> None:
        token[0].note(call, token[2], error)

    def undo(self, token: tuple[Live, Lane, Any]) -> None:
        token[0].undo(token[2])

    @property
    def busy(self) -> bool:
        return any(cell.busy for _, cell in self.layers.items())

    def snapshot(self) -> dict[str, Any]:
        return {"keys": {str(key): cell.live.snapshot() for key, cell in self.layers.items()}}

    def explain(self) -> str:
        return f"The {self.kind} has a compartment for each key ({len(self.layers.items())} in use)."


class _Cell:
    """A live layer and its lanes, made once."""

    __slots__ = ("_lanes", "live")

    def __init__(self, live: Live) -> None:
        self.live = live
        self._lanes: dict[bool, Lane] = {}

    @property
    def busy(self) -> bool:
        return self.live.busy

    def lane(self, is_async: bool) -> Lane:
        lane = self._lanes.get(is_async)
        if lane is None:
            lane = self._lanes[is_async] = self.live.lane(is_async=is_async)
        return lane


def _leave(token: tuple[Live, Lane, Any], now_ns: int, result: object) -> None:
    _, lane, inner = token
    if lane.leave is not None:
        lane.leave(inner, now_ns, result)
