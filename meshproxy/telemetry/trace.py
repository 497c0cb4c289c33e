"""Telemetry room: spans on their way out, as OTLP over HTTP. Loud. Never holds traffic up.

In: finished records of sampled requests (``finished``), from the loop's thread. Out: OTLP bodies to control or to the exporter
that the configuration names, in batches, by a thread of its own that starts with the first span; the SDK is imported there and
not before, so that a proxy that samples nothing does not have it in memory. A queue that is full drops, an exporter that is down
loses its batch; both are counted. Each worker of ``--concurrency`` sends its own.
"""

from __future__ import annotations

import logging
import ssl
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

from meshproxy.model.cluster import Workload
from meshproxy.telemetry.family import Family, Row
from meshproxy.telemetry.spans import Span, span_of
from meshproxy.telemetry.version import VERSION

if TYPE_CHECKING:
    from meshproxy.message.record import ExchangeRecord

__all__ = ["Destination", "Home", "Spans"]

log = logging.getLogger("meshproxy.traces")

QUEUE = 8192  # spans that may wait
BATCH = 128  # spans of one body: encoding more would keep the interpreter for milliseconds at a stretch
# Encoding a span takes some 80 us. At Python's 5 ms the loop would wait that long for its turn while a batch is made.
_TURN = 0.0005  # seconds
_DELAY = 1.0  # seconds that the thread lets spans gather
_LONGEST_ANSWER = 1 << 14  # bytes; it says nothing, or how many spans were rejected
_TIMEOUT = 5.0  # seconds that one batch may take, tries included

Destination = tuple[str, tuple[tuple[str, str], ...]]  # URL, headers; URL "": control
Export = Callable[[Sequence[Span]], bool]


@dataclass(frozen=True)
class Home:
    """Control's own receiver. ``context`` and ``token`` are asked for each connection and each batch; they may raise."""

    url: str
    context: Callable[[], ssl.SSLContext]
    token: Callable[[], str]


class Spans:
    """own: our workload as it is known now. mesh: the mesh's id. home None: there is no control (standalone).

    connect: makes the way to a destination; called on the thread, may raise.
    """

    def __init__(
        self,
        own: Callable[[], Workload],
        node: str,
        mesh: Callable[[], str],
        home: Home | None = None,
        *,
        limit: int = QUEUE,
        delay: float = _DELAY,
        connect: Callable[[Destination, Home | None, Workload, str], Export] | None = None,
    ) -> None:
        self._own = own
        self._node = node
        self._mesh = mesh
        self._home = home
        self._limit = limit
        self._delay = delay
        self._connect = connect or otlp
        self._waiting: list[tuple[Destination, Span]] = []
        self._lock = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closing = False
        self._ways: dict[Destination, Export] = {}
        self._complained: set[Destination] = set()
        self.exported = self.dropped = self.failed = 0

    def finished(self, record: ExchangeRecord) -> None:
        """Take one sampled request. Never blocks."""
        trace = record.trace
        assert trace is not None
        if len(self._waiting) >= self._limit or self._closing:
            self.dropped += 1
            return
        model = trace.tracing.model
        try:
            span = span_of(record, self._own(), self._node, self._mesh(), time.time_ns())
        except Exception:  # a bug of ours in what only describes a request must not cost the request
            self.failed += 1
            if self.failed & (self.failed - 1) == 0:  # the 1st, 2nd, 4th, …
                log.exception("a span cannot be described")
            return
        with self._lock:
            self._waiting.append(((model.exporter, model.exporter_headers), span))
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="traces", daemon=True)
                self._thread.start()
            elif len(self._waiting) in (1, BATCH):
                self._lock.notify()

    def families(self) -> list[Family]:
        rows = [Row((name,), getattr(self, name)) for name in ("exported", "dropped", "failed")]
        text = "Spans of sampled requests: sent, dropped because the queue was full, lost because the exporter did not take them."
        return [Family("mesh_trace_spans_total", "counter", text, ("outcome",), rows, stat="tracing.spans.{}")]

    def close(self, timeout: float = 2.0) -> None:
        """Send what is left; wait at most ``timeout`` seconds for that."""
        with self._lock:
            self._closing = True
            self._lock.notify()
        if self._thread is not None:
            self._thread.join(timeout)

    def _run(self) -> None:
        sys.setswitchinterval(_TURN)
        while True:
            with self._lock:
                while not self._waiting and not self._closing:
                    self._lock.wait()
                if not self._closing:
                    self._lock.wait_for(lambda: self._closing or len(self._waiting) >= BATCH, self._delay)
                batch = self._waiting[:BATCH]
                closing = self._closing
            down = set(self._complained)
            for destination, group in groupby(sorted(batch, key=_destination), _destination):
                self._send(destination, [span for _, span in group])
            down &= self._complained & set(map(_destination, batch))
            with self._lock:
                del self._waiting[: len(batch)]  # only now: what is under way counts as waiting
                if down:  # again: each try takes seconds, for which others, and a backend that takes its place, would wait
                    kept = [one for one in self._waiting if one[0] not in down]
                    self.failed += len(self._waiting) - len(kept)
                    self._waiting[:] = kept
                if closing and not self._waiting:
                    return

    def _send(self, destination: Destination, spans: list[Span]) -> None:
        why = "it does not take them"
        try:
            way = self._ways.get(destination)
            if way is None:
                if len(self._ways) >= 4:  # of configurations that have gone
                    self._ways.clear()
                way = self._ways[destination] = self._connect(destination, self._home, self._own(), self._node)
            taken = way(spans)
        except Exception as error:  # whatever a library or a file does: spans are lost, nothing else
            taken, why = False, str(error) or type(error).__name__
        if taken:
            self.exported += len(spans)
            self._complained.discard(destination)
            return
        self.failed += len(spans)
        self._ways.pop(destination, None)  # the next batch begins anew: with another token, under other roots
        if destination not in self._complained:  # once per outage
            self._complained.add(destination)
            log.warning("traces cannot be sent to %s: %s; spans are lost until it works again", destination[0] or "control", why)


def _destination(waiting: tuple[Destination, Span]) -> Destination:
    return waiting[0]


def otlp(destination: Destination, home: Home | None, own: Workload, node: str) -> Export:
    """The SDK's exporter towards a destination. Imports the SDK; raises ValueError where there is none."""
    import requests
    from opentelemetry.exporter.otlp.proto.http import Compression
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace.export import SpanExportResult
    from requests.adapters import HTTPAdapter

    for name in ("opentelemetry", "urllib3"):  # we say it ourselves, once an outage
        logging.getLogger(name).setLevel(logging.CRITICAL)

    def read(response: requests.Response, **more: Any) -> None:
        """``timeout`` is about each read: an answer that never ends would keep the thread for ever, for other backends too."""
        began = time.monotonic()
        for _ in range(_LONGEST_ANSWER):
            if not response.raw.read(1):
                return
            if time.monotonic() - began > _TIMEOUT:
                break
        response.close()
        raise requests.exceptions.ReadTimeout("its answer does not end")

    url, headers = destination
    session = requests.Session()
    session.hooks["response"].append(read)
    session.trust_env = False  # http_proxy in a pod's environment is this very proxy
    if not url:
        if home is None:
            raise ValueError("there is no control service: give tracing an exporter")
        to_control = home
        url = home.url

        class Adapter(HTTPAdapter):
            """Believes control's certificate under the mesh's roots, and nothing else."""

            def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
                super().init_poolmanager(*args, ssl_context=to_control.context(), **kwargs)

            def cert_verify(self, *args: Any) -> None:
                """The context does it; requests would add the public authorities."""

        def signed(request: requests.PreparedRequest) -> requests.PreparedRequest:
            request.headers["authorization"] = f"Bearer {to_control.token()}"
            return request

        session.mount("https://", Adapter())
        session.auth = signed
    exporter = OTLPSpanExporter(
        endpoint=url, headers=dict(headers), timeout=_TIMEOUT, compression=Compression.Gzip, session=session
    )
    readable = _readable(
        {
            "service.name": f"{own.canonical_service or own.workload}.{own.namespace}",
            "service.version": own.canonical_revision,
            "k8s.namespace.name": own.namespace,
            "k8s.pod.name": own.pod,
            "service.instance.id": node,
        }
    )

    def export(spans: Sequence[Span]) -> bool:
        return exporter.export([readable(span) for span in spans]) is SpanExportResult.SUCCESS

    return export


def _readable(service: dict[str, str]) -> Callable[[Span], Any]:
    """What makes the SDK's finished span of one of ours, with our ids and times. ``service``: the resource's attributes."""
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import Event, ReadableSpan
    from opentelemetry.sdk.util.instrumentation import InstrumentationScope
    from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags
    from opentelemetry.trace.span import TraceState

    class Own(Resource):
        """There is one: the SDK's would be hashed for every span, and for that made into JSON."""

        def __hash__(self) -> int:
            return id(self)

        def __eq__(self, other: object) -> bool:
            return self is other

    # What all spans share is made once (benchmarks/micro_tracing.py "sending a span").
    resource, scope = Own(service), InstrumentationScope("meshproxy", VERSION)
    flags, stateless = TraceFlags(TraceFlags.SAMPLED), TraceState()
    failed, unset = Status(StatusCode.ERROR), Status(StatusCode.UNSET)

    def readable(span: Span) -> Any:
        trace, state = int(span.trace_id, 16), TraceState.from_header([span.state]) if span.state else stateless
        parent = SpanContext(trace, int(span.parent_id, 16), True, flags, state) if span.parent_id else None
        return ReadableSpan(
            name=span.name,
            context=SpanContext(trace, int(span.span_id, 16), False, flags, state),
            parent=parent,
            resource=resource,
            attributes=span.tags,
            events=[Event(name, about, at) for at, name, about in span.events],
            kind=SpanKind.SERVER if span.server else SpanKind.CLIENT,
            status=failed if span.error else unset,
            start_time=span.start,
            end_time=span.end,
            instrumentation_scope=scope,
        )

    return readable
