"""Spans: what they say, and how they leave."""

from __future__ import annotations

import gzip
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from meshproxy.message.grpc import GrpcTally
from meshproxy.message.record import ExchangeRecord
from meshproxy.model.cluster import Service, Workload
from meshproxy.model.match import RouteMatch, StringMatch
from meshproxy.model.route import Forward, Route, WeightedCluster
from meshproxy.model.telemetry import CustomTag, Tracing
from meshproxy.telemetry.spans import Span, span_of
from meshproxy.telemetry.trace import Destination, Home, Spans
from tests.flow.test_mesh import ask
from tests.flow.test_tracing import CAME, OK, S, T, traced

BOOK = Workload(pod="book-1", namespace="default", workload="book", canonical_service="book-service", canonical_revision="v1")
NODE = "sidecar~127.1.0.1~book-1.default~default.svc.cluster.local"
RATING = Service(host="rating.default.svc.cluster.local", name="rating", namespace="default")


def recorded(tracing: Tracing, more: bytes = b"", **route: Any) -> ExchangeRecord:
    world, told = traced(tracing, **route)
    client = world.client()
    client.deliver(ask(more))
    world.clock.advance(0.25)
    world.accept().deliver(OK)
    return told[0]


def span(record: ExchangeRecord) -> Span:
    return span_of(record, BOOK, NODE, "cluster.local")


def families(spans: Spans) -> dict[str, float]:
    (family,) = spans.families()
    return {row.labels[0]: row.value for row in family.rows}


def test_a_span_has_istios_name_and_tags() -> None:
    record = recorded(Tracing(sampling=100.0), CAME + b"user-agent: curl\r\nx-request-id: 1234\r\n")
    record.service, record.cluster_name = RATING, "outbound|8080|v1|rating.default.svc.cluster.local"
    told = span(record)
    assert told.name == "rating.default.svc.cluster.local:8080/*"
    assert (told.server, told.trace_id, told.parent_id, told.error) == (False, T.decode(), S.decode(), False)
    assert told.end - told.start == 250_000_000
    assert told.start == int(record.wall * 1e9)
    assert told.tags == {
        "component": "proxy",
        "downstream_cluster": "-",
        "guid:x-request-id": "1234",
        "http.method": "GET",
        "http.protocol": "HTTP/1.1",
        "http.status_code": "200",
        "http.url": "http://rating:8080/a",
        "istio.canonical_revision": "v1",
        "istio.canonical_service": "book-service",
        "istio.mesh_id": "cluster.local",
        "istio.namespace": "default",
        "node_id": NODE,
        "peer.address": "127.0.0.1",
        "request_size": "0",
        "response_flags": "-",
        "response_size": "2",
        "upstream_address": "127.1.0.2:8080",
        "upstream_cluster": "outbound|8080|v1|rating.default.svc.cluster.local",
        "upstream_cluster.name": "outbound|8080|v1|rating.default.svc.cluster.local",
        "user_agent": "curl",
    }


def test_a_span_holds_no_credentials() -> None:
    record = recorded(Tracing(sampling=100.0))
    record.path, record.authority = b"/a?access_token=s3cret&b=1", b"me:s3cret@book"
    record.grpc = GrpcTally()
    told = span(record)
    assert told.tags["http.url"] == "http://book/a?access_token=[redacted]&b=1"
    assert "s3cret" not in str(told)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (StringMatch(kind="prefix", value="/a"), "rating.default.svc.cluster.local:8080/a*"),
        (StringMatch(kind="exact", value="/a"), "rating.default.svc.cluster.local:8080/a"),
    ],
)
def test_a_span_is_named_by_its_routes_path(path: StringMatch, expected: str) -> None:
    record = recorded(Tracing(sampling=100.0), route={"match": RouteMatch(path=path)})
    record.service, record.cluster_name = RATING, "outbound|8080||rating.default.svc.cluster.local"
    assert span(record).name == expected


def test_what_was_answered_before_a_destination_was_drawn_is_named_by_its_routes() -> None:
    """As Istio names it: of several destinations nobody knows which one it would have been."""
    record = recorded(Tracing(sampling=100.0))
    record.service, record.cluster_name = None, ""
    trace = record.trace
    assert trace is not None
    one = WeightedCluster(cluster="outbound|8080||rating.default.svc.cluster.local")
    trace.route = SimpleNamespace(model=Route(action=Forward(clusters=(one,))))
    assert span(record).name == "rating.default.svc.cluster.local:8080/*"
    trace.route = SimpleNamespace(model=Route(action=Forward(clusters=(one, one))))
    assert span(record).name == "rating:8080/*"


def test_what_failed_is_an_error() -> None:
    record = recorded(Tracing(sampling=100.0))
    for status, expected in ((0, True), (200, False), (404, False), (503, True)):
        record.status = status
        told = span(record)
        assert told.error is expected
        assert ("error" in told.tags) is expected


@pytest.mark.parametrize(("number", "error"), [(b"0", False), (b"5", False), (b"14", True)])
def test_grpc_says_how_it_ended_in_its_trailers(number: bytes, error: bool) -> None:
    world, told = traced(Tracing(sampling=100.0))
    client = world.client()
    client.deliver(
        b"POST /shop.Books/Get HTTP/1.1\r\nhost: rating:8080\r\ncontent-type: application/grpc\r\nte: trailers\r\n"
        b"connection: te\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"
    )
    world.accept().deliver(
        b"HTTP/1.1 200 OK\r\ncontent-type: application/grpc\r\ntransfer-encoding: chunked\r\n\r\n0\r\ngrpc-status: "
        + number
        + b"\r\n\r\n"
    )
    (record,) = told
    about = span(record)
    assert about.error is error
    assert about.tags["grpc.status_code"] == number.decode() and about.tags["grpc.path"] == "/shop.Books/Get"
    assert about.tags["grpc.content_type"] == "application/grpc"


def test_custom_tags_and_lengths() -> None:
    tags = (
        CustomTag(tag="team", literal="books"),
        CustomTag(tag="who", header=("X-User", "nobody")),
        CustomTag(tag="home", environment=("MESH_TEST_SURELY_UNSET", "here")),
        CustomTag(tag="code", formatter="%RESPONSE_CODE%"),
        CustomTag(tag="agent", header=("user-agent", "")),
    )
    tracing = Tracing(sampling=100.0, tags=tags, istio_tags=False, max_tag_length=16)
    told = span(recorded(tracing, b"x-user: " + b"a" * 100 + b"\r\n")).tags
    assert (told["team"], told["who"], told["home"], told["code"]) == ("books", "a" * 16, "here", "200")
    assert "agent" not in told
    assert told["http.url"] == "http://rating:80"
    assert not [name for name in told if name.startswith("istio.")]


class Receiver:
    """An OTLP receiver that decodes what it gets."""

    def __init__(self) -> None:
        self.requests: list[ExportTraceServiceRequest] = []
        self.headers: list[dict[str, str]] = []
        self.status = 200
        self.endless = False
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                body = gzip.decompress(body) if self.headers["content-encoding"] == "gzip" else body
                outer.requests.append(ExportTraceServiceRequest.FromString(body))
                outer.headers.append({name.lower(): value for name, value in self.headers.items()})
                self.send_response(outer.status)
                self.send_header("content-length", "1000000" if outer.endless else "0")
                self.end_headers()
                with suppress(OSError):
                    while outer.endless:
                        self.wfile.write(b"x")

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/v1/traces"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.close()


def test_an_otlp_backend_gets_what_was_sampled(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")  # as in a pod
    spans = Spans(lambda: BOOK, NODE, lambda: "cluster.local", delay=0.0)
    tracing = Tracing(sampling=100.0, exporter=receiver.url, exporter_headers=(("x-key", "k"),))
    record = recorded(tracing, CAME + b"tracestate: a=b\r\n")
    assert record.trace is not None
    began = record.trace.began = time.time_ns()
    spans.finished(record)
    spans.close(60)
    assert families(spans) == {"exported": 1, "dropped": 0, "failed": 0}
    (request,) = receiver.requests
    assert receiver.headers[0]["x-key"] == "k"
    (of_resource,) = request.resource_spans
    about = {one.key: one.value.string_value for one in of_resource.resource.attributes}
    assert about["service.name"] == "book-service.default" and about["k8s.pod.name"] == "book-1"
    (sent,) = of_resource.scope_spans[0].spans
    assert (sent.trace_id.hex(), sent.span_id.hex(), sent.parent_span_id.hex()) == (
        T.decode(),
        record.trace.span_id.decode(),
        S.decode(),
    )
    assert sent.kind == sent.SPAN_KIND_CLIENT and sent.trace_state == "a=b"
    assert sent.start_time_unix_nano == began and 0 <= sent.end_time_unix_nano - began < 60 * 10**9
    assert {one.key: one.value.string_value for one in sent.attributes}["http.status_code"] == "200"


def test_a_backend_that_refuses_is_counted_and_asked_again(receiver: Receiver) -> None:
    receiver.status = 400
    spans = Spans(lambda: BOOK, NODE, lambda: "cluster.local", delay=0.0)
    spans.finished(recorded(Tracing(sampling=100.0, exporter=receiver.url)))
    spans.close(60)
    assert families(spans) == {"exported": 0, "dropped": 0, "failed": 1}


def test_a_backend_whose_answer_does_not_end_is_left(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("meshproxy.telemetry.trace._TIMEOUT", 1)
    receiver.endless = True
    spans = Spans(lambda: BOOK, NODE, lambda: "cluster.local", delay=0.0)
    spans.finished(recorded(Tracing(sampling=100.0, exporter=receiver.url)))
    spans.close(60)
    receiver.endless = False
    assert families(spans) == {"exported": 0, "dropped": 0, "failed": 1}


def test_what_waits_for_a_backend_that_is_down_does_not_hold_up_another() -> None:
    held, entered = threading.Event(), threading.Event()
    sent: list[tuple[str, int]] = []

    def connect(destination: Destination, home: Home | None, own: Workload, node: str) -> Any:
        def export(spans: Sequence[Span]) -> bool:
            entered.set()
            assert held.wait(60)
            sent.append((destination[0], len(spans)))
            return destination[0] == "http://up"

        return export

    spans = Spans(lambda: BOOK, NODE, lambda: "m", delay=0.0, connect=connect)
    gone = recorded(Tracing(sampling=100.0, exporter="http://down"))
    for _ in range(1000):
        spans.finished(gone)
    assert entered.wait(60)
    spans.finished(recorded(Tracing(sampling=100.0, exporter="http://up")))
    held.set()
    spans.close(60)
    assert [one for one in sent if one[0] == "http://up"] == [("http://up", 1)]
    assert len(sent) <= 3
    assert families(spans) == {"exported": 1, "dropped": 0, "failed": 1000}


def test_a_full_queue_drops_and_nothing_blocks() -> None:
    held, entered = threading.Event(), threading.Event()

    def connect(destination: Destination, home: Home | None, own: Workload, node: str) -> Any:
        def export(spans: Sequence[Span]) -> bool:
            entered.set()
            return held.wait(60)

        return export

    spans = Spans(lambda: BOOK, NODE, lambda: "m", limit=3, delay=0.0, connect=connect)
    record = recorded(Tracing(sampling=100.0))
    spans.finished(record)
    assert entered.wait(60)
    for _ in range(4):
        spans.finished(record)
    assert spans.dropped == 2
    held.set()
    spans.close(60)
    assert families(spans) == {"exported": 3, "dropped": 2, "failed": 0}
    spans.finished(record)  # too late
    assert spans.dropped == 3


def test_without_anywhere_to_send_spans_are_counted_as_lost() -> None:
    spans = Spans(lambda: BOOK, NODE, lambda: "m", delay=0.0)
    spans.finished(recorded(Tracing(sampling=100.0)))
    spans.close(60)
    assert families(spans) == {"exported": 0, "dropped": 0, "failed": 1}


def test_nothing_sampled_leaves_the_sdk_unimported() -> None:
    code = "import sys, meshproxy.app; print(any(name.split('.')[0] in ('opentelemetry', 'requests') for name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
