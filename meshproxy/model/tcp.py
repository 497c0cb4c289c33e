"""What happens to a connection below HTTP: chains that an intercepted one is matched to, and routes for plain bytes.

Envoy: FilterChainMatch, TcpProxy; Istio: VirtualService.tcp and .tls. Static conditions (gateways, source labels) were already
judged by control. Durations are seconds.
"""

from __future__ import annotations

from typing import Literal

from meshproxy.model.base import Model
from meshproxy.model.route import WeightedCluster

__all__ = ["Chain", "TcpRoute"]


class TcpRoute(Model, frozen=True):
    """Where bytes go; of several that match the one with the closest name, of equals the first.

    ``sni``: the ClientHello must name one of these (exact, ``*.suffix``, ``*``); (): whatever comes, TLS or not. ``addresses``:
    CIDRs that the original destination must be in; (): any.
    """

    clusters: tuple[WeightedCluster, ...]  # a single one is taken whatever its weight
    sni: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()
    name: str = ""
    source: str = ""  # "VirtualService default/db tcp[0]" for explain; "" when generated


class Chain(Model, frozen=True):
    """One kind of connection at a listener that takes intercepted ones, known by where it was meant to go.

    Of all chains the most specific is taken: port and address before port and CIDR (longest first) before port before none.
    ``protocol``: ``AUTO`` tells HTTP from bytes by what the client sends first; who sends nothing within the listener's
    ``detection_timeout`` gets bytes (the server speaks first). ``route``: the RouteConfig for HTTP. ``tcp``: for everything
    else; no match: the connection is closed. ``mtls``, ``mtls_source`` (inbound): as in ``Listener``. ``AUTO`` without ``route``
    looks for no HTTP. HTTP/2 goes by ``tcp``, for now also where the protocol is ``HTTP``. ``hosts`` (outbound): the names that
    this chain's service goes by; a forward proxy's ``CONNECT name:port`` reaches ``tcp`` by them. ``by_name``: only they do, and
    no intercepted connection belongs to it.
    """

    name: str  # "10.96.0.7_5432", "0.0.0.0_8080", "virtualInbound-8080", "passthrough"
    port: int = 0  # 0: any
    addresses: tuple[str, ...] = ()  # IP addresses or CIDRs; (): any
    protocol: Literal["HTTP", "TCP", "AUTO"] = "AUTO"
    route: str = ""
    tcp: tuple[TcpRoute, ...] = ()
    mtls: Literal["DISABLE", "PERMISSIVE", "STRICT"] = "DISABLE"
    mtls_source: str = ""
    idle_timeout: float = 3600.0  # of relayed bytes; 0: none
    hosts: tuple[str, ...] = ()  # lower case, without port: exact or "*.suffix"
    by_name: bool = False
