"""`Ejection`: take replicas that keep failing out of the traffic for a while."""

from __future__ import annotations

from seawall.errors import ConfigError
from seawall.machines.ejection import Rules
from seawall.policies.spec import Spec
from seawall.units import Duration, count_of, duration_ns, fraction_ppm

__all__ = ["Ejection"]


class Ejection(Spec):
    """Eject a replica after `consecutive` failures in a row, or when a share of `failure_rate` of the attempts failed.

    The n-th ejection lasts n times `out_for`, +-20 %, at most `longest`; then one attempt, the probe, decides. n
    shrinks by one for each `out_for` of health. Never more than half of the replicas are out, and none where there is
    only one; when fewer than half are usable (ejected, or with an open breaker) health is ignored: better a sick
    replica than none. Under `Failsilent` both limits are off: there silence is the point.

    Beside a breaker in `each`: the breaker refuses calls at one replica, ejection keeps the balancer from choosing it.

    Args:
        consecutive: failures in a row, whole number from 1, or None to switch the rule off. Default 5.
        failure_rate: share above 0 to 1, or None. Default 0.5.
        min_calls: the share is looked at from so many attempts on. Default 20.
        window: the span that is looked at. Default 30 s.
        out_for, longest: durations. Default 30 s and 300 s.
        probe_lease: a probe silent for so long is given to another attempt. Default 60 s.

    Raises:
        ConfigError: a setting is outside its range.

    Example:
        >>> from seawall import Cluster, Ejection
        >>> stock = Cluster("stock", ["a:80", "b:80", "c:80"], ejection=Ejection(consecutive=3))

    After Envoy's outlier detection.
    """

    __slots__ = ("consecutive", "failure_rate", "min_calls", "window", "out_for", "longest", "probe_lease")

    consecutive: int | None
    failure_rate: float | None
    min_calls: int
    window: Duration
    out_for: Duration
    longest: Duration
    probe_lease: Duration

    def __init__(
        self,
        consecutive: int | None = 5,
        *,
        failure_rate: float | None = 0.5,
        min_calls: int = 20,
        window: Duration = 30,
        out_for: Duration = 30,
        longest: Duration = 300,
        probe_lease: Duration = 60,
        name: str | None = None,
    ) -> None:
        self._init(
            name,
            consecutive=consecutive,
            failure_rate=failure_rate,
            min_calls=min_calls,
            window=window,
            out_for=out_for,
            longest=longest,
            probe_lease=probe_lease,
        )
        self.rules(strict=False)

    def rules(self, *, strict: bool) -> Rules:
        """The settings as the machine wants them; raises `ConfigError` if one is wrong."""
        if self.consecutive is None and self.failure_rate is None:
            raise ConfigError("Ejection(consecutive=None, failure_rate=None): it would never eject; give one of them")

        def at(field: str) -> str:
            return f"Ejection({field})"

        rate = self.failure_rate
        rules = Rules(
            consecutive=None if self.consecutive is None else count_of(self.consecutive, at("consecutive")),
            failure_rate_ppm=None if rate is None else fraction_ppm(rate, at("failure_rate")),
            min_calls=count_of(self.min_calls, at("min_calls")),
            window_ns=duration_ns(self.window, at("window"), zero=False),
            base_ns=duration_ns(self.out_for, at("out_for"), zero=False),
            cap_ns=duration_ns(self.longest, at("longest"), zero=False),
            probe_lease_ns=duration_ns(self.probe_lease, at("probe_lease"), zero=False),
            strict=strict,
        )
        if rules.cap_ns < rules.base_ns:
            raise ConfigError(f"Ejection(longest={self.longest!r}): shorter than out_for={self.out_for!r}")
        return rules
