"""Telemetry room: the labels of Istio's HTTP metrics, and what each says for one exchange.

In: an ``ExchangeRecord`` and our own ``Workload``. Out: label values in the order of ``model.report.LABELS``. Pure; run once per
new combination of values, never per request. Source of behaviour: semantics A4; Istio's ``istio_stats.cc``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from meshproxy.model.cluster import Workload
from meshproxy.model.report import LABELS

if TYPE_CHECKING:
    from meshproxy.message.record import ExchangeRecord, StreamRecord

__all__ = ["OTHER", "STREAM_LABELS", "UNKNOWN", "answerer", "folded", "grpc_status", "host_of", "label_values", "stream_values"]

STREAM_LABELS = tuple(name for name in LABELS if name not in ("response_code", "grpc_response_status"))  # of bytes
UNKNOWN = "unknown"
OTHER = "other"
_NOBODY = Workload(cluster="")
_HOST_MAX = 262  # a DNS name and a port
_HOST_BYTES = frozenset(b"abcdefghijklmnopqrstuvwxyz0123456789.-_:[]")


def host_of(record: ExchangeRecord) -> str:
    """The requested host for a destination that is no service of ours: Istio's host header fallback, outbound only.

    What others send us (inbound, gateway) would let them name our series, so there it is not used.
    """
    if record.listener.direction != "outbound" or record.service is not None:
        return ""
    host = record.authority.lower()
    if not host or len(host) > _HOST_MAX or not _HOST_BYTES.issuperset(host):
        return ""
    return host.decode("ascii")


def label_values(record: ExchangeRecord, own: Workload, host: str = "") -> tuple[str, ...]:
    """The 25 values. ``own``: the workload that this proxy stands for; ``host``: destination_service when no service is known."""
    inbound = record.listener.direction == "inbound"
    if inbound:
        source, target, secured = record.peer or _NOBODY, own, record.secured
        source_principal, target_principal = (secured.who, secured.local) if secured is not None else ("", "")
    else:
        source, target, secured = own, answerer(record) or _NOBODY, record.upstream_secured
        source_principal, target_principal = (secured.local, secured.who) if secured is not None else ("", "")
    service = record.service
    if service is not None:
        service_host, service_name, service_namespace = service.host, service.name, service.namespace
    else:
        service_host, service_name, service_namespace = host, _catch_all(record), ""
    flags = ",".join(reason.flag for reason in record.flags if reason.flag)
    values = (
        "destination" if inbound else "source",
        source.workload,
        source.canonical_service,
        source.canonical_revision,
        source.namespace,
        source_principal,  # principals are said only of what mutual TLS has proved
        source.app,
        source.version,
        source.cluster,
        target.workload,
        target.namespace,
        target_principal,
        target.app,
        target.version,
        service_host,
        target.canonical_service,
        target.canonical_revision,
        service_name,
        service_namespace,
        target.cluster,
    )
    return (
        *(value or UNKNOWN for value in values),
        "http" if record.grpc is None else "grpc",
        str(record.status),
        grpc_status(record),
        flags or "-",
        UNKNOWN if not inbound else "none" if secured is None or secured.peer is None else "mutual_tls",
    )


def stream_values(record: StreamRecord, own: Workload) -> tuple[str, ...]:
    """The same 25 of a connection of bytes; two of them are never shown."""
    values = dict(zip(LABELS, label_values(record, own), strict=True))
    return tuple({**values, "request_protocol": "tcp", "response_code": "", "grpc_response_status": ""}.values())


def grpc_status(record: ExchangeRecord) -> str:
    """The number, "" where there is none: not gRPC, or no response."""
    tally = record.grpc
    status = None if tally is None else tally.status(record.status, record.response_headers)
    return "" if status is None else str(status)


def answerer(record: ExchangeRecord) -> Workload | None:
    """The workload that answered, or would have: what it said of itself over mutual TLS, else what control says of it."""
    secured, endpoint = record.upstream_secured, record.endpoint
    if secured is not None and secured.workload is not None:
        return secured.workload
    workload: Workload | None = None if endpoint is None else endpoint.workload
    return workload


def _catch_all(record: ExchangeRecord) -> str:
    """The service name of what no service answers for."""
    if record.cluster_name in ("PassthroughCluster", "BlackHoleCluster", "InboundPassthroughCluster"):
        return record.cluster_name
    return "BlackHoleCluster" if record.route_name == "block_all" else ""


def folded(values: tuple[str, ...]) -> tuple[str, ...]:
    """Where a request is counted once there are too many series: by reporter and class of status; the rest is ``other``."""
    code = values[LABELS.index("response_code")]
    kept = {"reporter": values[0], "response_code": f"{code[0]}xx" if len(code) == 3 else code}
    return tuple(kept.get(label, OTHER) for label in LABELS)
