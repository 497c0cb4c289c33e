"""The observer: counts, buckets, bounds; one look-up per request, whatever objects the configuration makes anew."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from meshproxy.cluster.endpoint import Endpoint
from meshproxy.message.decision import Decision
from meshproxy.message.reason import Reason
from meshproxy.message.record import ExchangeRecord
from meshproxy.model.cluster import Service, Workload
from meshproxy.model.report import BOUNDS, LABELS
from meshproxy.telemetry import observe, series
from meshproxy.telemetry.family import Family, Row
from meshproxy.telemetry.labels import OTHER
from meshproxy.telemetry.observe import Observer

BOOK = Workload(workload="book", namespace="default")


class Routed:
    """A compiled route, as far as telemetry reads it."""

    def __init__(self, source: str) -> None:
        self.model = SimpleNamespace(source=source)


def record(direction: str = "outbound", **fields: Any) -> ExchangeRecord:
    made = ExchangeRecord(SimpleNamespace(name=direction, direction=direction), 1.0, 1.7e9)
    made.status, made.attempts = 200, 1
    made.service = Service(host="rating.default.svc.cluster.local", name="rating", namespace="default")
    made.cluster_name = "outbound|8080||rating"
    made.endpoint = Endpoint("10.0.0.2", 8080)
    made.endpoint.workload = Workload(workload="rating")
    for name, value in fields.items():
        setattr(made, name, value)
    return made


def family(observer: Observer, name: str) -> Family:
    (found,) = [family for family in observer.families() if family.name == name]
    return found


def requests(observer: Observer, label: str) -> dict[str, float]:
    """Counts by one label."""
    place = LABELS.index(label)
    found: dict[str, float] = {}
    for row in family(observer, "istio_requests_total").rows:
        found[row.labels[place]] = found.get(row.labels[place], 0) + row.value
    return found


def test_counts_by_status() -> None:
    observer = Observer(BOOK)
    for status in (200, 200, 503):
        observer.finished(record(status=status), 1.1)
    assert requests(observer, "response_code") == {"200": 2, "503": 1}


def test_histograms() -> None:
    observer = Observer(BOOK)
    for took, size in ((0.0005, 0), (0.0051, 5), (4000.0, 10**9)):
        observer.finished(record(request_size=size, response_size=2 * size), 1.0 + took)
    for name, total, buckets in (
        ("istio_request_duration_milliseconds", 4_000_005.6, (0, 3, 19)),
        ("istio_request_bytes", 10**9 + 5, (0, 2, 19)),
        ("istio_response_bytes", 2 * (10**9 + 5), (0, 3, 19)),
    ):
        (row,) = family(observer, name).rows
        assert row.histogram is not None and abs(row.histogram.sum - total) < 1e-3
        assert [place for place, count in enumerate(row.histogram.counts) if count] == list(buckets), name
        assert len(row.histogram.counts) == len(BOUNDS) + 1


def test_a_bound_belongs_to_its_bucket() -> None:
    observer = Observer(BOOK)
    observer.finished(record(request_size=1), 1.0)
    (row,) = family(observer, "istio_request_bytes").rows
    assert row.histogram is not None and row.histogram.counts[BOUNDS.index(1.0)] == 1


def test_equal_values_are_one_series_whatever_objects_hold_them() -> None:
    observer = Observer(BOOK)
    for _ in range(3):
        observer.finished(record(), 1.1)  # new Service, Workload and Endpoint objects each time
    assert requests(observer, "reporter") == {"source": 3}
    assert len(family(observer, "istio_requests_total").rows) == 1


def test_a_reused_identity_is_not_mistaken(monkeypatch: Any) -> None:
    """Look-ups go by ``id``; what they name must stay alive as long as they do."""
    monkeypatch.setattr(observe, "BINDINGS", 8)
    observer = Observer(BOOK)
    for number in range(100):
        service = Service(host=f"s{number % 10}", name=f"s{number % 10}", namespace="n")
        observer.finished(record(service=service), 1.1)
        del service
    assert requests(observer, "destination_service_name") == {f"s{number}": 10 for number in range(10)}
    assert len(observer._bound) <= 8 and len(observer._keep) <= 8


def test_too_many_label_sets_are_counted_together() -> None:
    observer = Observer(BOOK, limit=5)
    for number in range(50):
        service = Service(host=f"s{number}", name=f"s{number}", namespace="n")
        observer.finished(record(service=service, status=500 if number % 2 else 200), 1.1)
    rows = family(observer, "istio_requests_total").rows
    assert len(rows) == 5 + 2 and sum(row.value for row in rows) == 50
    assert requests(observer, "destination_service_name")["other"] == 45
    assert family(observer, "mesh_metric_label_sets_folded_total").rows == [Row((), 45)]


def test_hosts_outside_the_mesh_cannot_use_up_the_series(monkeypatch: Any) -> None:
    monkeypatch.setattr(observe, "HOSTS", 3)
    observer = Observer(BOOK)
    for number in range(10):
        fields: dict[str, Any] = {"service": None, "cluster_name": "PassthroughCluster", "authority": b"h%d.com" % number}
        observer.finished(record(**fields), 1.1)
        observer.finished(record(**fields), 1.1)
    assert requests(observer, "destination_service") == {"h0.com": 2, "h1.com": 2, "h2.com": 2, "other": 14}
    assert requests(observer, "destination_service_name") == {"PassthroughCluster": 20}


def test_our_own_workload_may_be_learnt_later() -> None:
    observer = Observer(BOOK)
    observer.finished(record(), 1.1)
    observer.own = Workload(workload="book", namespace="default")  # equal: nothing happens
    observer.own = Workload(workload="library")
    observer.finished(record(), 1.1)
    assert requests(observer, "source_workload") == {"book": 1, "library": 1}


def decisions(observer: Observer, name: str) -> dict[tuple[str, ...], float]:
    return {row.labels: row.value for row in family(observer, name).rows}


def test_what_policies_decided_whichever_configuration_said_so(caplog: Any) -> None:
    observer = Observer(BOOK)
    caplog.set_level("INFO", "meshproxy")
    for _ in range(5):
        no = Decision(False, "DENY", "default/no", 0, "rule 0 matched")
        dry = Decision(False, "ALLOW", "", -1, "no ALLOW policy in dry run matched", dry_run=True)
        observer.finished(record(decisions=(no, dry), method=b"GET", path=b"/a?access_token=secret"), 1.1)
    assert decisions(observer, "mesh_authz_total") == {("DENY", "default/no", "denied"): 5}
    assert decisions(observer, "mesh_authz_dry_run_total") == {("ALLOW", "none", "denied"): 5}
    lines = [entry.getMessage() for entry in caplog.records]
    words = "dry run: GET /a from unknown would be denied ({} so far): no ALLOW policy in dry run matched"
    assert lines == [words.format(count) for count in (1, 2, 4)]


def test_too_many_policies_are_counted_together(monkeypatch: Any) -> None:
    monkeypatch.setattr(observe, "POLICIES", 2)
    observer = Observer(BOOK)
    for name in "abcda":
        observer.finished(record(decisions=(Decision(True, "ALLOW", name, 0, ""),)), 1.1)
    counted = {labels[1]: value for labels, value in decisions(observer, "mesh_authz_total").items()}
    assert counted == {"a": 2, "b": 1, "other": 2}


def test_the_rest() -> None:
    observer = Observer(BOOK, version="1.2.3")
    observer.refused("outbound", Reason.BAD_REQUEST, "http1.codec_error")
    observer.refused("outbound", Reason.BAD_REQUEST, "other words")
    observer.configured("abc")
    assert family(observer, "istio_build").rows == [Row(("proxy", "1.2.3"), 1)]
    assert family(observer, "mesh_messages_refused_total").rows == [Row(("outbound", "bad_request", "400"), 2)]
    assert family(observer, "mesh_config_info").rows == [Row(("abc",), 1)]
    assert family(observer, "mesh_config_updates_total").rows == [Row((), 1)]


class _Logs:
    dropped = 7
    buffered = 9

    def __init__(self, *directions: str) -> None:
        self.lines: list[ExchangeRecord] = []
        self.writers = dict.fromkeys(directions, self.lines.append)


def test_the_access_log_hears_the_records_that_it_wants() -> None:
    logs: Any = _Logs("outbound")
    observer, made = Observer(BOOK, logs), record()
    observer.finished(made, 1.1)
    observer.finished(record("inbound"), 1.1)
    assert logs.lines == [made] and made.ended == 1.1
    assert family(observer, "mesh_access_log_dropped_total").rows == [Row((), 7)]
    assert family(observer, "mesh_access_log_buffered_bytes").rows == [Row((), 9)]


def test_routes_are_told_apart_for_control_and_in_no_metric(monkeypatch: Any) -> None:
    monkeypatch.setattr(series, "ROUTED", 3)
    observer = Observer(BOOK)
    for number in range(6):
        for _ in range(2):
            route = Routed(f"virtualservice/default/rating http[{number}]")
            observer.finished(record(chosen=route, route_name=f"r{number}"), 1.1)
    routes = [labels[len(LABELS) :] for labels, _ in observer.store.totals()]
    cluster = "outbound|8080||rating"
    assert routes[0] == ("r0", "virtualservice/default/rating http[0]", cluster)
    assert routes[3:] == [("r3", "virtualservice/default/rating http[3]", cluster), (OTHER, "", "")]
    assert [counted.count for _, counted in observer.store.totals()] == [2, 2, 2, 2, 4]
    assert requests(observer, "response_code") == {"200": 12}
    assert len(family(observer, "istio_requests_total").rows) == 1 and len(observer.store) == 1


def test_tries_after_the_first_are_told_once() -> None:
    observer = Observer(BOOK)
    for attempts in (1, 3, 2):
        observer.finished(record(attempts=attempts), 1.1)
    ((_, counted),) = observer.store.totals()
    assert [counted.untold()[-1], counted.untold()[-1]] == [3, 0]
    observer.finished(record(attempts=2), 1.1)
    assert counted.untold()[-1] == 1
