"""Settings of clusters, balancers and ejection: errors name field, value and range; views of equal strategies are one."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from seawall import (
    Broadcast,
    Cluster,
    ConfigError,
    Ejection,
    Failfast,
    Failover,
    Failsilent,
    Policy,
    PowerOfTwo,
    Random,
    RoundRobin,
    Timeout,
)
from seawall.cluster import core as core_module
from seawall.cluster.balancers import Balancer
from seawall.cluster.core import MOST_RULES, MOST_STRATEGIES
from seawall.machines import balance
from seawall.policies.registry import Registry
from tests.support.threads import explore
from tests.threads.frames import World, expect

NAN, INF = float("nan"), float("inf")
NO_COUNTS: list[Any] = [0, -1, True, False, 1.0, 2.5, NAN, INF, "3", Decimal(3), 10**30, 10**5_000]
NO_SHARES: list[Any] = [0, -0.1, 1.1, True, False, NAN, INF, "0.5", Decimal("0.5"), 10**30]
NO_SPANS: list[Any] = [0, -1, True, NAN, INF, None, "", "soon", "5", "-1s", "1e3s", "٣s", " 1s", 10**30, Decimal(1)]


def shown(value: Any) -> str:
    return "thousands of digits" if value == 10**5_000 else repr(value)


def made(**settings: Any) -> Cluster[Any]:
    return Cluster(**{"name": "stock", "endpoints": ["a:80", "b:80"], "names": Registry(), **settings})


# -- ejection -----------------------------------------------------------------------------------------------------------


def test_the_defaults_of_ejection_are_those_of_the_semantics() -> None:
    rules = Ejection().rules(strict=False)
    assert vars(rules) == {
        "consecutive": 5,
        "failure_rate_ppm": 500_000,
        "min_calls": 20,
        "window_ns": 30 * 10**9,
        "base_ns": 30 * 10**9,
        "cap_ns": 300 * 10**9,
        "probe_lease_ns": 60 * 10**9,
        "strict": False,
    }
    assert Ejection().rules(strict=True).strict


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("consecutive", value) for value in NO_COUNTS),
        *(("min_calls", value) for value in [*NO_COUNTS, None]),
        *(("failure_rate", value) for value in NO_SHARES),
        *((field, value) for field in ("window", "out_for", "longest", "probe_lease") for value in NO_SPANS),
    ],
    ids=shown,
)
def test_a_wrong_setting_of_ejection_names_field_value_and_range(field: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=rf"^Ejection\({field}=.*\): expected ") as caught:
        Ejection(**{field: value})
    assert len(str(caught.value)) < 250


def test_rules_of_ejection_may_be_off_but_not_both() -> None:
    assert Ejection(None).rules(strict=False).consecutive is None
    assert Ejection(failure_rate=None).rules(strict=False).failure_rate_ppm is None
    with pytest.raises(ConfigError, match="it would never eject"):
        Ejection(None, failure_rate=None)


def test_the_longest_ejection_is_no_shorter_than_the_first() -> None:
    assert Ejection(out_for=30, longest=30).rules(strict=False).cap_ns == 30 * 10**9
    with pytest.raises(ConfigError, match=r"Ejection\(longest='29s'\): shorter than out_for=30"):
        Ejection(longest="29s")


def test_ejections_are_values() -> None:
    assert Ejection(3) == Ejection(consecutive=3) != Ejection(4)
    assert Ejection(3).replace(out_for=5) == Ejection(3, out_for=5)
    with pytest.raises(ConfigError):
        Ejection(3).replace(out_for=0)


@pytest.mark.parametrize("ejection", [5, True, Ejection, "yes", Failsilent(), {}], ids=repr)
def test_what_is_no_ejection_is_refused(ejection: Any) -> None:
    with pytest.raises(ConfigError, match=r"^Cluster\(ejection=.*\): expected Ejection"):
        made(ejection=ejection)


# -- balancers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [PowerOfTwo, RoundRobin, Random])
def test_a_balancer_has_a_slow_start_of_ten_seconds_and_a_machine_of_its_own(kind: Any) -> None:
    assert kind().slow_start == 10 and kind() == kind(slow_start=10) != kind(slow_start=0)
    first, second = kind().picker(), kind().picker()
    assert type(first) is getattr(balance, kind.__name__) and first is not second


@pytest.mark.parametrize("slow_start", [value for value in NO_SPANS if value != 0 or value is True], ids=shown)
@pytest.mark.parametrize("kind", [PowerOfTwo, RoundRobin, Random])
def test_a_slow_start_that_is_no_duration_is_refused(kind: Any, slow_start: Any) -> None:
    with pytest.raises(ConfigError, match=rf"^{kind.__name__}\(slow_start=.*\): expected seconds as a number"):
        kind(slow_start=slow_start)


@pytest.mark.parametrize("balancer", [None, PowerOfTwo, "random", 2, balance.Random()], ids=repr)
def test_what_is_no_balancer_is_refused_with_what_would_do(balancer: Any) -> None:
    with pytest.raises(
        ConfigError, match=r"^Cluster\(balancer=.*expected PowerOfTwo\(\), RoundRobin\(\) or Random\(\)"
    ):
        made(balancer=balancer)


def test_the_base_of_balancers_is_none() -> None:
    with pytest.raises(TypeError, match="use PowerOfTwo"):
        made(balancer=Balancer())


# -- the rest -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("threads", [*NO_COUNTS, None, 10_001], ids=shown)
def test_max_threads_is_a_whole_number(threads: Any) -> None:
    with pytest.raises(ConfigError, match=r"^Cluster\(max_threads=.*\): expected a whole number from 1 to 10000$"):
        made(max_threads=threads)


@pytest.mark.parametrize("name", ["", None, 5, b"stock"], ids=repr)
def test_a_cluster_has_a_name(name: Any) -> None:
    with pytest.raises(ConfigError, match=r"^Cluster\(name="):
        made(name=name)


@pytest.mark.parametrize("field", ["each", "around"])
@pytest.mark.parametrize(
    "layers", [Timeout(1), Policy(), 5, None, [5], (Failover(),), iter(())], ids=lambda x: type(x).__name__
)
def test_layers_are_a_tuple_of_layers(field: str, layers: Any) -> None:
    with pytest.raises(ConfigError):
        made(**{field: layers})


@pytest.mark.parametrize("strategy", [None, Failfast, "failover", 5], ids=repr)
def test_what_is_no_strategy_is_refused(strategy: Any) -> None:
    with pytest.raises(ConfigError, match=r"stock: strategy=.*: expected Failover"):
        made(strategy=strategy)
    with pytest.raises(ConfigError, match=r"stock: strategy=.*: expected Failover"):
        made().using(strategy)


# -- views --------------------------------------------------------------------------------------------------------------


def test_equal_strategies_share_their_state_and_those_unused_for_longest_start_anew() -> None:
    cluster = made()
    assert cluster.using(Failover()).calls is cluster.calls
    first = cluster.using(Failover(1)).calls
    for number in range(2, MOST_STRATEGIES + 1):
        assert cluster.using(Failover(1)).calls is first, "it is in use"
        cluster.using(Failover(number))
    for number in range(2, MOST_STRATEGIES + 2):
        cluster.using(Failfast(name=str(number)))
    assert cluster.using(Failover(1)).calls is not first
    assert len(cluster._core._calls) == MOST_STRATEGIES


def test_strategies_with_the_same_rules_of_ejection_share_what_they_know_of_health() -> None:
    cluster = made(ejection=Ejection(3))
    assert cluster.using(Broadcast()).calls.roster is cluster.calls.roster
    one = cluster.using(Failsilent(Ejection(3))).calls.roster
    assert one is not cluster.calls.roster, "these are strict"
    assert one is cluster.using(Failsilent(Ejection(3), name="other")).calls.roster


def test_rules_of_ejection_made_up_for_each_call_find_an_end() -> None:
    """Each has a record of the health of every endpoint."""
    cluster = made()
    with pytest.raises(ConfigError, match=f"stock: more than {MOST_RULES} different rules of ejection"):
        for number in range(1, MOST_RULES + 2):
            cluster.using(Failsilent(Ejection(number)))
    assert len(cluster._core.directory.rosters) == MOST_RULES
    assert cluster.call(str) in ("a:80", "b:80")


def test_views_made_by_many_threads_at_once_are_one_view() -> None:
    """Else each would begin with a full budget."""

    def build() -> World:
        cluster, seen = made(), list[Any]()

        def views() -> None:
            for _ in range(2):
                seen.append(cluster.using(Failfast(name="view")).calls)
                seen.append(cluster.using(Failfast(name="view")).calls)

        def check() -> None:
            expect(len({id(calls) for calls in seen}) == 1, "several states of one strategy")
            expect(len(cluster._core.directory.rosters) == 1, "several records of health")

        return [views] * 3, check

    assert explore(build, trace=[core_module, __file__], seeds=range(150)) == 150
