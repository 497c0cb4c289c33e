"""The sidecar with more and more telemetry, and Envoy with none but its counters and with everything. One job, that of ``peers``.

Both write Istio's default access log to a file and send OTLP over HTTP to one receiver. Envoy has its own counters and
histograms: Istio's metrics, with their 25 labels, come from a filter that only Istio's build of it has, and would cost it more.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.peers import HOST, Peer, envoy, meshproxy
from meshproxy.model.telemetry import AccessLog, Telemetry, Tracing
from meshproxy.policy.format import ISTIO_DEFAULT

__all__ = ["COLLECTOR", "SAMPLING", "Seen", "seen_peers"]

COLLECTOR = (HOST, 4318)
SAMPLING = 1.0  # percent


class Seen(NamedTuple):
    """``log``: the file that its access log goes to. ``spans``: the path at the receiver. None: it has none."""

    peer: Peer
    log: Path | None = None
    spans: str | None = None


def seen_peers(work: Path) -> list[Seen]:
    """In the order in which each has what the one before it has, and more."""
    return [
        Seen(meshproxy(work, "nothing", 7031, program="benchmarks.blind")),
        Seen(meshproxy(work, "metrics", 7032, Telemetry(logs=()))),
        _ours(work, "traces", 7033, logged=False),
        _ours(work, "log", 7034, logged=True),
        Seen(envoy(work, "Envoy", 7035)),
        _envoys(work, "Envoy log", 7036),
    ]


def _ours(work: Path, name: str, port: int, logged: bool) -> Seen:
    log, spans = work / f"{port}.log", f"/{port}"
    tracing = Tracing(sampling=SAMPLING, exporter=f"http://{COLLECTOR[0]}:{COLLECTOR[1]}{spans}")
    telemetry = Telemetry(logs=(AccessLog(path=str(log)),) if logged else (), tracing=(tracing,))
    return Seen(meshproxy(work, name, port, telemetry), log if logged else None, spans)


def _envoys(work: Path, name: str, port: int) -> Seen:
    log, spans = work / f"{port}.log", f"/{port}"
    file = "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog"
    tracer = {
        "@type": "type.googleapis.com/envoy.config.trace.v3.OpenTelemetryConfig",
        "service_name": "bench.default",
        "http_service": {
            "http_uri": {"uri": f"http://{COLLECTOR[0]}:{COLLECTOR[1]}{spans}", "cluster": "spans", "timeout": "5s"},
        },
    }
    seen: dict[str, Any] = {
        "access_log": [
            {
                "name": "envoy.access_loggers.file",
                "typed_config": {
                    "@type": file,
                    "path": str(log),
                    "log_format": {"text_format_source": {"inline_string": ISTIO_DEFAULT}},
                },
            }
        ],
        "tracing": {
            "random_sampling": {"value": SAMPLING},
            "provider": {"name": "envoy.tracers.opentelemetry", "typed_config": tracer},
        },
    }
    return Seen(envoy(work, name, port, seen, COLLECTOR), log, spans)
