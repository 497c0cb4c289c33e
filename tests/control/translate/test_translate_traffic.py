"""Traffic policies to the model, with every default (semantics A1, B1, B3)."""

from __future__ import annotations

import pytest
from world_objects import client, destination_rule, service

from control.world import MeshSettings
from meshproxy.model.cluster import Cluster, ConnectionPool, HashPolicy, LoadBalancer, Outlier, RetryBudget


def cluster(policy: dict, mesh: MeshSettings | None = None) -> Cluster:
    given = {"trafficPolicy": policy} if policy else {}
    view = client([service("a"), destination_rule("d", "a", **given)], mesh=mesh)
    return view.cluster("outbound|8080||a.default.svc.cluster.local")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, "ROUND_ROBIN"),
        ({"simple": "UNSPECIFIED"}, "ROUND_ROBIN"),
        ({"simple": "ROUND_ROBIN"}, "ROUND_ROBIN"),
        ({"simple": "LEAST_CONN"}, "LEAST_REQUEST"),
        ({"simple": "LEAST_REQUEST"}, "LEAST_REQUEST"),
        ({"simple": "RANDOM"}, "RANDOM"),
    ],
)
def test_simple_balancers(given, expected):
    assert cluster({"loadBalancer": given}).lb == LoadBalancer(policy=expected)


def test_the_default_balancer_is_the_meshs():
    mesh = MeshSettings(default_lb="LEAST_REQUEST")
    assert cluster({}, mesh).lb.policy == "LEAST_REQUEST"
    assert cluster({"loadBalancer": {"simple": "RANDOM"}}, mesh).lb.policy == "RANDOM"


def test_passthrough_dials_what_was_asked_for():
    found = cluster({"loadBalancer": {"simple": "PASSTHROUGH"}})
    assert (found.type, found.lb.policy) == ("EDS", "PASSTHROUGH")  # the proxy passes on addresses, and balances names


@pytest.mark.parametrize(
    ("given", "policy", "size"),
    [
        ({"httpHeaderName": "X-User"}, HashPolicy(header="x-user"), 1024),
        ({"useSourceIp": True}, HashPolicy(source_ip=True), 1024),
        ({"httpQueryParameterName": "q"}, HashPolicy(query="q"), 1024),
        ({"httpCookie": {"name": "c"}}, HashPolicy(cookie="c"), 1024),
        ({"httpCookie": {"name": "c", "ttl": "0s"}}, HashPolicy(cookie="c", cookie_ttl=0.0), 1024),
        (
            {
                "httpCookie": {
                    "name": "c",
                    "ttl": "1m",
                    "path": "/p",
                    "attributes": [{"name": "SameSite", "value": "Lax"}],
                }
            },
            HashPolicy(cookie="c", cookie_ttl=60.0, cookie_path="/p", cookie_attributes=(("SameSite", "Lax"),)),
            1024,
        ),
        ({"httpHeaderName": "x", "ringHash": {"minimumRingSize": 64}}, HashPolicy(header="x"), 64),
        ({"httpHeaderName": "x", "minimumRingSize": 32}, HashPolicy(header="x"), 32),
    ],
)
def test_consistent_hash(given, policy, size):
    assert cluster({"loadBalancer": {"consistentHash": given}}).lb == LoadBalancer(
        policy="RING_HASH", hash=policy, ring_size=size
    )


def test_pool_defaults():
    assert cluster({}).pool == ConnectionPool()
    assert cluster({"connectionPool": {"tcp": {}, "http": {}}}).pool == ConnectionPool()


def test_zero_limits_are_unset():
    zero = {
        "tcp": {"maxConnections": 0},
        "http": {"http1MaxPendingRequests": 0, "http2MaxRequests": 0, "maxRetries": 0, "maxRequestsPerConnection": 0},
    }
    assert cluster({"connectionPool": zero}).pool == ConnectionPool()


def test_every_pool_field():
    given = {
        "tcp": {
            "maxConnections": 1,
            "connectTimeout": "30ms",
            "tcpKeepalive": {"probes": 9, "time": "2h", "interval": "75s"},
            "maxConnectionDuration": "1h",
            "idleTimeout": "10s",
        },
        "http": {
            "http1MaxPendingRequests": 2,
            "http2MaxRequests": 3,
            "maxRequestsPerConnection": 4,
            "maxRetries": 5,
            "idleTimeout": "20s",
        },
    }
    assert cluster({"connectionPool": given}).pool == ConnectionPool(
        max_connections=1,
        max_pending_requests=2,
        max_requests=3,
        max_requests_per_connection=4,
        max_retries=5,
        connect_timeout=0.03,
        idle_timeout=20.0,
        max_connection_duration=3600.0,
        tcp_keepalive=(9, 7200, 75),
    )


def test_outlier_detection_absent_is_off_and_empty_is_on_with_defaults():
    assert cluster({}).outlier is None
    assert cluster({"outlierDetection": {}}).outlier == Outlier(
        consecutive_5xx=5,
        consecutive_gateway=0,
        interval=10.0,
        base_ejection=30.0,
        max_ejection_percent=10,
        min_health_percent=0,
    )


def test_every_outlier_field():
    given = {
        "consecutive5xxErrors": 0,
        "consecutiveGatewayErrors": 3,
        "splitExternalLocalOriginErrors": True,
        "consecutiveLocalOriginFailures": 4,
        "interval": "1s",
        "baseEjectionTime": "3m",
        "maxEjectionPercent": 100,
        "minHealthPercent": 50,
        "outlierDetectionHttpErrorCodes": [503, 500],
    }
    assert cluster({"outlierDetection": given}).outlier == Outlier(
        consecutive_5xx=0,
        consecutive_gateway=3,
        consecutive_local=4,
        split_local=True,
        interval=1.0,
        base_ejection=180.0,
        max_ejection_percent=100,
        min_health_percent=50,
        error_codes=(500, 503),
    )


def test_retry_budget():
    assert cluster({}).retry_budget is None
    assert cluster({"retryBudget": {}}).retry_budget == RetryBudget(percent=20.0, min_concurrency=3)
    assert cluster({"retryBudget": {"percent": 5, "minRetryConcurrency": 1}}).retry_budget == RetryBudget(
        percent=5.0, min_concurrency=1
    )
