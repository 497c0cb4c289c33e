"""DestinationRule (networking.istio.io): how to talk to a service once routing has chosen it.

Room: control/resources. A 0 in a connection limit counts as not given, as in Istio.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, field

from control.resources.meta import (
    Duration,
    DurationOrZero,
    Int32,
    Part,
    Percentage,
    PortNumber,
    Resource,
    Uint32,
    WorkloadSelector,
)
from control.resources.virtual_service import PortSelector

__all__ = [
    "ClientTLSSettings",
    "ConnectionPoolSettings",
    "ConsistentHashLB",
    "Cookie",
    "CookieAttribute",
    "DestinationRule",
    "DestinationRuleSpec",
    "Distribute",
    "Failover",
    "HTTPSettings",
    "Http2KeepAlive",
    "LoadBalancerSettings",
    "LocalityLoadBalancerSetting",
    "Maglev",
    "OutlierDetection",
    "PortTrafficPolicy",
    "ProxyProtocol",
    "RetryBudget",
    "RingHash",
    "Subset",
    "TCPSettings",
    "TcpKeepalive",
    "TrafficPolicy",
    "TunnelSettings",
    "Warmup",
    "ZoneAwareLbSetting",
]


class CookieAttribute(Part, frozen=True, kw_only=True):
    name: str = ""
    value: str = ""


class Cookie(Part, frozen=True, kw_only=True):
    """The cookie that is hashed; generated when ``ttl`` is given (0s: session cookie) and the request has none."""

    name: str
    path: str = ""
    ttl: DurationOrZero | None = None
    attributes: tuple[CookieAttribute, ...] = ()


class RingHash(Part, frozen=True, kw_only=True):
    minimum_ring_size: int | None = None


class Maglev(Part, frozen=True, kw_only=True):
    table_size: int | None = None


class ConsistentHashLB(Part, frozen=True, kw_only=True):
    exclusive = (("ringHash", "maglev"),)
    exactly_one = (("httpHeaderName", "httpCookie", "useSourceIp", "httpQueryParameterName"),)

    http_header_name: str | None = None
    http_cookie: Cookie | None = None
    use_source_ip: bool | None = None
    http_query_parameter_name: str | None = None
    ring_hash: RingHash | None = None
    maglev: Maglev | None = None
    minimum_ring_size: int = 0  # deprecated


class Distribute(Part, frozen=True, kw_only=True):
    """Share of traffic, in percent, from one locality to others."""

    from_: str = ""
    to: dict[str, Uint32] = {}


class Failover(Part, frozen=True, kw_only=True):
    from_: str = ""
    to: str = ""


class LocalityLoadBalancerSetting(Part, frozen=True, kw_only=True):
    """Failover needs outlierDetection to be set as well."""

    distribute: tuple[Distribute, ...] = ()
    failover: tuple[Failover, ...] = ()
    failover_priority: tuple[str, ...] = ()
    enabled: bool | None = None


class ZoneAwareLbSetting(Part, frozen=True, kw_only=True):
    enabled: bool | None = None
    failover: tuple[Failover, ...] = ()
    failover_priority: tuple[str, ...] = ()
    min_cluster_size: Uint32 | None = None


class Warmup(Part, frozen=True, kw_only=True):
    duration: Duration
    minimum_percent: Percentage | None = None
    aggression: Annotated[float, Meta(ge=1)] | None = None


class LoadBalancerSettings(Part, frozen=True, kw_only=True):
    """``simple`` or ``consistent_hash``; neither is the mesh default."""

    exclusive = (("simple", "consistentHash"), ("localityLbSetting", "zoneAwareLbSetting"))

    simple: Literal["UNSPECIFIED", "LEAST_CONN", "RANDOM", "PASSTHROUGH", "ROUND_ROBIN", "LEAST_REQUEST"] | None = None
    consistent_hash: ConsistentHashLB | None = None
    locality_lb_setting: LocalityLoadBalancerSetting | None = None
    zone_aware_lb_setting: ZoneAwareLbSetting | None = None
    warmup_duration_secs: Duration = ""  # deprecated
    warmup: Warmup | None = None


class TcpKeepalive(Part, frozen=True, kw_only=True):
    probes: Uint32 = 0
    time: Duration = ""
    interval: Duration = ""


class TCPSettings(Part, frozen=True, kw_only=True):
    max_connections: Int32 = 0
    connect_timeout: Duration = ""
    tcp_keepalive: TcpKeepalive | None = None
    max_connection_duration: Duration = ""
    idle_timeout: Duration = ""


class Http2KeepAlive(Part, frozen=True, kw_only=True):
    interval: Duration = ""
    timeout: Duration = ""


class HTTPSettings(Part, frozen=True, kw_only=True):
    """``http2_max_requests`` limits concurrent requests of both protocols; ``max_requests_per_connection`` 1: no keep-alive."""

    http1_max_pending_requests: Int32 = 0
    http2_max_requests: Int32 = 0
    max_requests_per_connection: Int32 = 0
    max_retries: Int32 = 0
    idle_timeout: Duration = ""
    h2_upgrade_policy: Literal["DEFAULT", "DO_NOT_UPGRADE", "UPGRADE"] = "DEFAULT"
    use_client_protocol: bool = False
    max_concurrent_streams: Int32 = 0
    http2_keep_alive: Http2KeepAlive | None = None


class ConnectionPoolSettings(Part, frozen=True, kw_only=True):
    tcp: TCPSettings | None = None
    http: HTTPSettings | None = None


class OutlierDetection(Part, frozen=True, kw_only=True):
    """``{}`` turns it on with defaults 5 errors, 10s, 30s, 10 %; ``None`` fields take those. An error count of 0 is off."""

    consecutive_errors: Int32 = 0  # deprecated
    split_external_local_origin_errors: bool = False
    consecutive_local_origin_failures: Uint32 | None = None
    consecutive_gateway_errors: Uint32 | None = None
    consecutive_5xx_errors: Uint32 | None = field(name="consecutive5xxErrors", default=None)
    interval: Duration = ""
    base_ejection_time: Duration = ""
    max_ejection_percent: Int32 = 0
    min_health_percent: Int32 = 0
    outlier_detection_http_error_codes: tuple[Uint32, ...] = ()


class ClientTLSSettings(Part, frozen=True, kw_only=True):
    """TLS towards the service. Certificates are file paths unless ``credential_name`` names a Secret."""

    mode: Literal["DISABLE", "SIMPLE", "MUTUAL", "ISTIO_MUTUAL"] = "DISABLE"
    client_certificate: str = ""
    private_key: str = ""
    ca_certificates: str = ""
    credential_name: str = ""
    subject_alt_names: tuple[str, ...] = ()
    sni: str = ""
    insecure_skip_verify: bool | None = None
    ca_crl: str = ""


class TunnelSettings(Part, frozen=True, kw_only=True):
    protocol: str = ""
    target_host: str
    target_port: PortNumber


class ProxyProtocol(Part, frozen=True, kw_only=True):
    version: Literal["V1", "V2"] = "V1"


class RetryBudget(Part, frozen=True, kw_only=True):
    """At most ``percent`` of active requests may be retries, but ``min_retry_concurrency`` always may."""

    percent: Percentage | None = None
    min_retry_concurrency: Uint32 = 0
    budget_interval: Duration = ""


class PortTrafficPolicy(Part, frozen=True, kw_only=True):
    """Replaces the destination's policy for one port, wholesale."""

    port: PortSelector | None = None
    load_balancer: LoadBalancerSettings | None = None
    connection_pool: ConnectionPoolSettings | None = None
    outlier_detection: OutlierDetection | None = None
    tls: ClientTLSSettings | None = None


class TrafficPolicy(Part, frozen=True, kw_only=True):
    load_balancer: LoadBalancerSettings | None = None
    connection_pool: ConnectionPoolSettings | None = None
    outlier_detection: OutlierDetection | None = None
    tls: ClientTLSSettings | None = None
    port_level_settings: tuple[PortTrafficPolicy, ...] = ()
    tunnel: TunnelSettings | None = None
    proxy_protocol: ProxyProtocol | None = None
    retry_budget: RetryBudget | None = None


class Subset(Part, frozen=True, kw_only=True):
    """A named part of a service's endpoints: those whose labels hold all of ``labels``. Its policy overrides block by block."""

    name: str
    labels: dict[str, str] = {}
    traffic_policy: TrafficPolicy | None = None


class DestinationRuleSpec(Part, frozen=True, kw_only=True):
    host: str
    traffic_policy: TrafficPolicy | None = None
    subsets: tuple[Subset, ...] = ()
    export_to: tuple[str, ...] = ()
    workload_selector: WorkloadSelector | None = None


class DestinationRule(Resource, frozen=True, kw_only=True):
    """Policies for traffic to a service, after routing."""

    spec: DestinationRuleSpec
