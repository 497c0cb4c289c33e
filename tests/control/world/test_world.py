"""The world: events in any order, structural sharing, and objects that cannot be used."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from world_objects import destination_rule, event, mesh_object, pod, service, slices, to, virtual_service

from control.world import MeshSettings, World

VS = virtual_service("v", ["a"], [{"route": [to("a")]}])
OBJS = [service("a"), service("b"), slices("a", [("p", "10.0.0.1")]), pod("p", "10.0.0.1"), VS]


def test_reading():
    world = World.of(OBJS)
    assert world.get("VirtualService", "default", "v").spec.hosts == ("a",)
    assert world.raw("VirtualService", "default", "v") is VS
    assert world.get("VirtualService", "default", "x") is None
    assert [s.name for s in world.all("Service")] == ["a", "b"]
    assert world.service("nobody") is None


def test_an_empty_world_has_its_settings():
    mesh = MeshSettings(root_namespace="root")
    assert World.empty(mesh).mesh is mesh
    assert World.empty(mesh).apply([event("ADDED", service("a"))]).config.mesh is mesh


def test_what_does_not_change_is_the_same_object():
    world = World.of(OBJS)
    moved = world.apply([event("MODIFIED", slices("a", [("p", "10.0.0.1"), ("q", "10.0.0.2")]))])
    assert moved.config is world.config
    assert moved.pods is world.pods
    assert moved.endpoints is not world.endpoints
    assert world.endpoints[("Service", "default", "a")] != moved.endpoints[("Service", "default", "a")]
    more = moved.apply([event("ADDED", destination_rule("d", "a"))])
    assert more.config is not moved.config
    assert more.config.services is moved.config.services
    assert more.config.virtual_services is moved.config.virtual_services
    assert more.endpoints is moved.endpoints


def test_the_selectors_of_an_unchanged_namespace_stay():
    world = World.of(OBJS)
    after = world.apply([event("ADDED", service("x", namespace="else"))])
    assert after.config.selectors["default"] is world.config.selectors["default"]


def test_changes_that_say_nothing_change_nothing():
    world = World.of(OBJS)
    again = virtual_service("v", ["a"], [{"route": [to("a")]}])
    again["metadata"]["resourceVersion"] = "9"
    again["status"] = {"conditions": []}
    probed = pod("p", "10.0.0.1")
    probed["status"]["hostIP"] = "192.0.2.9"
    after = world.apply(
        [event("MODIFIED", again), event("MODIFIED", probed), event("MODIFIED", slices("a", [("p", "10.0.0.1")]))]
    )
    assert after.config is world.config
    assert after.pods is world.pods
    assert after.endpoints is world.endpoints
    assert after.raw("VirtualService", "default", "v") is again


def test_events_of_other_kinds_pass_by():
    world = World.of(OBJS)
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "s", "namespace": "default"}}
    assert world.apply([event("ADDED", account)]) is world
    assert world.apply([]) is world


def test_a_secret_is_held_and_changes_nothing_else():
    world = World.of(OBJS)
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s", "namespace": "default"}, "data": {"k": "c2VjcmV0"}}
    after = world.apply([event("ADDED", secret)])
    assert (after.config, after.pods, after.endpoints) == (world.config, world.pods, world.endpoints)
    assert after.get("Secret", "default", "s").data == {"k": "c2VjcmV0"}
    assert "c2Vj" not in repr(after.get("Secret", "default", "s"))
    broken = after.apply([event("MODIFIED", {**secret, "data": "c2VjcmV0"})])
    assert broken.get("Secret", "default", "s") is None
    assert "c2Vj" not in repr(broken.problems)


def test_a_pod_label_reaches_the_endpoints():
    world = World.of(OBJS)
    after = world.apply([event("MODIFIED", pod("p", "10.0.0.1", {"version": "v2"}))])
    (endpoint,) = after.endpoints[("Service", "default", "a")]
    assert ("version", "v2") in endpoint.labels
    gone = after.apply([event("DELETED", pod("p", "10.0.0.1"))])
    (endpoint,) = gone.endpoints[("Service", "default", "a")]
    assert endpoint.labels == ()


def test_the_last_event_of_a_batch_counts():
    world = World.of(OBJS)
    after = world.apply([event("DELETED", VS), event("ADDED", VS), event("DELETED", VS)])
    assert after.config.virtual_services == ()
    assert world.apply([event("DELETED", VS), event("ADDED", VS)]).config is world.config


def test_deleting_what_never_was():
    world = World.of(OBJS)
    assert world.apply([event("DELETED", service("never"))]).config is world.config


def test_objects_that_cannot_be_used_are_left_out_and_named():
    wrong_type = mesh_object("VirtualService", "wrong", {"hosts": ["a"], "http": [{"route": [{"destination": {"host": 5}}]}]})
    unknown_field = mesh_object("DestinationRule", "typo", {"host": "a", "trafficPolcy": {}})
    bad_duration = virtual_service("late", ["a"], [{"route": [to("a")], "timeout": "soon"}])
    no_shape = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "p2", "namespace": "default"},
        "spec": {"containers": 3},
    }
    unheard = {"apiVersion": "example.com/v1", "kind": "Thing", "metadata": {"name": "t"}}
    world = World.of([*OBJS, wrong_type, unknown_field, bad_duration, no_shape, unheard])
    assert [(p.kind, p.name) for p in world.problems] == [
        ("DestinationRule", "typo"),
        ("Pod", "p2"),
        ("Thing", "t"),
        ("VirtualService", "late"),
        ("VirtualService", "wrong"),
    ]
    messages = {p.name: p.message for p in world.problems}
    assert "trafficPolcy" in messages["typo"]
    assert "spec.http[0].timeout" in messages["late"]
    assert len(world.config.virtual_services) == 1
    # Mended, it counts and is no problem any more; so does deleting it.
    mended = world.apply(
        [event("MODIFIED", virtual_service("late", ["a"], [{"route": [to("a")]}])), event("DELETED", wrong_type)]
    )
    assert [p.name for p in mended.problems] == ["typo", "p2", "t"]
    assert len(mended.config.virtual_services) == 2


def test_a_service_with_unusable_metadata_does_not_break_the_rest():
    odd = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "x", "labels": {"a": 1}}, "spec": {}}
    odder = {"apiVersion": "v1", "kind": "Service", "metadata": [1], "spec": 5}
    world = World.of([*OBJS, odd, odder])
    assert [p.name for p in world.problems] == ["", "x"]
    assert world.service("a.default.svc.cluster.local") is not None


def test_an_object_without_a_namespace_is_in_default():
    obj = virtual_service("w", ["a"], [{"route": [to("a")]}])
    del obj["metadata"]["namespace"]
    assert World.of([obj]).get("VirtualService", "default", "w").metadata.namespace == "default"


POOL = [
    service("a"),
    service("a", {"app": "other"}, cluster_ip="10.0.0.5"),
    service("b", namespace="shop"),
    slices("a", [("p", "10.0.0.1")]),
    slices("a", [("p", "10.0.0.1"), ("q", "10.0.0.2")]),
    pod("p", "10.0.0.1", {"app": "a"}),
    pod("p", "10.0.0.1", {"app": "a", "version": "v2"}),
    pod("q", "10.0.0.2", {"app": "a"}, ready=False),
    mesh_object("WorkloadEntry", "vm", {"address": "192.0.2.1", "labels": {"app": "a"}}),
    mesh_object(
        "ServiceEntry",
        "e",
        {
            "hosts": ["e.example"],
            "resolution": "STATIC",
            "workloadSelector": {"labels": {"app": "a"}},
            "ports": [{"number": 80, "name": "http", "protocol": "HTTP"}],
        },
    ),
    VS,
    virtual_service("v", ["b"], [{"route": [to("b")]}], created="2026-01-01T00:00:00Z"),
    destination_rule("d", "a", trafficPolicy={"outlierDetection": {}}),
    mesh_object("Sidecar", "s", {"egress": [{"hosts": ["./*"]}]}),
]


def key(obj: dict) -> tuple:
    return (obj["kind"], obj["metadata"]["namespace"], obj["metadata"]["name"])


def facts(world: World) -> tuple:
    config = world.config
    return (
        dict(world.pods),
        dict(world.endpoints),
        config.services,
        [(v.resource.metadata.name, v.hosts, v.gateways) for v in config.virtual_services],
        {ns: index.by_host for ns, index in config.destination_rules.items()},
        {ns: found for ns, found in config.sidecars.items() if found},
        config.label_pairs,
        config.uses_locality,
        world.problems,
    )


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.lists(st.tuples(st.sampled_from(["ADDED", "MODIFIED", "DELETED"]), st.sampled_from(POOL)), max_size=4),
        max_size=6,
    )
)
def test_any_history_gives_the_world_of_the_final_objects(batches):
    world, objs = World.empty(), {}
    for batch in batches:
        for type_, obj in batch:
            if type_ == "DELETED":
                objs.pop(key(obj), None)
            else:
                objs[key(obj)] = obj
        world = world.apply([event(type_, obj) for type_, obj in batch])
    assert facts(world) == facts(World.of(objs.values()))
    assert facts(world) == facts(World.of(reversed(list(objs.values()))))
