"""Telemetry room: counts finished exchanges. Hot: ``Observer.finished`` is called once per request, budget 3 µs.

In: records. Out: ``families()`` for the exposition, at scrape. A request's labels are worked out once per combination of what
they depend on; after that it is one dict look-up and three bisections into plain lists.

The number of series is bounded: what would go past the limit is counted under ``other``, and that this happens is counted too.
"""

from __future__ import annotations

import logging
from bisect import bisect_left
from typing import TYPE_CHECKING, Any, Literal

from meshproxy.telemetry.family import BOUNDS, Family, Histogram, Row
from meshproxy.telemetry.labels import LABELS, OTHER, answerer, folded, host_of, label_values
from meshproxy.telemetry.version import VERSION

if TYPE_CHECKING:
    from meshproxy.message.decision import Decision
    from meshproxy.message.reason import Reason
    from meshproxy.message.record import ExchangeRecord
    from meshproxy.model.cluster import Workload
    from meshproxy.telemetry.accesslog import AccessLog

__all__ = ["Observer"]

log = logging.getLogger("meshproxy")

SERIES = 1000  # label sets; 60 lines of text each at a scrape
BINDINGS = 4096  # look-up entries; more than series, since a configuration change makes new objects for the same values
POLICIES = 1000  # actions, policies and results that are counted apart
HOSTS = 64  # distinct hosts outside the mesh that get a series of their own


class _Series:
    """What is counted under one set of labels."""

    __slots__ = ("count", "ms", "ms_sum", "received", "received_sum", "sent", "sent_sum")

    def __init__(self) -> None:
        self.count = 0
        self.ms = [0] * (len(BOUNDS) + 1)
        self.ms_sum = 0.0
        self.received = [0] * (len(BOUNDS) + 1)
        self.received_sum = 0
        self.sent = [0] * (len(BOUNDS) + 1)
        self.sent_sum = 0


class Observer:
    """Implements ``message.ports.Observer``.

    own: our workload, settable later (what was counted stays under the old labels). log: gets every record, unless it is off.
    version: for ``istio_build``. limit: label sets.
    """

    __slots__ = (
        "_access_log",
        "_bound",
        "_config_updates",
        "_config_version",
        "_decisions",
        "_dry_runs",
        "_hosts",
        "_keep",
        "_limit",
        "_log",
        "_own",
        "_refused",
        "_retries",
        "_series",
        "_version",
        "folded",
    )

    def __init__(
        self,
        own: Workload,
        log: AccessLog | None = None,
        version: str = VERSION,
        limit: int = SERIES,
    ) -> None:
        self._own = own
        self._version = version
        self._access_log = log
        self._log = log.write if log is not None and log.enabled else None
        self._limit = limit
        self._series: dict[tuple[str, ...], _Series] = {}
        self._bound: dict[tuple[Any, ...], _Series] = {}
        self._keep: list[Any] = []
        self._hosts: set[str] = set()
        self._retries: dict[str, int] = {}
        self._refused: dict[tuple[str, str, str], int] = {}
        self._decisions: dict[tuple[str, str, str], int] = {}
        self._dry_runs: dict[tuple[str, str, str], int] = {}
        self._config_version = ""
        self._config_updates = 0
        self.folded = 0

    @property
    def own(self) -> Workload:
        return self._own

    @own.setter
    def own(self, own: Workload) -> None:
        if own != self._own:
            self._own = own
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
        key = (
            record.listener.direction,
            id(service),
            id(workload),
            id(record.peer),
            record.status,
            record.flags,
            None if secured is None else secured.who,
            None if upstream is None else upstream.who,
            None if service is not None else (record.cluster_name, record.route_name, record.authority),
        )
        series = self._bound.get(key)
        if series is None:
            series = self._bind(key, record)
        series.count += 1
        took = (now - record.started) * 1000.0
        series.ms_sum += took
        series.ms[bisect_left(BOUNDS, took)] += 1
        size = record.request_size
        series.received_sum += size
        series.received[bisect_left(BOUNDS, size)] += 1
        size = record.response_size
        series.sent_sum += size
        series.sent[bisect_left(BOUNDS, size)] += 1
        for decision in record.decisions:
            self._decided(decision, record)
        if record.attempts > 1:
            name = record.cluster_name
            self._retries[name] = self._retries.get(name, 0) + record.attempts - 1
        if self._log is not None:
            record.ended = record.ended or now
            self._log(record)

    def refused(self, listener: str, reason: Reason, detail: str) -> None:
        """Count a message that the codec refused, before there was a request to speak of."""
        key = (listener, reason.name.lower(), str(reason.status))
        self._refused[key] = self._refused.get(key, 0) + 1

    def configured(self, version: str) -> None:
        """A snapshot of this version runs now."""
        self._config_version = version
        self._config_updates += 1

    def _bind(self, key: tuple[Any, ...], record: ExchangeRecord) -> _Series:
        if len(self._bound) >= BINDINGS:
            self._bound.clear()
            self._keep.clear()
        host = host_of(record)
        if host and host not in self._hosts:
            if len(self._hosts) < HOSTS:
                self._hosts.add(host)
            else:
                host = OTHER
        values = label_values(record, self._own, host)
        series = self._series.get(values)
        if series is None:
            if len(self._series) >= self._limit:
                self.folded += 1
                values = folded(values)
            series = self._series.setdefault(values, _Series())
        self._bound[key] = series
        self._keep.append((record.service, answerer(record), record.peer))
        return series

    def families(self) -> list[Family]:
        """Everything counted so far."""
        return [
            Family(
                "istio_requests_total",
                "counter",
                "Requests, by who asked, who answered and how.",
                LABELS,
                [Row(values, series.count) for values, series in self._series.items()],
            ),
            self._histogram("istio_request_duration_milliseconds", "Duration of requests.", "ms"),
            self._histogram("istio_request_bytes", "Size of requests on the wire, heads included.", "received"),
            self._histogram("istio_response_bytes", "Size of responses on the wire, heads included.", "sent"),
            Family(
                "istio_build",
                "gauge",
                "What runs here.",
                ("component", "tag"),
                [Row(("proxy", self._version), 1)],
                merge="max",
            ),
            Family(
                "mesh_cluster_retries_total",
                "counter",
                "Tries after the first.",
                ("cluster_name",),
                [Row((name,), count) for name, count in self._retries.items()],
                stat="cluster.{}.upstream_rq_retry",
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
                self.folded,
            ),
            self._counter(
                "mesh_access_log_dropped_total",
                "Access log lines that a full buffer or an unwritable file dropped.",
                "access_log.dropped",
                self._access_log.dropped if self._access_log is not None else 0,
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

    def _histogram(self, name: str, text: str, field: str) -> Family:
        rows = [
            Row(values, 0, Histogram(list(getattr(series, field)), getattr(series, f"{field}_sum")))
            for values, series in self._series.items()
        ]
        return Family(name, "histogram", text, LABELS, rows)
