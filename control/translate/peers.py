"""Translate, peers: whether a workload's port demands mutual TLS of its callers (PeerAuthentication; semantics A3, B7).

In: the world's policies and a workload. Out: the mode and which object says so. Mesh < namespace < workload < port; UNSET
inherits, the oldest of a scope counts, nothing at all is PERMISSIVE. An object that cannot be used stands for STRICT: it was
written to say something about mutual TLS, and the mesh's own callers still get through.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from control.resources.security import MutualTLS, PeerAuthenticationSpec
from control.world.config import Config
from control.world.security import NamespaceSecurity, Scoped, in_force

__all__ = ["Mode", "mtls_mode", "peer_mode", "peer_ports"]

Mode = Literal["DISABLE", "PERMISSIVE", "STRICT"]
_Verdict = tuple[Mode, str]
_NOBODY: _Verdict = ("PERMISSIVE", "")


def mtls_mode(config: Config, namespace: str, labels: Mapping[str, str], port: int) -> tuple[Mode, str]:
    """The mode on ``port`` (the workload's, not a service's), and its source, "" for the default."""
    return peer_mode(*in_force(config.security, config.mesh.root_namespace, namespace), labels, port)


def peer_mode(root: NamespaceSecurity, own: NamespaceSecurity | None, labels: Mapping[str, str], port: int) -> _Verdict:
    """``own`` is None for a workload of the root namespace: its namespace's policy is the mesh's."""
    found = _of(_wide(root), _NOBODY)
    if own is not None:
        found = _of(_wide(own), found)
    narrow = _narrow(root, own, labels)
    if narrow is None:
        return found
    found = _of(narrow, found)
    spec = narrow.spec
    if isinstance(spec, PeerAuthenticationSpec):
        found = _mode(spec.port_level_mtls.get(str(port)), f"{narrow.source} portLevelMtls[{port}]", found)
    return found


def peer_ports(root: NamespaceSecurity, own: NamespaceSecurity | None, labels: Mapping[str, str]) -> tuple[int, ...]:
    """The ports about which the workload's policy says something of its own."""
    narrow = _narrow(root, own, labels)
    if narrow is None or not isinstance(narrow.spec, PeerAuthenticationSpec):
        return ()
    return tuple(sorted(int(port) for port in narrow.spec.port_level_mtls if port.isdecimal()))


def _narrow(root: NamespaceSecurity, own: NamespaceSecurity | None, labels: Mapping[str, str]) -> Scoped | None:
    # With a selector, a policy of the root namespace is for that namespace's own workloads, not for the mesh.
    return next((p for p in (own or root).peers if p.labels and p.selects(labels, gateway=False)), None)


def _wide(security: NamespaceSecurity) -> Scoped | None:
    return next((policy for policy in security.peers if not policy.labels), None)


def _of(policy: Scoped | None, inherited: _Verdict) -> _Verdict:
    if policy is None:
        return inherited
    if not isinstance(policy.spec, PeerAuthenticationSpec):
        return ("STRICT", f"{policy.source} (it cannot be used: {policy.why})")
    return _mode(policy.spec.mtls, policy.source, inherited)


def _mode(given: MutualTLS | None, source: str, inherited: _Verdict) -> _Verdict:
    return inherited if given is None or given.mode == "UNSET" else (given.mode, source)
