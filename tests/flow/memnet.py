"""The whole data path in memory, with virtual time: real codecs, filters, clusters, pools and exchanges; no socket, no sleep.

A test is the client (``world.client()``), the network (``world.accept()``/``world.refuse()`` per dial) and the app
(``server.send``).
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from typing import Any

from meshproxy.apply import compile_snapshot
from meshproxy.cluster.cluster import Cluster as LiveCluster
from meshproxy.exchange.corridor import Corridor, Slot
from meshproxy.exchange.mirror import mirror
from meshproxy.listener.downstream import Downstream, Gate
from meshproxy.listener.entrance import Entrance
from meshproxy.message.reason import Reason
from meshproxy.message.record import ExchangeRecord, StreamRecord
from meshproxy.model.cluster import Cluster, Endpoint, Endpoints
from meshproxy.model.listener import Listener
from meshproxy.model.route import Forward, Route, RouteConfig, VirtualHost, WeightedCluster
from meshproxy.relay.line import Line
from meshproxy.upstream.connection import UpstreamConnection
from meshproxy.upstream.pool import Pool


class Clock:
    """``Timers`` and the loop's clock; moves only when told."""

    def __init__(self) -> None:
        self.at = 1000.0
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._count = itertools.count()
        self._cancelled: set[int] = set()

    def now(self) -> float:
        return self.at

    time = now

    def later(self, seconds: float, call: Callable[[], None]) -> Callable[[], None]:
        number = next(self._count)
        heapq.heappush(self._heap, (self.at + seconds, number, call))
        return lambda: self._cancelled.add(number)

    @property
    def armed(self) -> int:
        return sum(number not in self._cancelled for _, number, _ in self._heap)

    def advance(self, seconds: float) -> None:
        until = self.at + seconds
        while self._heap and self._heap[0][0] <= until:
            self.at, number, call = heapq.heappop(self._heap)
            if number not in self._cancelled:
                call()
        self.at = until


class Wire:
    """A transport that remembers. ``sent``: all bytes written by the proxy."""

    def __init__(self, protocol: Any, remote: tuple[str, int], local: tuple[str, int]) -> None:
        self.protocol = protocol
        self.info = {"peername": remote, "sockname": local, "socket": None}
        self.sent = b""
        self.closing = False
        self.aborted = False
        self.eof = False
        self.reading = True
        self.lost = False
        self.original: tuple[str, int] | None = None

    def write(self, data: bytes) -> None:
        assert type(data) in (bytes, bytearray, memoryview)
        assert not self.eof, "written after write_eof: a real transport raises"
        if not self.closing:
            self.sent += data

    def is_closing(self) -> bool:
        return self.closing

    def close(self) -> None:
        self.closing = True

    def abort(self) -> None:
        self.closing = self.aborted = True

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def write_eof(self) -> None:
        self.eof = True

    def set_protocol(self, protocol: Any) -> None:
        self.protocol = protocol

    def set_write_buffer_limits(self, high: int) -> None:
        pass

    def get_write_buffer_size(self) -> int:
        """``sent`` until the test takes it: as a client that does not read."""
        return len(self.sent)

    def get_extra_info(self, name: str) -> Any:
        return self.info[name]

    # -- the other end

    def deliver(self, data: bytes) -> None:
        assert self.reading, "the proxy has paused reading"
        self.protocol.data_received(data)

    def deliver_eof(self) -> None:
        if not self.protocol.eof_received():
            self.closing = True

    def lose(self) -> None:
        if not self.lost:
            self.lost = self.closing = True
            self.protocol.connection_lost(None)

    def take(self) -> bytes:
        """What was written since the last ``take``."""
        data, self.sent = self.sent, b""
        return data


class World:
    """One listener's data path. ``records``: what the observer was told; ``bugs``: what the crash barrier caught (none, ever)."""

    def __init__(
        self, resources: dict[str, dict[str, Any]] | None = None, listener: str = "outbound", draws: float = 0.5
    ) -> None:
        self.clock = Clock()
        self.records: list[ExchangeRecord] = []
        self.dials: list[Any] = []
        self.streams: list[StreamRecord] = []  # connections of bytes that are over
        self.refusals: list[tuple[Reason, str]] = []
        self.snapshot: Any = None
        self.listener = listener
        self.slot = Slot()
        self.draw = draws
        self.corridor = Corridor(self.slot, self.clock, lambda: self.draw, self, self.pool, mirror, 0.0, line_of=self.line)
        self.gate = Gate(
            self.corridor,
            self.bug,
            lambda reason, detail, now: self.refusals.append((reason, detail)),
            original=lambda transport: transport.original,
        )
        self.install(resources if resources is not None else simple())

    # -- ports

    def finished(self, record: ExchangeRecord, now: float) -> None:
        self.records.append(record)

    def streamed(self, record: StreamRecord, now: float, over: bool) -> None:
        record.told = (record.body_received, record.body_sent)
        if over:
            self.streams.append(record)

    def bug(self, where: str, bug: BaseException) -> None:
        raise AssertionError(where) from bug

    def pool(self, cluster: Any, endpoint: Any) -> Pool:
        pool = endpoint.pool = Pool(cluster, endpoint, self)
        return pool

    def line(self, cluster: Any, endpoint: Any) -> Line:
        return Line(cluster, endpoint, self)

    def dial(self, pool: Any) -> None:
        self.dials.append(pool)

    # -- the test's hands

    def install(self, resources: dict[str, dict[str, Any]]) -> None:
        def make(config: Any, endpoints: Any, old: Any) -> Any:
            if old is None:
                return LiveCluster(config, endpoints)
            for gone in old.update(config, endpoints):
                if gone.pool is not None:
                    gone.pool.retire()
            return old

        self.snapshot = compile_snapshot(resources, self.snapshot, make)
        self.slot.current = self.snapshot.listeners[self.listener]

    def client(self, source: str = "127.0.0.1") -> Wire:
        protocol = Downstream(self.clock, self.gate)  # type: ignore[arg-type]
        wire = Wire(protocol, (source, 40000), ("127.1.0.1", 15001))
        protocol.connection_made(wire)  # type: ignore[arg-type]
        return wire

    def intercepted(self, original: tuple[str, int] | None, source: str = "127.1.0.1") -> Wire:
        """A connection that was meant for ``original``; None: that nobody has redirected."""
        protocol = Entrance(self.clock, self.gate)  # type: ignore[arg-type]
        wire = Wire(protocol, (source, 40000), ("127.0.0.1", 15001))
        wire.original = original
        protocol.connection_made(wire)  # type: ignore[arg-type]
        return wire

    def sweep(self) -> None:
        """What the acceptor does twice a second."""
        for connection in list(self.gate.connections):
            if not connection.quiet:
                connection.overdue(self.clock.now(), 60.0)

    def accept(self, early: bytes = b"", ended: bool = False) -> Wire:
        """The oldest dial succeeds; the wire is the app's end. early: what it says before anybody knows of it; ended: and that
        it has no more to say.
        """
        pool = self.dials.pop(0)
        connection = UpstreamConnection(self.clock, pool, self.bug)  # type: ignore[arg-type]
        wire = Wire(connection, (pool.endpoint.address, pool.endpoint.port), ("127.1.0.1", 50000))
        connection.connection_made(wire)  # type: ignore[arg-type]
        if early:
            wire.deliver(early)
        if ended:
            wire.deliver_eof()
        pool.connected(connection, self.clock.now())
        return wire

    def refuse(self, reason: Reason = Reason.CONNECT_FAILURE, failure: str = "delayed connect error: Connection refused") -> None:
        """The oldest dial fails."""
        self.dials.pop(0).dial_failed(reason, failure, self.clock.now())

    def limits(self, cluster: str = "c") -> Any:
        return self.snapshot.clusters[cluster].limits

    def settled(self) -> None:
        """Nothing is held any more: no timer, no request, no retry, nothing pending, every record told once."""
        assert self.clock.armed == 0
        for cluster in self.snapshot.clusters.values():
            limits = cluster.limits
            assert (limits.requests, limits.pending, limits.retries) == (0, 0, 0), cluster
            for endpoint in cluster.members():
                assert endpoint.active == 0


def simple(
    *,
    action: Any = None,
    route: dict[str, Any] | None = None,
    endpoints: int = 2,
    cluster: dict[str, Any] | None = None,
    listener: dict[str, Any] | None = None,
    more: dict[str, dict[str, Any]] | None = None,
) -> dict[str, dict[str, Any]]:
    """An outbound listener whose port 8080 sends ``rating`` to cluster ``c`` with endpoints 127.1.0.2, 127.1.0.3, …"""
    hosts = tuple(Endpoint(address=f"127.1.0.{number + 2}", port=8080) for number in range(endpoints))
    forward = action if action is not None else Forward(clusters=(WeightedCluster(cluster="c"),))
    table = RouteConfig(
        name="8080",
        virtual_hosts=(
            VirtualHost(name="rating", domains=("rating",), routes=(Route(name="r", action=forward, **(route or {})),)),
        ),
    )
    resources: dict[str, dict[str, Any]] = {
        "cluster": {"c": Cluster(name="c", **(cluster or {}))},
        "endpoints": {"c": Endpoints(name="c", endpoints=hosts)},
        "route": {"8080": table},
        "listener": {
            "outbound": Listener(name="outbound", direction="outbound", port=15001, route_ports=(8080,), **(listener or {}))
        },
    }
    for kind, items in (more or {}).items():
        resources[kind].update(items)
    return resources


GET = b"GET /a HTTP/1.1\r\nhost: rating:8080\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


def status_of(data: bytes) -> int:
    return int(data[9:12])
