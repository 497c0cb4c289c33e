"""Microseconds of telemetry's hot function and milliseconds of a scrape: ``python benchmarks/micro_telemetry.py``.

Best of five rounds, the loop's own cost taken off. Budget: observe 3 µs.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from types import SimpleNamespace

from meshproxy.cluster.endpoint import Endpoint
from meshproxy.message.reason import Reason
from meshproxy.message.record import ExchangeRecord
from meshproxy.model.cluster import Service, Workload
from meshproxy.model.telemetry import LogCondition, LogFilter, MetricOverride, TagOverride
from meshproxy.telemetry.accesslog import formatter
from meshproxy.telemetry.exposition import exposition
from meshproxy.telemetry.logfile import LogFile
from meshproxy.telemetry.logfilter import compile_filter
from meshproxy.telemetry.observe import Observer
from meshproxy.telemetry.overrides import plans

N = 50_000


def measure(call: Callable[[], object]) -> float:
    """µs per call."""

    def once(what: Callable[[], object]) -> float:
        began = time.perf_counter()
        for _ in range(N):
            what()
        return (time.perf_counter() - began) / N * 1e6

    return min(once(call) for _ in range(5)) - min(once(lambda: None) for _ in range(5))


def record(status: int = 200, flags: tuple[Reason, ...] = ()) -> ExchangeRecord:
    made = ExchangeRecord(SimpleNamespace(name="outbound", direction="outbound"), 1.0, 1.7e9)
    made.endpoint = Endpoint("10.0.0.1", 80)
    made.endpoint.workload = Workload(pod="rating-1", namespace="default", workload="rating", app="rating", version="v1")
    made.service = Service(host="rating.default.svc.cluster.local", name="rating", namespace="default")
    made.cluster_name = "outbound|8080||rating.default.svc.cluster.local"
    made.status, made.flags, made.attempts = status, flags, 1
    made.request_size, made.response_size = 340, 1400
    return made


def complete() -> ExchangeRecord:
    """As a request leaves it, with all that the access log shows."""
    made = record()
    made.method, made.path, made.authority, made.ended = b"GET", b"/rate/1", b"rating:8080", 1.004
    made.request_headers = [
        (b"user-agent", b"wrk"),
        (b"accept", b"*/*"),
        (b"accept-encoding", b"gzip"),
        (b"x-forwarded-proto", b"http"),
        (b"x-request-id", b"6f2b1c2e-8f0a-4c3d-9e51-3c7a5e0f9b11"),
        (b"traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"),
    ]
    made.response_headers = [
        (b"date", b"Sun, 22 Nov 2026 22:00:00 GMT"),
        (b"content-type", b"text/plain"),
        (b"content-length", b"1024"),
        (b"last-modified", b"Sun, 22 Nov 2026 21:00:00 GMT"),
        (b"etag", b'"65-400"'),
        (b"accept-ranges", b"bytes"),
        (b"server", b"istio-envoy"),
        (b"x-envoy-upstream-service-time", b"4"),
    ]
    made.body_sent = 1024
    made.upstream_local, made.downstream_local = ("10.0.0.2", 40000), ("10.0.0.2", 15001)
    made.downstream_remote, made.route_name = ("10.0.0.2", 50000), "default"
    return made


def main() -> None:
    observer = Observer(Workload(pod="book-1", namespace="default", workload="book"))
    plain, failed = record(), record(503, (Reason.UPSTREAM_TERMINATION, Reason.RETRY_EXHAUSTED))
    print(f"{'observe':40} {measure(lambda: observer.finished(plain, 1.004)):6.2f} µs")
    print(f"{'observe, two response flags':40} {measure(lambda: observer.finished(failed, 1.004)):6.2f} µs")
    tagged = Observer(Workload(pod="book-1", namespace="default", workload="book"))
    wanted = (TagOverride(tag="method", value="%REQ(:METHOD)%"), TagOverride(tag="agent", value="%REQ(USER-AGENT)%"))
    tagged.report(plans((MetricOverride(tags=wanted),)))
    plain.method = b"GET"
    plain.request_headers = [(b"accept", b"*/*"), (b"user-agent", b"wrk"), (b"x-request-id", b"1")]
    print(f"{'observe, two tags with operators':40} {measure(lambda: tagged.finished(plain, 1.004)):6.2f} µs")
    line, logged = formatter(), complete()
    logged_line = line(logged)
    as_json = formatter("JSON")
    wants = compile_filter(LogFilter(any_of=((LogCondition(field="status", op=">=", value="500"),),)))
    assert wants is not None
    print(f"{'access log line':40} {measure(lambda: line(logged)):6.2f} µs")
    print(f"{'access log line, JSON':40} {measure(lambda: as_json(logged)):6.2f} µs")
    with tempfile.TemporaryDirectory() as folder:
        file, text = LogFile(f"{folder}/log", limit=1 << 30), logged_line
        print(f"{'access log line, taken for the file':40} {measure(lambda: file.write(text)):6.2f} µs")
        file.close(60)
    print(f"{'access log filter':40} {measure(lambda: wants(plain)):6.2f} µs")
    full = Observer(Workload(pod="book-1", namespace="default", workload="book"))
    for status in range(300, 600):
        full.finished(record(status), 1.004)
    began = time.perf_counter()
    size = sum(len(piece) for piece in exposition(full.families())[1])
    print(f"{'scrape of 300 label sets':40} {(time.perf_counter() - began) * 1e3:6.2f} ms, {size} bytes")


if __name__ == "__main__":
    main()
