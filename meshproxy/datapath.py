"""The data path of one process: listeners, clusters and pools under one compiled snapshot. Loud only in what it opens.

In: ``install(resources, version)`` with the whole wanted state; ``drain``; a tick every half second. Out: listening sockets
that obey, or the reasons for refusing (nothing has changed then). Used in the sidecar's own process, or in each worker with
``--concurrency``.
"""

from __future__ import annotations

import asyncio
import logging
import random
import ssl
import time
from collections.abc import Callable, Mapping
from ipaddress import ip_address
from typing import Any, cast

from meshproxy.agent.http import read_token, tls_context
from meshproxy.apply import CompiledListener, Refused, Snapshot, compile_snapshot, trust_of
from meshproxy.bootstrap import Bootstrap
from meshproxy.cluster.cluster import Cluster
from meshproxy.cluster.status import cluster_status
from meshproxy.exchange.corridor import Corridor, Slot
from meshproxy.exchange.mirror import mirror
from meshproxy.leaving import Leaving
from meshproxy.listener.accept import Acceptor
from meshproxy.listener.downstream import Gate
from meshproxy.message.ports import Cancel, Observer
from meshproxy.message.reason import Reason
from meshproxy.message.record import ExchangeRecord
from meshproxy.model import cluster as model
from meshproxy.model.base import Model
from meshproxy.model.delivery import Nack
from meshproxy.model.listener import Listener
from meshproxy.model.security import Secret
from meshproxy.policy.peer_metadata import OwnMetadata
from meshproxy.relay.line import Line
from meshproxy.telemetry.trace import Home, Spans
from meshproxy.tls.vault import Vault
from meshproxy.upstream.dial import TcpDialer
from meshproxy.upstream.dns import DnsKeeper
from meshproxy.upstream.names import NamedPools
from meshproxy.upstream.own import is_local, reaches
from meshproxy.upstream.pool import Pool
from meshproxy.upstream.secure import ClientSide

__all__ = ["PORT_RANGE", "DataPath", "address"]

log = logging.getLogger("meshproxy")
PORT_RANGE = "port: must be between 0 and 65535, not {} - at `$.port`"
_TICK = 0.5


class LoopTimers:
    """``Timers`` over an event loop."""

    __slots__ = ("_call_later", "_crash", "now")

    def __init__(self, loop: asyncio.AbstractEventLoop, crash: Callable[[str, BaseException], None]) -> None:
        self._crash = crash
        self.now: Callable[[], float] = loop.time
        self._call_later = loop.call_later

    def later(self, seconds: float, call: Callable[[], None]) -> Cancel:
        return self._call_later(seconds, self._guarded, call).cancel

    def _guarded(self, call: Callable[[], None]) -> None:
        """The crash barrier for what no connection's callback is behind: a deadline, a backoff, a fault's delay."""
        try:
            call()
        except Exception as bug:
            self._crash("timer", bug)


class DataPath:
    """``shared``: listening sockets are shared with other workers. ``workers``: how many share the pod's limits."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        bootstrap: Bootstrap,
        observer: Observer,
        refused: Callable[[str, Reason, str], None],
        *,
        workers: int = 1,
    ) -> None:
        self._loop = loop
        self._bootstrap = bootstrap
        self._observer = observer
        self._count_refused = refused
        self._workers = workers
        self._timers = LoopTimers(loop, self.bug)
        self._wall_offset = time.time() - loop.time()
        status = (bootstrap.health_port, bootstrap.metrics_port, bootstrap.prometheus_port)
        self._pages = (
            (bootstrap.ip, bootstrap.outbound_port),
            (bootstrap.admin_bind, bootstrap.admin_port),
            *((bootstrap.status_bind, port) for port in status if port is not None),
        )
        self.vault = Vault()
        self.own = OwnMetadata(bootstrap.workload, _node(bootstrap))
        self._client_side = ClientSide(self.vault, self.own)
        self.spans = Spans(lambda: self.own.workload, _node(bootstrap), self._mesh_id, self._home())
        self._dialer = TcpDialer(loop, self.bug, source=bootstrap.ip, refuse=self._egress_refused, secure=self._client_side)
        self._app_dialer = TcpDialer(loop, self.bug, refuse=self._loops)
        self._dns = DnsKeeper(loop, self._resolved)
        self.acceptors: dict[str, Acceptor] = {}
        self._slots: dict[str, Slot] = {}
        self.leaving = Leaving(loop, self.acceptors, [port for _, port in self._pages])
        self.snapshot: Snapshot | None = None
        self._local: dict[str, bool] = {}  # addresses that were asked about: ours or not
        self.bugs = 0
        self.lag = 0.0
        self._tick_due = loop.time() + _TICK
        self._ticker = loop.call_later(_TICK, self._tick)
        self._opening: set[asyncio.Task[None]] = set()

    # -- configuration

    def install(self, resources: Mapping[str, Mapping[str, Model]], version: str) -> list[Nack]:
        """Compile and run this state. An empty answer: it runs. Otherwise nothing changed."""
        wanted = cast("Mapping[str, Listener]", resources.get("listener", {}))
        fresh: list[Acceptor] = []
        try:
            staying = {name for name, listener in wanted.items() if self._stays(name, listener)}
            left = {(old.host, old.wanted_port): old for name, old in self.acceptors.items() if name not in staying}
            for name, listener in wanted.items():  # first what may fail outside; compiling changes live clusters when it succeeds
                if name not in staying:
                    host, port = address(listener, self._bootstrap)
                    fresh.append(self._acceptor(listener, host, port, left.pop((host, port), None)))
            snapshot = compile_snapshot(resources, self.snapshot, self._cluster, version=version)
        except OverflowError:
            nack = Nack(kind="listener", name=name, error=PORT_RANGE.format(port))
        except OSError as exc:
            nack = Nack(kind="listener", name=name, error=f"port: {exc.strerror} - at `$.port`")
        except Refused as no:
            nack = Nack(kind=no.kind, name=no.name, error=no.message)
        else:
            self._swap(snapshot, wanted, fresh)
            return []
        for acceptor in fresh:
            acceptor.close()
        return [nack]

    def _swap(self, snapshot: Snapshot, wanted: Mapping[str, Listener], fresh: list[Acceptor]) -> None:
        previous, self.snapshot = self.snapshot, snapshot
        self.vault.configure(trust_of(snapshot.resources), cast("Mapping[str, Secret]", snapshot.resources.get("secret", {})))
        for name, slot in self._slots.items():
            if name in snapshot.listeners:
                slot.current = snapshot.listeners[name]
        for name, acceptor in self.acceptors.items():
            if name in snapshot.listeners:
                self._serve(acceptor, snapshot.listeners[name])
        wall = self._loop.time() + self._wall_offset
        for acceptor in self.leaving.all():
            acceptor.reconfigured(wall)
        for acceptor in fresh:
            acceptor.succeed()
        for acceptor in fresh:
            old = self.acceptors.get(acceptor.name)
            if old is not None:
                self.leaving.leave(old)
            acceptor.slot.current = snapshot.listeners[acceptor.name]
            self._serve(acceptor, snapshot.listeners[acceptor.name])
            self._slots[acceptor.name] = acceptor.slot
            self.acceptors[acceptor.name] = acceptor
            if self.leaving.dismissed(acceptor):
                continue
            task = self._loop.create_task(acceptor.open(), name=f"listen {acceptor.name}")
            self._opening.add(task)
            task.add_done_callback(self._opened)
        for name in [name for name in self.acceptors if name not in wanted]:
            self.leaving.leave(self.acceptors.pop(name))
            self._slots.pop(name)
        names = {name for name, cluster in snapshot.clusters.items() if cluster.config.type == "DNS"}
        self._dns.retain(names)
        for name in names:
            cluster = snapshot.clusters[name]
            self._dns.watch(cluster, cluster.config, snapshot.endpoints[name])
        if previous is not None:
            for name, cluster in previous.clusters.items():
                if name not in snapshot.clusters:
                    self._retire(cluster.retire())
        groups = cast("Mapping[str, model.Endpoints]", snapshot.resources.get("endpoints", {}))
        self._client_side.configured(snapshot.clusters.values(), groups, self._loop.time())

    def _opened(self, task: asyncio.Task[None]) -> None:
        self._opening.discard(task)
        if not task.cancelled() and (bug := task.exception()) is not None:
            self.bug(task.get_name(), bug)

    def _stays(self, name: str, listener: Listener) -> bool:
        """Whether this listener goes on with the socket that it has."""
        old, before = self.acceptors.get(name), self.snapshot
        if old is None or before is None or before.listeners[name].direction != listener.direction:
            return False
        return (old.host, old.wanted_port) == address(listener, self._bootstrap)

    def _acceptor(self, listener: Listener, host: str, port: int, before: Acceptor | None) -> Acceptor:
        slot = Slot()
        gate = Gate(
            self._corridor(slot),
            self.bug,
            lambda reason, detail, now: self._refused(slot, reason, detail, now),
            self._own if listener.direction == "outbound" else _anyone,
            vault=self.vault,
            captures=self._ours if listener.direction == "outbound" else _anyone,
        )
        return Acceptor(self._loop, listener.name, gate, slot, host, port, shared=self._workers > 1, before=before)

    def _corridor(self, slot: Slot) -> Corridor:
        return Corridor(
            slot,
            self._timers,
            random.random,
            self._observer,
            self._pool,
            mirror,
            self._wall_offset,
            own=self.own,
            spans=self.spans.finished,
            precise=time.time_ns,
            line_of=self._line,
        )

    def _serve(self, acceptor: Acceptor, listener: CompiledListener) -> None:
        """A gateway's TLS servers judge by their own routes. One that is gone keeps its last ones for those who leave."""
        served = acceptor.gate.served
        for route, compiled in listener.served.items():
            corridor = served.get(route)
            if corridor is None:
                served[route] = self._corridor(Slot(compiled))
            else:
                corridor.slot.current = compiled

    def _refused(self, slot: Slot, reason: Reason, detail: str, now: float) -> None:
        """A request that never became one is told of like any other."""
        self._count_refused(slot.current.name, reason, detail)
        record = ExchangeRecord(slot.current, now, now + self._wall_offset)
        record.status = reason.status
        record.detail = detail
        record.flag(reason)
        self._observer.finished(record, now)

    def _own(self, address: str) -> bool:
        """Outbound serves its own pod only."""
        return address in ("127.0.0.1", "::1", self._bootstrap.ip)

    def _ours(self, address: str) -> bool:
        """What iptables sends to outbound comes from one of this pod's addresses; it may have several."""
        if address not in self._local:
            if len(self._local) >= 64:  # others chose them
                self._local.clear()
            self._local[address] = self._own(address) or is_local(address)
        return self._local[address]

    # -- what is never dialed

    def _egress_refused(self, address: str, port: int) -> Reason | None:
        """A sidecar may call its own pod through its inbound listener; its pages, outbound and a gateway's doors it may not."""
        if reaches((*self._pages, *self._doors("outbound")), address, port):
            return Reason.EGRESS_REFUSED
        return Reason.LOOP_DETECTED if reaches(self._doors("gateway"), address, port) else None

    def _loops(self, address: str, port: int) -> Reason | None:
        """An app that is one of our own listeners would get each request again and again; our pages are no app of others."""
        if reaches(self._pages, address, port):
            return Reason.EGRESS_REFUSED
        return Reason.LOOP_DETECTED if reaches(self._doors("inbound", "outbound", "gateway"), address, port) else None

    def _doors(self, *directions: str) -> list[tuple[str, int]]:
        return [
            (acceptor.host, acceptor.port)
            for acceptor in self.acceptors.values()
            if acceptor.slot.current.direction in directions
        ]

    # -- clusters and pools

    def _cluster(self, config: model.Cluster, endpoints: tuple[model.Endpoint, ...], old: Cluster | None) -> Cluster:
        if config.type == "DNS":
            endpoints = self._dns.resolved(config.name, endpoints)
        if old is None:
            return Cluster(config, endpoints, workers=self._workers)
        self._update(old, config, endpoints)
        return old

    def _update(self, cluster: Cluster, config: model.Cluster, endpoints: tuple[model.Endpoint, ...]) -> None:
        self._retire(cluster.update(config, endpoints))

    def _resolved(self, cluster: Cluster, config: model.Cluster, endpoints: tuple[model.Endpoint, ...]) -> None:
        self._update(cluster, config, endpoints)

    @staticmethod
    def _retire(endpoints: Any) -> None:
        for endpoint in endpoints:
            if endpoint.pool is not None:
                endpoint.pool.retire()

    def _pool(self, cluster: Cluster, endpoint: Any) -> Pool | NamedPools:
        endpoint.pool = pool = self._client_side.pool(cluster, endpoint, self._dialer_of(cluster))
        return pool

    def _line(self, cluster: Cluster, endpoint: Any) -> Line:
        return Line(cluster, endpoint, self._dialer_of(cluster))

    def _dialer_of(self, cluster: Cluster) -> TcpDialer:
        return self._app_dialer if cluster.name.startswith(("inbound|", "InboundPassthroughCluster")) else self._dialer

    # -- traces

    def _mesh_id(self) -> str:
        return self.vault.trust.domain if self.vault.trust is not None else "cluster.local"

    def _home(self) -> Home | None:
        """Where spans go that no exporter is named for: control, under the roots and with the token that count then."""
        own = self._bootstrap
        ca_file, token_file = own.control_ca, own.token_file
        if ca_file is None or token_file is None:
            return None

        def context() -> ssl.SSLContext:
            return tls_context(ca_file, self.vault.trust.roots if self.vault.trust is not None else ())

        return Home(own.control.rstrip("/") + "/v1/traces", context, lambda: read_token(token_file))

    # -- time

    def _tick(self) -> None:
        now = self._loop.time()
        self.lag = max(0.0, now - self._tick_due)
        self._tick_due = now + _TICK
        self._ticker = self._loop.call_later(_TICK, self._tick)
        if self.snapshot is not None:
            for cluster in self.snapshot.clusters.values():
                self._retire(cluster.sweep(now))
                idle = cluster.config.pool.idle_timeout
                for endpoint in cluster.members():
                    if endpoint.pool is not None and endpoint.pool.idle:
                        endpoint.pool.sweep(now, idle)
        self.leaving.sweep(now)

    # -- questions

    def clusters(self) -> list[dict[str, Any]]:
        """The state of every cluster and endpoint, in plain JSON types, sorted by name."""
        if self.snapshot is None:
            return []
        now = self._loop.time()
        return [cluster_status(cluster, now) for _, cluster in sorted(self.snapshot.clusters.items())]

    def listeners(self) -> list[dict[str, Any]]:
        """Where it accepts, by listener."""
        return [
            {"name": name, "address": f"{acceptor.host}:{acceptor.port}", "connections": len(acceptor.gate.connections)}
            for name, acceptor in sorted(self.acceptors.items())
        ]

    def callers(self) -> list[dict[str, Any]]:
        """``Callers.rows`` by listener and ``how``; "refused" (plaintext where it must not be) counts connections."""
        rows: list[dict[str, Any]] = []
        peer = self.snapshot.peer if self.snapshot is not None else _unknown
        for name, acceptor in sorted(self.acceptors.items()):
            gate = acceptor.gate
            if acceptor.slot.current.direction == "inbound":
                for how, callers in (("plaintext", gate.callers), ("mutual TLS", gate.peers), ("refused", gate.turned_away)):
                    rows += ({"listener": name, "how": how, **row} for row in callers.rows(peer, self._wall_offset))
        return rows

    def plaintext(self) -> list[dict[str, Any]]:
        """Of the callers those in plaintext where mutual TLS is welcome."""
        return [row for row in self.callers() if row["how"] == "plaintext"]

    # -- the end

    async def aclose(self) -> None:
        """Cut what is left."""
        self._ticker.cancel()
        for acceptor in self.leaving.all():
            acceptor.drain()
            acceptor.abort()
        await self._dns.aclose()
        await self._dialer.aclose()
        await self._app_dialer.aclose()
        await asyncio.to_thread(self.spans.close)
        if self.snapshot is not None:
            for cluster in self.snapshot.clusters.values():
                self._retire(cluster.members())

    def bug(self, where: str, bug: BaseException) -> None:
        """The crash barrier's other side: count, tell, go on."""
        self.bugs += 1
        log.error("bug in %s", where, exc_info=bug)


def address(listener: Listener, bootstrap: Bootstrap) -> tuple[str, int]:
    """Where a listener stands. Raises ``Refused``."""
    port = bootstrap.outbound_port if listener.direction == "outbound" else listener.port
    host = listener.bind or bootstrap.ip
    try:
        ip_address(host)
    except ValueError:
        raise Refused("listener", listener.name, f"bind: must be an IP address, not {host!r} - at `$.bind`") from None
    return host, port


def _node(bootstrap: Bootstrap) -> str:
    """Envoy's node id, as Istio writes it."""
    role = "router" if bootstrap.role == "gateway" else bootstrap.role
    return f"{role}~{bootstrap.ip}~{bootstrap.node}~{bootstrap.namespace}.svc.cluster.local"


def _anyone(address: str) -> bool:
    return True


def _unknown(address: str) -> None:
    return None
