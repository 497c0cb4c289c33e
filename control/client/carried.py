"""The way to a mesh's own API in a cluster: through the cluster's API server (room ``client``).

In: ``send``, which asks the API server as the kubeconfig's user. Out: ``Carried``: path and headers by which ``/mesh/v1/…``
reaches control. Nobody's own credentials go there: for the role that is needed the API server is asked for a token of the account
``mesh-view``, ``mesh-edit`` or ``mesh-admin`` (ten minutes, for control only), so that who may act in that role is the cluster's
RBAC. The API server keeps the Authorization header for itself, so the token goes in one of ours.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["HEADER", "Carried", "NoRole"]

HEADER = "x-mesh-authorization"
AUDIENCE = "mesh-api"
LIFE = 600  # seconds, the least that Kubernetes gives
ROLES = ("view", "edit", "admin")
Send = Callable[[str, str, Mapping[str, Any]], tuple[int, Any]]  # method, path, body -> status, JSON


class NoRole(Exception):
    """The cluster gives this user no token of a role that would do; one line."""


class Carried:
    def __init__(self, send: Send, namespace: str = "istio-system") -> None:
        self._send = send
        self._namespace = namespace
        self._tokens: dict[str, str] = {}

    def path(self, path: str) -> str:
        return f"/api/v1/namespaces/{self._namespace}/services/https:istiod:15012/proxy{path}"

    def headers(self, method: str, path: str) -> dict[str, str]:
        """Raises ``NoRole``."""
        return {HEADER: f"Bearer {self._token(self._needed(method, path))}"}

    @staticmethod
    def _needed(method: str, path: str) -> str:
        """The least role that may do it; control has the last word."""
        asks = path.startswith("/mesh/v1/proxies/") or path in ("/mesh/v1/analyze", "/mesh/v1/dashboard-code")
        return "view" if method == "GET" or asks else "admin"

    def _token(self, needed: str) -> str:
        refused = ""
        for role in ROLES[ROLES.index(needed) :]:
            if role in self._tokens:
                return self._tokens[role]
            path = f"/api/v1/namespaces/{self._namespace}/serviceaccounts/mesh-{role}/token"
            spec = {"audiences": [AUDIENCE], "expirationSeconds": LIFE}
            body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
            code, answer = self._send("POST", path, body)
            if code in (200, 201):
                self._tokens[role] = str(answer["status"]["token"])
                return self._tokens[role]
            said = answer.get("message") if isinstance(answer, dict) else ""
            refused = refused or " ".join(str(said or f"HTTP {code}").split())[:300]
        raise NoRole(f"this cluster lets you act in no role of the mesh in {self._namespace} that would do: {refused}")
