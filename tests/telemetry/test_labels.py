"""Istio's labels, whole tables of them (semantics A4)."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from meshproxy.cluster.endpoint import Endpoint
from meshproxy.message.reason import Reason
from meshproxy.message.record import ExchangeRecord
from meshproxy.message.secured import Peer, Secured
from meshproxy.model.cluster import Service, Workload
from meshproxy.model.report import LABELS
from meshproxy.telemetry.labels import answerer, folded, host_of, label_values

BOOK = Workload(
    pod="book-1",
    namespace="default",
    workload="book-service",
    app="book",
    version="v1.0.0",
    canonical_service="book-service",
    canonical_revision="v1.0.0",
    service_account="book",
)
RATING = Workload(
    pod="rating-2",
    namespace="shop",
    workload="rating-service-v2",
    app="rating",
    version="v2.0.0",
    canonical_service="rating-service",
    canonical_revision="v2.0.0",
    cluster="west",
)
SERVICE = Service(host="rating.shop.svc.cluster.local", name="rating", namespace="shop")


def record(direction: str = "outbound", **fields: Any) -> ExchangeRecord:
    made = ExchangeRecord(SimpleNamespace(name=direction, direction=direction), 1.0, 1.7e9)
    made.status = 200
    for name, value in fields.items():
        setattr(made, name, value)
    return made


def endpoint(workload: Workload | None) -> Endpoint:
    made = Endpoint("10.0.0.2", 8080)
    made.workload = workload
    return made


def table(made: ExchangeRecord, own: Workload = BOOK, host: str = "") -> dict[str, str]:
    return dict(zip(LABELS, label_values(made, own, host), strict=True))


SOURCE_BOOK = {
    "source_workload": "book-service",
    "source_canonical_service": "book-service",
    "source_canonical_revision": "v1.0.0",
    "source_workload_namespace": "default",
    "source_principal": "unknown",
    "source_app": "book",
    "source_version": "v1.0.0",
    "source_cluster": "Kubernetes",
}
TARGET_RATING = {
    "destination_workload": "rating-service-v2",
    "destination_workload_namespace": "shop",
    "destination_principal": "unknown",
    "destination_app": "rating",
    "destination_version": "v2.0.0",
    "destination_canonical_service": "rating-service",
    "destination_canonical_revision": "v2.0.0",
    "destination_cluster": "west",
}
TO_RATING = {
    "destination_service": "rating.shop.svc.cluster.local",
    "destination_service_name": "rating",
    "destination_service_namespace": "shop",
}


def unknown(*prefixes: str) -> dict[str, str]:
    return {label: "unknown" for label in LABELS if label.startswith(prefixes)}


def test_the_order_is_istios() -> None:
    assert len(LABELS) == 25 and LABELS[0] == "reporter" and LABELS[-1] == "connection_security_policy"


@pytest.mark.parametrize("direction", ["outbound", "gateway"])
def test_the_calling_side(direction: str) -> None:
    made = record(direction, service=SERVICE, endpoint=endpoint(RATING), cluster_name="outbound|8080||rating")
    assert table(made) == {
        "reporter": "source",
        **SOURCE_BOOK,
        **TARGET_RATING,
        **TO_RATING,
        "request_protocol": "http",
        "response_code": "200",
        "grpc_response_status": "",
        "response_flags": "-",
        "connection_security_policy": "unknown",
    }


def test_the_called_side() -> None:
    made = record("inbound", service=SERVICE, endpoint=endpoint(None), peer=BOOK, cluster_name="inbound|8080||")
    assert table(made, own=RATING) == {
        "reporter": "destination",
        **SOURCE_BOOK,
        **TARGET_RATING,
        **TO_RATING,
        "request_protocol": "http",
        "response_code": "200",
        "grpc_response_status": "",
        "response_flags": "-",
        "connection_security_policy": "none",
    }


def test_a_caller_from_outside_the_mesh() -> None:
    found = table(record("inbound", service=SERVICE), own=RATING)
    assert {label: value for label, value in found.items() if label.startswith("source_")} == unknown("source_")


def test_nobody_healthy_still_names_the_service() -> None:
    made = record(service=SERVICE, status=503, flags=(Reason.NO_HEALTHY_UPSTREAM,), cluster_name="outbound|8080|v3|rating")
    found = table(made)
    assert {label: found[label] for label in TO_RATING} == TO_RATING
    assert {label: found[label] for label in TARGET_RATING} == dict.fromkeys(TARGET_RATING, "unknown")
    assert (found["response_code"], found["response_flags"]) == ("503", "UH")


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        ((), "-"),
        ((Reason.CONNECT_FAILURE, Reason.RETRY_EXHAUSTED), "UF,URX"),
        ((Reason.RBAC_DENIED,), "-"),
        ((Reason.FAULT_DELAY, Reason.RBAC_DENIED), "DI"),
    ],
)
def test_flags(flags: tuple[Reason, ...], text: str) -> None:
    assert table(record(flags=flags))["response_flags"] == text


def test_a_client_that_left() -> None:
    found = table(record(status=0, flags=(Reason.DOWNSTREAM_GONE,), service=SERVICE))
    assert (found["response_code"], found["response_flags"]) == ("0", "DC")


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"cluster_name": "PassthroughCluster"}, "PassthroughCluster"),
        ({"cluster_name": "BlackHoleCluster"}, "BlackHoleCluster"),
        ({"route_name": "block_all", "status": 502}, "BlackHoleCluster"),
        ({"status": 404}, "unknown"),
    ],
)
def test_no_service(fields: dict[str, Any], name: str) -> None:
    found = table(record(**fields), host="example.com")
    assert found["destination_service"] == "example.com"
    assert (found["destination_service_name"], found["destination_service_namespace"]) == (name, "unknown")


@pytest.mark.parametrize(
    ("direction", "service", "authority", "host"),
    [
        ("outbound", None, b"Example.com:8443", "example.com:8443"),
        ("outbound", SERVICE, b"rating:8080", ""),
        ("outbound", None, b"", ""),
        ("outbound", None, b'a"b', ""),
        ("outbound", None, b"a" * 300, ""),
        ("inbound", None, b"example.com", ""),  # others must not be able to name our series
        ("gateway", None, b"example.com", ""),
    ],
)
def test_host_fallback(direction: str, service: Service | None, authority: bytes, host: str) -> None:
    assert host_of(record(direction, service=service, authority=authority)) == host


@pytest.mark.parametrize(("code", "kept"), [(200, "2xx"), (503, "5xx"), (0, "0")])
def test_folding_keeps_the_reporter_and_the_class(code: int, kept: str) -> None:
    found = dict(zip(LABELS, folded(label_values(record(status=code, service=SERVICE), BOOK)), strict=True))
    assert found.pop("reporter") == "source" and found.pop("response_code") == kept
    assert set(found.values()) == {"other"}


SECURED = Secured(Peer(identity="spiffe://d/ns/a/sa/them"), mesh=True, local="spiffe://d/ns/a/sa/us")


@pytest.mark.parametrize(
    ("direction", "side", "labels"),
    [
        ("inbound", "secured", ("spiffe://d/ns/a/sa/them", "spiffe://d/ns/a/sa/us", "mutual_tls")),
        ("inbound", "upstream_secured", ("unknown", "unknown", "none")),
        ("outbound", "upstream_secured", ("spiffe://d/ns/a/sa/us", "spiffe://d/ns/a/sa/them", "unknown")),
        ("gateway", "upstream_secured", ("spiffe://d/ns/a/sa/us", "spiffe://d/ns/a/sa/them", "unknown")),
        ("gateway", "secured", ("unknown", "unknown", "unknown")),
    ],
)
def test_principals_are_those_that_mutual_tls_has_proved(direction: str, side: str, labels: tuple[str, ...]) -> None:
    told = table(record(direction, **{side: SECURED}))
    assert (told["source_principal"], told["destination_principal"], told["connection_security_policy"]) == labels


def test_who_answers_is_who_says_so_over_mutual_tls() -> None:
    secured = Secured(Peer(identity="spiffe://d/ns/shop/sa/rating"), mesh=True)
    secured.tells(RATING)
    made = record(endpoint=endpoint(BOOK), upstream_secured=secured)
    assert answerer(made) is RATING
    assert table(made)["destination_workload"] == "rating-service-v2"
    secured = Secured(Peer(identity="spiffe://d/ns/other/sa/rating"), mesh=True)
    secured.tells(RATING)  # of a namespace that it has not proved
    assert answerer(record(endpoint=endpoint(BOOK), upstream_secured=secured)) is BOOK
