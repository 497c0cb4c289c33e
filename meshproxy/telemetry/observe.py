"""Telemetry room: counts finished exchanges. Hot: ``Observer.finished`` is called once per request, budget 3 µs.

In: records. Out: ``families()`` for the exposition, at scrape. A request's labels are worked out once per combination of what
they depend on; after that it is one dict look-up and three bisections into plain lists.

The number of series is bounded: what would go past the limit is counted under ``other``, and that this happens is counted too.
Requests that failed are remembered for a while (``failures``).
What ``Telemetry`` wants of metrics and logs is settled when it is configured (``overrides``, ``accesslog``).
"""

from __future__ import annotations

import logging
from bisect import bisect_left
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

from meshproxy.model.report import BOUNDS
from meshproxy.telemetry.failures import Failures
from meshproxy.telemetry.family import Family, Row
from meshproxy.telemetry.labels import OTHER, answerer, grpc_status, host_of, label_values
from meshproxy.telemetry.series import NO_ROUTE, Series, SeriesStore, texts
from meshproxy.telemetry.streams import Streams
from meshproxy.telemetry.version import VERSION

if TYPE_CHECKING:
    from meshproxy.message.decision import Decision
    from meshproxy.message.reason import Reason
    from meshproxy.message.record import ExchangeRecord, StreamRecord
    from meshproxy.model.cluster import Workload
    from meshproxy.telemetry.accesslog import AccessLogs
    from meshproxy.telemetry.overrides import Plan

__all__ = ["Observer"]

log = logging.getLogger("meshproxy")

SERIES = 1000  # label sets; 60 lines of text each at a scrape
BINDINGS = 4096  # look-up entries; more than series, since a configuration change makes new objects for the same values
POLICIES = 1000  # actions, policies and results that are counted apart
DIRECTIONS = ("inbound", "outbound", "gateway")
_SIZES = tuple(map(int, BOUNDS))  # the same for whole numbers, which are quicker compared with their like
HOSTS = 64  # distinct hosts outside the mesh that get a series of their own


class Observer:
    """Implements ``message.ports.Observer``.

    own: our workload, settable later (what was counted stays under the old labels). logs: get the records that they want.
    version: for ``istio_build``. limit: label sets. ``store``: what was counted.
    """

    __slots__ = (
        "_bound",
        "_columns",
        "_config_updates",
        "_config_version",
        "_decisions",
        "_dry_runs",
        "_hosts",
        "_keep",
        "_logs",
        "_own",
        "_refused",
        "_version",
        "_watcher",
        "failures",
        "logs",
        "store",
        "streams",
    )

    def __init__(
        self,
        own: Workload,
        logs: AccessLogs | None = None,
        version: str = VERSION,
        limit: int = SERIES,
    ) -> None:
        self._own = own
        self._version = version
        self.logs = logs
        self._watcher: Callable[[ExchangeRecord], None] | None = None
        self._logs: dict[str, Callable[[ExchangeRecord], None]] = {}  # by direction: who takes records; none: nobody does
        self._hand_out()
        self.store = SeriesStore(limit)
        self.streams = Streams(limit)
        self.failures = Failures()
        self._columns: dict[str, Callable[[ExchangeRecord], tuple[bytes, ...]]] = {}  # by direction: users' tags
        self._bound: dict[tuple[Any, ...], Series] = {}
        self._keep: list[Any] = []
        self._hosts: set[str] = set()
        self._refused: dict[tuple[str, str, str], int] = {}
        self._decisions: dict[tuple[str, str, str], int] = {}
        self._dry_runs: dict[tuple[str, str, str], int] = {}
        self._config_version = ""
        self._config_updates = 0

    @property
    def own(self) -> Workload:
        return self._own

    @own.setter
    def own(self, own: Workload) -> None:
        if own != self._own:
            self._own = own
            self._unbind()

    def report(self, plans: dict[str, Plan]) -> None:
        """What metrics show from now on (``overrides.plans``); the logs were configured already."""
        self.store.configure(plans)
        self.streams.configure(plans)
        found = {direction: self.store.plan(direction) for direction in DIRECTIONS}
        self._columns = {name: plan.read for name, plan in found.items() if plan is not None and plan.read is not None}
        self._hand_out()
        self._unbind()

    def watch(self, take: Callable[[ExchangeRecord], None] | None) -> None:
        """Hand every record to ``take`` as well (it does not raise); None: to the access logs only, as if nobody had watched."""
        self._watcher = take
        self._hand_out()

    def _hand_out(self) -> None:
        take, logs = self._watcher, {} if self.logs is None else self.logs.writers
        self._logs = logs if take is None else {name: _both(take, logs.get(name)) for name in DIRECTIONS}

    def _unbind(self) -> None:
        self._bound.clear()
        self._keep.clear()

    def finished(self, record: ExchangeRecord, now: float) -> None:
        """Count one exchange. Hot: see the row "observe" of benchmarks/micro_telemetry.py."""
        service = record.service
        endpoint = record.endpoint
        workload = None if endpoint is None else endpoint.workload
        secured, upstream = record.secured, record.upstream_secured
        if upstream is not None and upstream.workload is not None:
            workload = upstream.workload
        # Identities stand for values: hashing three structs would cost more than all the rest. ``_keep`` holds what they name.
        direction = record.listener.direction
        tally = record.grpc
        status, flags = record.status, record.flags
        key: tuple[Any, ...] = (
            direction,
            id(service),
            id(workload),
            id(record.peer),
            record.chosen,  # plain objects are hashed by identity, without a call of id()
            record.cluster_name,
            status,
            flags,
            None if secured is None else secured.who,
            None if upstream is None else upstream.who,
            None if service is not None else (record.route_name, record.authority),
            None if tally is None else grpc_status(record),
        )
        found: tuple[bytes, ...] = ()
        if self._columns and direction in self._columns:
            record.ended = record.ended or now
            found = self._columns[direction](record)
            key = (*key, found)
        series = self._bound.get(key)
        if series is None:
            series = self._bind(key, record, found)
        series.count += 1
        took = (now - record.started) * 1000.0
        series.ms_sum += took
        series.ms[bisect_left(BOUNDS, took)] += 1
        size = record.request_size
        series.received_sum += size
        series.received[bisect_left(_SIZES, size)] += 1
        size = record.response_size
        series.sent_sum += size
        series.sent[bisect_left(_SIZES, size)] += 1
        if tally is not None:
            series.asked += tally.asked
            series.told += tally.told
        if flags or status >= 400 or tally is not None:
            self.failures.see(record, "" if tally is None else grpc_status(record), now)
        for decision in record.decisions:
            self._decided(decision, record)
        if record.attempts > 1:
            series.retried += record.attempts - 1
        if self._logs and direction in self._logs:
            record.ended = record.ended or now
            self._logs[direction](record)

    def streamed(self, record: StreamRecord, now: float, over: bool) -> None:
        """Count a connection of bytes: at its beginning, now and again, and at its end."""
        direction = record.listener.direction
        found: tuple[bytes, ...] = ()
        if over:
            record.ended = record.ended or now
        if direction in self._columns:
            found = self._columns[direction](record)
        self.streams.count(record, self._own, texts(found), over)
        if over:
            for decision in record.decisions:
                self._decided(decision, record)
            if direction in self._logs:
                self._logs[direction](record)

    def refused(self, listener: str, reason: Reason, detail: str) -> None:
        """Count a message that the codec refused, before there was a request to speak of."""
        key = (listener, reason.name.lower(), str(reason.status))
        self._refused[key] = self._refused.get(key, 0) + 1

    def configured(self, version: str) -> None:
        """A snapshot of this version runs now."""
        self._config_version = version
        self._config_updates += 1

    def _bind(self, key: tuple[Any, ...], record: ExchangeRecord, found: tuple[bytes, ...]) -> Series:
        if len(self._bound) >= BINDINGS:
            self._unbind()
        host = host_of(record)
        if host and host not in self._hosts:
            if len(self._hosts) < HOSTS:
                self._hosts.add(host)
            else:
                host = OTHER
        series = self.store.get(label_values(record, self._own, host), texts(found), _route(record))
        self._bound[key] = series
        self._keep.append((record.service, answerer(record), record.peer))
        return series

    def families(self) -> list[Family]:
        """Everything counted so far."""
        return [
            *self.store.families(),
            *self.streams.families(),
            Family(
                "istio_build",
                "gauge",
                "What runs here.",
                ("component", "tag"),
                [Row(("proxy", self._version), 1)],
                merge="max",
            ),
            Family(
                "mesh_messages_refused_total",
                "counter",
                "Messages that the codec refused.",
                ("listener", "reason", "response_code"),
                [Row(labels, count) for labels, count in self._refused.items()],
                stat="listener.{}.refused.{}.{}",
            ),
            *self._policies(),
            Family(
                "mesh_config_info",
                "gauge",
                "The snapshot that runs.",
                ("version",),
                [Row((self._config_version or "none",), 1)],
                stat="control.version_text.{}",
                merge="max",
            ),
            self._counter(
                "mesh_config_updates_total", "Configurations taken.", "control.update_success", self._config_updates, "max"
            ),
            self._counter(
                "mesh_metric_label_sets_folded_total",
                f"Label sets counted under {OTHER!r}, because there are too many series.",
                "server.label_sets_folded",
                self.store.folded,
            ),
            _gauge("mesh_metric_label_sets", "Label sets that are counted apart.", "server.label_sets", len(self.store)),
            _gauge("mesh_metric_label_sets_max", "How many there may be.", "server.label_sets_max", self.store.limit),
            self._counter(
                "mesh_access_log_dropped_total",
                "Access log lines that a full buffer or an unwritable file dropped.",
                "access_log.dropped",
                self.logs.dropped if self.logs is not None else 0,
            ),
            _gauge(
                "mesh_access_log_buffered_bytes",
                "Access log lines that wait to be written.",
                "access_log.buffered",
                self.logs.buffered if self.logs is not None else 0,
            ),
        ]

    def _decided(self, decision: Decision, record: ExchangeRecord) -> None:
        """Count a policy's decision. Names come from configurations, which come and go, hence the bound."""
        counts = self._dry_runs if decision.dry_run else self._decisions
        key = decision.counted
        count = counts.get(key)
        if count is None:
            if len(counts) >= POLICIES:
                key = (decision.action, OTHER, decision.result)
            count = counts.get(key, 0)
        counts[key] = count = count + 1
        if decision.dry_run and not decision.allowed and not count & (count - 1):  # the 1st, 2nd, 4th, 8th …: always few
            path = record.path.partition(b"?")[0].decode("utf-8", "backslashreplace")
            caller = record.downstream_remote[0] if record.downstream_remote is not None else "unknown"
            method = record.method.decode("utf-8", "backslashreplace")
            log.info("dry run: %s %s from %s would be denied (%d so far): %s", method, path, caller, count, decision.reason)

    def _policies(self) -> tuple[Family, Family]:
        """Decisions of policies, and of dry runs."""
        labels = ("action", "policy", "result")
        enforced = [Row(values, count) for values, count in self._decisions.items()]
        dry = [Row(values, count) for values, count in self._dry_runs.items()]
        text = "What authorisation policies decided."
        would = "What authorisation policies in dry run would have decided."
        return (
            Family("mesh_authz_total", "counter", text, labels, enforced, "http.rbac.{}.{}.{}"),
            Family("mesh_authz_dry_run_total", "counter", would, labels, dry, "http.rbac.shadow.{}.{}.{}"),
        )

    @staticmethod
    def _counter(name: str, text: str, stat: str, value: int, merge: Literal["sum", "max"] = "sum") -> Family:
        return Family(name, "counter", text, (), [Row((), value)], stat, merge)


def _route(record: ExchangeRecord) -> tuple[str, str, str]:
    """By which route it went; inbound there is only one to each port."""
    chosen = record.chosen
    if chosen is None or record.listener.direction == "inbound":
        return NO_ROUTE
    return record.route_name, chosen.model.source, record.cluster_name


def _both(
    take: Callable[[ExchangeRecord], None], write: Callable[[ExchangeRecord], None] | None
) -> Callable[[ExchangeRecord], None]:
    if write is None:
        return take

    def both(record: ExchangeRecord) -> None:
        write(record)
        take(record)

    return both


def _gauge(name: str, text: str, stat: str, value: int) -> Family:
    return Family(name, "gauge", text, (), [Row((), value)], stat)
