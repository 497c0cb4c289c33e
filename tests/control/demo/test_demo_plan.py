"""The demo's table: addresses move together, objects are what Kubernetes expects."""

from __future__ import annotations

from pathlib import Path

import pytest

from control.demo.launcher import _claims
from control.demo.plan import Addresses, BadPlan, Sidecar, app_environment, demo_pods, gateway_pod, pod_object, seeds
from control.resources.columns import TABLES

AT = Sidecar("https://127.0.0.1:15012", Path("/s/ca.pem"), Path("/s/tokens"))


def test_default_base_is_the_walkthroughs_table() -> None:
    addresses = Addresses("127.1.0.0")
    assert [addresses.pod(1), addresses.pod(2), addresses.pod(3), addresses.gateway] == [
        "127.1.0.1",
        "127.1.0.2",
        "127.1.0.3",
        "127.1.0.10",
    ]
    assert (addresses.control, addresses.user_traffic, addresses.port) == ("127.0.0.1", "127.0.0.1", 8080)


def test_another_base_shares_no_address_with_the_first() -> None:
    first = {(host, port) for host, port, _ in _claims(Addresses("127.1.0.0"))}
    second = {(host, port) for host, port, _ in _claims(Addresses("127.7.0.0"))}
    assert not first & second


def test_a_port_that_was_asked_for_is_on_127_0_0_1_whatever_the_base() -> None:
    assert Addresses("127.7.0.0", 8181, port_given=True).user_traffic == "127.0.0.1"
    assert Addresses("127.7.0.0").user_traffic == "127.7.0.10"


@pytest.mark.parametrize("base", ["10.0.0.0", "127.0.0.0", "127.1.0.5", "x", "::1", "127.1.0.256"])
def test_a_base_that_cannot_be_names_the_option(base: str) -> None:
    with pytest.raises(BadPlan, match=r"^--base .*127\.2\.0\.0$|^--base .*127\.2\.0\.0"):
        Addresses(base)


def test_a_port_that_cannot_be_names_the_option() -> None:
    with pytest.raises(BadPlan, match=r"^--port 70000: "):
        Addresses("127.1.0.0", 70000)


def test_workloads_have_the_articles_labels_and_two_containers() -> None:
    pods = {plan.name: plan for plan in demo_pods(Addresses("127.1.0.0"), AT)}
    assert list(pods) == ["book-service", "rating-service-v1", "rating-service-v2"]
    assert pods["rating-service-v2"].labels == {
        "app.kubernetes.io/name": "rating-service",
        "app.kubernetes.io/version": "v2.0.0",
        "security.istio.io/tlsMode": "istio",
        "service.istio.io/canonical-name": "rating-service",
        "service.istio.io/canonical-revision": "v2.0.0",
    }
    for plan in pods.values():
        assert [container.name for container in plan.containers] == [plan.labels["app.kubernetes.io/name"], "istio-proxy"]
        assert plan.annotations["mesh.dev/inbound-ports"] == "8080:9080"


def test_apps_call_out_through_their_own_sidecar() -> None:
    env = app_environment("127.1.0.1", "book-service", "default")
    assert env["http_proxy"] == env["HTTP_PROXY"] == "http://127.1.0.1:15001"


def test_the_gateway_takes_user_traffic_where_the_user_was_told() -> None:
    plan = gateway_pod(Addresses("127.1.0.0", 8090, True), AT)
    assert plan.annotations["mesh.dev/gateway-bind"] == "80=127.0.0.1:8090,443=127.0.0.1:8453,8090=127.0.0.1:8090"
    assert "gateway" in plan.containers[0].argv


def test_objects_carry_no_status_and_seeds_are_in_dependency_order() -> None:
    assert "status" not in pod_object(demo_pods(Addresses("127.1.0.0"), AT)[0])
    kinds = [body["kind"] for _, body in seeds(Addresses("127.1.0.0"))]
    assert kinds == ["Namespace", "Namespace", "Service", "Service", "Service", "Gateway", "VirtualService"]


def test_nothing_of_the_demo_is_named_like_the_users_objects() -> None:
    for _, body in seeds(Addresses("127.1.0.0")):
        if body["apiVersion"].startswith("networking.istio.io"):
            assert body["metadata"]["namespace"] == "istio-system"


def test_the_gateways_service_says_where_users_reach_it() -> None:
    for port in (8080, 8181):
        body = next(
            body for _, body in seeds(Addresses("127.1.0.0", port, True)) if body["metadata"]["name"] == "istio-ingressgateway"
        )
        cells = {column.name: column.value(body, 0.0) for column in TABLES["Service"]}
        assert (cells["Type"], cells["External-IP"], cells["Port(s)"]) == ("LoadBalancer", "127.0.0.1", f"80:{port}/TCP")
