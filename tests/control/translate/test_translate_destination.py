"""DestinationRules: which one speaks for a service, how several merge, what a port or subset overrides (semantics A1)."""

from __future__ import annotations

import pytest
from world_objects import View, client, destination_rule, pod, service, virtual_service

CLUSTER = "outbound|8080||a.default.svc.cluster.local"


def limit(n: int) -> dict:
    return {"connectionPool": {"tcp": {"maxConnections": n}}}


def rule(name: str, n: int, host: str = "a.default.svc.cluster.local", **more: object) -> dict:
    return destination_rule(name, host, trafficPolicy=limit(n), **more)


def seen(*objs: dict, namespace: str = "default", labels: dict | None = None) -> int | None:
    return client([service("a"), *objs], namespace=namespace, labels=labels).cluster(CLUSTER).pool.max_connections


CLIENT, OWNER, ROOT = rule("c", 1, namespace="shop"), rule("o", 2), rule("r", 3, namespace="istio-system")


def test_lookup_goes_from_client_to_service_to_root_namespace():
    assert seen(CLIENT, OWNER, ROOT, namespace="shop") == 1
    assert seen(OWNER, ROOT, namespace="shop") == 2
    assert seen(ROOT, namespace="shop") == 3
    assert seen(namespace="shop") is None
    # A rule of another namespace than these three is nobody's.
    assert seen(rule("x", 9, namespace="else"), namespace="shop") is None


def test_in_the_root_namespace_the_owner_comes_first():
    assert seen(OWNER, ROOT, namespace="istio-system") == 2


def test_export_to():
    private = rule("o", 2, exportTo=["."])
    assert seen(private, ROOT, namespace="shop") == 3
    assert seen(private, ROOT) == 2
    assert seen(rule("o", 2, exportTo=["shop"]), namespace="shop") == 2
    assert seen(rule("o", 2, exportTo=["else"]), namespace="shop") is None


def test_the_most_specific_host_wins():
    wide, wider = rule("w", 4, host="*.default.svc.cluster.local"), rule("x", 5, host="*.svc.cluster.local")
    assert seen(wide, wider) == 4
    assert seen(wide, wider, OWNER) == 2
    assert seen(wider) == 5
    assert seen(rule("z", 6, host="*")) == 6


def test_short_hosts_mean_the_rules_own_namespace():
    assert seen(rule("s", 7, host="a")) == 7
    assert seen(rule("s", 7, host="a", namespace="shop"), namespace="shop") is None


def test_a_workload_selector_picks_clients_of_its_namespace_and_beats_a_rule_without():
    selected = rule("sel", 8, workloadSelector={"matchLabels": {"tier": "front"}})
    assert seen(selected, OWNER, labels={"tier": "front"}) == 8
    assert seen(selected, OWNER, labels={"tier": "back"}) == 2
    assert seen(selected, labels={"tier": "back"}) is None
    assert seen(selected, namespace="shop", labels={"tier": "front"}) is None


def test_rules_of_one_host_merge():
    old = destination_rule("old", "a", created="2026-01-01T00:00:00Z", subsets=[{"name": "v1", "labels": {"v": "1"}}])
    mid = destination_rule(
        "mid",
        "a.default.svc.cluster.local",
        created="2026-01-02T00:00:00Z",
        trafficPolicy=limit(1),
        subsets=[{"name": "v1", "labels": {"v": "other"}}, {"name": "v2", "labels": {"v": "2"}}],
    )
    young = destination_rule("young", "a", created="2026-01-03T00:00:00Z", trafficPolicy=limit(9))
    view = client([service("a"), young, mid, old])
    assert view.cluster(CLUSTER).pool.max_connections == 1
    assert view.cluster(CLUSTER).source == "DestinationRule default/mid"
    v1 = view.cluster("outbound|8080|v1|a.default.svc.cluster.local")
    assert (v1.source, v1.pool.max_connections) == ("DestinationRule default/old subset v1", 1)
    v2 = view.cluster("outbound|8080|v2|a.default.svc.cluster.local")
    assert v2.source == "DestinationRule default/mid subset v2"


def overrides(subset_policy: dict | None, policy: dict) -> View:
    subset = {"name": "v1", "labels": {"v": "1"}}
    if subset_policy is not None:
        subset["trafficPolicy"] = subset_policy
    two = [{"name": "http", "port": 8080}, {"name": "http-admin", "port": 9090}]
    return client([service("a", ports=two), destination_rule("d", "a", trafficPolicy=policy, subsets=[subset])])


BASE = {**limit(1), "outlierDetection": {}, "loadBalancer": {"simple": "RANDOM"}}


def subset_cluster(view: View, port: int = 8080):
    return view.cluster(f"outbound|{port}|v1|a.default.svc.cluster.local")


def test_a_subset_inherits_and_overrides_block_by_block():
    inherited = subset_cluster(overrides(None, BASE))
    assert (inherited.pool.max_connections, inherited.lb.policy) == (1, "RANDOM")
    assert inherited.outlier is not None
    one = subset_cluster(overrides({"connectionPool": {"http": {"maxRetries": 5}}}, BASE))
    # The block is replaced as a whole: maxConnections of the destination is gone, the other blocks stay.
    assert (one.pool.max_connections, one.pool.max_retries, one.lb.policy) == (None, 5, "RANDOM")
    assert one.outlier is not None


@pytest.mark.parametrize("port", [8080, 9090])
def test_port_level_settings_replace_wholesale(port):
    setting = {"port": {"number": 9090}, **limit(7)}
    view = overrides(None, {**BASE, "portLevelSettings": [setting]})
    cluster = view.cluster(f"outbound|{port}||a.default.svc.cluster.local")
    if port == 9090:
        assert (cluster.pool.max_connections, cluster.lb.policy, cluster.outlier) == (7, "ROUND_ROBIN", None)
    else:
        assert (cluster.pool.max_connections, cluster.lb.policy) == (1, "RANDOM")
        assert cluster.outlier is not None


def test_port_level_settings_of_a_subset():
    setting = {"port": {"number": 9090}, "loadBalancer": {"simple": "LEAST_REQUEST"}}
    view = overrides({"portLevelSettings": [setting]}, BASE)
    at_9090, at_8080 = subset_cluster(view, 9090), subset_cluster(view)
    assert (at_9090.lb.policy, at_9090.pool.max_connections) == ("LEAST_REQUEST", None)
    assert (at_8080.lb.policy, at_8080.pool.max_connections) == ("RANDOM", 1)


def test_a_subset_policy_counts_only_for_traffic_routed_to_it():
    view = overrides(limit(3), BASE)
    assert view.cluster(CLUSTER).pool.max_connections == 1


def test_a_gateway_looks_up_from_its_own_namespace():
    gateway = {
        "apiVersion": "networking.istio.io/v1",
        "kind": "Gateway",
        "metadata": {"name": "gw", "namespace": "default"},
        "spec": {
            "selector": {"istio": "ingressgateway"},
            "servers": [{"port": {"number": 80, "name": "h", "protocol": "HTTP"}, "hosts": ["*"]}],
        },
    }
    vs = virtual_service("v", ["*"], [{"route": [{"destination": {"host": "a"}}]}], gateways=["gw"])
    edge = pod("gw", "127.0.0.9", {"istio": "ingressgateway"}, namespace="istio-system")
    view = View([service("a"), gateway, vs, edge, OWNER, ROOT, CLIENT], ("istio-system", "gw"))
    assert view.cluster(CLUSTER).pool.max_connections == 2
