"""PeerAuthentication, RequestAuthentication, AuthorizationPolicy (security.istio.io).

Room: control/resources. Who may talk to whom: mutual TLS, tokens, rules.
"""

from __future__ import annotations

from typing import Literal

from control.resources.meta import Duration, Part, PolicyTargetReference, Resource, WorkloadSelector

__all__ = [
    "AuthorizationPolicy",
    "AuthorizationPolicySpec",
    "ClaimToHeader",
    "Condition",
    "ExtensionProvider",
    "From",
    "JWTHeader",
    "JWTRule",
    "MutualTLS",
    "Operation",
    "PeerAuthentication",
    "PeerAuthenticationSpec",
    "RequestAuthentication",
    "RequestAuthenticationSpec",
    "Rule",
    "Source",
    "To",
]


class MutualTLS(Part, frozen=True, kw_only=True):
    """``UNSET`` inherits from the next wider scope; nothing at all is PERMISSIVE."""

    mode: Literal["UNSET", "DISABLE", "PERMISSIVE", "STRICT"] = "UNSET"


class PeerAuthenticationSpec(Part, frozen=True, kw_only=True):
    """Keys of ``port_level_mtls`` are workload ports."""

    selector: WorkloadSelector | None = None
    mtls: MutualTLS | None = None
    port_level_mtls: dict[str, MutualTLS] = {}


class PeerAuthentication(Resource, frozen=True, kw_only=True):
    """Whether workloads demand mutual TLS from their callers."""

    spec: PeerAuthenticationSpec = PeerAuthenticationSpec()


class JWTHeader(Part, frozen=True, kw_only=True):
    """``prefix`` is literal, trailing space included."""

    name: str
    prefix: str = ""


class ClaimToHeader(Part, frozen=True, kw_only=True):
    header: str
    claim: str


class JWTRule(Part, frozen=True, kw_only=True):
    exclusive = (("jwksUri", "jwks"),)

    issuer: str
    audiences: tuple[str, ...] = ()
    jwks_uri: str = ""
    jwks: str = ""
    from_headers: tuple[JWTHeader, ...] = ()
    from_params: tuple[str, ...] = ()
    from_cookies: tuple[str, ...] = ()
    output_payload_to_header: str = ""
    forward_original_token: bool = False
    output_claim_to_headers: tuple[ClaimToHeader, ...] = ()
    timeout: Duration = ""
    space_delimited_claims: tuple[str, ...] = ()


class RequestAuthenticationSpec(Part, frozen=True, kw_only=True):
    selector: WorkloadSelector | None = None
    target_ref: PolicyTargetReference | None = None
    target_refs: tuple[PolicyTargetReference, ...] = ()
    jwt_rules: tuple[JWTRule, ...] = ()


class RequestAuthentication(Resource, frozen=True, kw_only=True):
    """Which tokens a workload accepts; a request with a bad one is refused, one with none is not."""

    spec: RequestAuthenticationSpec = RequestAuthenticationSpec()


class Source(Part, frozen=True, kw_only=True):
    """All given fields must hold; any value of a field suffices; ``not_*``: none may match."""

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


class Operation(Part, frozen=True, kw_only=True):
    hosts: tuple[str, ...] = ()
    not_hosts: tuple[str, ...] = ()
    ports: tuple[str, ...] = ()
    not_ports: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    not_methods: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()
    not_paths: tuple[str, ...] = ()


class From(Part, frozen=True, kw_only=True):
    source: Source | None = None


class To(Part, frozen=True, kw_only=True):
    operation: Operation | None = None


class Condition(Part, frozen=True, kw_only=True):
    key: str
    values: tuple[str, ...] = ()
    not_values: tuple[str, ...] = ()


class Rule(Part, frozen=True, kw_only=True):
    """``from`` and ``to`` are lists of alternatives, ``None`` anything, never empty; all of ``when`` must hold."""

    from_: tuple[From, ...] | None = None
    to: tuple[To, ...] | None = None
    when: tuple[Condition, ...] = ()


class ExtensionProvider(Part, frozen=True, kw_only=True):
    name: str = ""


class AuthorizationPolicySpec(Part, frozen=True, kw_only=True):
    """``{}`` allows nothing: ALLOW without rules."""

    selector: WorkloadSelector | None = None
    target_ref: PolicyTargetReference | None = None
    target_refs: tuple[PolicyTargetReference, ...] = ()
    rules: tuple[Rule, ...] = ()
    action: Literal["ALLOW", "DENY", "AUDIT", "CUSTOM"] = "ALLOW"
    provider: ExtensionProvider | None = None


class AuthorizationPolicy(Resource, frozen=True, kw_only=True):
    """Which requests a workload answers."""

    spec: AuthorizationPolicySpec = AuthorizationPolicySpec()
