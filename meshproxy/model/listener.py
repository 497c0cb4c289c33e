"""Listeners: where the proxy accepts, and by which route configuration it judges."""

from __future__ import annotations

from typing import Literal

from meshproxy.model.base import Model
from meshproxy.model.security import ServerTls
from meshproxy.model.tcp import Chain

__all__ = ["Listener"]


class Listener(Model, frozen=True):
    """One listening socket.

    ``outbound``: forward-proxy form and Host routing; the authority's port P (default 80) selects the RouteConfig named
    ``str(P)`` if it is in ``route_ports``, else ``default_policy`` decides. ``inbound`` and ``gateway`` use ``route``.

    ``mtls`` (inbound): whether mutual TLS of the mesh is demanded; PERMISSIVE judges by a connection's first bytes. ``tls``
    (gateway): the connection must be TLS, and the ClientHello's server name chooses one of these; no match: it is closed.

    ``chains``: what is done with connections that iptables sent here, by their original destination (SO_ORIGINAL_DST). At the
    ``outbound`` listener a connection that was meant for the listener itself is a forward proxy's, as ever; at an ``inbound`` one
    (``virtualInbound``, port 15006) all are chains', and one that was meant for the listener itself is closed. A ``gateway``
    listener has one chain without address for TCP and for TLS that is passed through by its server name. ``()``: none are taken.
    """

    name: str  # "outbound", "inbound|8080", "virtualInbound", "gateway|8080"
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
    chains: tuple[Chain, ...] = ()
    detection_timeout: float = 0.1  # seconds that AUTO waits for a client's first bytes; 0: for ever
