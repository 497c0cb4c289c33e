"""Gateway (networking.istio.io): the ports that a gateway proxy opens, and for which hosts.

Room: control/resources.
"""

from __future__ import annotations

from typing import Literal

from control.resources.meta import LocalPort, Part, PortNumber, Resource

__all__ = ["CIPHER_SUITES", "Gateway", "GatewaySpec", "Port", "Server", "ServerTLSSettings", "TLSCertificate"]

# OpenSSL's names of what a TLS 1.2 server may be told to offer: no RC4, 3DES or CBC with SHA-256 (Istio's list, less 3DES).
CIPHER_SUITES = frozenset(
    f"{exchange}{suite}"
    for exchange in ("ECDHE-ECDSA-", "ECDHE-RSA-", "")
    for suite in ("AES256-GCM-SHA384", "AES128-GCM-SHA256", "AES256-SHA", "AES128-SHA", "CHACHA20-POLY1305")
    if exchange or not suite.startswith("CHACHA20")
)

TlsVersion = Literal["TLS_AUTO", "TLSV1_0", "TLSV1_1", "TLSV1_2", "TLSV1_3"]


class Port(Part, frozen=True, kw_only=True):
    """``protocol`` is one of HTTP, HTTPS, GRPC, GRPC-WEB, HTTP2, MONGO, TCP, TLS."""

    number: PortNumber
    protocol: str
    name: str = ""
    target_port: LocalPort = 0  # deprecated


class TLSCertificate(Part, frozen=True, kw_only=True):
    server_certificate: str = ""
    private_key: str = ""
    ca_certificates: str = ""


class ServerTLSSettings(Part, frozen=True, kw_only=True):
    https_redirect: bool = False
    mode: Literal["PASSTHROUGH", "SIMPLE", "MUTUAL", "AUTO_PASSTHROUGH", "ISTIO_MUTUAL", "OPTIONAL_MUTUAL"] = "PASSTHROUGH"
    server_certificate: str = ""
    private_key: str = ""
    ca_certificates: str = ""
    ca_crl: str = ""
    credential_name: str = ""
    credential_names: tuple[str, ...] = ()
    ca_cert_credential_name: str = ""
    tls_certificates: tuple[TLSCertificate, ...] = ()
    subject_alt_names: tuple[str, ...] = ()
    verify_certificate_spki: tuple[str, ...] = ()
    verify_certificate_hash: tuple[str, ...] = ()
    min_protocol_version: TlsVersion = "TLS_AUTO"
    max_protocol_version: TlsVersion = "TLS_AUTO"
    cipher_suites: tuple[str, ...] = ()
    insecure_skip_verify: bool | None = None


class Server(Part, frozen=True, kw_only=True):
    """One port. A host is ``[namespace/]name``; namespace may be ``*`` or ``.``; the name may start with ``*.`` or be ``*``."""

    port: Port
    hosts: tuple[str, ...]
    bind: str = ""
    tls: ServerTLSSettings | None = None
    default_endpoint: str = ""
    name: str = ""


class GatewaySpec(Part, frozen=True, kw_only=True):
    """``selector`` empty selects every gateway workload."""

    servers: tuple[Server, ...] = ()
    selector: dict[str, str] = {}


class Gateway(Resource, frozen=True, kw_only=True):
    """Ports and hosts that a gateway workload serves."""

    spec: GatewaySpec = GatewaySpec()
