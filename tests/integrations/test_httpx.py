"""The transports for httpx and httpx2: what goes where, what is sent twice, what its sender gets."""

from __future__ import annotations

import math
import pickle
from typing import Any

import httpx
import pytest

from seawall import (
    Broadcast,
    CircuitBreaker,
    CircuitOpen,
    Cluster,
    ConfigError,
    Criticality,
    DeadlineExceeded,
    Endpoint,
    Failfast,
    Failover,
    Failsafe,
    Fallback,
    NoEndpoints,
    Policy,
    Registry,
    Retry,
    Timeout,
    criticality,
    deadline,
    disable,
    enable,
    registry,
)
from seawall.events import AttemptFailed
from seawall.http import BadAnswer, Served, sending
from seawall.integrations.httpx import AsyncTransport, Transport
from seawall.testing import slow
from tests.integrations.shop import Shop, with_every_client
from tests.policies.worlds import heard

AT_ONCE = Failover(retries=2, base=0, cap=0, budget=None)
QUOTA = {"type": "https://iana.org/assignments/http-problem-types#quota-exceeded"}

# -- where requests go -----------------------------------------------------------------------------------------------


@with_every_client
async def test_the_host_of_a_url_names_the_cluster(shop: Shop) -> None:
    cluster = shop.cluster(200)
    answer = await shop.get(cluster, "http://shop/items/7?q=a%20b&q=c")
    assert (answer.status_code, answer.text) == (200, "200 from 1")
    sent = shop.requests[0]
    assert str(sent.url) == "http://10.0.0.1/items/7?q=a%20b&q=c"
    assert sent.headers["host"] == "10.0.0.1"
    assert str(answer.url) == "http://shop/items/7?q=a%20b&q=c", "the sender's own URL stays"
    assert answer.extensions["seawall"] == Served("shop", Endpoint("http://10.0.0.1:80"), 1, False)


@with_every_client
async def test_other_hosts_go_through_unchanged(shop: Shop) -> None:
    shop.scripts["elsewhere"] = [200]
    with deadline("2s"):
        answer = await shop.get(shop.cluster(200), "http://elsewhere/x", headers={"Seawall-Attempt": "7"})
    assert answer.status_code == 200 and "seawall" not in answer.extensions
    sent = shop.requests[0]
    assert sent.headers.get_list("seawall-attempt") == ["7"]
    assert "seawall-deadline" not in sent.headers and sent.headers["host"] == "elsewhere"


@with_every_client
async def test_without_clusters_the_registry_is_asked_whenever_a_request_is_sent(shop: Shop, monkeypatch: Any) -> None:
    monkeypatch.setattr(registry, "clusters", {})
    client = shop.transport()
    request = lambda: shop.package.Request("GET", "http://SHOP/x")  # noqa: E731
    send = client.handle_async_request if shop.world.is_async else client.handle_request

    async def status() -> int:
        answer = send(request())
        return (await answer if shop.world.is_async else answer).status_code

    shop.scripts["shop"] = [404]
    assert await status() == 404
    shop.cluster(201, name="Shop", names=registry)
    assert await status() == 201
    shop.cluster(202, name="Shop", names=registry)
    assert await status() == 202, "registering a name again replaces it"


@with_every_client
async def test_clusters_are_given_alone_as_a_list_by_host_or_as_a_registry(shop: Shop) -> None:
    names = Registry()
    cluster = shop.cluster(200, names=names)
    for clusters in (cluster, [cluster], (cluster,), iter([cluster]), {"shop": cluster}, {"SHOP": cluster}, names):
        assert (await shop.get(clusters)).extensions["seawall"].cluster == "shop"
    views = {"shop": cluster, "shop-once": cluster.using(Failfast())}
    assert (await shop.get(views, "http://shop-once/")).extensions["seawall"].cluster == "shop"


@with_every_client
async def test_an_address_may_have_a_path_a_port_and_a_name(shop: Shop) -> None:
    shop.scripts["10.0.0.1"] = [200]
    endpoint = Endpoint("http://10.0.0.1:8080/v1/", host="inventory.internal")
    await shop.get(Cluster("shop", [endpoint], names=Registry()), "http://shop/items?x=1")
    sent = shop.requests[0]
    assert str(sent.url) == "http://10.0.0.1:8080/v1/items?x=1"
    assert sent.headers["host"] == "inventory.internal:8080"
    assert sent.extensions["sni_hostname"] == "inventory.internal"


@pytest.mark.parametrize(
    ("address", "host", "shown", "name"),
    [
        ("https://10.0.0.1", "inventory.internal", "inventory.internal", "inventory.internal"),
        ("https://10.0.0.1:443", "inventory.internal", "inventory.internal", "inventory.internal"),
        ("https://10.0.0.1:8443", "inventory.internal:443", "inventory.internal:443", "inventory.internal"),
        ("10.0.0.1:8080", None, "10.0.0.1:8080", None),
        ("http://10.0.0.1", None, "10.0.0.1", None),
    ],
)
@with_every_client
async def test_host_and_tls_name_are_the_endpoints(
    shop: Shop, address: str, host: str | None, shown: str, name: str | None
) -> None:
    shop.scripts["10.0.0.1"] = [200]
    await shop.get(Cluster("shop", [Endpoint(address, host=host)], names=Registry()))
    sent = shop.requests[0]
    assert (sent.headers["host"], sent.extensions.get("sni_hostname")) == (shown, name)


@pytest.mark.parametrize("scheme", ["https", "wss"])
@pytest.mark.parametrize("address", ["http://10.0.0.1:80", "10.0.0.1:443"])
@pytest.mark.parametrize("strategy", [AT_ONCE, Failfast()])
@with_every_client
async def test_a_request_for_https_never_leaves_in_clear_text(
    shop: Shop, scheme: str, address: str, strategy: Any
) -> None:
    shop.scripts["10.0.0.1"] = [200]
    cluster = Cluster("shop", [address], strategy=strategy, each=(CircuitBreaker(consecutive=1),), names=Registry())
    for _ in range(2):
        with pytest.raises(shop.package.UnsupportedProtocol, match=r"^shop: \w+ was asked for, and .*clear text"):
            await shop.get(cluster, f"{scheme}://shop/items/7", headers={"Authorization": "secret"})
    assert shop.requests == []
    assert (await shop.get(cluster)).status_code == 200, "it is nobody's fault but the sender's"


@with_every_client
async def test_a_request_for_https_is_sent_by_tls_to_who_has_it(shop: Shop) -> None:
    shop.scripts["10.0.0.1"] = [200]
    await shop.get(Cluster("shop", ["https://10.0.0.1"], names=Registry()), "https://shop/items/7")
    assert shop.requests[0].url.scheme == "https"


@pytest.mark.parametrize(
    ("strategy", "each", "around", "sent"),
    [
        (AT_ONCE, False, False, "123"),
        (Failfast(), True, False, "123"),
        (Failfast(), False, True, "123"),
        (AT_ONCE, True, False, "123456789"),
    ],
)
@with_every_client
async def test_the_number_of_the_attempt_counts_what_is_sent(
    shop: Shop, strategy: Any, each: bool, around: bool, sent: str
) -> None:
    again = (Retry(on=Exception, attempts=3, delay=0, budget=None),)
    cluster = shop.cluster(503, strategy=strategy, each=again if each else (), around=again if around else ())
    await shop.get(cluster)
    assert [request.headers["seawall-attempt"] for request in shop.requests] == list(sent)


@with_every_client
async def test_a_retry_around_the_client_shows_in_the_number(shop: Shop) -> None:
    cluster = shop.cluster(503, strategy=Failover(1, base=0, cap=0, budget=None))
    policy: Policy[Any] = Policy(Retry(on=Exception, attempts=3, delay=0, budget=None), name="outer")
    if shop.world.is_async:

        async def ask() -> None:
            (await shop.get(cluster)).raise_for_status()

        outcome = await policy.arun(ask)
    else:
        client = shop.client(cluster)
        outcome = policy.run(lambda: client.get("http://shop/").raise_for_status())
    assert isinstance(outcome.error, shop.package.HTTPStatusError)
    assert [request.headers["seawall-attempt"] for request in shop.requests] == list("122334")


@with_every_client
async def test_a_host_that_the_user_wrote_stays(shop: Shop) -> None:
    shop.scripts["10.0.0.1"] = [200]
    cluster = Cluster("shop", [Endpoint("http://10.0.0.1", host="inventory.internal")], names=Registry())
    await shop.get(cluster, headers={"Host": "tenant-7.example"}, extensions={"sni_hostname": "x.example"})
    assert shop.requests[0].headers.get_list("host") == ["tenant-7.example"]
    assert shop.requests[0].extensions["sni_hostname"] == "x.example"


@pytest.mark.parametrize(
    ("location", "seen"),
    [
        ("http://10.0.0.1/elsewhere?x=1", "http://shop/elsewhere?x=1"),
        ("http://10.0.0.1", "http://shop"),
        ("/elsewhere", "/elsewhere"),
        ("http://10.0.0.11/elsewhere", "http://10.0.0.11/elsewhere"),
        ("http://10.0.0.1.example/", "http://10.0.0.1.example/"),
        ("https://10.0.0.1/", "https://10.0.0.1/"),
    ],
)
@with_every_client
async def test_a_redirect_to_the_endpoint_itself_stays_in_the_cluster(shop: Shop, location: str, seen: str) -> None:
    answer = await shop.get(shop.cluster([shop.response(307, headers={"Location": location}), 200]))
    assert answer.headers["location"] == seen


@with_every_client
async def test_a_client_that_follows_redirects_comes_back_through_the_cluster(shop: Shop) -> None:
    cluster = shop.cluster(shop.response(307, headers={"Location": "http://10.0.0.1/moved"}), name="shop")
    shop.scripts["10.0.0.1"].append(200)
    answer = await shop.get(cluster, follow_redirects=True)
    assert (answer.status_code, str(answer.url)) == (200, "http://shop/moved")
    assert [served.extensions["seawall"].cluster for served in (answer, *answer.history)] == ["shop", "shop"]


# -- settings --------------------------------------------------------------------------------------------------------

BOTH = pytest.mark.parametrize("transport", [Transport, AsyncTransport])


def cluster_of(strategy: Any, *addresses: str) -> Cluster[Any]:
    return Cluster("shop", addresses or ("http://10.0.0.1",), strategy=strategy, names=Registry())


@BOTH
def test_a_strategy_that_gives_no_response_is_refused(transport: Any) -> None:
    from seawall.outbox import Failback, MemoryOutbox

    for strategy in (Broadcast(), Failback(MemoryOutbox())):
        with pytest.raises(ConfigError, match=rf"^shop: {type(strategy).__name__}.*response"):
            transport(cluster_of(strategy))


@BOTH
@pytest.mark.parametrize("default", [None, 204, "sorry", httpx.Response(204)])
def test_a_failsafe_has_to_make_its_response(transport: Any, default: Any) -> None:
    with pytest.raises(ConfigError, match="^shop: the default of Failsafe.*function of the error"):
        transport(cluster_of(Failsafe(default)))
    transport(cluster_of(Failsafe(lambda error: httpx.Response(204))))


@BOTH
@pytest.mark.parametrize(
    "address",
    [
        "ftp://10.0.0.1",
        "http://",
        "http://10.0.0.1:0",
        "http://10.0.0.1:99999",
        "http://10.0.0.1:x",
        "http://10.0.0.1/?q=1",
        "http://10.0.0.1/#a",
        "http://u:p@10.0.0.1",
        "http://é.example",
        "a:b:c",
    ],
)
def test_an_address_that_is_no_base_url_is_refused(transport: Any, address: str) -> None:
    with pytest.raises(ConfigError, match=r"^Endpoint\(address=.*base URL"):
        transport(cluster_of(Failover(), address))


@BOTH
def test_a_host_that_is_no_name_is_refused(transport: Any) -> None:
    with pytest.raises(ConfigError, match=r"^Endpoint\(host='a/b'"):
        transport(Cluster("shop", [Endpoint("http://10.0.0.1", host="a/b")], names=Registry()))


@BOTH
@pytest.mark.parametrize(
    ("bad", "field"),
    [
        ({"clusters": "shop"}, "clusters"),
        ({"clusters": 7}, "clusters"),
        ({"clusters": [7]}, "clusters"),
        ({"clusters": {"shop": "http://10.0.0.1"}}, "clusters"),
        ({"clusters": [cluster_of(Failover()), cluster_of(Failover())]}, "clusters"),
        ({"inner": object()}, "inner"),
        ({"inner": "http"}, "inner"),
        ({"max_body": 0}, "max_body"),
        ({"max_body": True}, "max_body"),
        ({"max_body": math.inf}, "max_body"),
    ],
)
def test_a_wrong_setting_is_refused_by_name(transport: Any, bad: dict[str, Any], field: str) -> None:
    with pytest.raises(ConfigError, match=rf"^{transport.__name__}\({field}[)=]"):
        transport(**bad)


def test_a_transport_of_the_other_kind_is_refused_as_inner() -> None:
    with pytest.raises(ConfigError, match="handle_request"):
        Transport(inner=httpx.AsyncHTTPTransport(verify=False))
    with pytest.raises(ConfigError, match="handle_async_request"):
        AsyncTransport(inner=httpx.HTTPTransport(verify=False))


@with_every_client
async def test_what_the_registry_holds_is_looked_at_when_it_is_asked_for(shop: Shop) -> None:
    names = Registry()
    shop.cluster(200, strategy=Broadcast(), names=names)
    error = await shop.error_of(names)
    assert isinstance(error, ConfigError) and not shop.requests


def test_a_request_of_another_package_is_refused() -> None:
    class Request:
        class url:  # noqa: N801
            host = "shop"

    with pytest.raises(ConfigError, match="neither httpx nor httpx2"):
        Transport().handle_request(Request())


# -- what is sent twice ----------------------------------------------------------------------------------------------

FAILURES = [
    "ReadTimeout",
    "ReadError",
    "WriteError",
    "RemoteProtocolError",
    "ProxyError",
    "CloseError",
    500,
    502,
    503,
    504,
    408,
]


def step_of(shop: Shop, failure: Any) -> Any:
    return failure if isinstance(failure, int) else getattr(shop.package, failure)


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"])
@with_every_client
async def test_idempotent_methods_are_sent_again(shop: Shop, method: str) -> None:
    answer = await shop.request(shop.cluster(503, 200, strategy=AT_ONCE), method)
    assert (answer.status_code, len(shop.requests)) == (200, len(set(shop.asked)))


@pytest.mark.parametrize("failure", FAILURES)
@with_every_client
async def test_every_failure_is_tried_elsewhere(shop: Shop, failure: Any) -> None:
    step = step_of(shop, failure)
    scripts = ([step, 200], [step, 200], [step, 200])
    cluster = shop.cluster(*scripts, strategy=Failover(retries=3, base=0, cap=0, budget=None))
    answer = await shop.get(cluster)
    assert answer.status_code == 200
    assert sorted(shop.asked[:3]) == ["1", "2", "3"], "each once before one is asked again"
    assert [request.headers["seawall-attempt"] for request in shop.requests] == [
        str(n + 1) for n in range(len(shop.requests))
    ]


@pytest.mark.parametrize("failure", FAILURES)
@pytest.mark.parametrize("method", ["POST", "PATCH"])
@with_every_client
async def test_a_post_under_failover_behaves_as_failfast(shop: Shop, method: str, failure: Any) -> None:
    cluster = shop.cluster(step_of(shop, failure), strategy=AT_ONCE)
    if isinstance(failure, int):
        answer = await shop.request(cluster, method, json={})
        assert (answer.status_code, answer.text) == (failure, f"{failure} from 1")
    else:
        assert type(await shop.error_of(cluster, method, json={})) is step_of(shop, failure)
    assert shop.asked == ["1"]


@pytest.mark.parametrize("failure", ["ConnectError", "ConnectTimeout"])
@pytest.mark.parametrize("method", ["GET", "POST"])
@with_every_client
async def test_what_certainly_never_left_goes_elsewhere_at_once(shop: Shop, method: str, failure: str) -> None:
    cluster = shop.cluster(step_of(shop, failure), step_of(shop, failure), 201, strategy=Failover(base=9, cap=9))
    answer = await shop.request(cluster, method, json={})
    assert answer.status_code == 201
    assert shop.times == [0] * len(shop.times)


@with_every_client
async def test_what_a_guard_refused_goes_elsewhere(shop: Shop) -> None:
    cluster = shop.cluster(200, 200, each=(CircuitBreaker(),))
    cluster["http://10.0.0.1:80"][CircuitBreaker].force_open()
    for _ in range(5):
        answer = await shop.post(cluster, json={})
        assert answer.extensions["seawall"].attempts == 1
    assert set(shop.asked) == {"2"}


@with_every_client
async def test_a_key_or_the_senders_word_makes_a_post_repeatable(shop: Shop) -> None:
    cluster = shop.cluster([503, 200], strategy=AT_ONCE)

    async def attempts(**options: Any) -> int:
        shop.scripts["10.0.0.1"] = [503, 200]
        return (await shop.post(cluster, json={}, **options)).extensions["seawall"].attempts

    assert await attempts() == 1
    assert await attempts(headers={"Idempotency-Key": "order-7"}) == 2
    assert await attempts(headers=[("Idempotency-Key", "a"), ("Idempotency-Key", "b")]) == 1
    assert await attempts(extensions={"idempotent": True}) == 2
    assert await attempts(extensions={"idempotent": "yes"}) == 1, "anything but True says nothing"
    with sending(idempotent=True):
        assert await attempts() == 2
        with sending(stream=True):
            assert await attempts() == 2, "an inner block changes only what it names"
        with sending(idempotent=False):
            assert await attempts(headers={"Idempotency-Key": "order-7"}) == 1
        assert await attempts(extensions={"idempotent": False}) == 1, "the word on one request is nearer"
    assert await attempts() == 1


@pytest.mark.parametrize("ours", ["PoolTimeout", "LocalProtocolError", "UnsupportedProtocol"])
@with_every_client
async def test_a_fault_of_ours_is_tried_nowhere_else(shop: Shop, ours: str) -> None:
    kind = getattr(shop.package, ours)
    error = await shop.error_of(shop.cluster(kind, kind, strategy=AT_ONCE))
    assert isinstance(error, kind) and str(error) == "as told"
    assert len(shop.requests) == 1


@with_every_client
async def test_a_get_that_must_not_be_repeated_is_not(shop: Shop) -> None:
    with sending(idempotent=False):
        answer = await shop.get(shop.cluster([503, 200], strategy=AT_ONCE))
    assert answer.status_code == 503


@with_every_client
async def test_layers_around_the_attempt_cannot_send_a_post_twice_either(shop: Shop) -> None:
    retry = Retry(on=lambda error: True, attempts=4, delay=0, budget=None)
    for options in ({"each": (retry,)}, {"around": (retry,)}):
        shop.requests.clear()
        answer = await shop.post(shop.cluster([503, 200], **options), json={})
        assert (answer.status_code, answer.text, len(shop.requests)) == (503, "503 from 1", 1)
        shop.requests.clear()
        assert (await shop.get(shop.cluster([503, 200], **options))).status_code == 200
        assert len(shop.requests) == 2
        shop.requests.clear()
        refused = shop.package.ConnectError
        assert (await shop.post(shop.cluster([refused, 200], **options), json={})).status_code == 200


# -- Retry-After and 429 ---------------------------------------------------------------------------------------------


def problem(shop: Shop, body: Any) -> Any:
    headers = {"Content-Type": "application/problem+json", "Retry-After": "0"}
    return lambda _: shop.response(429, json=body, headers=headers)


def patient(shop: Shop, status: int, wait: str, **headers: str) -> Any:
    return lambda _: shop.response(status, headers={"Retry-After": wait, **headers}, text="later")


@pytest.mark.parametrize("status", [429, 503])
@with_every_client
async def test_retry_after_is_obeyed_where_nobody_else_can_be_asked(shop: Shop, status: int) -> None:
    answer = await shop.get(shop.cluster([patient(shop, status, "7"), 200]))
    assert (answer.status_code, shop.times) == (200, [0, 7])


@with_every_client
async def test_a_date_in_retry_after_counts_from_the_servers_own_clock(shop: Shop) -> None:
    at = {"Date": "Sun, 06 Nov 1994 08:49:30 GMT"}
    answer = await shop.get(shop.cluster([patient(shop, 503, "Sun, 06 Nov 1994 08:49:37 GMT", **at), 200]))
    assert (answer.status_code, shop.times) == (200, [0, 7])


@with_every_client
async def test_where_another_can_be_asked_it_is_asked(shop: Shop) -> None:
    answer = await shop.get(shop.cluster(patient(shop, 429, "3000"), 200, strategy=AT_ONCE))
    assert (answer.status_code, shop.times) == (200, [0] * len(shop.times))


@with_every_client
async def test_a_wish_beyond_the_deadline_ends_the_call_at_once(shop: Shop) -> None:
    with deadline("5s"):
        answer = await shop.get(shop.cluster(patient(shop, 503, "7")))
    assert (answer.status_code, answer.text, shop.times) == (503, "later", [0])


@with_every_client
async def test_retry_after_of_other_statuses_means_nothing(shop: Shop) -> None:
    answer = await shop.get(shop.cluster([patient(shop, 500, "3000"), 200]))
    assert answer.status_code == 200 and shop.world.now < 1


@with_every_client
async def test_a_post_is_not_sent_again_after_a_429(shop: Shop) -> None:
    assert (await shop.post(shop.cluster([patient(shop, 429, "0"), 200]), json={})).status_code == 429


@with_every_client
async def test_a_breaker_counts_failures_and_no_429_and_no_fault_of_ours(shop: Shop) -> None:
    pool, local = shop.package.PoolTimeout, shop.package.LocalProtocolError
    steps = [429, 404, pool, local, 429, 503, shop.package.ReadError]
    cluster = shop.cluster(steps, strategy=Failfast(), each=(CircuitBreaker(),))
    for step in steps[:-1]:
        if isinstance(step, int):
            assert (await shop.get(cluster)).status_code == step
        else:
            assert isinstance(await shop.error_of(cluster), step)
    await shop.error_of(cluster)
    snapshot = cluster["http://10.0.0.1:80"][CircuitBreaker].snapshot()
    assert (snapshot["calls"], snapshot["failed"]) == (3, 2), "404, 503 and ReadError were seen, two of them failures"


@with_every_client
async def test_a_breaker_stays_open_as_long_as_the_server_asks(shop: Shop) -> None:
    cluster = shop.cluster(
        patient(shop, 503, "70"), strategy=Failfast(), each=(CircuitBreaker(consecutive=1, open_for=10),)
    )
    await shop.get(cluster)
    error = await shop.error_of(cluster)
    assert error.retry_after == pytest.approx(70)


@with_every_client
async def test_a_spent_quota_is_final(shop: Shop) -> None:
    answer = await shop.get(shop.cluster([problem(shop, QUOTA), 200]))
    assert (answer.status_code, answer.json(), len(shop.requests)) == (429, QUOTA, 1)


@with_every_client
async def test_any_other_problem_of_a_429_is_not(shop: Shop) -> None:
    limited = problem(shop, {"type": "urn:seawall:rate-limited"})
    assert (await shop.get(shop.cluster([limited, 200]))).status_code == 200


# -- what the sender gets --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [500, 503, 408, 429])
@with_every_client
async def test_if_all_attempts_end_in_a_response_the_last_one_is_given(shop: Shop, status: int) -> None:
    answer = await shop.get(shop.cluster(status, strategy=AT_ONCE))
    assert (answer.status_code, answer.text) == (status, f"{status} from 1")
    assert answer.extensions["seawall"] == Served("shop", Endpoint("http://10.0.0.1:80"), 3, False)
    with pytest.raises(shop.package.HTTPStatusError):
        answer.raise_for_status()


@with_every_client
async def test_a_transport_error_is_the_clients_own(shop: Shop) -> None:
    error = await shop.error_of(shop.cluster(shop.package.ReadError, strategy=AT_ONCE))
    assert type(error) is shop.package.ReadError
    assert str(error.request.url) == "http://shop/items/7"


@with_every_client
async def test_the_last_of_different_ends_counts(shop: Shop) -> None:
    cluster = shop.cluster([503, shop.package.ReadError], strategy=Failover(retries=1, base=0, cap=0))
    assert type(await shop.error_of(cluster)) is shop.package.ReadError
    cluster = shop.cluster([shop.package.ReadError, 503], strategy=Failover(retries=1, base=0, cap=0))
    assert (await shop.get(cluster)).status_code == 503


@pytest.mark.parametrize("status", [200, 204, 301, 400, 404, 409, 422])
@with_every_client
async def test_an_answer_is_an_answer(shop: Shop, status: int) -> None:
    with heard(AttemptFailed) as failures:
        answer = await shop.get(shop.cluster(status))
    assert (answer.status_code, len(shop.requests), failures) == (status, 1, [])


@with_every_client
async def test_a_refusal_is_an_error_of_both_kinds(shop: Shop) -> None:
    cluster = shop.cluster(200, each=(CircuitBreaker(),))
    cluster["http://10.0.0.1:80"][CircuitBreaker].force_open()
    error = await shop.error_of(cluster)
    assert isinstance(error, NoEndpoints) and isinstance(error, shop.package.TransportError)
    assert (error.policy, error.reason, error.retry_after) == ("shop", "no_endpoints", 30)
    assert isinstance(error.__cause__, CircuitOpen)
    assert str(error.request.url) == "http://shop/items/7"
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is NoEndpoints


@with_every_client
async def test_a_passed_deadline_is_an_error_of_both_kinds(shop: Shop) -> None:
    with deadline("2s"):
        error = await shop.error_of(shop.cluster(slow("3s", shop.package.ReadTimeout("late"))))
    assert isinstance(error, DeadlineExceeded) and isinstance(error, shop.package.ReadTimeout)
    assert isinstance(error, TimeoutError) and error.inherited
    assert str(error.request.url) == "http://shop/items/7"


@with_every_client
async def test_a_deadline_that_has_passed_sends_nothing(shop: Shop) -> None:
    with deadline(0):
        error = await shop.error_of(shop.cluster(200))
    assert isinstance(error, DeadlineExceeded) and isinstance(error, shop.package.TimeoutException)
    assert shop.requests == []


@with_every_client
async def test_a_timeout_of_the_attempt_counts_against_the_endpoint_and_the_callers_deadline_does_not(
    shop: Shop,
) -> None:
    late = slow("3s", shop.package.ReadTimeout("late"))
    cluster = shop.cluster(late, strategy=Failfast(), each=(CircuitBreaker(), Timeout("1s")))
    with deadline("500ms"):
        await shop.error_of(cluster)
    breaker = cluster["http://10.0.0.1:80"][CircuitBreaker]
    assert breaker.snapshot()["failed"] == 0
    error = await shop.error_of(cluster)
    assert isinstance(error, DeadlineExceeded) and not error.inherited
    assert breaker.snapshot()["failed"] == 1


@with_every_client
async def test_a_thread_waits_for_nothing_longer_than_is_left(shop: Shop) -> None:
    if shop.world.is_async:
        return  # there the whole call is ended
    cluster = shop.cluster(200)
    with deadline("2s"):
        await shop.get(cluster, timeout=shop.package.Timeout(5, read=1, pool=None))
    await shop.get(cluster, timeout=shop.package.Timeout(5, pool=None))
    cut, whole = (request.extensions["timeout"] for request in shop.requests)
    assert cut == {"connect": 2, "read": 1, "write": 2, "pool": 2}
    assert whole == {"connect": 5, "read": 5, "write": 5, "pool": None}


@with_every_client
async def test_an_error_of_the_program_is_raised_as_it_is_and_once(shop: Shop) -> None:
    error = await shop.error_of(shop.cluster(AttributeError("a mistake"), strategy=AT_ONCE))
    assert type(error) is AttributeError and len(shop.requests) == 1


@with_every_client
async def test_events_show_the_response_that_was_a_failure(shop: Shop) -> None:
    with heard(AttemptFailed) as failures:
        await shop.get(shop.cluster([503, 200], strategy=AT_ONCE))
    error = failures[0].error
    assert isinstance(error, BadAnswer)
    assert (error.status, str(error), error.response.status_code) == (
        503,
        "503 Service Unavailable from http://10.0.0.1:80",
        503,
    )


@with_every_client
async def test_switched_off_a_request_is_one_attempt_and_its_end_is_given(shop: Shop) -> None:
    cluster = shop.cluster([503, shop.package.ReadError, 200], each=(CircuitBreaker(consecutive=1),))
    disable()
    try:
        assert (await shop.get(cluster)).status_code == 503
        assert type(await shop.error_of(cluster)) is shop.package.ReadError
        assert (await shop.get(cluster)).status_code == 200
    finally:
        enable()
    assert len(shop.requests) == 3


# -- degradation -----------------------------------------------------------------------------------------------------


@with_every_client
async def test_a_failsafe_makes_the_response(shop: Shop) -> None:
    told: list[Any] = []

    def nothing(error: Exception) -> Any:
        told.append(error)
        return shop.response(204)

    cluster = shop.cluster([503, shop.package.ReadError], strategy=Failsafe(nothing))
    for kind in (BadAnswer, shop.package.ReadError):
        answer = await shop.post(cluster, json={})
        assert (answer.status_code, answer.extensions["seawall"].degraded) == (204, True)
        assert isinstance(told.pop(), kind)


@with_every_client
async def test_a_fallback_around_answers_too(shop: Shop) -> None:
    cluster = shop.cluster(503, strategy=AT_ONCE, around=(Fallback(lambda error: shop.response(200, text="cached")),))
    answer = await shop.get(cluster)
    assert (answer.text, answer.extensions["seawall"].degraded, answer.extensions["seawall"].attempts) == (
        "cached",
        True,
        3,
    )


@with_every_client
async def test_what_is_no_response_is_refused_by_name(shop: Shop) -> None:
    error = await shop.error_of(shop.cluster(503, strategy=AT_ONCE, around=(Fallback("cached"),)))
    assert isinstance(error, TypeError)
    assert str(error) == "shop: the fallback gave 'cached'; a request needs a Response"


# -- headers ---------------------------------------------------------------------------------------------------------


@with_every_client
async def test_the_context_goes_out_and_replaces_what_came_in(shop: Shop) -> None:
    inbound = {
        "Seawall-Deadline": "99999",
        "seawall-criticality": "CRITICAL_PLUS",
        "Seawall-Attempt": "7",
        "Seawall_Deadline": "1",
    }
    cluster = shop.cluster([503, 200], strategy=Failover(base=1, cap=1), each=(Timeout("800ms"),))
    with deadline("60s"), criticality(Criticality.SHEDDABLE):
        await shop.get(cluster, headers=inbound)
    first, second = (request.headers for request in shop.requests)
    assert first.get_list("seawall-deadline") == ["800"], "what is left of the attempt, which is less than the call's"
    assert first.get_list("seawall-criticality") == ["SHEDDABLE"]
    assert (first.get_list("seawall-attempt"), second.get_list("seawall-attempt")) == (["1"], ["2"])
    assert "seawall_deadline" not in first


@with_every_client
async def test_other_headers_and_the_body_go_out_as_they_are(shop: Shop) -> None:
    seen: list[bytes] = []
    cluster = shop.cluster([lambda request: seen.append(request.content) or shop.response(503), 200], strategy=AT_ONCE)
    headers = [("X-Many", "1"), ("X-Many", "2"), ("Authorization", "Bearer x")]
    await shop.request(cluster, "PUT", content=b"\x00body", headers=headers)
    for request in shop.requests:
        assert request.method == "PUT"
        assert request.headers.get_list("x-many") == ["1", "2"]
        assert request.headers["authorization"] == "Bearer x"
        assert request.headers["content-length"] == "5"
        assert request.content == b"\x00body"
