"""Clusters and their endpoints (Envoy: Cluster, ClusterLoadAssignment; Istio: DestinationRule.trafficPolicy).

Durations are seconds. A limit of ``None`` is no limit.
"""

from __future__ import annotations

from typing import Literal

from meshproxy.model.base import Model
from meshproxy.model.security import ClientTls

__all__ = [
    "Cluster",
    "ConnectionPool",
    "Endpoint",
    "Endpoints",
    "HashPolicy",
    "LoadBalancer",
    "Locality",
    "Outlier",
    "RetryBudget",
    "Service",
    "Workload",
]


class HashPolicy(Model, frozen=True):
    """Exactly one of ``header``, ``cookie``, ``query``, ``source_ip``. A cookie is generated when ``cookie_ttl`` is set."""

    header: str | None = None
    cookie: str | None = None
    cookie_ttl: float | None = None  # 0: session cookie
    cookie_path: str = ""
    cookie_attributes: tuple[tuple[str, str], ...] = ()
    query: str | None = None
    source_ip: bool = False


class LoadBalancer(Model, frozen=True):
    policy: Literal["ROUND_ROBIN", "LEAST_REQUEST", "RANDOM", "PASSTHROUGH", "RING_HASH"] = "ROUND_ROBIN"
    hash: HashPolicy | None = None
    ring_size: int = 1024  # minimum ring size
    choice_count: int = 2


class ConnectionPool(Model, frozen=True):
    max_connections: int | None = None
    max_pending_requests: int | None = None
    max_requests: int | None = None  # concurrent requests, h1 and h2
    max_requests_per_connection: int = 0  # 0: no limit
    max_retries: int | None = None
    connect_timeout: float = 10.0
    idle_timeout: float = 3600.0
    max_connection_duration: float = 0.0  # 0: none
    tcp_keepalive: tuple[int, int, int] | None = None  # probes, time s, interval s; 0: system default


class RetryBudget(Model, frozen=True):
    """Overrides ``max_retries`` when set."""

    percent: float = 20.0
    min_concurrency: int = 3


class Outlier(Model, frozen=True):
    """Outlier detection; semantics B1. ``None`` on a cluster: off (and locality failover off)."""

    consecutive_5xx: int = 5  # 0: off
    consecutive_gateway: int = 0  # 0: off
    consecutive_local: int = 5  # only with split_local
    split_local: bool = False
    interval: float = 10.0
    base_ejection: float = 30.0
    max_ejection_percent: int = 10
    min_health_percent: int = 0
    error_codes: tuple[int, ...] = ()  # replaces which codes count as errors, when not empty


class Service(Model, frozen=True):
    """Whom a cluster stands for, for metric labels."""

    host: str  # FQDN
    name: str
    namespace: str


class Cluster(Model, frozen=True):
    """``outbound|<port>|<subset>|<fqdn>``, ``inbound|<port>||``, ``PassthroughCluster`` or ``BlackHoleCluster``.

    ``EDS`` and ``STATIC`` take endpoints from the ``Endpoints`` resource of the same name; ``DNS`` resolves those endpoints'
    addresses as host names (all answers are used); ``PASSTHROUGH`` dials what the request asked for, or where an intercepted
    connection was meant to go.
    """

    name: str
    type: Literal["EDS", "STATIC", "DNS", "PASSTHROUGH"] = "EDS"
    service: Service | None = None
    lb: LoadBalancer = LoadBalancer()
    pool: ConnectionPool = ConnectionPool()
    outlier: Outlier | None = None
    retry_budget: RetryBudget | None = None
    tls: ClientTls | None = None  # None: plaintext
    source: str = ""  # "DestinationRule default/rating subset v1" for explain
    bind: str = ""  # source address of our connections ("127.0.0.6": the app behind interception); "": the kernel's choice


class Locality(Model, frozen=True):
    region: str = ""
    zone: str = ""
    sub_zone: str = ""


class Workload(Model, frozen=True):
    """Peer metadata: the values behind ``istio_*`` labels."""

    pod: str = ""
    namespace: str = ""
    workload: str = ""
    app: str = ""
    version: str = ""
    canonical_service: str = ""
    canonical_revision: str = ""
    principal: str = ""
    cluster: str = "Kubernetes"
    service_account: str = ""


class Endpoint(Model, frozen=True):
    address: str
    port: int
    weight: int = 1
    priority: int = 0  # 0 first; from locality, judged by control for this proxy's locality
    locality: Locality | None = None
    workload: Workload | None = None
    mtls: bool = False  # a sidecar stands there that takes the mesh's mutual TLS


class Endpoints(Model, frozen=True):
    """Named as its cluster. Sorted by workload pod name, then address and port: round robin starts at the first.

    ``identities``: the SPIFFE URIs of the service's accounts; over mutual TLS the server must be one of them.
    """

    name: str
    endpoints: tuple[Endpoint, ...] = ()
    identities: tuple[str, ...] = ()
