"""Room 6, quiet: whether an endpoint is spoken to in TLS, how, and under which name.

In: a live cluster, its endpoint, and how a ``ClientTls`` becomes a context. Out: a ``Plan``, or None for plaintext. A connection
made under one plan never serves another that is not equal.
"""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_address
from typing import Any, NamedTuple

from meshproxy.model.security import ClientTls

__all__ = ["Plan", "mesh_name", "plan_of"]


class Plan(NamedTuple):
    """mesh: mutual TLS with the mesh's identities. name: what is asked for in the ClientHello; None: each request's own host.

    context: of TLS to others, what makes its connections, since a new credential is a new plan; None for the mesh, whose
    certificate is renewed while its connections go on.
    """

    mesh: bool
    tls: ClientTls
    name: str | None
    context: Any = None


def plan_of(cluster: Any, endpoint: Any, context_of: Callable[[ClientTls], Any]) -> Plan | None:
    """How to speak to this endpoint now."""
    tls: ClientTls | None = cluster.config.tls
    if tls is None or (tls.mode == "AUTO" and not _takes_mtls(cluster, endpoint)):
        return None
    if tls.mode in ("AUTO", "ISTIO_MUTUAL"):
        return Plan(True, tls, tls.sni or mesh_name(cluster.name, endpoint))
    name = tls.sni or _own_name(cluster, endpoint)
    return Plan(False, tls, name, context_of(tls))


def _takes_mtls(cluster: Any, endpoint: Any) -> bool:
    """An endpoint that a request named by its address (PASSTHROUGH) may be one that control knows, all the same."""
    if endpoint.mtls or cluster.config.lb.policy != "PASSTHROUGH":
        return bool(endpoint.mtls)
    return any(one.mtls and one.key == endpoint.key for one in cluster.endpoints)


def mesh_name(cluster: str, endpoint: Any) -> str:
    """``outbound|8080|v1|host`` -> ``outbound_.8080_.v1_.host``, Istio's server name."""
    direction, *rest = cluster.split("|")
    if direction != "outbound" or len(rest) != 3:
        rest = [str(endpoint.port), "", endpoint.address]
    return "outbound_.{}_.{}_.{}".format(*rest)


def _own_name(cluster: Any, endpoint: Any) -> str | None:
    """An endpoint that is known by its name is asked for it; otherwise the request's host is (Envoy: auto_sni).

    The answers of a DNS cluster are addresses, so the name that it resolves is not used before they are there either.
    """
    config = cluster.config
    if config.type == "PASSTHROUGH" or config.lb.policy == "PASSTHROUGH":
        return str(endpoint.address)
    if config.type == "DNS" or is_address(endpoint.address):
        return None
    return str(endpoint.address)


def is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
