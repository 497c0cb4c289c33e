"""WorkloadGroup (networking.istio.io): a template for WorkloadEntries that register themselves.

Room: control/resources.
"""

from __future__ import annotations

from typing import Literal

from control.resources.meta import Int32, Part, PortNumber, Resource
from control.resources.workload_entry import WorkloadEntrySpec

__all__ = [
    "ExecHealthCheckConfig",
    "GrpcHealthCheckConfig",
    "HTTPHeader",
    "HTTPHealthCheckConfig",
    "ReadinessProbe",
    "TCPHealthCheckConfig",
    "WorkloadGroup",
    "WorkloadGroupMeta",
    "WorkloadGroupSpec",
]


class WorkloadGroupMeta(Part, frozen=True, kw_only=True):
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}


class HTTPHeader(Part, frozen=True, kw_only=True):
    name: str = ""
    value: str = ""


class HTTPHealthCheckConfig(Part, frozen=True, kw_only=True):
    port: PortNumber
    path: str = ""
    host: str = ""
    scheme: Literal["", "HTTP", "HTTPS", "http", "https"] = ""
    http_headers: tuple[HTTPHeader, ...] = ()


class TCPHealthCheckConfig(Part, frozen=True, kw_only=True):
    port: PortNumber
    host: str = ""


class ExecHealthCheckConfig(Part, frozen=True, kw_only=True):
    command: tuple[str, ...]


class GrpcHealthCheckConfig(Part, frozen=True, kw_only=True):
    port: PortNumber | None = None
    service: str = ""


class ReadinessProbe(Part, frozen=True, kw_only=True):
    exactly_one = (("httpGet", "tcpSocket", "exec", "grpc"),)

    initial_delay_seconds: Int32 = 0
    timeout_seconds: Int32 = 0
    period_seconds: Int32 = 0
    success_threshold: Int32 = 0
    failure_threshold: Int32 = 0
    http_get: HTTPHealthCheckConfig | None = None
    tcp_socket: TCPHealthCheckConfig | None = None
    exec: ExecHealthCheckConfig | None = None
    grpc: GrpcHealthCheckConfig | None = None


class WorkloadGroupSpec(Part, frozen=True, kw_only=True):
    template: WorkloadEntrySpec
    metadata: WorkloadGroupMeta | None = None
    probe: ReadinessProbe | None = None


class WorkloadGroup(Resource, frozen=True, kw_only=True):
    """A group of workloads that are not Pods."""

    spec: WorkloadGroupSpec
