"""TLS towards others: mutual TLS by itself where sidecars stand, DestinationRule blocks, whose identities are accepted."""

from __future__ import annotations

import pytest
from world_objects import Obj, View, client, destination_rule, event, mesh_object, pod, service, slices, to, virtual_service

from control.translate import proxy_of
from control.translate.translator import Translator
from control.world import MeshSettings, World
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


def test_endpoints_with_a_sidecar_take_mutual_tls_and_all_accounts_of_the_service_are_accepted() -> None:
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


def test_a_cluster_does_not_change_when_sidecars_come_and_go() -> None:
    with_none = client([service("a")]).snapshot.resources["cluster", PLAIN]
    assert client(three()).snapshot.resources["cluster", PLAIN].version == with_none.version


def test_the_trust_domain_is_the_meshs() -> None:
    view = client(three(), mesh=MeshSettings(trust_domain="example.org"))
    assert endpoints(view, PLAIN).identities[0] == "spiffe://example.org/ns/default/sa/one"


def test_auto_mtls_may_be_switched_off_for_the_mesh() -> None:
    view = client(three(), mesh=MeshSettings(enable_auto_mtls=False))
    assert view.cluster(PLAIN).tls is None
    assert endpoints(view, PLAIN).identities == ()


def test_a_workload_entry_with_the_label_takes_mutual_tls() -> None:
    spec = {"address": "192.0.2.5", "labels": {"app": "a", **MESH}, "serviceAccount": "vm"}
    found = endpoints(client([service("a"), mesh_object("WorkloadEntry", "vm", spec)]), PLAIN)
    assert [(e.address, e.mtls) for e in found.endpoints] == [("192.0.2.5", True)]
    assert found.identities == ("spiffe://cluster.local/ns/default/sa/vm",)


def test_what_is_outside_of_the_mesh_is_spoken_to_as_it_is() -> None:
    spec = {"hosts": ["x.example"], "ports": [HTTP], "resolution": "STATIC", "endpoints": [{"address": "192.0.2.1"}]}
    name = "outbound|80||x.example"
    view = client([mesh_object("ServiceEntry", "x", spec)])
    assert (view.cluster(name).tls, endpoints(view, name).identities) == (None, ())
    inside = client(
        [mesh_object("ServiceEntry", "x", {**spec, "location": "MESH_INTERNAL", "subjectAltNames": ["spiffe://o/x"]})]
    )
    assert inside.cluster(name).tls == ClientTls(mode="AUTO", sni="outbound_.80_._.x.example")
    assert endpoints(inside, name).identities == ("spiffe://o/x",)


def peer_authentication(name: str, spec: Obj, namespace: str = "default") -> Obj:
    meta = {"name": name, "namespace": namespace}
    return {"apiVersion": "security.istio.io/v1", "kind": "PeerAuthentication", "metadata": meta, "spec": spec}


OFF = {"mtls": {"mode": "DISABLE"}}


@pytest.mark.parametrize(
    ("policies", "takes"),
    [
        ([], ["p1", "p2"]),
        ([peer_authentication("all", OFF)], []),
        ([peer_authentication("all", OFF, "istio-system")], []),
        ([peer_authentication("all", OFF, "other")], ["p1", "p2"]),
        (
            [peer_authentication("all", OFF, "istio-system"), peer_authentication("own", {"mtls": {"mode": "STRICT"}})],
            ["p1", "p2"],
        ),
        ([peer_authentication("one", {"selector": {"matchLabels": {"v": "1"}}, **OFF})], ["p2"]),
        (
            [
                peer_authentication(
                    "port", {"selector": {"matchLabels": {"v": "1"}}, "portLevelMtls": {"8080": {"mode": "DISABLE"}}}
                )
            ],
            ["p2"],
        ),
        (
            [peer_authentication("port", {"selector": {"matchLabels": {"v": "1"}}, "portLevelMtls": {"9": {"mode": "DISABLE"}}})],
            ["p1", "p2"],
        ),
    ],
)
def test_where_a_policy_switches_mutual_tls_off_nobody_begins_it(policies: list[Obj], takes: list[str]) -> None:
    view = client([*three(), *policies])
    assert [e.workload.pod for e in endpoints(view, PLAIN).endpoints if e.mtls and e.workload] == takes
    # The same in a mesh that gets and loses the policies while it runs.
    world, translator = World.of([*three(), pod("client", "10.9.9.9")]), Translator()
    for type_, wanted in (("ADDED", takes), ("DELETED", ["p1", "p2"])):
        proxy = proxy_of(world, "default", "client")
        assert proxy is not None
        translator.translate(world, proxy)
        world = world.apply([event(type_, policy) for policy in policies])
        found = translator.translate(world, proxy).get("endpoints", PLAIN)
        assert isinstance(found, Endpoints)
        assert [e.workload.pod for e in found.endpoints if e.mtls and e.workload] == wanted


NAMED = f"outbound_.8080_._.{FQDN}"
BLOCKS = [
    (None, ClientTls(mode="AUTO", sni=NAMED)),
    ({"mode": "DISABLE"}, None),
    ({"mode": "ISTIO_MUTUAL"}, ClientTls(mode="ISTIO_MUTUAL", sni=NAMED)),
    (
        {"mode": "ISTIO_MUTUAL", "sni": "s", "subjectAltNames": ["b", "a"]},
        ClientTls(mode="ISTIO_MUTUAL", sni="s", sans=("a", "b")),
    ),
    ({"mode": "SIMPLE"}, ClientTls(mode="SIMPLE", sni=FQDN)),
    (
        {"mode": "SIMPLE", "sni": "s", "subjectAltNames": ["a"], "caCertificates": "/ca", "caCrl": "/crl"},
        ClientTls(mode="SIMPLE", sni="s", sans=("a",), ca_file="/ca", crl_file="/crl"),
    ),
    ({"mode": "SIMPLE", "insecureSkipVerify": True}, ClientTls(mode="SIMPLE", sni=FQDN, insecure_skip_verify=True)),
    (
        {"mode": "MUTUAL", "clientCertificate": "/c", "privateKey": "/k"},
        ClientTls(mode="MUTUAL", sni=FQDN, certificate_file="/c", key_file="/k"),
    ),
    ({"mode": "MUTUAL", "credentialName": "c"}, ClientTls(mode="MUTUAL", sni=FQDN, secret="default/c")),
]


@pytest.mark.parametrize(("block", "wanted"), BLOCKS)
def test_a_block_as_the_proxy_gets_it(block: Obj | None, wanted: ClientTls | None) -> None:
    policy = {"tls": block} if block is not None else {"outlierDetection": {}}
    assert client([service("a"), destination_rule("d", "a", trafficPolicy=policy)]).cluster(PLAIN).tls == wanted


MODES: dict[str, str | None] = {"DISABLE": None, "SIMPLE": "SIMPLE", "ISTIO_MUTUAL": "ISTIO_MUTUAL", "none": "AUTO"}


@pytest.mark.parametrize("top", [None, "SIMPLE"])
@pytest.mark.parametrize("at_port", [None, "none", "DISABLE"])
@pytest.mark.parametrize("subset", [None, "none", "ISTIO_MUTUAL"])
@pytest.mark.parametrize("subset_port", [None, "none", "DISABLE"])
def test_blocks_override_as_istios(top: str | None, at_port: str | None, subset: str | None, subset_port: str | None) -> None:
    """None: not written; "none": a policy that says nothing of tls. A port's settings replace wholesale, a subset's per block."""

    def policy(mode: str | None, port: str | None) -> Obj:
        made: Obj = {"outlierDetection": {}}
        if mode not in (None, "none"):
            made["tls"] = {"mode": mode}
        if port is not None:
            setting: Obj = {"port": {"number": 8080}, "outlierDetection": {}}
            made["portLevelSettings"] = [setting if port == "none" else {**setting, "tls": {"mode": port}}]
        return made

    whole = at_port if at_port is not None else top or "none"
    part = subset_port if subset_port is not None else (whole if subset in (None, "none") else subset)
    given: Obj = {"name": "s", "labels": {"v": "1"}}
    if subset is not None or subset_port is not None:
        given["trafficPolicy"] = policy(subset, subset_port)
    view = client([service("a"), destination_rule("d", "a", trafficPolicy=policy(top, at_port), subsets=[given])])

    def mode(name: str) -> str | None:
        tls = view.cluster(name).tls
        return tls.mode if tls is not None else None

    assert mode(PLAIN) == MODES[whole]
    assert mode(f"outbound|8080|s|{FQDN}") == MODES[part]


def test_origination_as_istios_example_has_it() -> None:
    """Plain HTTP on port 80 goes out as HTTPS on port 443 (Istio: Egress TLS Origination)."""
    ports = [{"number": 80, "name": "http-port", "protocol": "HTTP"}, {"number": 443, "name": "https-port", "protocol": "HTTPS"}]
    outside = mesh_object("ServiceEntry", "edition", {"hosts": ["edition.cnn.com"], "ports": ports, "resolution": "DNS"})
    rule = destination_rule(
        "edition",
        "edition.cnn.com",
        trafficPolicy={"portLevelSettings": [{"port": {"number": 443}, "tls": {"mode": "SIMPLE"}}]},
    )
    routed = virtual_service(
        "edition", ["edition.cnn.com"], [{"match": [{"port": 80}], "route": [to("edition.cnn.com", port=443)]}]
    )
    view = client([outside, rule, routed])
    assert view.targets("edition.cnn.com", "80") == [[("outbound|443||edition.cnn.com", 1)]]
    assert view.cluster("outbound|443||edition.cnn.com").tls == ClientTls(mode="SIMPLE", sni="edition.cnn.com")
    assert view.endpoints("outbound|443||edition.cnn.com") == ["edition.cnn.com:443"]
    assert view.cluster("outbound|80||edition.cnn.com").tls is None


def test_origination_with_a_target_port_and_names_of_the_entry() -> None:
    port = {"number": 80, "name": "http", "protocol": "HTTP", "targetPort": 443}
    spec = {"hosts": ["x.example"], "ports": [port], "resolution": "DNS", "subjectAltNames": ["b.example", "a.example"]}
    view = client(
        [
            mesh_object("ServiceEntry", "x", spec),
            destination_rule("x", "x.example", trafficPolicy={"tls": {"mode": "SIMPLE"}}),
        ]
    )
    name = "outbound|80||x.example"
    assert view.endpoints(name) == ["x.example:443"]
    assert view.cluster(name).tls == ClientTls(mode="SIMPLE", sni="x.example", sans=("a.example", "b.example"))
    assert endpoints(view, name).identities == ()


def test_under_a_wildcard_the_requests_own_host_is_the_server_name() -> None:
    entry = mesh_object("ServiceEntry", "w", {"hosts": ["*.w.example"], "ports": [HTTP], "resolution": "NONE"})
    rule = destination_rule("w", "*.w.example", trafficPolicy={"tls": {"mode": "SIMPLE"}})
    assert client([entry, rule]).cluster("outbound|80||*.w.example").tls == ClientTls(mode="SIMPLE")
