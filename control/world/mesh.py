"""World, mesh settings: what holds for the whole mesh unless a resource says otherwise (Istio: MeshConfig).

In: nothing. Out: ``MeshSettings``, a frozen value that is part of every ``World``. May assume nothing about resources.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from control.world.reporting import Reporting
from meshproxy.model.route import Retry
from meshproxy.model.security import ExtAuthz

__all__ = ["DEFAULT_RETRY", "INBOUND_RETRY", "AuthzProvider", "MeshSettings"]

# Semantics B2.1: Istio's policy since 1.24, that is without 503.
DEFAULT_RETRY = Retry(attempts=2, on=("connect-failure", "refused-stream", "unavailable", "cancelled", "retriable-status-codes"))
# Semantics A2, "Inbound retry": the app closed an idle keep-alive connection under our feet.
INBOUND_RETRY = Retry(attempts=2, on=("reset-before-request",))


class AuthzProvider(msgspec.Struct, frozen=True, kw_only=True):
    """An authoriser that policies may name (action CUSTOM). ``ask.cluster`` is not filled in yet. ``unusable``: why it is none.

    ``namespace`` "": the host's service may be in any.
    """

    name: str
    namespace: str = ""
    host: str = ""
    port: int = 0
    ask: ExtAuthz | None = None
    unusable: str = ""


class MeshSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Mesh-wide settings. ``gateway_bind`` maps a Gateway's port to the (address, port) really listened on.

    ``default_retry=None`` switches default retries off.
    """

    trust_domain: str = "cluster.local"
    trust_domain_aliases: tuple[str, ...] = ()
    enable_auto_mtls: bool = True
    cluster_domain: str = "cluster.local"  # DNS suffix of Kubernetes services
    root_namespace: str = "istio-system"
    default_lb: Literal["ROUND_ROBIN", "LEAST_REQUEST", "RANDOM"] = "ROUND_ROBIN"
    outbound_policy: Literal["ALLOW_ANY", "REGISTRY_ONLY"] = "ALLOW_ANY"
    default_retry: Retry | None = DEFAULT_RETRY
    inbound_retry: Retry | None = INBOUND_RETRY
    path_normalization: Literal["NONE", "BASE", "MERGE_SLASHES", "DECODE_AND_MERGE_SLASHES"] = "BASE"
    outbound_port: int = 15001
    inbound_port: int = 15006
    detection_timeout: float = 0.1  # seconds that a protocol nobody named may stay silent; 0: for ever
    gateway_bind: tuple[tuple[int, str, int], ...] = ()
    authorisers: tuple[AuthzProvider, ...] = ()
    reporting: Reporting = Reporting()
