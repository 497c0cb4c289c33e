"""Explain says who is called in vain, and finds the listener that a URL means."""

from __future__ import annotations

from typing import Any

import pytest

from meshproxy.apply import compile_snapshot
from meshproxy.explain import explain, listener_for
from meshproxy.model.cluster import Cluster, Endpoint, Endpoints, Workload
from meshproxy.model.listener import Listener
from meshproxy.model.route import DirectResponse, Route
from meshproxy.model.security import ClientTls, Secret, ServerTls, Trust
from tests.policy.fakes import config, host, rule
from tests.test_apply import EDGE, OUT, Maker, resources


def test_who_is_called_in_vain_is_told() -> None:
    """Control names a workload by its account; its certificate is made of that and the trust domain."""

    def told(tls: ClientTls, trust: Trust | None = None, secret: Secret | None = None) -> dict[str, Any]:
        workload = Workload(pod="rating-1", namespace="default", workload="rating", service_account="rating")
        group = Endpoints(name="a", endpoints=(Endpoint(address="127.1.0.1", port=8080, mtls=True, workload=workload),))
        routes = config(host(rule("a"), domains=("rating",)), name="8080")
        given = resources(Cluster(name="a", tls=tls), group, routes, OUT)
        given["trust"] = {} if trust is None else {"mesh": trust}
        given["secret"] = {} if secret is None else {secret.name: secret}
        made = compile_snapshot(given, None, Maker())
        found: dict[str, Any] = explain(made, "outbound", {"url": "http://rating:8080/"}).as_dict()["destinations"][0]
        return found

    revoked = Trust(domain="corp", revoked_identities=("spiffe://corp/ns/default/sa/rating",))
    assert told(ClientTls(), revoked)["endpoints"][0]["refused"] == (
        "the peer's certificate or identity is revoked: corp/ns/default/sa/rating"
    )
    assert "refused" not in told(ClientTls(), Trust(domain="corp"))["endpoints"][0]
    outside = ClientTls(mode="SIMPLE", sni="api.example.com", secret="default/ca")
    assert told(outside)["problem"] == "secret default/ca: not found"
    broken = Secret(name="default/ca", error="it has no ca.crt")
    assert told(outside, secret=broken)["problem"] == "secret default/ca: it has no ca.crt"
    assert "problem" not in told(outside, secret=Secret(name="default/ca", ca="PEM"))


def test_a_url_without_a_port_of_a_gateway_means_the_only_listener_of_its_scheme() -> None:
    """443 outside is 8443 inside: the Service says so, and the gateway does not know it."""
    server = ServerTls(hosts=("a.example.com",), route="https.a", secret="x")
    table = config(host(Route(name="a", action=DirectResponse(status=200))), name="https.a")
    plain = config(host(Route(name="b", action=DirectResponse(status=200))), name=EDGE.route)
    secure = Listener(name="gateway|8443", direction="gateway", port=8443, tls=(server,))
    made = compile_snapshot(resources(secure, table, EDGE, plain), None, Maker())
    assert listener_for(made, {"url": "https://a.example.com/"}) == "gateway|8443"
    assert listener_for(made, {"url": "http://a.example.com/"}) == EDGE.name
    assert explain(made, "gateway|8443", {"url": "https://a.example.com/"}).as_dict()["request"]["scheme"] == "https"
    other = Listener(name="gateway|9443", direction="gateway", port=9443, tls=(server,))
    both = compile_snapshot(resources(secure, other, table), None, Maker())
    with pytest.raises(ValueError, match=r"say which one is meant, with --listener; there are gateway\|8443, gateway\|9443"):
        listener_for(both, {"url": "https://a.example.com/"})


def test_a_pod_that_is_dialled_by_its_address_is_known() -> None:
    """So that its own sidecar can be asked: it meets plaintext."""
    workload = Workload(pod="rating-1", namespace="default", workload="rating", service_account="rating")
    group = Endpoints(name="a", endpoints=(Endpoint(address="127.1.0.1", port=8080, mtls=True, workload=workload),))
    routes = config(host(rule("a"), domains=("rating",)), name="8080")
    away = Cluster(name="PassthroughCluster", type="PASSTHROUGH")
    made = compile_snapshot(resources(Cluster(name="a"), away, group, routes, OUT), None, Maker())

    def dialled(url: str) -> dict[str, Any]:
        found: dict[str, Any] = explain(made, "outbound", {"url": url}).as_dict()["destinations"][0]["endpoints"][0]
        return found

    assert dialled("http://127.1.0.1:8080/") == {
        "address": "127.1.0.1:8080",
        "state": "dialled as asked",
        "pod": "rating-1",
        "namespace": "default",
        "workload": "rating",
        "version": "",
        "tls": "plaintext",
    }
    assert dialled("http://127.1.0.1:9080/") == {"address": "127.1.0.1:9080", "state": "dialled as asked"}
