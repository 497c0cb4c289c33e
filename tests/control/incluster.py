"""For tests: tokens as a cluster would issue them, and a cluster with what every cluster has."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlsplit

from control.cluster.rbac import cluster_rules, root_rules
from tests.control.kubeserver import KubeServer

Obj = dict[str, Any]


class Wanted(NamedTuple):
    """What Kubernetes' RBAC is asked about a request. ``name`` "": of no single object."""

    group: str
    resource: str
    verb: str
    name: str
    namespace: str

    @classmethod
    def of(cls, line: str) -> Wanted:
        """``METHOD path?query``."""
        method, _, url = line.partition(" ")
        at = urlsplit(url)
        query = dict(parse_qsl(at.query))
        parts = at.path.strip("/").split("/")
        group, rest = ("", parts[2:]) if parts[0] == "api" else (parts[1], parts[3:])
        namespace = ""
        if rest[0] == "namespaces" and len(rest) > 2:
            namespace, rest = rest[1], rest[2:]
        resource = "/".join([rest[0], *rest[2:]])
        name = rest[1] if len(rest) > 1 else ""
        if method == "GET" and not name:
            verb = "watch" if query.get("watch") else "list"
            name = query.get("fieldSelector", "").partition("metadata.name=")[2]
        else:
            verb = {"GET": "get", "POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}[method]
        return cls(group, resource, verb, name, namespace)

    def granted(self, rules: Iterable[Obj]) -> bool:
        """By rules as they stand in a Role."""
        return any(
            self.group in rule["apiGroups"]
            and self.resource in rule["resources"]
            and self.verb in rule["verbs"]
            and (not rule.get("resourceNames") or self.name in rule["resourceNames"])
            for rule in rules
        )


def allowed(line: str) -> bool:
    """Whether the role of control, of the default revision, has a rule for ``METHOD path?query``."""
    wanted = Wanted.of(line)
    rules = [*cluster_rules("istio-system"), *(root_rules() if wanted.namespace == "istio-system" else ())]
    return wanted.granted(rule.manifest() for rule in rules)


class Tokens:
    """Issues unsigned tokens and reviews them as an API server would; ``refused`` are no longer good."""

    def __init__(self) -> None:
        self._known: dict[str, Obj] = {}
        self.refused: set[str] = set()

    def issue(self, namespace: str, account: str, audience: str, expires: float, pod: str = "", uid: str = "") -> str:
        claims = {"exp": expires, "sub": f"{namespace}:{account}", "n": len(self._known)}
        body = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
        token = f"eyJhbGciOiJub25lIn0.{body}.c2ln"
        extra = {"authentication.kubernetes.io/credential-id": [f"JTI={len(self._known)}"]}
        if pod:
            extra |= {"authentication.kubernetes.io/pod-name": [pod], "authentication.kubernetes.io/pod-uid": [uid]}
        user = {"username": f"system:serviceaccount:{namespace}:{account}", "extra": extra}
        self._known[token] = {"authenticated": True, "user": user, "audiences": [audience]}
        return token

    def review(self, spec: Obj) -> Obj:
        known = self._known.get(spec["token"])
        if known is None or spec["token"] in self.refused or not set(known["audiences"]) & set(spec.get("audiences") or ()):
            return {"authenticated": False, "error": "no"}
        return known


async def furnish(server: KubeServer) -> Tokens:
    """Namespaces, webhook configurations as ``install`` leaves them; returns who issues its tokens."""
    tokens = Tokens()
    server.reviews = tokens.review
    namespaces = server.kind("", "namespaces")
    for name in ("default", "istio-system"):
        await server.store.create(namespaces, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    group = "admissionregistration.k8s.io"
    for kind, name in (
        ("MutatingWebhookConfiguration", "istio-sidecar-injector"),
        ("ValidatingWebhookConfiguration", "istio-validator-istio-system"),
    ):
        where = {"service": {"name": "istio-sidecar-injector", "namespace": "istio-system", "path": "/x"}, "caBundle": ""}
        hooks = [{"name": f"{number}.istio.io", "clientConfig": dict(where)} for number in range(2)]
        made = server.kind(group, kind.lower() + "s", kind)
        await server.store.create(made, {"metadata": {"name": name}, "webhooks": hooks})
    return tokens
