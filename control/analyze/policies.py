"""Analysis, AuthorizationPolicies and RequestAuthentications: rules that can never match, and what they let in or shut out.

Codes MESH0011 to MESH0014, MESH0016 to MESH0018, MESH0020 to MESH0022. In: a scene. Out: findings. Semantics B5, B6. Whom a
policy is for is asked of the world's own index.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from control.analyze.finding import Finding, Subject, found
from control.analyze.scene import Scene
from control.analyze.walk import inbound_ports
from control.resources.security import AuthorizationPolicySpec, RequestAuthenticationSpec, Rule
from control.translate.authoriser import authoriser
from control.translate.peers import mtls_mode
from control.world import PodInfo
from control.world.security import NO_SECURITY, Scoped

__all__ = [
    "allows_nothing",
    "authorisers",
    "identities",
    "key_sets",
    "methods",
    "paths",
    "policies_of",
    "selected",
    "subject",
    "tokens",
    "tokens_alone",
]

_IDENTITY_FIELDS = ("principals", "namespaces", "service_accounts", "trust_domains")
_IDENTITY_KEYS = ("source.principal", "source.namespace", "source.serviceAccount", "source.trustDomain")
_TOKEN_FIELDS = ("request_principals",)
_TOKEN_KEYS = "request.auth."
_SHOWN = 3


class _Asked(NamedTuple):
    """A condition. ``negated``: it holds where the request has nothing there."""

    path: str
    what: str
    negated: bool
    values: tuple[str, ...]


def subject(one: Scoped) -> Subject:
    return Subject(one.kind, one.namespace, one.name)


def selected(scene: Scene, one: Scoped) -> list[PodInfo]:
    """The pods that a policy is for."""
    anywhere = one.namespace == scene.mesh.root_namespace and one.gateways is None
    pods = scene.pods({}, None if anywhere else one.namespace)
    return [pod for pod in pods if one.selects(dict(pod.labels), gateway=pod.role == "gateway")]


def policies_of(scene: Scene) -> Iterator[tuple[Scoped, AuthorizationPolicySpec]]:
    for _, space in sorted(scene.config.security.items()):
        for one in space.policies:
            if isinstance(one.spec, AuthorizationPolicySpec):
                yield one, one.spec


def _requests(scene: Scene, pod: PodInfo) -> bool:
    """Whether anybody reads tokens for this pod."""
    for space in {scene.mesh.root_namespace, pod.namespace}:
        for one in scene.config.security.get(space, NO_SECURITY).requests:
            meant = pod.namespace == space or one.gateways is None
            if meant and one.selects(dict(pod.labels), gateway=pod.role == "gateway"):
                return True
    return False


def _asked(spec: AuthorizationPolicySpec, fields: tuple[str, ...], keys: tuple[str, ...] | str) -> Iterator[_Asked]:
    """Every condition on these fields and keys."""
    for number, rule in enumerate(spec.rules):
        at = f"spec.rules[{number}]"
        for index, origin in enumerate(rule.from_ or ()):
            for name in fields if origin.source is not None else ():
                for negated in (False, True):
                    field = f"not_{name}" if negated else name
                    values = getattr(origin.source, field)
                    if values:
                        shown = _camel(field)
                        yield _Asked(f"{at}.from[{index}].source.{shown}", shown, negated, values)
        for index, when in enumerate(rule.when):
            if when.key.startswith(keys):
                yield _Asked(f"{at}.when[{index}]", when.key, not when.values, when.values or when.not_values)


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)


def _names(pods: list[PodInfo]) -> str:
    shown = ", ".join(f"{pod.namespace}/{pod.name}" for pod in pods[:_SHOWN])
    return shown + (f" and {len(pods) - _SHOWN} more" if len(pods) > _SHOWN else "")


def _comes_to(asked: _Asked) -> str:
    return "it holds for every request" if asked.negated else "it never holds"


# -- AuthorizationPolicy -------------------------------------------------------------------------------------------------


def allows_nothing(scene: Scene) -> Iterator[Finding]:
    for one, spec in policies_of(scene):
        if spec.action == "ALLOW" and not spec.rules:
            message = (
                "has no rules, so it allows nothing: what no other ALLOW policy allows is denied. [{}] would allow everything."
            )
            yield found("MESH0013", subject(one), "spec.rules", message)


def tokens(scene: Scene) -> Iterator[Finding]:
    for one, spec in policies_of(scene):
        if spec.action == "CUSTOM":
            continue  # it is refused there
        blind = [pod for pod in selected(scene, one) if not _requests(scene, pod)]
        for asked in _asked(spec, _TOKEN_FIELDS, _TOKEN_KEYS) if blind else ():
            message = (
                f"{asked.what} is of a verified token, but no RequestAuthentication is for {_names(blind)}, so nobody verifies "
                f"any: {_comes_to(asked)}. Apply a RequestAuthentication there."
            )
            yield found("MESH0012", subject(one), asked.path, message)


def identities(scene: Scene) -> Iterator[Finding]:
    """Where callers have no identity, and principals that nobody has."""
    domains = {scene.mesh.trust_domain, *scene.mesh.trust_domain_aliases, "cluster.local"}
    seen = scene.plaintext_callers()
    for one, spec in policies_of(scene):
        pods = [pod for pod in selected(scene, one) if pod.role != "gateway"]
        off = [pod for pod in pods if _off(scene, pod)]
        plain = sorted({name for pod in pods for name in seen.get((pod.namespace, pod.name), ())})
        for asked in _asked(spec, _IDENTITY_FIELDS, _IDENTITY_KEYS):
            if off:
                message = (
                    f"{asked.what} is the caller's identity over mutual TLS, which is switched off for {_names(off)} "
                    f"(PeerAuthentication DISABLE): {_comes_to(asked)} there."
                )
                yield found("MESH0011", subject(one), asked.path, message)
            elif plain:
                more = f" and {len(plain) - _SHOWN} more" if len(plain) > _SHOWN else ""
                message = (
                    f"{asked.what} is the caller's identity over mutual TLS, but {', '.join(plain[:_SHOWN])}{more} calls in "
                    f"plaintext (meshctl x mtls report): {_comes_to(asked)} for such a caller."
                )
                yield found("MESH0011", subject(one), asked.path, message)
            if not asked.what.lower().endswith("principals") and asked.what != "source.principal":
                continue
            for value in asked.values:
                domain, slash, _ = value.partition("/")
                if slash and not domain.startswith("*") and domain not in domains:
                    message = (
                        f'"{domain}" is no trust domain of this mesh ({scene.mesh.trust_domain}; aliases are set by '
                        f"MeshConfig trustDomainAliases): nobody here is {value}."
                    )
                    yield found("MESH0018", subject(one), asked.path, message)


def _off(scene: Scene, pod: PodInfo) -> bool:
    modes = {mtls_mode(scene.config, pod.namespace, dict(pod.labels), port)[0] for port in inbound_ports(scene, pod)}
    return modes == {"DISABLE"}


def authorisers(scene: Scene) -> Iterator[Finding]:
    """Files seldom hold the MeshConfig, so only those that do, and a mesh, are asked."""
    if not (scene.live or scene.mesh.authorisers):
        return
    for one, spec in policies_of(scene):
        if spec.action == "CUSTOM" and spec.provider is not None:
            for namespace in sorted({pod.namespace for pod in selected(scene, one)} or {one.namespace}):
                why = authoriser(scene.config, namespace, spec.provider.name).unusable
                if why:
                    message = f"{why}: every request is denied. Name it in MeshConfig extensionProviders."
                    yield found("MESH0016", subject(one), "spec.provider.name", message)
                    break


def paths(scene: Scene) -> Iterator[Finding]:
    """Policies match the path as it is after normalisation, without its query."""
    for one, spec in policies_of(scene):
        for number, rule in enumerate(spec.rules):
            for path, value in _operands(rule, f"spec.rules[{number}]", ("paths", "not_paths")):
                why = _never(value, scene.mesh.path_normalization)
                if why:
                    yield found("MESH0020", subject(one), path, f'"{value}" never matches: {why}')
            if spec.action == "DENY":
                yield from _beside(one, rule, f"spec.rules[{number}]")


def methods(scene: Scene) -> Iterator[Finding]:
    """Everybody's methods are in capitals, and policies compare them as they are."""
    for one, spec in policies_of(scene):
        for number, rule in enumerate(spec.rules):
            for path, value in _operands(rule, f"spec.rules[{number}]", ("methods", "not_methods")):
                if value != value.upper():
                    message = f'"{value}" never matches: methods are compared as they are; write {value.upper()}'
                    yield found("MESH0022", subject(one), path, message)


def _operands(rule: Rule, at: str, names: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    for index, to in enumerate(rule.to or ()):
        for name in names if to.operation is not None else ():
            for position, value in enumerate(getattr(to.operation, name)):
                yield f"{at}.to[{index}].operation.{_camel(name)}[{position}]", value


def _never(value: str, normalization: str) -> str:
    if not value.startswith(("/", "*", "{")):
        return "a path begins with /"
    if "?" in value or "#" in value:
        return "it is compared with the path alone, without the query; leave that out"
    if normalization != "NONE" and any(part in (".", "..") for part in value.split("/")):
        return "paths are normalised first, and then no . or .. is left in them"
    if normalization in ("MERGE_SLASHES", "DECODE_AND_MERGE_SLASHES") and "//" in value:
        return "paths are normalised first, and then no // is left in them"
    return ""


def _beside(one: Scoped, rule: Rule, at: str) -> Iterator[Finding]:
    """A DENY of what is under a path leaves the path itself."""
    for index, to in enumerate(rule.to or ()):
        given = set(to.operation.paths) if to.operation is not None else set()
        for position, value in enumerate(to.operation.paths if to.operation is not None else ()):
            bare = value.removesuffix("/*")
            if bare != value and bare and "*" not in bare and bare not in given:
                path = f"{at}.to[{index}].operation.paths[{position}]"
                yield found(
                    "MESH0021", subject(one), path, f'"{value}" does not match {bare} itself: add "{bare}" if that is denied too'
                )


# -- RequestAuthentication -----------------------------------------------------------------------------------------------


def tokens_alone(scene: Scene) -> Iterator[Finding]:
    demanding = [
        one for one, spec in policies_of(scene) if list(_asked(spec, _TOKEN_FIELDS, _TOKEN_KEYS)) or spec.action == "CUSTOM"
    ]
    covered = {(pod.namespace, pod.name) for one in demanding for pod in selected(scene, one)}
    for _, space in sorted(scene.config.security.items()):
        for request in space.requests:
            if not isinstance(request.spec, RequestAuthenticationSpec) or not request.spec.jwt_rules:
                continue
            open_ = [pod for pod in selected(scene, request) if (pod.namespace, pod.name) not in covered]
            if open_:
                message = (
                    f"lets a request without a token pass: no AuthorizationPolicy of {_names(open_)} asks for one. Where one is "
                    'to be demanded, deny what has none: action DENY, from notRequestPrincipals ["*"].'
                )
                yield found("MESH0014", subject(request), "", message)


def key_sets(scene: Scene) -> Iterator[Finding]:
    """What control says of its fetches."""
    for row in scene.facts.keys:
        if row["usable"] or not row["error"]:
            continue
        for who in row["askedBy"]:
            kind, _, rest = str(who).partition(" ")
            name, _, path = rest.partition(" ")
            space, _, own = name.partition("/")
            message = (
                f"the key set at {row['location']} could not be fetched, so this issuer's tokens are refused: {row['error']}"
            )
            yield found("MESH0017", Subject(kind, space, own), f"spec.{path}" if path else "", message)
