"""Translate, plain ports: where PeerAuthentication says DISABLE, so that callers do not begin mutual TLS there.

In: the policies of all namespaces. Out: for a namespace the ones that its endpoints are judged by, or None, which is the usual
case and costs nothing. A mesh without DISABLE never computes endpoints anew for a policy.
"""

from __future__ import annotations

from collections.abc import Mapping

from control.resources.security import PeerAuthenticationSpec
from control.translate.peers import peer_mode
from control.world.endpoints import WorldEndpoint
from control.world.security import NamespaceSecurity, in_force

__all__ = ["Judges", "PlainPorts", "takes_tls"]

Judges = tuple[NamespaceSecurity, NamespaceSecurity | None]  # of the root namespace, and of the endpoint's own


class PlainPorts:
    """Made once per state of the policies. ``marker`` is None as long as no policy says DISABLE."""

    __slots__ = ("_known", "_root", "_security", "marker")

    def __init__(self, security: Mapping[str, NamespaceSecurity], root: str) -> None:
        self._security, self._root = security, root
        self._known: dict[str, Judges | None] = {}
        self.marker = security if any(map(_disables, security.values())) else None

    def judges(self, namespace: str) -> Judges | None:
        if self.marker is None:
            return None
        if namespace not in self._known:
            root, own = in_force(self._security, self._root, namespace)
            some = _disables(root) or (own is not None and _disables(own))
            self._known[namespace] = (root, own) if some else None
        return self._known[namespace]


def takes_tls(endpoint: WorldEndpoint, port: int, judges: Judges | None) -> bool:
    """Whether mutual TLS may begin: there is a sidecar, and nothing has switched it off on this port of the workload."""
    if not endpoint.tls or port in endpoint.bypassed:
        return False
    if judges is None:
        return True
    return peer_mode(*judges, dict(endpoint.labels), port)[0] != "DISABLE"


def _disables(security: NamespaceSecurity) -> bool:
    for policy in security.peers:
        if isinstance(policy.spec, PeerAuthenticationSpec):
            modes = (policy.spec.mtls, *policy.spec.port_level_mtls.values())
            if any(mode is not None and mode.mode == "DISABLE" for mode in modes):
                return True
    return False
