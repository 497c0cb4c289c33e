"""History, vocabulary: kinds of calls as Istio's labels name them, and what was counted of them.

Room: control/history. In: label values in the order of ``LABELS``, histograms over ``BOUNDS``. Out: ``Call``, ``Totals``. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from meshproxy.model.report import BOUNDS, LABELS, ROUTE

__all__ = [
    "BUCKETS",
    "UNKNOWN",
    "Call",
    "Sample",
    "Totals",
    "call_of",
    "once",
    "told_by_destination",
]

BUCKETS = len(BOUNDS) + 1
UNKNOWN = ("", "unknown")
# The caller's sidecar answered by itself: the destination never heard of it.
_NEVER_ARRIVED = frozenset(("UF", "UH", "UO", "NR", "NC", "FI", "RL", "UAEX"))
_AT = {name: LABELS.index(name) for name in LABELS}


class Call(NamedTuple):
    """One kind of call. Unknown values are ""."""

    reporter: str
    source: tuple[str, str]  # namespace, workload
    source_app: str
    source_version: str
    target: tuple[str, str]
    target_app: str
    target_version: str
    host: str  # destination_service
    service: tuple[str, str]  # namespace, name
    protocol: str
    code: str
    grpc: str
    flags: str
    mtls: bool | None
    route: tuple[str, str, str] = ("", "", "")  # name, resource, cluster: as the caller's sidecar tells it

    @property
    def failed(self) -> bool:
        """No answer, a server's error, or gRPC's word for one. A connection of bytes has flags where something went wrong."""
        if self.protocol == "tcp":
            return self.flags not in ("", "DC")
        return self.code in ("", "0") or self.code.startswith("5") or self.grpc not in ("", "0")

    @property
    def arrived(self) -> bool:
        return _NEVER_ARRIVED.isdisjoint(self.flags.split(","))


def call_of(labels: Sequence[str]) -> Call:
    """``labels`` in the order of ``LABELS``, then ``ROUTE`` more or none."""

    def value(name: str) -> str:
        found = labels[_AT[name]]
        return "" if found in UNKNOWN else found

    policy = value("connection_security_policy")
    # Names are said of what mutual TLS has proved only; what a sidecar counts under "other" says nothing of it.
    proved = all(value(name).startswith("spiffe://") for name in ("source_principal", "destination_principal"))
    return Call(
        reporter=value("reporter"),
        source=(value("source_workload_namespace"), value("source_workload")),
        source_app=value("source_canonical_service") or value("source_app"),
        source_version=value("source_canonical_revision") or value("source_version"),
        target=(value("destination_workload_namespace"), value("destination_workload")),
        target_app=value("destination_canonical_service") or value("destination_app"),
        target_version=value("destination_canonical_revision") or value("destination_version"),
        host=value("destination_service"),
        service=(value("destination_service_namespace"), value("destination_service_name")),
        protocol=value("request_protocol"),
        code=value("response_code"),
        grpc=value("grpc_response_status"),
        flags=value("response_flags").replace("-", ""),
        mtls={"mutual_tls": True, "none": False}.get(policy, True if proved else None),
        route=(labels[-3], labels[-2], labels[-1]) if len(labels) == len(LABELS) + ROUTE else ("", "", ""),
    )


class Totals:
    """What was counted: requests, errors, their durations (per bucket, not cumulated), bytes, tries after the first."""

    __slots__ = ("buckets", "errors", "received", "requests", "retried", "sent", "sum_ms")

    def __init__(self) -> None:
        self.requests = self.errors = 0.0
        self.sum_ms = self.received = self.sent = self.retried = 0.0
        self.buckets = [0.0] * BUCKETS

    def add(self, other: Totals) -> None:
        self.requests += other.requests
        self.errors += other.errors
        self.sum_ms += other.sum_ms
        self.received += other.received
        self.sent += other.sent
        self.retried += other.retried
        for i, count in enumerate(other.buckets):
            if count:
                self.buckets[i] += count

    def quantile(self, share: float) -> float | None:
        """Milliseconds, as Prometheus estimates it: evenly spread within a bucket. None: nothing was counted."""
        total = sum(self.buckets)
        if total <= 0:
            return None
        rank, below, low = share * total, 0.0, 0.0
        for bound, count in zip(BOUNDS, self.buckets, strict=False):
            if count and below + count >= rank:
                return low + (bound - low) * (rank - below) / count
            below, low = below + count, bound
        return BOUNDS[-1]


Sample = tuple[Call, Totals]
Pair = tuple[tuple[str, str], tuple[str, str]]  # source and target


def told_by_destination(samples: Iterable[Sample]) -> set[Pair]:
    """Between whom the destination's sidecar counts."""
    return {_pair(call) for call, totals in samples if call.reporter == "destination" and totals.requests}


def once(samples: Iterable[Sample], told: set[Pair] | None = None) -> list[Sample]:
    """Each call counted once: as its destination tells it, where that has a sidecar, else as its source does.

    What never arrived only the source can tell. ``told``: of a wider window, so that the two ends do not take turns.
    """
    samples = list(samples)
    told = told_by_destination(samples) if told is None else told
    return [
        (call, totals)
        for call, totals in samples
        if call.reporter == "destination" or not call.arrived or _pair(call) not in told
    ]


def _pair(call: Call) -> Pair:
    return (call.source, call.target)
