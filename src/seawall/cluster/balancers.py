"""How a cluster chooses among its replicas: the specs of the balancers."""

from __future__ import annotations

from seawall.machines import balance
from seawall.policies.spec import Spec
from seawall.units import Duration, duration_ns

__all__ = ["Balancer", "PowerOfTwo", "Random", "RoundRobin"]


class Balancer(Spec):
    """What every balancer has: `slow_start`, the time in which a replica that is new, or comes back after an ejection,
    grows from a tenth to all of its share. Default 10 s; 0 switches it off. Raises `ConfigError` if it is no duration.
    """

    __slots__ = ("slow_start",)

    slow_start: Duration

    def __init__(self, *, slow_start: Duration = 10, name: str | None = None) -> None:
        duration_ns(slow_start, f"{type(self).__name__}(slow_start)")
        self._init(name, slow_start=slow_start)

    def picker(self) -> balance.Picker:
        """The machine that picks, with a state of its own."""
        raise TypeError("use PowerOfTwo(), RoundRobin() or Random()")


class PowerOfTwo(Balancer):
    """The less loaded of two replicas drawn by weight: close to the best choice at a constant price. The default.

    >>> from seawall import Cluster, PowerOfTwo
    >>> stock = Cluster("stock", ["a:80", "b:80"], balancer=PowerOfTwo(slow_start="30s"))

    After Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing" (2001).
    """

    __slots__ = ()

    def picker(self) -> balance.Picker:
        return balance.PowerOfTwo()


class RoundRobin(Balancer):
    """Each replica in its turn, or as often as its weight says, whatever is in flight there.

    >>> from seawall import Cluster, RoundRobin
    >>> stock = Cluster("stock", ["a:80", "b:80"], balancer=RoundRobin())
    >>> [stock.call(str) for _ in range(4)]
    ['a:80', 'b:80', 'a:80', 'b:80']
    """

    __slots__ = ()

    def picker(self) -> balance.Picker:
        return balance.RoundRobin()


class Random(Balancer):
    """A replica drawn by weight.

    >>> from seawall import Cluster, Random
    >>> stock = Cluster("stock", ["a:80", "b:80"], balancer=Random())
    """

    __slots__ = ()

    def picker(self) -> balance.Picker:
        return balance.Random()
