"""World, security: every PeerAuthentication, RequestAuthentication and AuthorizationPolicy, by namespace, and whom each selects.

In: typed objects, and what could be read of objects that did not decode. Out: ``NamespaceSecurity`` per namespace; a namespace's
object stays the same while nothing in it changes, so that whoever computed from it may compare by identity. Fails closed: an
object that cannot be used is kept as ``Scoped`` without a ``spec`` and selects all that it may have been meant for.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import msgspec

from control.resources.meta import PolicyTargetReference, WorkloadSelector
from control.resources.security import (
    AuthorizationPolicy,
    AuthorizationPolicySpec,
    JWTRule,
    PeerAuthentication,
    PeerAuthenticationSpec,
    RequestAuthentication,
    RequestAuthenticationSpec,
)

__all__ = [
    "GATEWAY",
    "GATEWAY_NAME",
    "KINDS",
    "NO_SECURITY",
    "KeysAt",
    "NamespaceSecurity",
    "Scoped",
    "broken",
    "in_force",
    "index_security",
    "keys_at",
    "scoped",
]

Labels = tuple[tuple[str, str], ...]
Spec = PeerAuthenticationSpec | RequestAuthenticationSpec | AuthorizationPolicySpec
KINDS = ("PeerAuthentication", "RequestAuthentication", "AuthorizationPolicy")
DRY_RUN = "istio.io/dry-run"
# The label by which Istio knows whose gateway a pod is; a policy's targetRef names that Gateway.
GATEWAY_NAME = "gateway.networking.k8s.io/gateway-name"
GATEWAY = ("gateway.networking.k8s.io", "Gateway")


class Scoped(NamedTuple):
    """One policy object. ``labels``: all that a workload must carry; (): every workload. ``gateways``: the only Gateways that it
    is for; ``None``: it has no targetRef. ``spec`` None: it could not be used; ``raw`` is what is stored, ``why`` the fault.
    """

    kind: str
    namespace: str
    name: str
    created: str
    labels: Labels
    gateways: tuple[str, ...] | None
    dry_run: bool
    spec: Spec | None
    raw: Any = None
    why: str = ""

    @property
    def source(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}"

    @property
    def age(self) -> tuple[str, str, str]:
        """Sort key, oldest first."""
        return (self.created, self.name, self.namespace)

    def selects(self, labels: Mapping[str, str], *, gateway: bool) -> bool:
        """Whether it is for a workload of its own namespace, or of any when its namespace is the root and it has no targetRef."""
        if self.gateways is not None:
            return gateway and labels.get(GATEWAY_NAME) in self.gateways
        return all(labels.get(key) == value for key, value in self.labels)


class NamespaceSecurity:
    """The policies of one namespace, each list oldest first. ``pairs``: all labels that any of them asks about; ``places``: of
    the key sets that they need (``KeysAt.place``); ``providers``: the names of the authorisers that they name.
    """

    __slots__ = ("all", "pairs", "peers", "places", "policies", "providers", "requests")

    def __init__(self, found: Iterable[Scoped] = ()) -> None:
        self.all = tuple(sorted(found, key=lambda one: (one.age, one.kind)))
        self.peers = tuple(one for one in self.all if one.kind == "PeerAuthentication")
        self.requests = tuple(one for one in self.all if one.kind == "RequestAuthentication")
        self.policies = tuple(one for one in self.all if one.kind == "AuthorizationPolicy")
        self.pairs = frozenset(
            [pair for one in self.all for pair in one.labels]
            + [(GATEWAY_NAME, name) for one in self.all for name in one.gateways or ()]
        )
        self.places = tuple(sorted({keys.place for one in self.requests for _, keys in _fetched(one)}))
        specs = [one.spec for one in self.policies if isinstance(one.spec, AuthorizationPolicySpec)]
        self.providers = tuple(sorted({s.provider.name for s in specs if s.action == "CUSTOM" and s.provider is not None}))


class KeysAt(NamedTuple):
    """Where control gets a key set: ``uri``, or by OIDC discovery from ``issuer`` when there is none. ``timeout`` in seconds."""

    uri: str
    issuer: str
    timeout: str

    @property
    def place(self) -> str:
        """Its name in the table of key sets: rules with an equal one share a fetch."""
        return self.uri or f"issuer {self.issuer}"

    @staticmethod
    def of(rule: JWTRule) -> KeysAt | None:
        """``None``: the rule holds its keys itself."""
        return None if rule.jwks else KeysAt(rule.jwks_uri, rule.issuer, rule.timeout)


def _fetched(one: Scoped) -> Iterator[tuple[int, KeysAt]]:
    """The rules of a RequestAuthentication whose keys control fetches."""
    if isinstance(one.spec, RequestAuthenticationSpec):
        for index, rule in enumerate(one.spec.jwt_rules):
            keys = KeysAt.of(rule)
            if keys is not None:
                yield index, keys


NO_SECURITY = NamespaceSecurity()


def scoped(value: PeerAuthentication | RequestAuthentication | AuthorizationPolicy) -> Scoped:
    meta, spec = value.metadata, value.spec
    refs: tuple[PolicyTargetReference, ...] = ()
    if not isinstance(spec, PeerAuthenticationSpec):
        refs = spec.target_refs or ((spec.target_ref,) if spec.target_ref is not None else ())
    return Scoped(
        kind=value.kind,
        namespace=meta.namespace,
        name=meta.name,
        created=meta.creation_timestamp or "",
        labels=tuple(sorted(spec.selector.match_labels.items())) if spec.selector is not None else (),
        gateways=tuple(sorted(r.name for r in refs if (r.group, r.kind) == GATEWAY)) if refs else None,
        dry_run=_is_true((meta.annotations or {}).get(DRY_RUN)),
        spec=spec,
    )


def broken(kind: str, namespace: str, name: str, obj: Mapping[str, Any], why: str) -> Scoped:
    """What is known of an object that cannot be used. Where even its selector is unreadable it is for its whole namespace."""
    meta, spec = _mapping(obj.get("metadata")), obj.get("spec")
    annotations = _mapping(meta.get("annotations"))
    created = meta.get("creationTimestamp")
    labels, gateways = _readable_scope(spec)
    return Scoped(
        kind=kind,
        namespace=namespace,
        name=name,
        created=created if isinstance(created, str) else "",
        labels=labels,
        gateways=gateways,
        dry_run=_is_true(annotations.get(DRY_RUN)),
        spec=None,
        raw=spec,
        why=why,
    )


def _readable_scope(spec: Any) -> tuple[Labels, tuple[str, ...] | None]:
    everything: tuple[Labels, tuple[str, ...] | None] = ((), None)
    if not isinstance(spec, dict):
        return everything
    given = [name for name in ("selector", "targetRef", "targetRefs") if spec.get(name) is not None]
    if len(given) != 1:
        return everything
    try:
        if given == ["selector"]:
            labels = msgspec.convert(spec["selector"], WorkloadSelector).match_labels
            unclear = any(not key or "*" in key + value for key, value in labels.items())
            return everything if unclear else (tuple(sorted(labels.items())), None)
        refs = spec["targetRefs"] if given == ["targetRefs"] else [spec["targetRef"]]
        targets = msgspec.convert(refs, tuple[PolicyTargetReference, ...])
    except msgspec.ValidationError:
        return everything
    if not targets or any((t.group, t.kind) != GATEWAY or not t.name or t.namespace for t in targets):
        return everything
    return ((), tuple(sorted(t.name for t in targets)))


def _is_true(value: object) -> bool:
    return isinstance(value, str) and value.lower() in ("true", "1", "t")


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def index_security(found: Iterable[Scoped], old: Mapping[str, NamespaceSecurity]) -> Mapping[str, NamespaceSecurity]:
    """By namespace; a namespace in which nothing changed keeps its object, and so does the whole."""
    table: dict[str, list[Scoped]] = {}
    for one in found:
        table.setdefault(one.namespace, []).append(one)
    made = {}
    for namespace in sorted(table):
        now, known = NamespaceSecurity(table[namespace]), old.get(namespace)
        made[namespace] = known if known is not None and known.all == now.all else now
    same = made.keys() == old.keys() and all(made[namespace] is old[namespace] for namespace in made)
    return old if same else made


def in_force(
    security: Mapping[str, NamespaceSecurity], root: str, namespace: str
) -> tuple[NamespaceSecurity, NamespaceSecurity | None]:
    """The policies of the mesh (the root namespace's), and the namespace's own; None for the root namespace itself."""
    own = None if namespace == root else security.get(namespace, NO_SECURITY)
    return security.get(root, NO_SECURITY), own


def keys_at(security: Mapping[str, NamespaceSecurity]) -> Iterator[tuple[KeysAt, str]]:
    """Every key set that has to be fetched, with who asks for it."""
    for namespace in sorted(security):
        for one in security[namespace].requests:
            for index, keys in _fetched(one):
                yield keys, f"{one.source} jwtRules[{index}]"
