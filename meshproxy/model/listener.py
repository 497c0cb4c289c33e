"""Listeners: where the proxy accepts, and by which route configuration it judges."""

from __future__ import annotations

from typing import Literal

from meshproxy.model.base import Model
from meshproxy.model.security import ServerTls

__all__ = ["Listener"]


class Listener(Model, frozen=True):
    """One listening socket.

    ``outbound``: forward-proxy form and Host routing; the authority's port P (default 80) selects the RouteConfig named
    ``str(P)`` if it is in ``route_ports``, else ``default_policy`` decides. ``inbound`` and ``gateway`` use ``route``.

    ``mtls`` (inbound): whether mutual TLS of the mesh is demanded; PERMISSIVE judges by a connection's first bytes. ``tls``
    (gateway): the connection must be TLS, and the ClientHello's server name chooses one of these; no match: it is closed.
    """

    name: str  # "outbound", "inbound|8080", "gateway|8080"
    direction: Literal["outbound", "inbound", "gateway"]
    port: int
    bind: str = ""  # "": the proxy's own address
    route: str = ""
    route_ports: tuple[int, ...] = ()
    default_policy: Literal["ALLOW_ANY", "REGISTRY_ONLY"] = "ALLOW_ANY"
    path_normalization: Literal["NONE", "BASE", "MERGE_SLASHES", "DECODE_AND_MERGE_SLASHES"] = "BASE"
    mtls: Literal["DISABLE", "PERMISSIVE", "STRICT"] = "DISABLE"
    mtls_source: str = ""  # "PeerAuthentication default/strict portLevelMtls" for explain; "": the default
    tls: tuple[ServerTls, ...] = ()
