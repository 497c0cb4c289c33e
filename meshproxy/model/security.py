"""Who may do what: trust, TLS on both sides, tokens, policies (Istio: PeerAuthentication and its like in security.istio.io).

What selects a workload (selectors, namespaces, root namespace) was judged by control: a proxy obeys all that it gets. Strings of
policies keep Istio's wildcard forms; the proxy compiles them.
"""

from __future__ import annotations

from typing import Literal

from meshproxy.model.base import Model
from meshproxy.model.tcp import TcpRoute

__all__ = [
    "ClientTls",
    "Condition",
    "ExtAuthz",
    "JwtProvider",
    "Operation",
    "Policy",
    "Rule",
    "Secret",
    "Security",
    "ServerTls",
    "Source",
    "TlsVersion",
    "Trust",
]

TlsVersion = Literal["TLSV1_2", "TLSV1_3"]


class Trust(Model, frozen=True):
    """Whom the mesh believes. One resource, named ``mesh``, the same for every proxy; nothing in it is secret.

    ``roots``: PEM certificates, two during a rotation. ``issuer``: SHA-256 (hex, of the DER) of the root under which control
    issues now; a proxy whose certificate stands under another one renews it at once. ``revoked_serials``: lower-case hex without
    leading zeros. ``revoked_identities``: ``spiffe://…`` URIs.
    """

    name: str = "mesh"
    domain: str = "cluster.local"
    aliases: tuple[str, ...] = ()
    roots: tuple[str, ...] = ()
    issuer: str = ""
    revoked_serials: tuple[str, ...] = ()
    revoked_identities: tuple[str, ...] = ()


class Secret(Model, frozen=True):
    """A credential for a gateway's server or for TLS origination, PEM. Sent only to the proxies that use it, never shared, never
    shown. Named ``namespace/name`` of the Kubernetes secret. ``error``: it is missing or unusable; whoever needs it is refused.
    """

    name: str
    certificate: str = ""  # chain, leaf first
    key: str = ""
    ca: str = ""
    crl: str = ""
    error: str = ""

    def __repr__(self) -> str:
        return f"Secret(name={self.name!r})"


class ServerTls(Model, frozen=True):
    """One TLS server of a gateway listener, chosen by the ClientHello's server name. Exactly one of ``secret`` and the files.

    ``ISTIO_MUTUAL`` uses the proxy's own identity. ``route``: the RouteConfig for connections that came in here. ``tcp``: what is
    within TLS is not HTTP but bytes, which go here; ``route`` is then only a name, of no other server.
    """

    hosts: tuple[str, ...] = ("*",)  # exact, "*.suffix" or "*"
    mode: Literal["SIMPLE", "MUTUAL", "OPTIONAL_MUTUAL", "ISTIO_MUTUAL"] = "SIMPLE"
    route: str = ""
    secret: str = ""
    ca_secret: str = ""  # caCertCredentialName; "": the secret's own ca
    certificate_file: str = ""
    key_file: str = ""
    ca_file: str = ""
    crl_file: str = ""
    sans: tuple[str, ...] = ()  # the client's certificate must carry one of these, when given
    spki_hashes: tuple[str, ...] = ()  # base64 SHA-256 of the client's SubjectPublicKeyInfo, when given
    certificate_hashes: tuple[str, ...] = ()  # hex SHA-256 of the client's certificate, when given
    min_version: TlsVersion = "TLSV1_2"
    max_version: TlsVersion = "TLSV1_3"
    ciphers: tuple[str, ...] = ()  # OpenSSL names for TLS 1.2; (): our list
    source: str = ""  # "Gateway default/web servers[0]"
    tcp: tuple[TcpRoute, ...] = ()


class ClientTls(Model, frozen=True):
    """How a cluster's endpoints are spoken to.

    ``AUTO``: mutual TLS with the mesh's identities iff the endpoint says ``mtls``. ``ISTIO_MUTUAL``: always. ``SIMPLE`` and
    ``MUTUAL``: ordinary TLS to a server of its own world. ``sni`` "" with SIMPLE or MUTUAL: the request's host. ``sans``: names
    that the server's certificate must carry one of; (): for the mesh ``Endpoints.identities``, otherwise the server name.
    ``ca_file`` "" without a secret's ca: the system's roots.
    """

    mode: Literal["AUTO", "ISTIO_MUTUAL", "SIMPLE", "MUTUAL"] = "AUTO"
    sni: str = ""
    sans: tuple[str, ...] = ()
    secret: str = ""
    certificate_file: str = ""
    key_file: str = ""
    ca_file: str = ""
    crl_file: str = ""
    insecure_skip_verify: bool = False


class JwtProvider(Model, frozen=True):
    """One rule of a RequestAuthentication. ``jwks``: the key set's text, fetched by control; "": it could not be fetched, and
    every token of this issuer is refused. No location given: ``Authorization: Bearer`` and the query's ``access_token``.
    """

    source: str  # "RequestAuthentication default/bookjwt jwtRules[0]"
    issuer: str
    jwks: str = ""
    audiences: tuple[str, ...] = ()
    from_headers: tuple[tuple[str, str], ...] = ()  # (lower-case name, literal prefix)
    from_params: tuple[str, ...] = ()
    from_cookies: tuple[str, ...] = ()
    payload_header: str = ""  # outputPayloadToHeader, lower case
    claim_headers: tuple[tuple[str, str], ...] = ()  # (lower-case header, claim path)
    forward: bool = False  # forwardOriginalToken
    space_delimited: tuple[str, ...] = ()

    def __repr__(self) -> str:  # a key set may hold the secret of HS256
        return f"JwtProvider(source={self.source!r}, issuer={self.issuer!r})"


class Source(Model, frozen=True):
    """Fields AND, values OR. ``service_accounts`` are ``namespace/name``."""

    principals: tuple[str, ...] = ()
    not_principals: tuple[str, ...] = ()
    request_principals: tuple[str, ...] = ()
    not_request_principals: tuple[str, ...] = ()
    namespaces: tuple[str, ...] = ()
    not_namespaces: tuple[str, ...] = ()
    service_accounts: tuple[str, ...] = ()
    not_service_accounts: tuple[str, ...] = ()
    ip_blocks: tuple[str, ...] = ()
    not_ip_blocks: tuple[str, ...] = ()
    remote_ip_blocks: tuple[str, ...] = ()
    not_remote_ip_blocks: tuple[str, ...] = ()
    trust_domains: tuple[str, ...] = ()
    not_trust_domains: tuple[str, ...] = ()


class Operation(Model, frozen=True):
    hosts: tuple[str, ...] = ()
    not_hosts: tuple[str, ...] = ()
    ports: tuple[str, ...] = ()
    not_ports: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    not_methods: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()
    not_paths: tuple[str, ...] = ()


class Condition(Model, frozen=True):
    key: str
    values: tuple[str, ...] = ()
    not_values: tuple[str, ...] = ()


class Rule(Model, frozen=True):
    """``sources`` and ``operations`` are alternatives (empty: any); all of ``when`` must hold. ``Rule()`` matches everything."""

    sources: tuple[Source, ...] = ()
    operations: tuple[Operation, ...] = ()
    when: tuple[Condition, ...] = ()


class Policy(Model, frozen=True):
    """One AuthorizationPolicy that selects this workload. ``unusable``: why it could not be read; it then denies everything.

    ``name``: ``namespace/name``. ``provider``: of a CUSTOM policy, the ``ExtAuthz`` of that name.
    """

    name: str
    action: Literal["ALLOW", "DENY", "AUDIT", "CUSTOM"] = "ALLOW"
    rules: tuple[Rule, ...] = ()
    dry_run: bool = False
    provider: str = ""
    unusable: str = ""


class ExtAuthz(Model, frozen=True):
    """An external HTTP authoriser (Istio: MeshConfig.extensionProviders[].envoyExtAuthzHttp). Header names lower case; a name may
    end or begin with ``*`` (prefix, suffix) where Istio says so.
    """

    name: str
    cluster: str  # where it is asked; the cluster is in the same snapshot
    authority: str = ""  # Host of the check; "": the request's own, as Envoy keeps it
    timeout: float = 600.0  # seconds; Istio's default
    path_prefix: str = ""
    fail_open: bool = False
    status_on_error: int = 403
    include_request_headers: tuple[str, ...] = ()
    include_additional_headers: tuple[tuple[str, str], ...] = ()
    include_body: int = 0  # most bytes of the body to send along; 0: none
    allow_partial_body: bool = False
    headers_to_upstream_on_allow: tuple[str, ...] = ()
    headers_to_downstream_on_deny: tuple[str, ...] = ()
    headers_to_downstream_on_allow: tuple[str, ...] = ()


class Security(Model, frozen=True):
    """All policies of one workload; named ``workload``. In force on its inbound or gateway listeners."""

    name: str = "workload"
    jwt: tuple[JwtProvider, ...] = ()
    policies: tuple[Policy, ...] = ()
    ext_authz: tuple[ExtAuthz, ...] = ()
