"""Sidecar (networking.istio.io): what the sidecars of a namespace, or of some workloads, see and accept.

Room: control/resources.
"""

from __future__ import annotations

from typing import Literal

from control.resources.destination_rule import ConnectionPoolSettings
from control.resources.gateway import ServerTLSSettings
from control.resources.meta import LocalPort, Part, Resource
from control.resources.service_entry import NetworkWorkloadSelector
from control.resources.virtual_service import Destination

__all__ = [
    "IstioEgressListener",
    "IstioIngressListener",
    "OutboundTrafficPolicy",
    "Sidecar",
    "SidecarPort",
    "SidecarSpec",
]

CaptureMode = Literal["DEFAULT", "IPTABLES", "NONE"]


class SidecarPort(Part, frozen=True, kw_only=True):
    """``number`` may be 0 only where ``bind`` is a Unix socket."""

    number: LocalPort = 0
    protocol: str = ""
    name: str = ""
    target_port: LocalPort = 0  # deprecated


class IstioEgressListener(Part, frozen=True, kw_only=True):
    """``hosts`` are ``namespace/name``; namespace is ``.`` (own), ``*`` (all), ``~`` (none) or a name; ``*/*`` is everything."""

    hosts: tuple[str, ...]
    port: SidecarPort | None = None
    bind: str = ""
    capture_mode: CaptureMode = "DEFAULT"


class IstioIngressListener(Part, frozen=True, kw_only=True):
    port: SidecarPort
    bind: str = ""
    capture_mode: CaptureMode = "DEFAULT"
    default_endpoint: str = ""
    tls: ServerTLSSettings | None = None
    connection_pool: ConnectionPoolSettings | None = None


class OutboundTrafficPolicy(Part, frozen=True, kw_only=True):
    mode: Literal["REGISTRY_ONLY", "ALLOW_ANY"] = "REGISTRY_ONLY"
    egress_proxy: Destination | None = None


class SidecarSpec(Part, frozen=True, kw_only=True):
    workload_selector: NetworkWorkloadSelector | None = None
    ingress: tuple[IstioIngressListener, ...] = ()
    egress: tuple[IstioEgressListener, ...] = ()
    inbound_connection_pool: ConnectionPoolSettings | None = None
    outbound_traffic_policy: OutboundTrafficPolicy | None = None


class Sidecar(Resource, frozen=True, kw_only=True):
    """Scopes a sidecar's configuration."""

    spec: SidecarSpec = SidecarSpec()
