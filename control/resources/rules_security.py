"""What PeerAuthentication, RequestAuthentication, AuthorizationPolicy, Telemetry and ProxyConfig must keep besides their shape.

Room: control/resources. In: a built resource. Out: errors and warnings, after Istio's own validation. A policy that could be
read two ways is refused: what is not understood must not be half enforced.
"""

from __future__ import annotations

import json
import re

from control.resources.proxy_config import ProxyConfig
from control.resources.report import Report, header_name, own_header_name, selector, targets
from control.resources.security import (
    AuthorizationPolicy,
    AuthorizationPolicySpec,
    Condition,
    JWTRule,
    Operation,
    PeerAuthentication,
    RequestAuthentication,
    RequestAuthenticationSpec,
    Rule,
    Source,
)
from control.resources.shape import nearest
from control.resources.values import check_subnet, is_dns_subdomain, quote

__all__ = ["authorization_policy", "peer_authentication", "proxy_config", "request_authentication"]

_KEYS = (
    "source.ip",
    "remote.ip",
    "source.namespace",
    "source.principal",
    "source.serviceAccount",
    "source.trustDomain",
    "request.auth.principal",
    "request.auth.audiences",
    "request.auth.presenter",
    "destination.ip",
    "destination.port",
    "connection.sni",
)
_WHO_CALLS = ("x-forwarded-client-cert", "x-envoy-peer-metadata", "x-envoy-peer-metadata-id")
_NOT_FOR_CUSTOM = ("source.namespace", "source.principal", "source.serviceAccount")
_HEADERS_KEY = re.compile(r"request\.headers\[([^\[\]]+)\]\Z")
_CLAIMS_KEY = re.compile(r"request\.auth\.claims(\[[^\[\]]+\])+\Z")
_FILTER_KEY = re.compile(r"experimental\.envoy\.filters\.[a-z0-9_.]+(\[[^\[\]]+\])*\Z")
_TEMPLATE = re.compile(r"\{\*\*?\}")


def peer_authentication(report: Report, policy: PeerAuthentication) -> None:
    spec = policy.spec
    selector(report, "spec.selector", spec.selector)
    if spec.port_level_mtls and (spec.selector is None or not spec.selector.match_labels):
        report.error("spec.portLevelMtls", "needs a selector with matchLabels")
    for port in spec.port_level_mtls:
        if not (port.isascii() and port.isdigit() and 1 <= int(port) <= 65535):
            report.error(f"spec.portLevelMtls[{port}]", "a port must be from 1 to 65535")


def _attached(report: Report, spec: RequestAuthenticationSpec | AuthorizationPolicySpec) -> None:
    """Whom it is for. Only Gateways are obeyed among targets: the others are for waypoints."""
    targets(report, spec)
    refs = [("spec.targetRef", spec.target_ref)] if spec.target_ref is not None else []
    refs += [(f"spec.targetRefs[{i}]", ref) for i, ref in enumerate(spec.target_refs)]
    for path, ref in refs:
        if ref.kind != "Gateway":
            report.warn(path, f"is in force nowhere: a {ref.kind} is a target for waypoints only; use a selector")


def request_authentication(report: Report, policy: RequestAuthentication) -> None:
    _attached(report, policy.spec)
    for i, rule in enumerate(policy.spec.jwt_rules):
        _jwt(report, f"spec.jwtRules[{i}]", rule)


def _jwt(report: Report, path: str, rule: JWTRule) -> None:
    if not rule.issuer:
        report.error(f"{path}.issuer", "must not be empty")
    for name, values in (
        ("audiences", rule.audiences),
        ("fromParams", rule.from_params),
        ("fromCookies", rule.from_cookies),
        ("spaceDelimitedClaims", rule.space_delimited_claims),
    ):
        for i, value in enumerate(values):
            if not value:
                report.error(f"{path}.{name}[{i}]", "must not be empty")
    if rule.jwks_uri and not re.match(r"https?://[^/\s@]+(/\S*)?\Z", rule.jwks_uri):
        report.error(f"{path}.jwksUri", "must be an http:// or https:// URL without user and password")
    if rule.jwks:
        _jwks(report, f"{path}.jwks", rule.jwks)
    for i, header in enumerate(rule.from_headers):
        own_header_name(report, f"{path}.fromHeaders[{i}].name", header.name)
    if rule.output_payload_to_header:
        _written(report, f"{path}.outputPayloadToHeader", rule.output_payload_to_header)
    for i, copy in enumerate(rule.output_claim_to_headers):
        _written(report, f"{path}.outputClaimToHeaders[{i}].header", copy.header)
        if not copy.claim:
            report.error(f"{path}.outputClaimToHeaders[{i}].claim", "must not be empty")


def _written(report: Report, path: str, name: str) -> None:
    if own_header_name(report, path, name) and name.lower() in _WHO_CALLS:
        report.error(path, f"{quote(name)} says which workload calls: a claim cannot stand in it")


def _jwks(report: Report, path: str, text: str) -> None:
    """The set's outer form; which keys are usable is judged where tokens are."""
    try:
        found = json.loads(text)
    except ValueError:
        report.error(path, "must be a JSON Web Key Set: it is not JSON")
        return
    keys = found.get("keys") if isinstance(found, dict) else None
    if not isinstance(keys, list) or not keys or not all(isinstance(k, dict) and isinstance(k.get("kty"), str) for k in keys):
        report.error(path, 'must be a JSON Web Key Set: {"keys": [{"kty": ...}, ...]}')
    elif any(name in k for k in keys for name in ("d", "p", "q")):
        report.error(path, "holds a private key; give the public one only")


def authorization_policy(report: Report, policy: AuthorizationPolicy) -> None:
    spec = policy.spec
    _attached(report, spec)
    dry_run = (policy.metadata.annotations or {}).get("istio.io/dry-run")
    known = dry_run is None or dry_run.lower() in ("true", "false", "1", "0", "t", "f")
    if not known or (dry_run is not None and spec.action not in ("ALLOW", "DENY")):
        report.error("metadata.annotations[istio.io/dry-run]", 'must be "true" or "false", with action ALLOW or DENY')
    if spec.action == "CUSTOM":
        if spec.provider is None or not spec.provider.name:
            report.error("spec.provider.name", "is required with action CUSTOM")
    elif spec.provider is not None:
        report.error("spec.provider", f"goes with action CUSTOM only, not {spec.action}")
    if spec.action in ("CUSTOM", "DENY") and not spec.rules:
        report.error("spec.rules", f"is required: {spec.action} without rules never applies; write [{{}}] for every request")
    for i, rule in enumerate(spec.rules):
        _rule(report, f"spec.rules[{i}]", rule, spec.action)


def _rule(report: Report, path: str, rule: Rule, action: str) -> None:
    for name, given in (("from", rule.from_), ("to", rule.to)):
        if given == ():
            report.error(f"{path}.{name}", "must not be empty; give it an entry, or remove it to match everything")
    for i, origin in enumerate(rule.from_ or ()):
        at = f"{path}.from[{i}].source"
        if origin.source is None:
            report.error(at, "is required")
        else:
            _source(report, at, origin.source, action)
    for i, target in enumerate(rule.to or ()):
        at = f"{path}.to[{i}].operation"
        if target.operation is None:
            report.error(at, "is required")
        else:
            _operation(report, at, target.operation)
    for i, condition in enumerate(rule.when):
        _condition(report, f"{path}.when[{i}]", condition, action)


def _lists(report: Report, path: str, value: Source | Operation) -> dict[str, tuple[str, ...]]:
    """The given lists by JSON name; an empty whole or an empty entry is an error."""
    found = {}
    for name in value.__struct_fields__:
        head, *rest = name.split("_")
        found[head + "".join(word.capitalize() for word in rest)] = getattr(value, name)
    if not any(found.values()):
        report.error(path, "must not be empty; give it a field, or remove it to match everything")
    for name, values in found.items():
        for i, entry in enumerate(values):
            if not entry:
                report.error(f"{path}.{name}[{i}]", "must not be empty")
    return found


def _source(report: Report, path: str, source: Source, action: str) -> None:
    for name, values in _lists(report, path, source).items():
        for i, value in enumerate(values):
            at = f"{path}.{name}[{i}]"
            if name.lower().endswith("ipblocks"):
                report.check(at, check_subnet, value)
            elif name.lower().endswith("serviceaccounts"):
                _account(report, at, value)
            elif value.startswith("spiffe://"):
                report.error(at, f"is written without spiffe://, as in {quote(value.removeprefix('spiffe://'))}")
            elif "*" in value.strip("*") and not name.lower().endswith("namespaces"):
                report.error(at, f'"*" may only stand first or last, not as in {quote(value)}')
        if values and action == "CUSTOM" and name.lower().endswith(("principals", "namespaces", "serviceaccounts")):
            report.error(f"{path}.{name}", "does not go with action CUSTOM")
    identities = (source.principals, source.not_principals, source.namespaces, source.not_namespaces)
    if (source.service_accounts or source.not_service_accounts) and any(identities):
        report.error(path, "serviceAccounts may not be given together with principals or namespaces; they name both")


def _account(report: Report, path: str, value: str) -> None:
    """``account`` of the policy's own namespace, or ``namespace/account``; no wildcards."""
    parts = value.split("/")
    if value and (len(parts) > 2 or not all(is_dns_subdomain(part) for part in parts)):
        report.error(path, f"must be an account's name, or NAMESPACE/NAME, without wildcards, not {quote(value)}")


def _operation(report: Report, path: str, operation: Operation) -> None:
    for name, values in _lists(report, path, operation).items():
        for i, value in enumerate(values):
            at = f"{path}.{name}[{i}]"
            if name in ("ports", "notPorts"):
                if not (value.isascii() and value.isdigit() and 1 <= int(value) <= 65535):
                    report.error(at, f"must be a port from 1 to 65535, not {quote(value)}")
            elif name in ("paths", "notPaths") and ("{" in value or "}" in value):
                _template(report, at, value)
            elif "*" in value.strip("*"):
                report.error(at, f'"*" may only stand first or last, not as in {quote(value)}')


def _template(report: Report, path: str, value: str) -> None:
    """``{*}`` is one segment, ``{**}`` any number, and must be the last of them (semantics B6.5)."""
    operators = _TEMPLATE.findall(value)
    rest = _TEMPLATE.sub("", value)
    segments = value.split("/")
    if "*" in rest:
        report.error(path, f'"*" and {{*}} may not be used together, as in {quote(value)}')
    elif "{" in rest or "}" in rest or any(_TEMPLATE.search(s) and not _TEMPLATE.fullmatch(s) for s in segments):
        report.error(path, f"only {{*}} and {{**}} may stand in braces, each as a whole segment, not as in {quote(value)}")
    elif "{**}" in operators[:-1]:
        report.error(path, f"nothing in braces may follow {{**}}, as in {quote(value)}")


def _condition(report: Report, path: str, condition: Condition, action: str) -> None:
    key = condition.key
    header = _HEADERS_KEY.match(key)
    if header:
        header_name(report, f"{path}.key", header[1])
    elif key not in _KEYS and not _CLAIMS_KEY.match(key) and not _FILTER_KEY.match(key):
        meant = nearest(key, [*_KEYS, "request.headers[NAME]", "request.auth.claims[NAME]"])
        hint = f'; did you mean "{meant}"?' if meant else ""
        report.error(f"{path}.key", f"{quote(key)} is not an attribute{hint}" if key else "must not be empty")
    if action == "CUSTOM" and (key in _NOT_FOR_CUSTOM or key.startswith("request.auth.")):
        report.error(f"{path}.key", f"{key} does not go with action CUSTOM")
    if not condition.values and not condition.not_values:
        report.error(path, "one of values, notValues is required")
    for name, values in (("values", condition.values), ("notValues", condition.not_values)):
        for i, value in enumerate(values):
            at = f"{path}.{name}[{i}]"
            if not value:
                report.error(at, "must not be empty")
            elif key.endswith(".ip"):
                report.check(at, check_subnet, value)
            elif key == "source.serviceAccount":
                _account(report, at, value)
            elif key == "destination.port" and not (value.isascii() and value.isdigit() and 1 <= int(value) <= 65535):
                report.error(at, f"must be a port from 1 to 65535, not {quote(value)}")


def proxy_config(report: Report, found: ProxyConfig) -> None:
    selector(report, "spec.selector", found.spec.selector)
    if found.spec.concurrency is not None and found.spec.concurrency < 0:
        report.error("spec.concurrency", f"must not be negative, not {found.spec.concurrency}")
