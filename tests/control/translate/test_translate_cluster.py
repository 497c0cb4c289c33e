"""Clusters and endpoints: subsets by labels, ServiceEntries of every resolution, priorities by locality."""

from __future__ import annotations

import pytest
from world_objects import Obj, View, client, destination_rule, mesh_object, pod, service, slices, to, virtual_service

from meshproxy.model.cluster import Endpoints, Locality, Service

HTTP = {"number": 80, "name": "http", "protocol": "HTTP"}


def entry(hosts: list[str], resolution: str, *, name: str = "e", namespace: str = "default", **spec: object) -> Obj:
    spec.setdefault("ports", [HTTP])
    return mesh_object("ServiceEntry", name, {"hosts": hosts, "resolution": resolution, **spec}, namespace)


def test_a_subset_takes_endpoints_whose_labels_hold_all_of_its_own():
    objs = [
        service("a"),
        pod("p1", "10.0.0.1", {"v": "1", "zone": "x"}),
        pod("p2", "10.0.0.2", {"v": "1"}),
        slices("a", [("p2", "10.0.0.2"), ("p1", "10.0.0.1")]),
        destination_rule(
            "d",
            "a",
            subsets=[
                {"name": "one", "labels": {"v": "1"}},
                {"name": "both", "labels": {"v": "1", "zone": "x"}},
                {"name": "all"},
            ],
        ),
    ]
    view = client(objs)
    assert view.endpoints("outbound|8080|one|a.default.svc.cluster.local") == ["10.0.0.1:8080", "10.0.0.2:8080"]
    assert view.endpoints("outbound|8080|both|a.default.svc.cluster.local") == ["10.0.0.1:8080"]
    assert view.endpoints("outbound|8080|all|a.default.svc.cluster.local") == ["10.0.0.1:8080", "10.0.0.2:8080"]


def test_static_entry():
    places = [
        {"address": "192.0.2.2", "weight": 3, "labels": {"app": "db", "version": "v7"}},
        {"address": "192.0.2.1", "ports": {"http": 8081}, "locality": "r/z/s"},
    ]
    view = client([entry(["db.example"], "STATIC", endpoints=places)])
    name = "outbound|80||db.example"
    cluster = view.cluster(name)
    assert (cluster.type, cluster.service) == (
        "STATIC",
        Service(host="db.example", name="db.example", namespace="default"),
    )
    found = view.snapshot.get("endpoints", name)
    assert isinstance(found, Endpoints)
    assert [(e.address, e.port, e.weight, e.locality) for e in found.endpoints] == [
        ("192.0.2.1", 8081, 1, Locality(region="r", zone="z", sub_zone="s")),
        ("192.0.2.2", 80, 3, None),
    ]
    workload = found.endpoints[1].workload
    assert workload is not None
    assert (workload.app, workload.version, workload.canonical_service) == ("db", "v7", "db")
    assert view.targets("db.example", "80") == [[(name, 1)]]


def test_dns_entry_dials_its_host_or_its_endpoints_names():
    name = "outbound|80||api.example"
    view = client([entry(["api.example"], "DNS", ports=[{**HTTP, "targetPort": 8443}])])
    assert view.cluster(name).type == "DNS"
    assert view.endpoints(name) == ["api.example:8443"]
    named = client(
        [
            entry(
                ["api.example"],
                "DNS",
                endpoints=[{"address": "one.example"}, {"address": "two.example", "ports": {"http": 81}}],
            )
        ]
    )
    assert named.endpoints(name) == ["one.example:80", "two.example:81"]


def test_an_entry_without_resolution_is_dialled_as_asked():
    view = client([entry(["*.wild.example"], "NONE")])
    assert view.cluster("outbound|80||*.wild.example").type == "PASSTHROUGH"
    assert "outbound|80||*.wild.example" not in view.names("endpoints")
    assert view.targets("*.wild.example", "80") == [[("outbound|80||*.wild.example", 1)]]


def test_a_name_under_a_wildcard_entry_may_have_a_virtual_service():
    objs = [
        entry(["*.wild.example"], "NONE"),
        virtual_service("v", ["x.wild.example"], [{"timeout": "3s", "route": [to("x.wild.example")]}]),
    ]
    view = client(objs)
    assert view.targets("x.wild.example", "80") == [[("outbound|80||*.wild.example", 1)]]
    assert view.problems == []


def test_several_hosts_of_one_entry_share_its_endpoints():
    view = client([entry(["a.example", "b.example"], "STATIC", endpoints=[{"address": "192.0.2.1"}])])
    for host in ("a.example", "b.example"):
        assert view.endpoints(f"outbound|80||{host}") == ["192.0.2.1:80"]


def test_addresses_of_an_entry_are_names_too_but_not_networks():
    view = client(
        [
            entry(
                ["a.example"],
                "STATIC",
                addresses=["192.0.2.9", "198.51.100.0/24"],
                endpoints=[{"address": "192.0.2.1"}],
            )
        ]
    )
    assert view.config("80").virtual_hosts[0].domains == ("a.example", "a.example.", "192.0.2.9")


def test_tcp_ports_of_an_entry_have_no_route():
    view = client(
        [
            entry(
                ["a.example"],
                "STATIC",
                ports=[{"number": 5432, "name": "pg", "protocol": "TCP"}],
                endpoints=[{"address": "192.0.2.1"}],
            )
        ]
    )
    assert view.names("route") == []


def test_an_entry_may_select_pods_and_workload_entries():
    objs = [
        entry(["w.example"], "STATIC", workloadSelector={"labels": {"app": "w"}}, ports=[{**HTTP, "targetPort": 8080}]),
        pod("w1", "10.0.0.1", {"app": "w"}),
        pod("w2", "10.0.0.2", {"app": "w"}, ready=False),
        pod("w3", "10.0.0.3", {"app": "w"}, namespace="else"),
        mesh_object("WorkloadEntry", "vm", {"address": "192.0.2.5", "labels": {"app": "w"}, "ports": {"http": 90}}),
    ]
    # Endpoints stand in the order of pod names; a WorkloadEntry has none.
    assert client(objs).endpoints("outbound|80||w.example") == ["192.0.2.5:90", "10.0.0.1:8080"]


def test_the_same_host_from_several_namespaces_own_namespace_first():
    def one(namespace: str, ip: str, created: str) -> Obj:
        obj = entry(["x.example"], "STATIC", namespace=namespace, endpoints=[{"address": ip}])
        obj["metadata"]["creationTimestamp"] = created
        return obj

    objs = [one("a", "192.0.2.1", "2026-01-02T00:00:00Z"), one("b", "192.0.2.2", "2026-01-01T00:00:00Z")]
    assert client(objs, namespace="a").endpoints("outbound|80||x.example") == ["192.0.2.1:80"]
    assert client(objs, namespace="b").endpoints("outbound|80||x.example") == ["192.0.2.2:80"]
    assert client(objs, namespace="c").endpoints("outbound|80||x.example") == ["192.0.2.2:80"]  # the oldest


PLACES = {"same": "r1.z1.s1", "zone": "r1.z1.s2", "region": "r1.z2.s1", "other": "r2.z1.s1", "far": "r3.z1.s1"}


def priorities(policy: dict, *, labels: dict[str, str] | None = None, only: tuple[str, ...] = tuple(PLACES)) -> dict[str, int]:
    pods = [pod(name, f"10.0.0.{n}", {"istio-locality": PLACES[name], "tier": name}) for n, name in enumerate(only)]
    pairs = [(name, f"10.0.0.{n}") for n, name in enumerate(only)]
    objs = [service("a"), *pods, slices("a", pairs), destination_rule("d", "a", trafficPolicy=policy)]
    view = client(objs, labels=labels if labels is not None else {"istio-locality": "r1.z1.s1"})
    return priority_of(view)


def priority_of(view: View) -> dict[str, int]:
    found = view.snapshot.get("endpoints", "outbound|8080||a.default.svc.cluster.local")
    assert isinstance(found, Endpoints)
    return {e.workload.pod: e.priority for e in found.endpoints if e.workload}


OUTLIER = {"outlierDetection": {}}


def setting(**given: object) -> dict:
    return {**OUTLIER, "loadBalancer": {"localityLbSetting": given}}


def test_priorities_by_place():
    assert priorities(OUTLIER) == {"same": 0, "zone": 1, "region": 2, "other": 3, "far": 3}


def test_without_outlier_detection_there_is_no_failover():
    assert set(priorities({"loadBalancer": {"simple": "RANDOM"}}).values()) == {0}


def test_a_client_without_a_place_has_no_priorities():
    assert set(priorities(OUTLIER, labels={}).values()) == {0}


def test_priorities_have_no_gaps():
    assert priorities(OUTLIER, only=("region", "far")) == {"region": 0, "far": 1}


def test_failover_names_the_next_region():
    given = setting(failover=[{"from": "r1", "to": "r3"}])
    assert priorities(given) == {"same": 0, "zone": 1, "region": 2, "far": 3, "other": 4}


def test_failover_can_be_switched_off():
    assert set(priorities(setting(enabled=False)).values()) == {0}


@pytest.mark.parametrize("order", [["tier", "topology.kubernetes.io/region"], ["tier=zone"]])
def test_failover_priority_orders_by_labels(order):
    labels = {"istio-locality": "r1.z1.s1", "tier": "zone"}
    found = priorities(setting(failoverPriority=order), labels=labels)
    assert found["zone"] == 0
    assert all(rank == 1 for name, rank in found.items() if name != "zone")
