"""The live cluster: turns, retries, ejections, priorities, and what survives a configuration change."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshproxy.cluster.cluster import Cluster
from meshproxy.cluster.endpoint import Endpoint
from meshproxy.message.head import RequestHead
from meshproxy.model import cluster as model

GET = RequestHead(b"GET", b"/rate/1", b"rating:8080", [])


def never() -> float:
    raise AssertionError("no dice are needed here")


def endpoints(*ports: int, priority: int = 0) -> list[model.Endpoint]:
    return [model.Endpoint(address="10.0.0.1", port=port, priority=priority) for port in ports]


def live(given: Iterable[model.Endpoint], **config: Any) -> Cluster:
    return Cluster(model.Cluster(name="c", **config), given)


def ports(
    cluster: Cluster, count: int, dice: Any = never, tried: tuple[Endpoint, ...] = (), request: RequestHead = GET
) -> list[int]:
    found = [cluster.pick(request, "10.9.9.9", tried, 0.0, dice) for _ in range(count)]
    return [0 if endpoint is None else endpoint.port for endpoint in found]


BREAKER = model.Outlier(consecutive_5xx=1, interval=1, base_ejection=180, max_ejection_percent=100)


def test_turns_begin_with_the_first() -> None:
    assert ports(live(endpoints(1, 2)), 4) == [1, 2, 1, 2]


def test_a_retry_takes_the_other_hosts_turn() -> None:
    """Walkthrough, section 2: two hosts in turn, the second fails always."""
    cluster = live(endpoints(1, 2))
    first = cluster.endpoints[0]
    hits = Counter[int]()
    for _ in range(40):
        tried: tuple[Endpoint, ...] = ()
        while True:
            endpoint = cluster.pick(GET, "", tried, 0.0, never)
            assert endpoint is not None
            hits[endpoint.port] += 1
            if endpoint is first:
                break
            tried = (*tried, endpoint)
    assert hits == {1: 40, 2: 39}  # each retry takes the other's turn: then every request meets the failing host first


def test_a_single_host_is_tried_again() -> None:
    cluster = live(endpoints(1))
    assert ports(cluster, 1, tried=cluster.endpoints) == [1]


def test_gives_up_avoiding_after_five_picks_more() -> None:
    cluster = live(endpoints(*range(1, 9)))
    assert ports(cluster, 1, tried=cluster.endpoints[:5]) == [6]
    cluster = live(endpoints(*range(1, 9)))
    assert ports(cluster, 1, tried=cluster.endpoints[:7]) == [6]


def test_an_empty_cluster_has_nobody() -> None:
    cluster = live([])
    assert ports(cluster, 2) == [0, 0] and cluster.no_healthy == 2


def test_the_circuit_breaker_story() -> None:
    """Walkthrough, section 2: one more request to the failing host, then none for three minutes."""
    cluster = live(endpoints(1, 2), outlier=BREAKER)
    first, second = cluster.endpoints
    cluster.sweep(0.0)
    cluster.pick(GET, "", (), 0.0, never)
    cluster.report(first, 200, False, 0.0)
    assert cluster.pick(GET, "", (), 0.1, never) is second
    cluster.report(second, 503, False, 0.2)
    assert ports(cluster, 5) == [1] * 5
    for tick in range(1, 181):
        cluster.sweep(tick - 0.5)
        assert second.health.ejected
    cluster.sweep(181.0)
    assert not second.health.ejected and set(ports(cluster, 2)) == {1, 2}


def test_all_ejected_is_nobody_unless_there_is_panic() -> None:
    for minimum, found in ((0, 0), (50, 1)):
        outlier = model.Outlier(consecutive_5xx=1, max_ejection_percent=100, min_health_percent=minimum)
        cluster = live(endpoints(1), outlier=outlier)
        cluster.report(cluster.endpoints[0], 500, False, 0.0)
        assert ports(cluster, 1) == [found] and cluster.panic == bool(minimum)


def test_sweeps_keep_to_the_interval() -> None:
    cluster = live(
        endpoints(1, 2), outlier=model.Outlier(consecutive_5xx=1, interval=10, base_ejection=1, max_ejection_percent=50)
    )
    cluster.sweep(100.0)
    cluster.report(cluster.endpoints[0], 500, False, 101.0)
    for now in (102.0, 105.0, 109.9):
        cluster.sweep(now)
        assert cluster.endpoints[0].health.ejected
    cluster.sweep(110.0)
    assert not cluster.endpoints[0].health.ejected
    cluster.report(cluster.endpoints[0], 500, False, 111.0)
    cluster.sweep(135.0)  # two beats late
    assert not cluster.endpoints[0].health.ejected
    cluster.report(cluster.endpoints[0], 500, False, 136.0)
    cluster.sweep(139.9)
    assert cluster.endpoints[0].health.ejected
    cluster.sweep(140.0)
    assert not cluster.endpoints[0].health.ejected


def test_counts_results() -> None:
    cluster = live(endpoints(1))
    (endpoint,) = cluster.endpoints
    for status, local in ((200, False), (404, False), (503, False), (504, True)):
        cluster.report(endpoint, status, local, 0.0)
    assert (endpoint.rq_total, endpoint.rq_success, endpoint.rq_error) == (4, 2, 2)


# -- priorities


def test_the_second_priority_waits_until_the_first_is_weak() -> None:
    cluster = live(endpoints(1, 2, 3, 4) + endpoints(9, priority=1), outlier=BREAKER)
    assert ports(cluster, 4) == [1, 2, 3, 4]
    cluster.report(cluster.endpoints[0], 500, False, 0.0)
    assert ports(cluster, 3) == [2, 3, 4]  # 75 % times 1.4 still carries everything
    cluster.report(cluster.endpoints[1], 500, False, 0.0)
    draws = iter([0.69, 0.70, 0.0])
    assert ports(cluster, 3, lambda: next(draws)) == [3, 9, 4]  # 50 % carries 70 %


def test_failover_when_a_priority_is_gone() -> None:
    cluster = live(endpoints(1) + endpoints(9, priority=1), outlier=BREAKER)
    cluster.report(cluster.endpoints[0], 500, False, 0.0)
    assert ports(cluster, 2) == [9, 9]
    cluster.update(cluster.config, endpoints(9, priority=1))
    assert ports(cluster, 2) == [9, 9]


# -- hashing


def hashed(**policy: Any) -> Cluster:
    lb = model.LoadBalancer(policy="RING_HASH", hash=model.HashPolicy(**policy))
    return live(endpoints(*range(1, 6)), lb=lb, outlier=BREAKER)


def by_user(name: bytes) -> RequestHead:
    return RequestHead(b"GET", b"/", b"a", [(b"user", name)])


def test_a_key_stays_with_its_host_also_on_a_retry() -> None:
    cluster = hashed(header="User")
    (port,) = set(ports(cluster, 5, request=by_user(b"joe")))
    endpoint = next(endpoint for endpoint in cluster.endpoints if endpoint.port == port)
    assert ports(cluster, 1, tried=(endpoint,), request=by_user(b"joe")) == [port]
    assert len({ports(cluster, 1, request=by_user(b"u%d" % n))[0] for n in range(50)}) == 5


def test_keys_of_an_ejected_host_move_and_return() -> None:
    cluster = hashed(header="user")
    users = [by_user(b"u%d" % n) for n in range(60)]
    before = [ports(cluster, 1, request=user)[0] for user in users]
    out = cluster.endpoints[2]
    cluster.report(out, 500, False, 0.0)
    during = [ports(cluster, 1, request=user)[0] for user in users]
    assert all(now == was or was == out.port for was, now in zip(before, during, strict=True))
    assert out.port in before and out.port not in during
    cluster.sweep(0.0)
    cluster.sweep(200.0)
    assert [ports(cluster, 1, request=user)[0] for user in users] == before


def test_without_a_key_any_host_will_do() -> None:
    draws = iter([0.0, 0.5, 0.99])
    assert ports(hashed(header="user"), 3, lambda: next(draws)) == [1, 3, 5]


def test_a_key_asked_for_first_is_the_one_used() -> None:
    cluster = hashed(cookie="s", cookie_ttl=0.0)
    key, cookie = cluster.hash_key(GET, "10.0.0.9", lambda: 0.25)
    assert cookie is not None and cookie.startswith(b's="')
    picked = cluster.pick(GET, "10.0.0.9", (), 0.0, never, key)
    name, _, value = cookie.partition(b";")[0].partition(b"=")
    again = RequestHead(b"GET", b"/", b"a", [(b"cookie", name + b"=" + value)])
    assert cluster.pick(again, "10.0.0.9", (), 0.0, never) is picked


def test_others_have_no_key() -> None:
    cluster = live(endpoints(1))
    assert not cluster.hashed and cluster.hash_key(GET, "", never) == (None, None)


# -- configuration


def test_the_same_address_keeps_its_object() -> None:
    cluster = live(endpoints(1, 2, 3), outlier=BREAKER)
    one, two, three = cluster.endpoints
    one.pool, one.active = "pool", 1
    cluster.report(two, 500, False, 0.0)
    workload = model.Workload(workload="w")
    changed = [*endpoints(4), model.Endpoint(address="10.0.0.1", port=1, weight=7, workload=workload), *endpoints(2)]
    gone = cluster.update(cluster.config, changed)
    assert gone == [three] and not three.live
    assert cluster.endpoints[1:] == (one, two)
    assert (one.pool, one.active, one.weight, one.workload) == ("pool", 1, 7, workload)
    assert two.health.ejected and cluster.detector is not None and cluster.detector.hosts == 3


def test_who_left_ejected_does_not_count_any_more() -> None:
    cluster = live(endpoints(1, 2), outlier=BREAKER)
    out = cluster.endpoints[1]
    cluster.report(out, 500, False, 0.0)
    cluster.update(cluster.config, endpoints(1))
    assert cluster.detector is not None and cluster.detector.ejected == 0
    cluster.report(out, 500, False, 0.0)  # a late answer of a host that is gone
    assert cluster.detector.ejected == 0


def test_nothing_changed_is_nothing_done() -> None:
    cluster = live(endpoints(1, 2))
    assert ports(cluster, 1) == [1]
    assert cluster.update(model.Cluster(name="c"), endpoints(1, 2)) == []
    assert ports(cluster, 1) == [2]


def test_turning_outlier_detection_off_brings_everybody_back() -> None:
    cluster = live(endpoints(1, 2), outlier=BREAKER)
    cluster.report(cluster.endpoints[0], 500, False, 0.0)
    cluster.update(model.Cluster(name="c"), endpoints(1, 2))
    assert cluster.detector is None and ports(cluster, 2) == [1, 2]
    cluster.update(model.Cluster(name="c", outlier=BREAKER), endpoints(1, 2))
    cluster.report(cluster.endpoints[0], 500, False, 0.0)
    assert ports(cluster, 2) == [2, 2]


def test_another_balancer_takes_over_with_the_same_endpoints() -> None:
    cluster = live(endpoints(1, 2), pool=model.ConnectionPool(max_requests=5))
    before = cluster.endpoints
    assert cluster.limits.try_request()
    cluster.update(
        model.Cluster(name="c", lb=model.LoadBalancer(policy="RANDOM"), pool=model.ConnectionPool(max_requests=1)),
        endpoints(1, 2),
    )
    assert ports(cluster, 1, lambda: 0.99) == [2]
    assert cluster.endpoints == before and cluster.limits.requests == 1 and not cluster.limits.try_request()


def test_the_first_of_two_equal_addresses_wins() -> None:
    cluster = live([*endpoints(1), model.Endpoint(address="10.0.0.1", port=1, weight=9)])
    assert [endpoint.weight for endpoint in cluster.endpoints] == [1]


def test_a_retired_cluster_ends_what_it_began() -> None:
    cluster = live(endpoints(1))
    assert cluster.retire() == cluster.endpoints and cluster.retired
    assert ports(cluster, 1) == [1]


# -- passthrough


def test_passthrough_dials_what_was_asked_for() -> None:
    cluster = live([], type="PASSTHROUGH", lb=model.LoadBalancer(policy="PASSTHROUGH"))
    picked = cluster.pick(RequestHead(b"GET", b"/", b"Example.com", []), "", (), 0.0, never)
    assert picked is not None and picked.key == ("example.com", 80)
    assert cluster.members() == (picked,)
    picked.active = 1
    assert (
        cluster.sweep(1000.0) == []
        and cluster.pick(RequestHead(b"GET", b"/", b"example.com:80", []), "", (), 1000.0, never) is picked
    )
    picked.active = 0
    assert cluster.sweep(1059.0) == [] and cluster.sweep(1060.0) == [picked]
    assert cluster.members() == ()


def test_passthrough_balancing_of_a_service_goes_to_the_address_asked_for_or_in_turns() -> None:
    cluster = live(endpoints(1, 2), lb=model.LoadBalancer(policy="PASSTHROUGH"))
    by_address = cluster.pick(RequestHead(b"GET", b"/", b"10.7.7.7:8080", []), "", (), 0.0, never)
    assert by_address is not None and by_address.key == ("10.7.7.7", 8080)
    assert ports(cluster, 3) == [1, 2, 1]


# -- properties


@given(
    st.sampled_from(["ROUND_ROBIN", "LEAST_REQUEST", "RANDOM"]),
    st.lists(st.tuples(st.integers(0, 2), st.integers(1, 3), st.booleans()), min_size=1, max_size=8),
    st.lists(st.floats(0, 1, exclude_max=True), min_size=1, max_size=10),
)
def test_only_healthy_ones_are_picked_and_somebody_is_if_anybody_is(
    policy: Any, given_hosts: list[tuple[int, int, bool]], draws: list[float]
) -> None:
    hosts = [
        model.Endpoint(address="h", port=1 + place, priority=priority, weight=weight)
        for place, (priority, weight, _) in enumerate(given_hosts)
    ]
    cluster = live(hosts, outlier=BREAKER, lb=model.LoadBalancer(policy=policy))
    for endpoint, (_, _, sick) in zip(cluster.endpoints, given_hosts, strict=True):
        if sick:
            cluster.report(endpoint, 500, False, 0.0)
    healthy = [endpoint for endpoint in cluster.endpoints if not endpoint.health.ejected]
    for draw in draws:
        picked = cluster.pick(GET, "", (), 0.0, lambda draw=draw: draw)  # type: ignore[misc]
        assert (picked in healthy) if healthy else picked is None


@pytest.mark.parametrize(("address", "label"), [("10.0.0.1", b"10.0.0.1:80"), ("fd00::1", b"[fd00::1]:80")])
def test_an_endpoint_is_named_by_its_address(address: str, label: bytes) -> None:
    endpoint = Endpoint(address, 80)
    assert endpoint.label == label and repr(endpoint) == f"Endpoint({label.decode()}, active=0)"
