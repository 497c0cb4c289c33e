"""Translate, traffic policy: DestinationRule blocks to the model's load balancer, pool and outlier detection.

In: a ``Policy``. Out: model structs with every default of semantics A1, B1 and B3 filled in; 0 in a limit is "not given".
"""

from __future__ import annotations

from control.resources.destination_rule import (
    ConnectionPoolSettings,
    ConsistentHashLB,
    HTTPSettings,
    LoadBalancerSettings,
    OutlierDetection,
    RetryBudget,
    TCPSettings,
)
from control.resources.values import parse_duration
from meshproxy.model import cluster as model

__all__ = ["connection_pool", "load_balancer", "outlier", "retry_budget"]

_SIMPLE: dict[str, str] = {
    "LEAST_CONN": "LEAST_REQUEST",
    "LEAST_REQUEST": "LEAST_REQUEST",
    "ROUND_ROBIN": "ROUND_ROBIN",
    "RANDOM": "RANDOM",
    "PASSTHROUGH": "PASSTHROUGH",
}


def seconds(text: str, default: float = 0.0) -> float:
    """A duration field; empty is ``default``."""
    return parse_duration(text) if text else default


def load_balancer(settings: LoadBalancerSettings | None, default: str) -> model.LoadBalancer:
    if settings is None:
        return model.LoadBalancer(policy=default)  # type: ignore[arg-type]
    if settings.consistent_hash is not None:
        return _hash(settings.consistent_hash)
    return model.LoadBalancer(policy=_SIMPLE.get(settings.simple or "", default))  # type: ignore[arg-type]


def _hash(settings: ConsistentHashLB) -> model.LoadBalancer:
    size = settings.minimum_ring_size
    if settings.ring_hash is not None and settings.ring_hash.minimum_ring_size:
        size = settings.ring_hash.minimum_ring_size
    cookie = settings.http_cookie
    if settings.http_header_name:
        policy = model.HashPolicy(header=settings.http_header_name.lower())
    elif cookie is not None:
        policy = model.HashPolicy(
            cookie=cookie.name,
            cookie_ttl=parse_duration(cookie.ttl) if cookie.ttl is not None else None,
            cookie_path=cookie.path,
            cookie_attributes=tuple((a.name, a.value) for a in cookie.attributes),
        )
    elif settings.http_query_parameter_name:
        policy = model.HashPolicy(query=settings.http_query_parameter_name)
    else:
        policy = model.HashPolicy(source_ip=True)
    return model.LoadBalancer(policy="RING_HASH", hash=policy, ring_size=size or 1024)


def connection_pool(settings: ConnectionPoolSettings | None) -> model.ConnectionPool:
    if settings is None:
        return model.ConnectionPool()
    tcp, http = settings.tcp or TCPSettings(), settings.http or HTTPSettings()
    keepalive = None
    if tcp.tcp_keepalive is not None:
        alive = tcp.tcp_keepalive
        keepalive = (alive.probes, int(seconds(alive.time)), int(seconds(alive.interval)))
    return model.ConnectionPool(
        max_connections=_limit(tcp.max_connections),
        max_pending_requests=_limit(http.http1_max_pending_requests),
        max_requests=_limit(http.http2_max_requests),
        max_requests_per_connection=max(http.max_requests_per_connection, 0),
        max_retries=_limit(http.max_retries),
        connect_timeout=seconds(tcp.connect_timeout) or 10.0,
        idle_timeout=seconds(http.idle_timeout or tcp.idle_timeout, 3600.0),
        max_connection_duration=seconds(tcp.max_connection_duration),
        tcp_keepalive=keepalive,
    )


def _limit(value: int) -> int | None:
    return value if value > 0 else None


def outlier(settings: OutlierDetection | None) -> model.Outlier | None:
    """``{}`` is on with the defaults of B1.10; absent is off."""
    if settings is None:
        return None
    consecutive, gateway = settings.consecutive_5xx_errors, settings.consecutive_gateway_errors
    if gateway is None and settings.consecutive_errors > 0:
        gateway = settings.consecutive_errors  # the deprecated name of the same counter
    local = settings.consecutive_local_origin_failures
    return model.Outlier(
        consecutive_5xx=5 if consecutive is None else consecutive,
        consecutive_gateway=gateway or 0,
        consecutive_local=5 if local is None else local,
        split_local=settings.split_external_local_origin_errors,
        interval=seconds(settings.interval) or 10.0,
        base_ejection=seconds(settings.base_ejection_time) or 30.0,
        max_ejection_percent=settings.max_ejection_percent if settings.max_ejection_percent > 0 else 10,
        min_health_percent=max(settings.min_health_percent, 0),
        error_codes=tuple(sorted(set(settings.outlier_detection_http_error_codes))),
    )


def retry_budget(settings: RetryBudget | None) -> model.RetryBudget | None:
    if settings is None:
        return None
    return model.RetryBudget(
        percent=20.0 if settings.percent is None else settings.percent,
        min_concurrency=settings.min_retry_concurrency or 3,
    )
