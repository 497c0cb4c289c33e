"""Endpoints: from slices, from the older Endpoints object, from WorkloadEntries; only the ready ones, each once."""

from __future__ import annotations

from world_objects import Obj, mesh_object, pod, service, slices

from control.world import World


def seen(*objs: Obj, host: str = "a.default.svc.cluster.local", port: int = 8080) -> list[str]:
    world = World.of(objs)
    assert world.problems == ()
    found = world.service(host)
    assert found is not None
    return [f"{e.address}:{e.port(port)}" for e in world.endpoints_of(found)]


def test_in_the_order_of_pod_names_then_addresses():
    places = slices("a", [("p2", "10.0.0.1"), ("p1", "10.0.0.9"), ("p3", "10.0.0.5")])
    pods = [pod("p1", "10.0.0.9"), pod("p2", "10.0.0.1"), pod("p3", "10.0.0.5")]
    assert seen(service("a"), places, *pods) == ["10.0.0.9:8080", "10.0.0.1:8080", "10.0.0.5:8080"]
    assert seen(service("a"), places) == ["10.0.0.1:8080", "10.0.0.5:8080", "10.0.0.9:8080"]


def test_only_ready_ones():
    places = slices("a", [("p1", "10.0.0.1"), ("p2", "10.0.0.2"), ("p3", "10.0.0.3")])
    places["endpoints"][0]["conditions"] = {"ready": False}
    places["endpoints"][1]["conditions"] = {}
    assert seen(service("a"), places) == ["10.0.0.2:8080", "10.0.0.3:8080"]


def test_several_slices_and_an_address_in_two_of_them():
    one, two = slices("a", [("p1", "10.0.0.1")]), slices("a", [("p1", "10.0.0.1"), ("p2", "10.0.0.2")])
    two["metadata"]["name"] = "a-2"
    assert seen(service("a"), one, two) == ["10.0.0.1:8080", "10.0.0.2:8080"]


def test_a_pod_of_two_families_counts_once_at_its_first_address():
    four = slices("a", [("p1", "10.0.0.1"), ("p2", "10.0.0.2")])
    six = slices("a", [("p1", "fd00::1"), ("p2", "fd00::2"), ("p3", "fd00::3")])
    six["metadata"]["name"], six["addressType"] = "a-2", "IPv6"
    pods = [pod("p1", "10.0.0.1"), pod("p2", "fd00::2"), pod("p3", "10.0.0.3")]
    assert seen(service("a"), four, six, *pods) == ["10.0.0.1:8080", "fd00::2:8080", "fd00::3:8080"]
    assert len(seen(service("a"), four, six)) == 5, "without pods nobody knows which belong together"


def test_names_in_a_slice_are_no_addresses():
    names = slices("a", [("p1", "a.example")])
    names["addressType"] = "FQDN"
    assert seen(service("a"), names) == []


def test_ports_are_joined_by_name():
    both = service("a", ports=[{"name": "http", "port": 80}, {"name": "http-admin", "port": 81}])
    places = slices("a", [("p1", "10.0.0.1")], port=8080)
    places["ports"].append({"name": "http-admin", "port": 9090})
    assert seen(both, places, port=80) == ["10.0.0.1:8080"]
    assert seen(both, places, port=81) == ["10.0.0.1:9090"]


def test_the_older_object_counts_when_there_is_no_slice():
    old = {
        "apiVersion": "v1",
        "kind": "Endpoints",
        "metadata": {"name": "a", "namespace": "default"},
        "subsets": [
            {
                "addresses": [{"ip": "10.0.0.7"}],
                "notReadyAddresses": [{"ip": "10.0.0.8"}],
                "ports": [{"name": "http", "port": 8181}],
            }
        ],
    }
    assert seen(service("a"), old) == ["10.0.0.7:8181"]
    assert seen(service("a"), old, slices("a", [("p1", "10.0.0.1")])) == ["10.0.0.1:8080"]


def test_a_service_selects_workload_entries_of_its_namespace():
    entry = mesh_object("WorkloadEntry", "vm", {"address": "192.0.2.1", "labels": {"app": "a"}, "ports": {"http": 99}})
    other = mesh_object("WorkloadEntry", "vm2", {"address": "192.0.2.2", "labels": {"app": "b"}})
    away = mesh_object("WorkloadEntry", "vm3", {"address": "192.0.2.3", "labels": {"app": "a"}}, "else")
    assert seen(service("a"), entry, other, away) == ["192.0.2.1:99"]


def test_labels_and_place_come_from_the_pod():
    world = World.of(
        [service("a"), slices("a", [("p1", "10.0.0.1")]), pod("p1", "10.0.0.1", {"v": "1", "istio-locality": "r.z"})]
    )
    (endpoint,) = world.endpoints_of(world.config.services["a.default.svc.cluster.local"][0])
    assert ("v", "1") in endpoint.labels
    assert endpoint.locality is not None
    assert endpoint.locality.region == "r"


def test_without_a_pod_the_slices_zone_is_the_place():
    places = slices("a", [("p1", "10.0.0.1")])
    places["endpoints"][0]["zone"] = "z1"
    world = World.of([service("a"), places])
    (endpoint,) = world.endpoints[("Service", "default", "a")]
    assert endpoint.locality is not None
    assert endpoint.locality.zone == "z1"
