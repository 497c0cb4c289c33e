"""What carries the pod's traffic, as the sidecar sees it: a data path in this process, or a fleet of workers. One interface.
Loud.

In: candidates to install, drain, questions. Out: nacks, families of metrics, the state of clusters (merged over workers).
"""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from typing import Any, Protocol, cast

import msgspec

from meshproxy.agent.state import Candidate
from meshproxy.apply import Refused, Snapshot
from meshproxy.bootstrap import Bootstrap
from meshproxy.cluster.status import merged as merged_status
from meshproxy.datapath import PORT_RANGE, DataPath, address
from meshproxy.ending import Plan
from meshproxy.listener.accept import listening_socket
from meshproxy.model.delivery import Nack
from meshproxy.model.listener import Listener
from meshproxy.model.tap import TapBatch, TapOrder
from meshproxy.policy.invalid import Invalid
from meshproxy.telemetry.accesslog import AccessLogs
from meshproxy.telemetry.failures import Failure
from meshproxy.telemetry.family import Family, Row, merged
from meshproxy.telemetry.internals import cluster_families, process_families, resident
from meshproxy.telemetry.observe import Observer
from meshproxy.telemetry.report import Collector, Deltas, joined
from meshproxy.telemetry.tap import MOST_TAPS, TOO_MANY, Taps, judged
from meshproxy.telemetry.tls import tls_families
from meshproxy.telemetry.wanted import Wanted, wanted
from meshproxy.tls.identity import Identity
from meshproxy.workers import Fleet

__all__ = ["Local", "Shared", "Traffic", "traffic"]

log = logging.getLogger("meshproxy")


class Traffic(Protocol):
    """``snapshot``: what runs, for explanations. ``drain_soon`` sends callers away and returns at once; ``drain`` returns at the
    plan's end, ``hurry`` gives it another one.
    """

    @property
    def snapshot(self) -> Snapshot | None: ...
    def ready(self) -> str: ...  # "": serving; else why not
    async def start(self) -> None: ...
    def identify(self, identity: Identity) -> None: ...  # our certificate from now on; open connections keep theirs
    def install(self, candidate: Candidate) -> list[Nack]: ...
    async def families(self) -> list[Family]: ...
    async def deltas(self) -> Deltas: ...  # what was counted since this was last asked, for control
    async def clusters(self) -> list[dict[str, Any]]: ...
    async def listeners(self) -> list[dict[str, Any]]: ...
    async def callers(self) -> list[dict[str, Any]]: ...  # who calls, and how, ``DataPath.callers``
    async def failures(self) -> list[Failure]: ...  # what failed lately
    def tap(self, order: TapOrder) -> None: ...  # tell of requests that end from now on; raises ValueError, one line
    def untap(self, id_: str) -> None: ...
    async def tapped(self) -> list[TapBatch]: ...  # what taps were told since this was last asked
    def reopen_logs(self) -> None: ...  # after a log rotation
    def drain_soon(self) -> None: ...
    async def drain(self, plan: Plan) -> None: ...
    def hurry(self, plan: Plan) -> None: ...
    async def aclose(self) -> None: ...


def traffic(bootstrap: Bootstrap) -> Traffic:
    """As many processes as ``concurrency`` says."""
    return Shared(bootstrap) if bootstrap.concurrency > 1 else Local(bootstrap)


class Local:
    """Everything in this process. Also what a worker runs."""

    def __init__(self, bootstrap: Bootstrap) -> None:
        self.access_logs = AccessLogs(bootstrap)
        self.observer = Observer(bootstrap.workload, self.access_logs)
        self._wanted: Wanted | None = None
        self._collector = Collector(self.observer.store, self.observer.streams)
        loop = asyncio.get_running_loop()
        self.taps = Taps(self.observer, loop.time)
        self.datapath = DataPath(loop, bootstrap, self.observer, self.observer.refused, workers=bootstrap.concurrency)
        self._own = (bootstrap.ip, bootstrap.pod)
        self._lingers = bootstrap.termination_seconds > 0 or bootstrap.native

    @property
    def snapshot(self) -> Snapshot | None:
        return self.datapath.snapshot

    def ready(self) -> str:
        """Listening sockets are there before the snapshot: whoever comes waits in the kernel's queue for a turn of the loop."""
        return "" if self.datapath.snapshot is not None else "no configuration yet"

    async def start(self) -> None:
        pass

    def identify(self, identity: Identity) -> None:
        self.datapath.vault.identify(identity)

    def install(self, candidate: Candidate) -> list[Nack]:
        try:
            telemetry = wanted(candidate.resources, self._wanted)
        except Invalid as bad:
            return [_bad_telemetry(bad)]
        nacks = self.datapath.install(candidate.resources, candidate.version)
        if not nacks and self.datapath.snapshot is not None:
            self._obey(telemetry)
            self.observer.configured(candidate.version)
            known = self.datapath.snapshot.peer(self._own[0])
            if known is not None and known.pod == self._own[1]:  # control knows our labels better than our flags do
                self.observer.own = known
                self.datapath.own.update(known)
        return nacks

    def _obey(self, telemetry: Wanted) -> None:
        """What is counted and logged from now on; requests in flight are told of in the new way."""
        if telemetry is not self._wanted:
            self._wanted = telemetry
            self.access_logs.configure(telemetry.logs)
            self.observer.report(telemetry.plans)

    async def families(self) -> list[Family]:
        datapath = self.datapath
        clusters = datapath.snapshot.clusters.values() if datapath.snapshot is not None else ()
        process = [
            _one(
                "mesh_downstream_connections",
                "gauge",
                "Connections of clients.",
                datapath.leaving.connections,
                "http.downstream_cx_active",
            ),
            _one(
                "mesh_downstream_buffered_bytes",
                "gauge",
                "Bytes written to clients that the kernel has not taken yet.",
                datapath.leaving.buffered,
                "http.downstream_cx_tx_bytes_buffered",
            ),
            _one("mesh_bugs_total", "counter", "Crashes caught at the barrier.", datapath.bugs, "server.bugs"),
            _one(
                "mesh_loop_lag_seconds", "gauge", "How late the loop's tick was.", datapath.lag, "server.loop_lag_seconds", "max"
            ),
        ]
        tls = tls_families(datapath.vault, datapath.plaintext())
        return [
            *self.observer.families(),
            *cluster_families(clusters),
            *tls,
            *datapath.spans.families(),
            *self.taps.families(),
            *process,
            *process_families(),
        ]

    async def deltas(self) -> Deltas:
        datapath = self.datapath
        identity = datapath.vault.identity
        gauges = [
            ("connections", float(datapath.leaving.connections)),
            ("loop_lag_seconds", datapath.lag),
            ("rss_bytes", float(resident())),
            ("cpu_seconds", round(time.process_time(), 3)),
            *([("certificate_expires", identity.expires)] if identity is not None else []),
        ]
        return self._collector.collect(datapath.snapshot.clusters.values() if datapath.snapshot is not None else (), gauges)

    async def clusters(self) -> list[dict[str, Any]]:
        return self.datapath.clusters()

    async def listeners(self) -> list[dict[str, Any]]:
        return self.datapath.listeners()

    async def callers(self) -> list[dict[str, Any]]:
        return self.datapath.callers()

    async def failures(self) -> list[Failure]:
        return self.observer.failures.rows()

    def tap(self, order: TapOrder) -> None:
        self.taps.open(order)

    def untap(self, id_: str) -> None:
        self.taps.close(id_)

    async def tapped(self) -> list[TapBatch]:
        return self.taps.collect()

    def reopen_logs(self) -> None:
        self.access_logs.reopen()

    def drain_soon(self) -> None:
        """In a pod callers hear of it only by and by."""
        if self._lingers:
            self.datapath.leaving.send_away()
        else:
            self.datapath.leaving.shut()

    async def drain(self, plan: Plan) -> None:
        if cut := await self.datapath.leaving.ended(plan):
            log.warning("drain: %d connections cut after %g s", cut, plan.cap)

    def hurry(self, plan: Plan) -> None:
        self.datapath.leaving.hurry(plan)

    async def aclose(self) -> None:
        await self.datapath.aclose()
        self.access_logs.close()


def _bad_telemetry(bad: Invalid) -> Nack:
    return Nack(kind="telemetry", name="workload", error=str(bad))


def _one(name: str, kind: Any, text: str, value: float, stat: str, merge: Any = "sum") -> Family:
    return Family(name, kind, text, (), [Row((), value)], stat=stat, merge=merge)


class Shared:
    """N workers."""

    def __init__(self, bootstrap: Bootstrap) -> None:
        self._bootstrap = bootstrap
        self._fleet = Fleet(bootstrap.concurrency, sys.argv[1:], self._bindable)

    @property
    def snapshot(self) -> Snapshot | None:
        return self._fleet.snapshot

    def ready(self) -> str:
        return self._fleet.ready()

    async def start(self) -> None:
        await self._fleet.start()

    def identify(self, identity: Identity) -> None:
        self._fleet.identify(identity)

    def install(self, candidate: Candidate) -> list[Nack]:
        return self._fleet.install(candidate)

    def _bindable(self, candidate: Candidate) -> Nack | None:
        """Bind what is new, as the workers will, and let go of it: a taken port is refused before anybody has changed."""
        try:
            wanted(candidate.resources)
        except Invalid as bad:
            return _bad_telemetry(bad)
        before = self.snapshot
        known = {address(one.model, self._bootstrap) for one in before.listeners.values()} if before is not None else set()
        for name, listener in candidate.resources.get("listener", {}).items():
            try:
                host, port = address(cast(Listener, listener), self._bootstrap)
                if (host, port) not in known:
                    listening_socket(host, port, shared=True, backlog=None).close()
            except Refused as no:
                return Nack(kind=no.kind, name=no.name, error=no.message)
            except OverflowError:
                return Nack(kind="listener", name=name, error=PORT_RANGE.format(port))
            except OSError as error:
                return Nack(kind="listener", name=name, error=f"port: {error.strerror} - at `$.port`")
        return None

    async def families(self) -> list[Family]:
        told = await self._fleet.ask("families")
        restarts = _one(
            "mesh_worker_restarts_total", "counter", "Workers started again.", self._fleet.restarts, "server.restarts"
        )
        return [*merged([msgspec.convert(one, list[Family]) for one in told]), restarts]

    async def deltas(self) -> Deltas:
        return joined([msgspec.convert(one, Deltas) for one in await self._fleet.deltas()])

    async def clusters(self) -> list[dict[str, Any]]:
        return merged_status(list(await self._fleet.ask("clusters")))

    async def listeners(self) -> list[dict[str, Any]]:
        """Every worker holds the same addresses; their connections are added."""
        found: dict[str, dict[str, Any]] = {}
        for worker in await self._fleet.ask("listeners"):
            for listener in worker:
                known = found.setdefault(listener["name"], listener)
                if known is not listener:
                    known["connections"] += listener["connections"]
        return list(found.values())

    async def callers(self) -> list[dict[str, Any]]:
        """A caller's connections are spread over the workers."""
        found: dict[tuple[str, str, str], dict[str, Any]] = {}
        for worker in await self._fleet.ask("callers"):
            for row in worker:
                known = found.setdefault((row["listener"], row["how"], row["source"]), row)
                if known is not row:
                    known["requests"] += row["requests"]
                    known["seen"] = max(known["seen"], row["seen"])
        return [row for _, row in sorted(found.items())]

    async def failures(self) -> list[Failure]:
        return [one for told in await self._fleet.ask("failures") for one in msgspec.convert(told, list[Failure])]

    def tap(self, order: TapOrder) -> None:
        """In every worker, each with its share of the rate."""
        judged(order, lambda: self._bootstrap.workload)
        if order.id not in self._fleet.taps and len(self._fleet.taps) >= MOST_TAPS:
            raise ValueError(TOO_MANY)
        self._fleet.tap(msgspec.structs.replace(order, rate=-(-order.rate // len(self._fleet.workers))))

    def untap(self, id_: str) -> None:
        self._fleet.untap(id_)

    async def tapped(self) -> list[TapBatch]:
        """One batch per tap. It has ended when any worker's has."""
        found: dict[str, TapBatch] = {}
        for told in await self._fleet.ask("tapped"):
            for one in msgspec.convert(told, list[TapBatch]):
                known = found.get(one.id, TapBatch(id=one.id))
                found[one.id] = TapBatch(
                    id=one.id,
                    events=tuple(sorted((*known.events, *one.events), key=lambda event: event.time)),
                    over=known.over + one.over,
                    slow=known.slow + one.slow,
                    ended=known.ended or one.ended,
                )
        return list(found.values())

    def reopen_logs(self) -> None:
        for worker in self._fleet.workers:
            worker.tell("reopen")

    def drain_soon(self) -> None:
        self._fleet.send_away()

    async def drain(self, plan: Plan) -> None:
        await self._fleet.drain(plan)

    def hurry(self, plan: Plan) -> None:
        self._fleet.hurry(plan)

    async def aclose(self) -> None:
        await self._fleet.aclose()
