"""What tracing adds to a request, in µs of CPU: the filter by what the request brought, the end of a sampled one, its span.

Usage: python -m benchmarks.micro_tracing
"""

from __future__ import annotations

import random
import threading
import time
from http.server import ThreadingHTTPServer
from typing import Any

from benchmarks.spansink import Sink
from meshproxy.filters.identity import sidecar_identity
from meshproxy.filters.tracing import tracing_filter
from meshproxy.message.head import Headers, RequestHead
from meshproxy.message.record import ExchangeRecord
from meshproxy.message.traced import Traced
from meshproxy.model.cluster import Workload
from meshproxy.model.telemetry import Tracing
from meshproxy.policy.context import compile_tracing
from meshproxy.telemetry.spans import span_of
from meshproxy.telemetry.trace import BATCH, Spans, otlp

USUAL: Headers = [
    (b"user-agent", b"wrk"),
    (b"accept", b"*/*"),
    (b"accept-encoding", b"gzip"),
    (b"x-forwarded-proto", b"http"),
    (b"x-request-id", b"6f2b1c2e-8f0a-4c3d-9e51-3c7a5e0f9b11"),
]
PARENT = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-"
OWN = Workload(pod="p", namespace="default")
ROUNDS = 50_000


class _Record:
    trace: Any = None


class _Exchange:
    """As much of an exchange as the filter looks at."""

    def __init__(self, headers: Headers) -> None:
        self.request = RequestHead(b"GET", b"/", b"rating:8080", headers)
        self.record = _Record()
        self.dice = random.random
        self.precise = time.time_ns
        self.secured = None


def cost(run: Any, usual: Headers, more: Headers) -> float:
    """µs a request, without what it takes to renew the headers."""
    exchange: Any = _Exchange([])
    head = exchange.request
    given = [*usual, *more]

    def rounds(call: Any) -> float:
        began = time.process_time()
        for _ in range(ROUNDS):
            head.headers = given.copy()
            call(exchange, 0.0)
        return time.process_time() - began

    nothing = min(rounds(lambda exchange, now: None) for _ in range(5))
    return (min(rounds(run) for _ in range(5)) - nothing) / ROUNDS * 1e6


def _finished() -> Any:
    """A record of a sampled request."""
    record = ExchangeRecord(_Listener, 0.0, 1e9, RequestHead(b"GET", b"/", b"rating:8080", USUAL.copy()), ("127.0.0.1", 1))
    record.trace = Traced(compile_tracing(Tracing(), "tracing"), b"1" * 32, b"1" * 16, b"", b"")
    record.cluster_name, record.status = "outbound|8080|v1|rating.default.svc.cluster.local", 200
    return record


def described() -> float:
    """µs for what a sampled request's end costs the loop: the span's description and the queue; the rest is another thread's."""
    record = _finished()
    spans = Spans(lambda: OWN, "node", lambda: "m", limit=1 << 30, connect=_nowhere)
    spans.finished(record)
    began = time.thread_time()
    for _ in range(ROUNDS):
        spans.finished(record)
    took = time.thread_time() - began
    spans.close(60)
    return took / ROUNDS * 1e6


def _nowhere(destination: Any, home: Any, own: Any, node: str) -> Any:
    return lambda spans: True


def sent() -> float:
    """µs that the other thread needs for a span, as one of a batch: the SDK's span, its encoding, its share of the POST."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Sink) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        export = otlp((f"http://127.0.0.1:{server.server_port}/", ()), None, OWN, "node")
        batch = []
        for _ in range(BATCH):
            record = _finished()
            record.trace.trace_id = b"%032x" % random.getrandbits(128)
            batch.append(span_of(record, OWN, "node", "m"))
        best = 1.0
        for _ in range(20):
            began = time.thread_time()
            assert export(batch)
            best = min(best, time.thread_time() - began)
        server.shutdown()
    return best / BATCH * 1e6


class _Listener:
    direction = "outbound"


def main() -> None:
    rows = (
        ("a trace begins, not sampled", Tracing(sampling=0.0), []),
        ("not sampled by the caller", Tracing(sampling=1.0), [(b"traceparent", PARENT + b"00")]),
        ("a trace begins, sampled", Tracing(sampling=100.0), []),
        ("sampled by the caller", Tracing(sampling=1.0), [(b"traceparent", PARENT + b"01")]),
    )
    for name, tracing, more in rows:
        run = tracing_filter(compile_tracing(tracing, "tracing"))
        print(f"{name}: {cost(run, USUAL, more):.2f} us a request")
    fresh = USUAL[:-2]
    print(f"identity: {cost(sidecar_identity('BASE', True), fresh, []):.2f} us a request")
    both = sidecar_identity("BASE", True, compile_tracing(Tracing(sampling=0.0), "tracing"))
    print(f"identity, and a trace begins, not sampled: {cost(both, fresh, []):.2f} us a request")
    print(f"the end of a sampled request: {described():.2f} us")
    print(f"sending a span: {sent():.2f} us")


if __name__ == "__main__":
    main()
