"""Translate, security: the tokens and rules in force for one workload, as the model's ``Security``.

In: the world's ``Config`` and a proxy. Out: ``WorkloadSecurity``: the entry (None: no policy selects it), the clusters that its
authorisers need, problems. Semantics A3, B5, B6. Policies of the root and the own namespace, oldest first. Fails closed: an
AuthorizationPolicy that cannot be used denies everything, a RequestAuthentication that cannot be used refuses every token
where it looks for one, and without its keys it refuses its issuer's tokens.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from control.resources import security as api
from control.translate.authoriser import Authoriser, authoriser
from control.translate.memo import Labels
from control.translate.proxy import ProxyId
from control.translate.snapshot import Entry, Problem, Recent, entry
from control.world.config import Config
from control.world.mesh import MeshSettings
from control.world.security import KeysAt, NamespaceSecurity, Scoped, in_force
from control.world.services import MeshService
from meshproxy.model import security as model

__all__ = ["SecurityMemo", "WorkloadSecurity", "workload_security"]


@dataclass(frozen=True, slots=True, eq=False)
class WorkloadSecurity:
    """``root`` and ``own`` are what listeners judge mutual TLS by; ``own`` is None in the root namespace itself."""

    root: NamespaceSecurity
    own: NamespaceSecurity | None
    mesh: MeshSettings
    entry: Entry | None
    clusters: tuple[tuple[MeshService, str], ...]
    problems: tuple[Problem, ...]


class SecurityMemo:
    """Remembers by namespace, role and the labels that policies ask about: pods that agree on those share the very entry."""

    def __init__(self) -> None:
        self._known: Recent[tuple[str, bool, Labels], tuple[Config, tuple[object, ...], WorkloadSecurity]] = Recent()

    def turn(self) -> None:
        self._known.turn()

    def of(self, config: Config, proxy: ProxyId) -> WorkloadSecurity:
        root, own = in_force(config.security, config.mesh.root_namespace, proxy.namespace)
        pairs = root.pairs | own.pairs if own is not None else root.pairs
        key = (proxy.namespace, proxy.role == "gateway", tuple(pair for pair in proxy.labels if pair in pairs) if pairs else ())
        known = self._known.get(key)
        if known is not None and known[0] is config:
            return known[2]
        made_from: tuple[object, ...] = (
            id(root),
            id(own),
            id(config.mesh),
            tuple(config.keys.get(place) for side in (root, own) if side is not None for place in side.places),
            tuple(authoriser(config, proxy.namespace, n) for side in (root, own) if side is not None for n in side.providers),
        )
        if known is not None and known[1] == made_from:  # what the ids stand for is kept alive by the result
            return self._known.put(key, (config, made_from, known[2]))[2]
        return self._known.put(key, (config, made_from, workload_security(config, proxy)))[2]


def workload_security(config: Config, proxy: ProxyId) -> WorkloadSecurity:
    root, own = in_force(config.security, config.mesh.root_namespace, proxy.namespace)
    labels, gateway = dict(proxy.labels), proxy.role == "gateway"
    problems: list[Problem] = []

    def selected(root_side: tuple[Scoped, ...], own_side: tuple[Scoped, ...]) -> list[Scoped]:
        # A targetRef attaches within its own namespace; of the root namespace only what has none is for all.
        wide = (p for p in root_side if p.gateways is None or own is None)
        return sorted((p for p in (*wide, *own_side) if p.selects(labels, gateway=gateway)), key=lambda p: p.age)

    jwt: list[model.JwtProvider] = []
    for request in selected(root.requests, own.requests if own is not None else ()):
        jwt += _providers(request, config.keys, problems)
    policies: list[model.Policy] = []
    asked: dict[str, Authoriser] = {}
    for policy in selected(root.policies, own.policies if own is not None else ()):
        made = _policy(policy, problems)
        if made is None:
            continue
        if made.provider and not made.unusable:
            found = asked.setdefault(made.provider, authoriser(config, proxy.namespace, made.provider))
            if found.unusable:
                problems.append(Problem(policy.source, f"{found.unusable}: every request is denied"))
                made = msgspec.structs.replace(made, unusable=found.unusable)
        policies.append(made)
    usable = [asked[name] for name in sorted(asked)]
    whole = model.Security(jwt=tuple(jwt), policies=tuple(policies), ext_authz=tuple(a.ask for a in usable if a.ask is not None))
    return WorkloadSecurity(
        root=root,
        own=own,
        mesh=config.mesh,
        entry=entry("security", whole) if jwt or policies else None,
        clusters=tuple((a.service, a.ask.cluster) for a in usable if a.service is not None and a.ask is not None),
        problems=tuple(problems),
    )


# -- AuthorizationPolicy -------------------------------------------------------------------------------------------------


_ACTIONS: dict[str, Literal["ALLOW", "DENY", "CUSTOM"]] = {"ALLOW": "ALLOW", "DENY": "DENY", "CUSTOM": "CUSTOM"}


def _policy(policy: Scoped, problems: list[Problem]) -> model.Policy | None:
    name, spec = f"{policy.namespace}/{policy.name}", policy.spec
    if not isinstance(spec, api.AuthorizationPolicySpec):
        action = policy.raw.get("action", "ALLOW") if isinstance(policy.raw, dict) else "ALLOW"
        if action == "AUDIT":  # whatever it says, it never decides
            problems.append(Problem(policy.source, f"cannot be used, so nothing is audited: {policy.why}"))
            return None
        problems.append(Problem(policy.source, f"cannot be used, so every request is denied: {policy.why}"))
        return model.Policy(name=name, action=_ACTIONS.get(str(action), "DENY"), dry_run=policy.dry_run, unusable=policy.why)
    return model.Policy(
        name=name,
        action=spec.action,
        rules=tuple(_rule(rule, policy.namespace) for rule in spec.rules),
        dry_run=policy.dry_run,
        provider=spec.provider.name if spec.action == "CUSTOM" and spec.provider is not None else "",
    )


def _rule(rule: api.Rule, namespace: str) -> model.Rule:
    return model.Rule(
        sources=tuple(_source(f.source, namespace) for f in rule.from_ or () if f.source is not None),
        operations=tuple(
            model.Operation(**msgspec.structs.asdict(to.operation)) for to in rule.to or () if to.operation is not None
        ),
        when=tuple(
            model.Condition(
                key=when.key,
                values=_accounts(when.values, namespace) if when.key == _ACCOUNT else when.values,
                not_values=_accounts(when.not_values, namespace) if when.key == _ACCOUNT else when.not_values,
            )
            for when in rule.when
        ),
    )


_ACCOUNT = "source.serviceAccount"


def _source(source: api.Source, namespace: str) -> model.Source:
    fields = msgspec.structs.asdict(source)
    for name in ("service_accounts", "not_service_accounts"):
        fields[name] = _accounts(fields[name], namespace)
    return model.Source(**fields)


def _accounts(values: Iterable[str], namespace: str) -> tuple[str, ...]:
    """A bare account is one of the policy's own namespace."""
    return tuple(value if "/" in value else f"{namespace}/{value}" for value in values)


# -- RequestAuthentication -----------------------------------------------------------------------------------------------


def _providers(request: Scoped, keys: Mapping[str, str], problems: list[Problem]) -> list[model.JwtProvider]:
    if not isinstance(request.spec, api.RequestAuthenticationSpec):
        problems.append(Problem(request.source, f"cannot be used, so the tokens that it is for are refused: {request.why}"))
        return _refusing(request)
    found = []
    for index, rule in enumerate(request.spec.jwt_rules):
        at = KeysAt.of(rule)
        found.append(_provider(f"{request.source} jwtRules[{index}]", rule, rule.jwks if at is None else keys.get(at.place, "")))
    return found


def _provider(source: str, rule: api.JWTRule, jwks: str) -> model.JwtProvider:
    return model.JwtProvider(
        source=source,
        issuer=rule.issuer,
        jwks=jwks,
        audiences=rule.audiences,
        from_headers=tuple((header.name.lower(), header.prefix) for header in rule.from_headers),
        from_params=rule.from_params,
        from_cookies=rule.from_cookies,
        payload_header=rule.output_payload_to_header.lower(),
        claim_headers=tuple((copy.header.lower(), copy.claim) for copy in rule.output_claim_to_headers),
        forward=rule.forward_original_token,
        space_delimited=rule.space_delimited_claims,
    )


def _refusing(request: Scoped) -> list[model.JwtProvider]:
    """Providers without keys for what can be read of an unusable object: its rules' places for tokens, and the usual ones.

    What it would strip as forged it still strips.
    """
    raw = request.raw.get("jwtRules") if isinstance(request.raw, dict) else None
    found = []
    unread = not isinstance(raw, list) or not raw
    for index, item in enumerate(raw if isinstance(raw, list) else ()):
        rule = _readable(item)
        if rule is None:
            unread = True
        else:
            found.append(_provider(f"{request.source} jwtRules[{index}]", rule, ""))
    if unread:
        found.append(model.JwtProvider(source=request.source, issuer=""))
    return found


def _readable(item: Any) -> api.JWTRule | None:
    try:
        return msgspec.convert(item, api.JWTRule)
    except msgspec.ValidationError:
        return None
