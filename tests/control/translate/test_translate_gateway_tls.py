"""TLS servers of gateways: what each block means, own routes per server, who wins a port or a host (semantics A3, A7)."""

from __future__ import annotations

from typing import Any

import pytest
from world_objects import Obj, View, mesh_object, pod, service, to, virtual_service

from meshproxy.model.security import ServerTls

LABELS = {"istio": "ingressgateway"}
HASH, SPKI = "ab" * 32, "QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVowMTIzNDU="
FILES = {"serverCertificate": "/c.pem", "privateKey": "/k.pem"}
A, B = "outbound|8080||a.default.svc.cluster.local", "outbound|8080||b.default.svc.cluster.local"


def server(number: int, *hosts: str, protocol: str = "HTTPS", name: str = "", **tls: Any) -> Obj:
    port = {"number": number, "name": name or f"p{number}", "protocol": protocol}
    return {"port": port, "hosts": list(hosts) or ["*"], **({"tls": tls} if tls else {})}


def gateway(name: str, *servers: Obj, created: str = "") -> Obj:
    return mesh_object("Gateway", name, {"selector": LABELS, "servers": list(servers)}, created=created)


def see(*objs: Obj, annotations: dict[str, str] | None = None) -> View:
    proxy = pod("gw", "127.1.0.10", LABELS, namespace="istio-system", annotations=annotations or {})
    return View([service("a"), service("b"), *objs, proxy], ("istio-system", "gw"))


def chain(**tls: Any) -> ServerTls:
    (found,) = see(gateway("gw", server(443, "a.example", **tls))).listener("gateway|443").tls
    return found


def expected(**more: Any) -> ServerTls:
    return ServerTls(hosts=("a.example",), route="https.443.p443.gw.default", source="Gateway default/gw servers[0]", **more)


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ({"mode": "SIMPLE", "credentialName": "web"}, {"secret": "istio-system/web"}),
        ({"mode": "SIMPLE", "credentialNames": ["web"]}, {"secret": "istio-system/web"}),
        ({"mode": "SIMPLE", **FILES}, {"certificate_file": "/c.pem", "key_file": "/k.pem"}),
        ({"mode": "SIMPLE", "tlsCertificates": [FILES]}, {"certificate_file": "/c.pem", "key_file": "/k.pem"}),
        (
            {"mode": "SIMPLE", **FILES, "caCertificates": "/ca.pem", "subjectAltNames": ["x"]},
            {"certificate_file": "/c.pem", "key_file": "/k.pem"},
        ),
        ({"mode": "MUTUAL", "credentialName": "web"}, {"mode": "MUTUAL", "secret": "istio-system/web"}),
        (
            {"mode": "MUTUAL", "credentialName": "web", "caCertCredentialName": "ca"},
            {"mode": "MUTUAL", "secret": "istio-system/web", "ca_secret": "istio-system/ca"},
        ),
        (
            {"mode": "OPTIONAL_MUTUAL", **FILES, "caCertificates": "/ca.pem", "caCrl": "/crl.pem"},
            {
                "mode": "OPTIONAL_MUTUAL",
                "certificate_file": "/c.pem",
                "key_file": "/k.pem",
                "ca_file": "/ca.pem",
                "crl_file": "/crl.pem",
            },
        ),
        (
            {"mode": "MUTUAL", "credentialName": "web", "subjectAltNames": ["y", "x"], "verifyCertificateHash": [HASH]},
            {"mode": "MUTUAL", "secret": "istio-system/web", "sans": ("x", "y"), "certificate_hashes": (HASH,)},
        ),
        (
            {"mode": "MUTUAL", "credentialName": "web", "verifyCertificateSpki": [SPKI]},
            {"mode": "MUTUAL", "secret": "istio-system/web", "spki_hashes": (SPKI,)},
        ),
        ({"mode": "ISTIO_MUTUAL"}, {"mode": "ISTIO_MUTUAL"}),
        ({"mode": "ISTIO_MUTUAL", "subjectAltNames": ["spiffe://a/b"]}, {"mode": "ISTIO_MUTUAL", "sans": ("spiffe://a/b",)}),
        (
            {"mode": "SIMPLE", "credentialName": "web", "minProtocolVersion": "TLSV1_3"},
            {"secret": "istio-system/web", "min_version": "TLSV1_3"},
        ),
        (
            {"mode": "SIMPLE", "credentialName": "web", "maxProtocolVersion": "TLSV1_2"},
            {"secret": "istio-system/web", "max_version": "TLSV1_2"},
        ),
        (
            {"mode": "SIMPLE", "credentialName": "web", "cipherSuites": ["ECDHE-RSA-AES256-GCM-SHA384", "NULL-SHA"]},
            {"secret": "istio-system/web", "ciphers": ("ECDHE-RSA-AES256-GCM-SHA384",)},
        ),
    ],
)
def test_a_tls_block_as_the_proxy_gets_it(given: dict[str, Any], wanted: dict[str, Any]) -> None:
    assert chain(**given) == expected(**wanted)


@pytest.mark.parametrize("protocol", ["HTTPS", "TLS"])
def test_a_gateway_between_clusters_is_not_opened(protocol: str) -> None:
    view = see(gateway("gw", server(443, protocol=protocol, mode="AUTO_PASSTHROUGH")))
    assert view.names("listener") == []
    why = "tls.mode AUTO_PASSTHROUGH is for gateways between clusters, which are not supported; use PASSTHROUGH"
    assert view.problems == [f"Gateway default/gw servers[0]: {why}: not opened"]


def test_each_tls_server_has_its_own_routes() -> None:
    view = see(
        gateway(
            "gw",
            server(443, "a.example", name="one", mode="SIMPLE", **FILES),
            server(443, "default/b.example", name="two", mode="SIMPLE", **FILES),
            server(80, "*", protocol="HTTP"),
        ),
        virtual_service("va", ["a.example"], [{"route": [to("a")]}], gateways=["gw"]),
        virtual_service("vb", ["b.example"], [{"route": [to("b")]}], gateways=["gw"]),
    )
    assert view.problems == []
    one, two = view.listener("gateway|443").tls
    assert (one.hosts, two.hosts) == (("a.example",), ("b.example",))
    assert view.names("route") == ["http.80", "https.443.one.gw.default", "https.443.two.gw.default"]
    assert view.targets("a.example", one.route) == [[(A, 1)]]
    assert [host.domains for host in view.config(one.route).virtual_hosts] == [("a.example",)]
    assert view.targets("b.example", two.route) == [[(B, 1)]]
    assert len(view.config("http.80").virtual_hosts) == 2
    assert view.listener("gateway|80").tls == ()


def test_both_ports_may_be_moved_by_the_annotation() -> None:
    both = gateway("gw", server(443, mode="SIMPLE", **FILES), server(80, protocol="HTTP", httpsRedirect=True))
    view = see(both, annotations={"mesh.dev/gateway-bind": "80=127.0.0.1:8080,443=127.0.0.1:8443"})
    assert [(view.listener(name).bind, view.listener(name).port) for name in view.names("listener")] == [
        ("127.0.0.1", 8080),
        ("127.0.0.1", 8443),
    ]
    (redirect,) = view.routes("*", "http.8080")
    assert (redirect.action.scheme, redirect.action.code) == ("https", 301)  # type: ignore[union-attr]


def test_gateways_of_one_port_are_merged_and_the_oldest_keeps_a_host() -> None:
    view = see(
        gateway("new", server(443, "a.example", "c.example", mode="SIMPLE", **FILES), created="2026-01-02T00:00:00Z"),
        gateway("old", server(443, "a.example", mode="SIMPLE", **FILES), created="2026-01-01T00:00:00Z"),
        gateway("other", server(443, "*.example", mode="SIMPLE", **FILES), created="2026-01-03T00:00:00Z"),
    )
    assert [tls.source for tls in view.listener("gateway|443").tls] == [
        "Gateway default/old servers[0]",
        "Gateway default/other servers[0]",
    ]
    served = "host a.example on port 443 is served by Gateway default/old servers[0] already"
    assert view.problems == [f"Gateway default/new servers[0]: {served}: not opened"]


def test_a_port_is_either_plain_or_tls() -> None:
    view = see(
        gateway("plain", server(443, protocol="HTTP"), created="2026-01-01T00:00:00Z"),
        gateway("tls", server(443, mode="SIMPLE", **FILES), created="2026-01-02T00:00:00Z"),
    )
    assert view.listener("gateway|443").tls == ()
    assert view.problems == [
        "Gateway default/tls servers[0]: port 443 is HTTP already, by Gateway default/plain servers[0]: not opened"
    ]


def test_a_virtual_service_without_a_served_host_is_told_once() -> None:
    view = see(
        gateway(
            "gw",
            server(443, "a.example", name="one", mode="SIMPLE", **FILES),
            server(443, "b.example", name="two", mode="SIMPLE", **FILES),
        ),
        virtual_service("v", ["z.example"], [{"route": [to("a")]}], gateways=["gw"]),
    )
    assert view.problems == ["VirtualService default/v: none of its hosts is served by Gateway default/gw servers[0]"]
