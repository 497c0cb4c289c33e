"""Translate, servers: which servers of which Gateways a gateway proxy opens, where, and how those of one port go together.

In: the world's ``Config`` and a proxy. Out: ``Opened`` servers by ``Place``, and what a server's ``tls`` block means
(``ServerTls``, and the Secrets it needs). A port is HTTP, TCP or TLS: the oldest Gateway decides, among TLS servers the oldest
has a host to itself, and a TCP port has one server (semantics A7); what loses is a problem, not an error.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from control.resources.gateway import CIPHER_SUITES, Gateway, Server, ServerTLSSettings
from control.translate.credentials import Need
from control.translate.inbound import target_port
from control.translate.proxy import ProxyId
from control.translate.snapshot import Problem
from control.world.config import Config
from meshproxy.model.security import ServerTls, TlsVersion
from meshproxy.model.tcp import TcpRoute

__all__ = ["Opened", "Place", "gateways_of", "listens_on", "opened_servers", "server_needs", "server_tls"]

HTTP_SERVERS = frozenset(("HTTP", "HTTP2", "GRPC", "GRPC-WEB"))
TCP_SERVERS = frozenset(("TCP", "MONGO"))
TLS_SERVERS = frozenset(("HTTPS", "TLS"))
TERMINATED = frozenset(("SIMPLE", "MUTUAL", "OPTIONAL_MUTUAL", "ISTIO_MUTUAL"))

Place = tuple[str, int]  # bind address ("": the proxy's own), port


@dataclass(frozen=True, slots=True, eq=False)
class Opened:
    """One server of one Gateway. ``name`` is the Gateway's ``namespace/name``."""

    gateway: Gateway
    index: int
    server: Server

    @property
    def name(self) -> str:
        return f"{self.gateway.metadata.namespace}/{self.gateway.metadata.name}"

    @property
    def source(self) -> str:
        return f"Gateway {self.name} servers[{self.index}]"

    @property
    def redirects(self) -> bool:
        """Every request is sent to https (``tls.httpsRedirect``)."""
        return self.family == "HTTP" and self.server.tls is not None and self.server.tls.https_redirect

    @property
    def family(self) -> Literal["HTTP", "TCP", "TLS"]:
        """What a port is, which has servers of one family only."""
        protocol = self.server.port.protocol.upper()
        return "TLS" if protocol in TLS_SERVERS else "TCP" if protocol in TCP_SERVERS else "HTTP"

    @property
    def passthrough(self) -> bool:
        """TLS goes on as it comes, by its server name."""
        return self.family == "TLS" and self.server.tls is not None and self.server.tls.mode == "PASSTHROUGH"

    @property
    def https(self) -> bool:
        """TLS ends here, and there is HTTP in it; in that of protocol TLS there are other bytes."""
        return self.server.port.protocol.upper() == "HTTPS" and not self.passthrough

    @property
    def hosts(self) -> tuple[str, ...]:
        """Without the namespaces that may stand before them."""
        return tuple(dict.fromkeys(text.lower().rpartition("/")[2] for text in self.server.hosts))

    @property
    def route(self) -> str:
        """The name of a TLS server's own route configuration, as Istio's, or of what it has instead."""
        meta, port = self.gateway.metadata, self.server.port
        kind = "https" if self.https else "tls"
        return f"{kind}.{port.number}.{port.name}.{meta.name}.{meta.namespace}"


def gateways_of(config: Config, proxy: ProxyId) -> tuple[Gateway, ...]:
    """The Gateways that select this proxy, oldest first. An empty selector selects every gateway proxy."""
    if proxy.every_gateway:
        return config.gateways
    labels = dict(proxy.labels)
    return tuple(g for g in config.gateways if all(labels.get(k) == v for k, v in g.spec.selector.items()))


def listens_on(config: Config, proxy: ProxyId, server: Server) -> Place:
    """Where a server's port is really opened: the pod's annotation, the mesh's setting, the Service in front, or as written."""
    number = server.port.number
    for table in (proxy.gateway_bind, config.mesh.gateway_bind):
        for port, address, bound in table:
            if port == number:
                return (address, bound)
    selectors = config.selectors.get(proxy.namespace)
    for service in selectors.matching(proxy.labels) if selectors is not None else ():
        for service_port in service.ports:
            if service_port.number == number:
                return (server.bind, target_port(service_port, proxy.container_ports) or number)
    return (server.bind, number)


def opened_servers(config: Config, proxy: ProxyId, problems: list[Problem]) -> Mapping[Place, list[Opened]]:
    """What is opened where, in the order of places, the oldest Gateway's servers first."""
    places: dict[Place, list[Opened]] = {}
    for gateway in gateways_of(config, proxy):
        for index, server in enumerate(gateway.spec.servers):
            opened = Opened(gateway, index, server)
            why = _not_served(server)
            if why:
                problems.append(Problem(opened.source, f"{why}: not opened"))
                continue
            place = listens_on(config, proxy, server)
            others = places.setdefault(place, [])
            why = _conflict(opened, others, place)
            if why:
                problems.append(Problem(opened.source, f"{why}: not opened"))
            else:
                others.append(opened)
    return dict(sorted(places.items()))


def _not_served(server: Server) -> str:
    protocol = server.port.protocol.upper()
    if protocol in HTTP_SERVERS or protocol in TCP_SERVERS:
        return ""
    if protocol not in TLS_SERVERS:
        return f"protocol {server.port.protocol} is unknown"
    if server.tls is None:
        return f"protocol {protocol} needs tls"
    if server.tls.mode == "AUTO_PASSTHROUGH":
        return "tls.mode AUTO_PASSTHROUGH is for gateways between clusters, which are not supported; use PASSTHROUGH"
    return ""


def _conflict(opened: Opened, others: list[Opened], place: Place) -> str:
    if not others:
        return ""
    first = others[0]
    if first.family != opened.family:
        protocol = first.server.port.protocol
        return f"port {place[1]} is {protocol} already, by {first.source}"
    if opened.family == "TCP":
        return f"port {place[1]} is served by {first.source} already, and bytes cannot be told apart"
    if opened.family == "TLS":
        for other in others:
            both = sorted(set(opened.hosts).intersection(other.hosts))
            if both:
                return f"host {both[0]} on port {place[1]} is served by {other.source} already"
    return ""


def server_tls(opened: Opened, proxy: ProxyId, tcp: tuple[TcpRoute, ...] = ()) -> ServerTls:
    """Assumes a server that ends TLS. ``tcp``: where its bytes go, if they are not HTTP. Secrets are those of the proxy's own
    namespace.
    """
    tls = opened.server.tls or ServerTLSSettings()
    mode = tls.mode
    if mode == "PASSTHROUGH" or mode == "AUTO_PASSTHROUGH":
        raise ValueError(f"{opened.source}: {mode} is not terminated here")
    mesh, verifies = mode == "ISTIO_MUTUAL", mode != "SIMPLE"
    secret, ca_secret = ("", "") if mesh else _secrets(tls, proxy.namespace)
    files = tls.tls_certificates[0] if tls.tls_certificates and not tls.server_certificate else tls
    named = bool(secret) or mesh
    return ServerTls(
        hosts=opened.hosts,
        mode=mode,
        route=opened.route,
        secret=secret,
        ca_secret=ca_secret if verifies else "",
        certificate_file="" if named else files.server_certificate,
        key_file="" if named else files.private_key,
        ca_file="" if named or not verifies else files.ca_certificates or tls.ca_certificates,
        crl_file=tls.ca_crl if verifies and not mesh else "",
        sans=tuple(sorted(set(tls.subject_alt_names))) if verifies else (),
        spki_hashes=tuple(sorted(set(tls.verify_certificate_spki))) if verifies else (),
        certificate_hashes=tuple(sorted(set(tls.verify_certificate_hash))) if verifies else (),
        min_version=_version(tls.min_protocol_version, "TLSV1_2"),
        max_version=_version(tls.max_protocol_version, "TLSV1_3"),
        ciphers=tuple(dict.fromkeys(suite for suite in tls.cipher_suites if suite in CIPHER_SUITES)),
        source=opened.source,
        tcp=tcp,
    )


def _version(text: str, default: TlsVersion) -> TlsVersion:
    """Older versions than 1.2 are refused when a Gateway is stored; one that got in before means the oldest that there is."""
    if text == "TLSV1_3":
        return "TLSV1_3"
    return default if text == "TLS_AUTO" else "TLSV1_2"


def _secrets(tls: ServerTLSSettings, namespace: str) -> tuple[str, str]:
    names = (tls.credential_name, *tls.credential_names)
    name = next((name for name in names if name), "")
    ca = tls.ca_cert_credential_name
    return (f"{namespace}/{name}" if name else "", f"{namespace}/{ca}" if ca else "")


def server_needs(opened: Opened, tls: ServerTls) -> Iterator[Need]:
    verifies = tls.mode not in ("SIMPLE", "ISTIO_MUTUAL")
    if tls.secret:
        yield Need(tls.secret, f"{opened.source} tls.credentialName", pair=True, ca=verifies and not tls.ca_secret)
    if tls.ca_secret:
        yield Need(tls.ca_secret, f"{opened.source} tls.caCertCredentialName", ca=True)
