"""The proxies that are compared, each configured for the same job: split ``rating`` 75/25 over two backends.

With retries armed, outlier detection and connection limits on wherever the proxy has them. In: a work directory and the
backends. Out: ``Peer`` objects whose ``command`` starts the proxy on ``port``. ``envoy`` and ``meshproxy`` take what
``benchmarks.seeing`` adds to them. BENCH_NETWORK: the first three bytes of the loopback addresses, for runs side by side.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from meshproxy.model.base import encode, fingerprint
from meshproxy.model.cluster import Cluster, ConnectionPool, Endpoint, Endpoints, Outlier, Service, Workload
from meshproxy.model.listener import Listener
from meshproxy.model.route import Forward, Retry, Route, RouteConfig, VirtualHost, WeightedCluster
from meshproxy.model.telemetry import Telemetry

__all__ = ["AUTHORITY", "BACKENDS", "HOST", "Peer", "backend", "envoy", "meshproxy", "peers"]

_NETWORK = os.environ.get("BENCH_NETWORK", "127.77.0")
HOST = f"{_NETWORK}.1"
BACKENDS = ((f"{_NETWORK}.2", 9080), (f"{_NETWORK}.3", 9080))
AUTHORITY = "rating:8080"


@dataclass
class Peer:
    name: str
    port: int
    command: list[str]
    environment: dict[str, str] = field(default_factory=dict)


def backend(work: Path) -> list[str]:
    """nginx answering 1 KiB at /1k and 1 MiB at /1m on both backend addresses."""
    root = work / "www"
    root.mkdir(exist_ok=True)
    (root / "1k").write_bytes(b"x" * 1024)
    (root / "1m").write_bytes(b"x" * (1 << 20))
    listens = "".join(f"    listen {host}:{port} backlog=2048;\n" for host, port in BACKENDS)
    return _nginx(work, "backend", f"  server {{\n{listens}    root {root};\n    keepalive_requests 100000000;\n  }}\n")


def _nginx(work: Path, name: str, servers: str) -> list[str]:
    path = work / f"{name}.conf"
    path.write_text(
        f"daemon off;\nworker_processes 1;\npid {work}/{name}.pid;\nerror_log /dev/null;\n"
        "events { worker_connections 4096; }\n"
        f"http {{\n  access_log off;\n  keepalive_timeout 75;\n  client_body_temp_path {work}/{name}.body;\n"
        f"  proxy_temp_path {work}/{name}.proxy;\n  fastcgi_temp_path {work}/{name}.f;\n  uwsgi_temp_path {work}/{name}.u;\n"
        f"  scgi_temp_path {work}/{name}.s;\n  sendfile on;\n{servers}}}\n"
    )
    return ["nginx", "-c", str(path), "-p", str(work), "-e", "/dev/null"]


def _relay() -> Peer:
    host, port = BACKENDS[0]
    return Peer("raw relay", 7001, [sys.executable, "-m", "benchmarks.relay", HOST, "7001", host, str(port)])


def _nginx_peer(work: Path) -> Peer:
    servers = "".join(
        f"    server {host}:{port} weight={weight} max_fails=5;\n" for (host, port), weight in zip(BACKENDS, (3, 1), strict=True)
    )
    return Peer(
        "nginx",
        7002,
        _nginx(
            work,
            "proxy",
            f"  upstream rating {{\n{servers}    keepalive 256;\n    keepalive_requests 100000000;\n  }}\n"
            f"  server {{\n    listen {HOST}:7002 backlog=2048;\n    keepalive_requests 100000000;\n    location / {{\n"
            "      proxy_pass http://rating;\n      proxy_http_version 1.1;\n      proxy_set_header Connection '';\n"
            "      proxy_set_header Host $host;\n      proxy_next_upstream error timeout;\n    }\n  }\n",
        ),
    )


def _haproxy(work: Path) -> Peer:
    path = work / "haproxy.cfg"
    servers = "".join(
        f"  server s{index} {host}:{port} weight {weight} observe layer7 error-limit 5 on-error mark-down check inter 10s\n"
        for index, ((host, port), weight) in enumerate(zip(BACKENDS, (75, 25), strict=True))
    )
    path.write_text(
        "global\n  nbthread 1\n  maxconn 4096\ndefaults\n  mode http\n"
        "  timeout connect 10s\n  timeout client 1h\n  timeout server 1h\n"
        "  retries 2\n  option redispatch\n  http-reuse always\n"
        f"frontend f\n  bind {HOST}:7003\n  default_backend b\nbackend b\n  balance roundrobin\n{servers}"
    )
    return Peer("HAProxy", 7003, ["haproxy", "-db", "-f", str(path)])


def envoy(
    work: Path,
    name: str = "Envoy",
    port: int = 7004,
    seen: dict[str, Any] | None = None,
    collector: tuple[str, int] | None = None,
) -> Peer:
    """``seen``: what the connection manager has besides, of logs and traces; ``collector``: where the cluster "spans" leads."""
    binary = shutil.which("envoy", path=str(Path(sys.executable).parent) + os.pathsep + os.environ.get("PATH", ""))
    names = ("outbound|8080|version-v1|rating", "outbound|8080|version-v2|rating")
    clusters: list[dict[str, Any]] = [
        {
            "name": cluster,
            "type": "STATIC",
            "connect_timeout": "10s",
            "lb_policy": "ROUND_ROBIN",
            "circuit_breakers": {
                "thresholds": [{"max_connections": 1024, "max_pending_requests": 1024, "max_requests": 4096, "max_retries": 1024}]
            },
            "outlier_detection": {
                "consecutive_5xx": 5,
                "interval": "10s",
                "base_ejection_time": "30s",
                "max_ejection_percent": 100,
            },
            "load_assignment": {
                "cluster_name": cluster,
                "endpoints": [{"lb_endpoints": [_envoy_endpoint(*address)]}],
            },
        }
        for cluster, address in zip(names, BACKENDS, strict=True)
    ]
    if collector is not None:
        assignment = {"cluster_name": "spans", "endpoints": [{"lb_endpoints": [_envoy_endpoint(*collector)]}]}
        clusters.append({"name": "spans", "type": "STATIC", "connect_timeout": "10s", "load_assignment": assignment})
    route = {
        "match": {"prefix": "/"},
        "route": {
            "weighted_clusters": {"clusters": [{"name": one, "weight": w} for one, w in zip(names, (75, 25), strict=True)]},
            "timeout": "0s",
            "retry_policy": {
                "retry_on": "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes",
                "num_retries": 2,
                "retry_host_predicate": [
                    {
                        "name": "envoy.retry_host_predicates.previous_hosts",
                        "typed_config": {
                            "@type": "type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"
                        },
                    }
                ],
                "host_selection_retry_max_attempts": 5,
            },
        },
    }
    manager = {
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "outbound",
        "route_config": {
            "virtual_hosts": [
                {
                    "name": "rating",
                    "domains": ["rating", "rating:8080"],
                    "include_request_attempt_count": True,
                    "routes": [route],
                }
            ]
        },
        "normalize_path": True,
        "http_filters": [
            {
                "name": "envoy.filters.http.fault",
                "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault"},
            },
            {
                "name": "envoy.filters.http.cors",
                "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.cors.v3.Cors"},
            },
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"},
            },
        ],
        **(seen or {}),
    }
    config = {
        "static_resources": {
            "listeners": [
                {
                    "name": "outbound",
                    "address": {"socket_address": {"address": HOST, "port_value": port}},
                    "filter_chains": [
                        {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
                    ],
                }
            ],
            "clusters": clusters,
        },
        "admin": {"address": {"socket_address": {"address": HOST, "port_value": port + 900}}},
    }
    path = work / f"envoy-{port}.json"
    path.write_text(json.dumps(config))
    return Peer(name, port, [str(binary), "-c", str(path), "--concurrency", "1", "-l", "error", "--disable-hot-restart"])


def _envoy_endpoint(host: str, port: int) -> dict[str, object]:
    return {"endpoint": {"address": {"socket_address": {"address": host, "port_value": port}}}}


def meshproxy(
    work: Path,
    name: str = "meshproxy",
    port: int = 7005,
    telemetry: Telemetry | None = None,
    program: str = "meshproxy",
) -> Peer:
    """``telemetry``: a configuration of it; ``program``: another module that starts the sidecar."""
    service = Service(host="rating.default.svc.cluster.local", name="rating", namespace="default")
    resources: list[tuple[str, str, object]] = []
    weighted = []
    for index, (address, weight) in enumerate(zip(BACKENDS, (75, 25), strict=True), 1):
        subset = f"outbound|8080|version-v{index}|rating.default.svc.cluster.local"
        cluster = Cluster(
            name=subset,
            service=service,
            pool=ConnectionPool(max_connections=1024, max_pending_requests=1024, max_requests=4096, max_retries=1024),
            outlier=Outlier(max_ejection_percent=100),
        )
        workload = Workload(
            pod=f"rating-v{index}", namespace="default", workload=f"rating-v{index}", app="rating", version=f"v{index}"
        )
        resources.append(("cluster", subset, cluster))
        endpoint = Endpoint(address=address[0], port=address[1], workload=workload)
        resources.append(("endpoints", subset, Endpoints(name=subset, endpoints=(endpoint,))))
        weighted.append(WeightedCluster(cluster=subset, weight=weight))
    retry = Retry(attempts=2, on=("connect-failure", "refused-stream", "unavailable", "cancelled", "retriable-status-codes"))
    route = Route(name="rating", action=Forward(clusters=tuple(weighted), retry=retry))
    host = VirtualHost(
        name="rating:8080", domains=("rating", "rating.default", "rating.default.svc.cluster.local"), routes=(route,)
    )
    resources.append(("route", "8080", RouteConfig(name="8080", virtual_hosts=(host,))))
    resources.append(("listener", "outbound", Listener(name="outbound", direction="outbound", port=15001, route_ports=(8080,))))
    if telemetry is not None:
        resources.append(("telemetry", telemetry.name, telemetry))
    documents = []
    for kind, named, value in resources:
        body = encode(value)
        documents.append({"kind": kind, "name": named, "version": fingerprint(body), "body": msgspec.Raw(body)})
    path = work / f"meshproxy-{port}.json"
    path.write_bytes(encode({"resources": documents}))
    ports = ["--outbound-port", str(port), "--admin-port", str(port + 1000)]
    ports += ["--health-port", str(port + 1100), "--metrics-port", str(port + 1200)]
    command = [
        sys.executable,
        "-m",
        program,
        "--config",
        str(path),
        "--ip",
        HOST,
        "--pod",
        "bench",
        "--namespace",
        "default",
        *ports,
    ]
    return Peer(name, port, command)


def peers(work: Path) -> list[Peer]:
    return [_relay(), _nginx_peer(work), _haproxy(work), envoy(work), meshproxy(work)]
