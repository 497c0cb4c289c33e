"""Room 6, loud: TLS towards endpoints: whose certificate we show, whom we believe, and when a connection may serve no longer.

In: each installed configuration (``configured``), pools to make (``pool``), dials to secure (``session``, ``verdict``). Out:
sessions for handshakes and ``TlsRefused``; open connections closed where the configuration has taken back what they stand on.
Nothing is known of the vault but its contexts and judgements.

An endpoint of the mesh must show one of the cluster's ``sans`` or, without any, of its ``identities``. Where control knows none
(a service without pods of its own), any identity of the mesh's trust domain will do, as in Istio.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Iterable, Mapping
from typing import Any

from meshproxy.message.secured import Peer, Secured, TlsFault
from meshproxy.model.cluster import Endpoints
from meshproxy.policy.peer_metadata import OwnMetadata
from meshproxy.tls.peer import carries
from meshproxy.tls.session import Session
from meshproxy.tls.vault import Vault
from meshproxy.upstream.names import NamedPools
from meshproxy.upstream.plan import Plan, plan_of
from meshproxy.upstream.pool import Dialer, Pool

__all__ = ["ClientSide", "TlsRefused", "words"]


class TlsRefused(Exception):
    """A handshake that must not or did not succeed. ``who``: the peer's names, for the log; no client is told of them."""

    def __init__(self, fault: TlsFault, detail: str = "", who: str = "") -> None:
        super().__init__(words(fault, detail))
        self.fault = fault
        self.detail = detail
        self.who = who


def words(fault: TlsFault, detail: str = "") -> str:
    """The transport failure reason, after Envoy's: ``TLS_error: the peer's certificate has expired``."""
    return f"TLS_error: {fault.value}{f': {detail}' if detail else ''}"


class ClientSide:
    """One per process. ``own``: what peers in the mesh are told of us."""

    def __init__(self, vault: Vault, own: OwnMetadata | None = None) -> None:
        self.vault = vault
        self.own = own
        self.connections: set[Any] = set()  # those that have been judged, busy and idle

    # -- configuration

    def configured(self, clusters: Iterable[Any], groups: Mapping[str, Endpoints], now: float) -> None:
        """A snapshot runs, and the vault knows of it: whatever stands on what it has taken back ends."""
        for cluster in clusters:
            group = groups.get(cluster.name)
            cluster.identities = frozenset(group.identities) if group is not None else frozenset()
            for endpoint in cluster.members():
                pool = endpoint.pool
                if pool is not None and pool.plan != plan_of(cluster, endpoint, self.vault.client):
                    pool.retire()  # requests that wait there are dialed for in the new way
                    endpoint.pool = None
        wall = time.time()
        for connection in [one for one in self.connections if one.secured.mesh]:
            pool = connection.pool
            fault = self._judged(pool, connection.plan, connection.secured.peer, wall)
            if fault is TlsFault.REVOKED:
                connection.failure = words(fault)
                self.failed(pool, fault, "", connection.secured.who)
                connection.transport.abort()
            elif fault is not None and fault is not TlsFault.EXPIRED:  # an expired one was good when it was shown
                pool.expire(connection, now)

    # -- pools

    def pool(self, cluster: Any, endpoint: Any, dialer: Dialer) -> Pool | NamedPools:
        """What belongs into the endpoint's ``pool`` slot."""
        plan = plan_of(cluster, endpoint, self.vault.client)
        if plan is None or plan.name is not None:
            return Pool(cluster, endpoint, dialer, plan)
        return NamedPools(plan, lambda name: Pool(cluster, endpoint, dialer, plan, name))

    def plan(self, pool: Pool) -> Plan | None:
        """How a dial for this pool has to be made now; a pool that was retired may have been made under another plan."""
        return plan_of(pool.cluster, pool.endpoint, self.vault.raw_client if pool.raw else self.vault.client)

    # -- one connection

    def session(self, pool: Pool, plan: Plan) -> Session:
        """Raises ``TlsRefused`` when we cannot even begin: no certificate, no roots, no credential."""
        context = self.vault.mesh_client(pool.raw) if plan.mesh else plan.context
        if not isinstance(context, ssl.SSLContext):
            raise TlsRefused(context)
        try:
            return Session(context, False, (plan.name if plan.name is not None else pool.name) or None)
        except ValueError as error:  # no such name can be asked for: an empty label, or a name that is to be checked and missing
            raise TlsRefused(TlsFault.PROTOCOL, str(error)) from None

    def verdict(self, pool: Pool, plan: Plan, session: Session) -> Secured:
        """The connection's facts, once its handshake has succeeded. Raises ``TlsRefused`` for a peer that it should not be."""
        peer = session.peer()
        fault: TlsFault | None = None
        if plan.mesh:
            fault = TlsFault.NO_CERTIFICATE if peer is None else self._judged(pool, plan, peer, time.time())
        elif plan.tls.sans and not plan.tls.insecure_skip_verify:
            fault = None if peer is not None and carries(peer, plan.tls.sans) else TlsFault.WRONG_IDENTITY
        if fault is not None:
            raise TlsRefused(fault, who=_names(peer))
        identity = self.vault.identity if plan.mesh else None
        name = plan.name if plan.name is not None else pool.name
        return session.secured(peer, name, plan.mesh, identity.uri if identity is not None else "")

    def opened(self, connection: Any) -> None:
        self.connections.add(connection)
        self.vault.tally.handshake("client")

    def failed(self, pool: Pool, fault: TlsFault, detail: str, who: str = "") -> None:
        address = pool.endpoint.label.decode()
        self.vault.tally.failure("client", fault, f"{address} {who}".rstrip(), detail, time.monotonic())

    def _judged(self, pool: Pool, plan: Plan, peer: Peer, wall: float) -> TlsFault | None:
        allowed = frozenset(plan.tls.sans) or pool.cluster.identities or None
        return self.vault.judge(peer, wall, allowed)


def _names(peer: Peer | None) -> str:
    """Who it says it is, for the log: never more than a line."""
    return ", ".join((*peer.uris, *peer.names))[:200] if peer is not None else ""
