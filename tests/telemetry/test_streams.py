"""Istio's metrics of connections of bytes: what is told when, under which labels, and what control hears of it."""

from __future__ import annotations

from typing import Any

from meshproxy.message.reason import Reason
from meshproxy.message.record import StreamRecord
from meshproxy.message.secured import Peer, Secured
from meshproxy.model.cluster import Service, Workload
from meshproxy.model.telemetry import MetricOverride, TagOverride
from meshproxy.telemetry.accesslog import formatter
from meshproxy.telemetry.observe import Observer
from meshproxy.telemetry.overrides import plans
from meshproxy.telemetry.report import Collector

BOOK = Workload(pod="book-1", namespace="default", workload="book", app="book", version="v1")
DB = Service(host="db.default.svc.cluster.local", name="db", namespace="default")


class Listener:
    name = "10.96.0.7_5432"

    def __init__(self, direction: str = "outbound") -> None:
        self.direction = direction


class Endpoint:
    address, port = "10.0.0.9", 5432
    workload = Workload(pod="db-1", namespace="default", workload="db", app="db")


def record(direction: str = "outbound", **fields: Any) -> StreamRecord:
    made = StreamRecord(Listener(direction), 10.0, 1_790_000_000.0, ("10.0.0.1", 40000), ("10.96.0.7", 5432))
    made.cluster_name, made.service, made.endpoint = "outbound|5432||db", DB, Endpoint()
    made.upstream_started = 10.004
    for name, value in fields.items():
        setattr(made, name, value)
    return made


def shown(observer: Observer) -> dict[str, list[tuple[dict[str, str], float]]]:
    return {
        family.name.removeprefix("istio_tcp_").removesuffix("_total"): [
            (dict(zip(family.labels, row.labels, strict=True)), row.value) for row in family.rows
        ]
        for family in observer.families()
        if family.name.startswith("istio_tcp")
    }


def test_what_is_told_when() -> None:
    observer = Observer(BOOK)
    one = record()
    for received, sent, over in ((5, 0, False), (5, 7, False), (9, 8, True)):
        one.body_received, one.body_sent = received, sent
        observer.streamed(one, 11.0, over)
    found = {name: [value for _, value in rows] for name, rows in shown(observer).items()}
    assert found == {"connections_opened": [1], "connections_closed": [1], "received_bytes": [9], "sent_bytes": [8]}


def test_labels() -> None:
    observer = Observer(BOOK)
    secured = Secured(Peer(identity="spiffe://cluster.local/ns/default/sa/db"), mesh=True, local="spiffe://x/book")
    observer.streamed(record(upstream_secured=secured), 11.0, False)
    ((labels, _),) = shown(observer)["connections_opened"]
    assert "response_code" not in labels and "grpc_response_status" not in labels
    assert {name: labels[name] for name in ("reporter", "request_protocol", "response_flags", "connection_security_policy")} == {
        "reporter": "source",
        "request_protocol": "tcp",
        "response_flags": "-",
        "connection_security_policy": "unknown",
    }
    assert labels["destination_service_name"] == "db" and labels["destination_workload"] == "db"
    assert labels["destination_principal"] == "spiffe://cluster.local/ns/default/sa/db"


def test_flags_at_the_end() -> None:
    observer = Observer(BOOK)
    one = record()
    observer.streamed(one, 11.0, False)
    one.flag(Reason.UPSTREAM_TERMINATION)
    observer.streamed(one, 12.0, True)
    closed = {labels["response_flags"]: value for labels, value in shown(observer)["connections_closed"]}
    opened = {labels["response_flags"]: value for labels, value in shown(observer)["connections_opened"]}
    assert closed == {"-": 0, "UC": 1} and opened == {"-": 1, "UC": 0}


def test_where_nobody_is_known() -> None:
    observer = Observer(BOOK)
    for direction, cluster in (("outbound", "PassthroughCluster"), ("inbound", "InboundPassthroughCluster")):
        observer.streamed(record(direction, cluster_name=cluster, service=None, endpoint=None), 11.0, True)
    rows = shown(observer)["connections_closed"]
    assert [(labels["reporter"], labels["destination_service_name"]) for labels, _ in rows] == [
        ("source", "PassthroughCluster"),
        ("destination", "InboundPassthroughCluster"),
    ]


def test_telemetry_s_overrides() -> None:
    observer = Observer(BOOK)
    tags = (TagOverride(tag="source_version"), TagOverride(tag="port", value="%DOWNSTREAM_LOCAL_PORT%"))
    observer.report(
        plans(
            (
                MetricOverride(metrics=("istio_tcp_sent_bytes_total",), disabled=True),
                MetricOverride(metrics=("istio_tcp_connections_opened_total",), tags=tags),
            )
        )
    )
    observer.streamed(record(), 11.0, True)
    found = shown(observer)
    assert found["sent_bytes"] == []
    ((labels, _),) = found["connections_opened"]
    assert labels["port"] == "5432" and "source_version" not in labels
    ((labels, _),) = found["connections_closed"]
    assert "port" not in labels and labels["source_version"] == "v1" and "response_code" not in labels


def test_label_sets_are_bounded() -> None:
    observer = Observer(BOOK, limit=2)
    for number in range(5):
        observer.streamed(record(service=Service(host=f"s{number}", name=f"s{number}", namespace="x")), 11.0, True)
    rows = shown(observer)["connections_closed"]
    assert [(labels["destination_service"], value) for labels, value in rows] == [("s0", 1), ("s1", 1), ("other", 3)]


def test_what_control_hears() -> None:
    observer = Observer(BOOK)
    collector = Collector(observer.store, observer.streams)
    one = record(body_received=5)
    observer.streamed(one, 11.0, False)
    (edge,) = collector.collect((), ()).edges
    assert (edge.requests, sum(edge.durations), edge.received, edge.sent) == (1, 1, 5, 0) and 3.9 < edge.sum_ms < 4.1
    assert collector.collect((), ()).edges == []
    one.body_sent = 70
    observer.streamed(one, 16.0, False)
    (edge,) = collector.collect((), ()).edges
    assert (edge.requests, edge.received, edge.sent) == (0, 0, 70)


def test_the_access_log_s_line() -> None:
    """Istio's, of a connection: byte for byte but for the addresses."""
    one = record(body_received=5, body_sent=7, ended=10.25, upstream_local=("10.0.0.1", 50000), name="db.example")
    assert formatter()(one) == (
        b'[2026-09-21T14:13:20.000Z] "- - -" 0 - - - "-" 5 7 250 - "-" "-" "-" "-" "10.0.0.9:5432" outbound|5432||db '
        b"10.0.0.1:50000 10.96.0.7:5432 10.0.0.1:40000 db.example -\n"
    )
    one.flag(Reason.RBAC_DENIED)
    one.reason = "rbac_access_denied_matched_policy[none]"
    assert b'"- - -" 0 - - rbac_access_denied_matched_policy[none] "-" 5 7' in formatter()(one)
