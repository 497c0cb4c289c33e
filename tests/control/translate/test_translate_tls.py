"""TLS towards others: mutual TLS by itself where sidecars stand, DestinationRule blocks, whose identities are accepted."""

from __future__ import annotations

from world_objects import Obj, View, client, destination_rule, mesh_object, pod, service, slices

from control.world import MeshSettings
from meshproxy.model.cluster import Endpoints
from meshproxy.model.security import ClientTls

MESH = {"security.istio.io/tlsMode": "istio"}
HTTP = {"number": 80, "name": "http", "protocol": "HTTP"}
FQDN = "a.default.svc.cluster.local"
PLAIN = f"outbound|8080||{FQDN}"


def with_account(obj: Obj, account: str) -> Obj:
    return {**obj, "spec": {**obj["spec"], "serviceAccountName": account}}


def three() -> list[Obj]:
    """Two pods with a sidecar, of two accounts, and one without."""
    return [
        service("a"),
        with_account(pod("p1", "10.0.0.1", {"v": "1", **MESH}), "one"),
        with_account(pod("p2", "10.0.0.2", {"v": "2", **MESH}), "two"),
        with_account(pod("p3", "10.0.0.3", {"v": "2"}), "two"),
        slices("a", [("p1", "10.0.0.1"), ("p2", "10.0.0.2"), ("p3", "10.0.0.3")]),
    ]


def endpoints(view: View, name: str) -> Endpoints:
    found = view.snapshot.get("endpoints", name)
    assert isinstance(found, Endpoints)
    return found


def test_endpoints_with_a_sidecar_take_mutual_tls_and_all_accounts_of_the_service_are_accepted():
    rule = destination_rule("d", "a", subsets=[{"name": "one", "labels": {"v": "1"}}])
    view = client([*three(), rule])
    assert [(e.address, e.mtls) for e in endpoints(view, PLAIN).endpoints] == [
        ("10.0.0.1", True),
        ("10.0.0.2", True),
        ("10.0.0.3", False),
    ]
    both = ("spiffe://cluster.local/ns/default/sa/one", "spiffe://cluster.local/ns/default/sa/two")
    assert endpoints(view, PLAIN).identities == both
    subset = f"outbound|8080|one|{FQDN}"
    assert [e.address for e in endpoints(view, subset).endpoints] == ["10.0.0.1"]
    assert endpoints(view, subset).identities == both
    assert view.cluster(PLAIN).tls == ClientTls(mode="AUTO", sni=f"outbound_.8080_._.{FQDN}")
    assert view.cluster(subset).tls == ClientTls(mode="AUTO", sni=f"outbound_.8080_.one_.{FQDN}")


def test_a_cluster_does_not_change_when_sidecars_come_and_go():
    with_none = client([service("a")]).snapshot.resources["cluster", PLAIN]
    assert client(three()).snapshot.resources["cluster", PLAIN].version == with_none.version


def test_the_trust_domain_is_the_meshs():
    view = client(three(), mesh=MeshSettings(trust_domain="example.org"))
    assert endpoints(view, PLAIN).identities[0] == "spiffe://example.org/ns/default/sa/one"


def test_auto_mtls_may_be_switched_off_for_the_mesh():
    view = client(three(), mesh=MeshSettings(enable_auto_mtls=False))
    assert view.cluster(PLAIN).tls is None
    assert endpoints(view, PLAIN).identities == ()


def test_a_workload_entry_with_the_label_takes_mutual_tls():
    spec = {"address": "192.0.2.5", "labels": {"app": "a", **MESH}, "serviceAccount": "vm"}
    found = endpoints(client([service("a"), mesh_object("WorkloadEntry", "vm", spec)]), PLAIN)
    assert [(e.address, e.mtls) for e in found.endpoints] == [("192.0.2.5", True)]
    assert found.identities == ("spiffe://cluster.local/ns/default/sa/vm",)


def test_what_is_outside_of_the_mesh_is_spoken_to_as_it_is():
    spec = {"hosts": ["x.example"], "ports": [HTTP], "resolution": "STATIC", "endpoints": [{"address": "192.0.2.1"}]}
    name = "outbound|80||x.example"
    view = client([mesh_object("ServiceEntry", "x", spec)])
    assert (view.cluster(name).tls, endpoints(view, name).identities) == (None, ())
    inside = client(
        [mesh_object("ServiceEntry", "x", {**spec, "location": "MESH_INTERNAL", "subjectAltNames": ["spiffe://o/x"]})]
    )
    assert inside.cluster(name).tls == ClientTls(mode="AUTO", sni="outbound_.80_._.x.example")
    assert endpoints(inside, name).identities == ("spiffe://o/x",)
