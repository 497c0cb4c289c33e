"""The short history: what is added up, what is forgotten, what a sidecar may say, and how each call is counted once."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from control.history.calls import BUCKETS, Sample, Totals, call_of, once
from control.history.history import History, Misreport
from control.history.views import callers, graph, matcher, series
from meshproxy.model.report import LABELS, Edge, Report

NOW = 1_700_000_000.0
NO_SERVICE = (
    *("destination_workload", "destination_workload_namespace"),
    *("destination_service_name", "destination_service_namespace"),
)


def label_set(**given: str) -> tuple[str, ...]:
    values = {
        "reporter": "destination",
        "source_workload": "book",
        "source_workload_namespace": "shop",
        "destination_workload": "rating",
        "destination_workload_namespace": "shop",
        "destination_service": "rating.shop.svc.cluster.local",
        "destination_service_name": "rating",
        "destination_service_namespace": "shop",
        "request_protocol": "http",
        "response_code": "200",
        "response_flags": "-",
        "connection_security_policy": "mutual_tls",
        **given,
    }
    return tuple(values.get(name, "unknown") for name in LABELS)


def edge(number: int, count: int, bucket: int = 3) -> Edge:
    durations = tuple(count if i == bucket else 0 for i in range(BUCKETS))
    return Edge(labels=number, requests=count, durations=durations, sum_ms=count * 7.0, received=count * 10, sent=count * 20)


def report(number: int, *edges: Edge, known: tuple[tuple[str, ...], ...] = (), first: int = 0, **more: object) -> Report:
    return Report(boot="b", number=number, seconds=5.0, first=first, labels=known, edges=edges, **more)  # type: ignore[arg-type]


def history(**bounds: int) -> History:
    workloads = {("shop", "rating-1"): ("shop", "rating"), ("shop", "book-1"): ("shop", "book")}
    return History(lambda namespace, pod: workloads.get((namespace, pod)), **bounds)  # type: ignore[arg-type]


def test_deltas_add_up_and_labels_are_sent_once() -> None:
    found = history()
    found.take("shop", "rating-1", report(0, edge(0, 2), known=(label_set(),)), NOW)
    found.take("shop", "rating-1", report(1, edge(0, 3), edge(1, 1), known=(label_set(response_code="503"),), first=1), NOW + 1)
    rows = {call.code: totals for call, totals in found.view().window(NOW - 10, NOW + 10)}
    assert (rows["200"].requests, rows["200"].errors, rows["200"].sum_ms, rows["200"].buckets[3]) == (5, 0, 35.0, 5)
    assert (rows["503"].requests, rows["503"].errors, rows["503"].received, rows["503"].sent) == (1, 1, 10, 20)


def test_a_report_counts_once() -> None:
    found = history()
    for _ in range(3):
        found.take("shop", "rating-1", report(4, edge(0, 2), known=(label_set(),)), NOW)
    assert [totals.requests for _, totals in found.view().window(NOW - 10, NOW + 10)] == [2]


@pytest.mark.parametrize(
    ("sent", "resend"),
    [
        (report(3, edge(0, 1), first=2), True),
        (report(3, edge(1, 1), known=(label_set(),)), True),
        (report(3, known=(("a",),)), False),
        (report(3, known=(label_set(source_workload="a\nb"),)), False),
        (report(3, edge(0, -1), known=(label_set(),)), False),
        (report(3, Edge(labels=0, requests=1, durations=(1,), sum_ms=1, received=0, sent=0), known=(label_set(),)), False),
        (report(3, known=(label_set(),) * 9000), False),
        (report(3, edge(0, 1 << 60), known=(label_set(),)), False),
        (report(3, msgspec.structs.replace(edge(0, 1), durations=(10**400,) * BUCKETS), known=(label_set(),)), False),
        (report(3, msgspec.structs.replace(edge(0, 1), sum_ms=1e308), known=(label_set(),)), False),
        (report(3, msgspec.structs.replace(edge(0, 1), requests=-1), known=(label_set(),)), False),
        (report(3, gauges=(("cpu_seconds", -1e308),)), False),
        (report(3, gauges=(("cpu\x1b[31m", 1.0),)), False),
        (report(3, gauges=(("cpu_seconds", 1.0),) * 200), False),
        (report(3, state=(("outbound|80||a", "ejected", 10**400),)), False),
        (report(3, state=(("x" * 5000, "ejected", 1),)), False),
        (msgspec.structs.replace(report(3), boot="b" * 5000), False),
    ],
)
def test_what_is_no_report_changes_nothing(sent: Report, resend: bool) -> None:
    found = history()
    with pytest.raises(Misreport) as caught:
        found.take("shop", "rating-1", sent, NOW)
    assert caught.value.resend is resend and not found.view().window(0, NOW * 2)
    found.take("shop", "rating-1", report(3, edge(0, 1), known=(label_set(),)), NOW)
    assert len(found.view().window(NOW - 10, NOW + 10)) == 1


def test_after_a_restart_of_control_labels_are_asked_for_again() -> None:
    found = history()
    with pytest.raises(Misreport) as caught:
        found.take("shop", "rating-1", report(17, edge(5, 1), first=6), NOW)
    assert caught.value.resend
    found.take("shop", "rating-1", report(18, edge(0, 1), known=(label_set(),)), NOW)
    assert len(found.view().window(NOW - 10, NOW + 10)) == 1


def test_a_sidecar_speaks_for_its_own_workload_only() -> None:
    found = history()
    forged = (label_set(destination_workload="book"), label_set(reporter="source"), label_set(reporter="waypoint"))
    found.take("shop", "rating-1", report(0, edge(0, 1), edge(1, 1), edge(2, 1), known=forged), NOW)
    assert not found.view().window(NOW - 10, NOW + 10) and found.dropped == 3
    with pytest.raises(Misreport):
        found.take("shop", "nobody", report(0), NOW)


def test_one_workload_cannot_take_the_room_of_all() -> None:
    found = history(max_calls=40)
    for boot in range(5):
        many = tuple(label_set(response_code=str(100 * boot + number)) for number in range(30))
        found.take("shop", "rating-1", msgspec.structs.replace(report(0, known=many), boot=f"b{boot}"), NOW)
    assert len(found) == 10
    own = label_set(reporter="source")
    found.take("shop", "book-1", report(0, edge(0, 2), known=(own,)), NOW)
    assert [totals.requests for _, totals in found.view().window(NOW - 10, NOW + 10)] == [2]
    found._clean()
    assert len(found) == 1 == sum(found._told.values())  # what nobody names any more makes room


def test_a_report_of_no_time_tells_no_rate() -> None:
    found = history()
    sent = msgspec.structs.replace(report(0, edge(0, 1 << 40), known=(label_set(),)), seconds=5e-324)
    found.take("shop", "rating-1", sent, NOW)
    assert [one.rps for one in found.sidecars(NOW)] == [0.0]


def test_a_clock_that_was_far_ahead_hides_nothing_once_it_is_right() -> None:
    found = history()
    for number, now in enumerate((NOW, NOW + 4e8, NOW + 4e8 + 6, NOW + 10)):
        found.take("shop", "rating-1", report(number, edge(0, 1), known=(label_set(),)), now)
    assert [totals.requests for _, totals in found.view().window(NOW, NOW + 20)] == [1]
    assert found.records == 1  # what it kept before went when it was an hour old, as the wrong clock had it


def test_a_clock_set_back_a_little_keeps_everything() -> None:
    found = history()
    for number, now in enumerate((NOW, NOW + 30, NOW + 5)):
        found.take("shop", "rating-1", report(number, edge(0, 1), known=(label_set(),)), now)
    assert [totals.requests for _, totals in found.view().window(NOW, NOW + 40)] == [3]


def test_it_forgets_after_an_hour() -> None:
    found = history()
    found.take("shop", "rating-1", report(0, edge(0, 1), known=(label_set(),)), NOW)
    found.take("shop", "rating-1", report(1, edge(0, 1), first=1), NOW + 3599)
    assert found.records == 2
    found.take("shop", "rating-1", report(2, edge(0, 1), first=1), NOW + 3700)
    assert found.records == 2 and sum(t.requests for _, t in found.view().window(0, NOW * 2)) == 2


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 40)), max_size=60))
def test_memory_is_bounded(steps: list[tuple[int, int]]) -> None:
    found = history(max_records=8, max_calls=10)
    now = NOW
    for number, (later, kind) in enumerate(steps):
        now += later
        sent = report(number, edge(0, 1), known=(label_set(response_code=str(kind)),))
        found.take("shop", "rating-1", sent, now)
        assert found.records == sum(len(table) for _, table in found._steps) + len(found._open)
        assert found.records <= 8 or not found._steps
        assert len(found) <= 10


def sample(requests: float = 1, bucket: int = 3, **given: str) -> Sample:
    call, totals = call_of(label_set(**given)), Totals()
    totals.requests, totals.buckets[bucket] = requests, requests
    totals.errors = requests if call.failed else 0
    return call, totals


def test_each_call_counts_once_as_the_destination_tells_it() -> None:
    both = [sample(10), sample(12, reporter="source"), sample(3, reporter="source", response_code="503", response_flags="UF,URX")]
    assert [(c.reporter, c.flags, t.requests) for c, t in once(both)] == [("destination", "", 10), ("source", "UF,URX", 3)]
    assert [t.requests for _, t in once([sample(12, reporter="source")])] == [12]


def test_the_graph() -> None:
    seen = [
        sample(10),
        sample(2, response_code="500"),
        sample(3, reporter="source", response_code="503", response_flags="UO", destination_workload="unknown"),
        sample(1, reporter="source", destination_service="api.example.com", **dict.fromkeys(NO_SERVICE, "unknown")),
    ]
    found = history()
    cluster = "outbound|80||rating.shop.svc.cluster.local"
    state = ((cluster, "overflow", 1), (cluster, "ejected", 2))
    found.take("shop", "book-1", report(0, state=state), NOW)
    drawn = graph(seen, found.state(NOW), NOW, 10.0)
    edges = {(one["from"], one["to"]): one for one in drawn["edges"]}
    book, rating, service = "workload/shop/book", "workload/shop/rating", "service/shop/rating"
    assert set(edges) == {(book, service), (service, rating), (book, "external/api.example.com")}
    to_service = edges[book, service]
    assert (to_service["requests"], to_service["errors"], to_service["rps"], to_service["mtls"]) == (15, 5, 1.5, True)
    assert (to_service["breaker"], to_service["ejected"], to_service["errorShare"]) == (True, 2, 5 / 15)
    onward = edges[service, rating]
    assert (onward["requests"], onward["breaker"], onward["ejected"]) == (12, False, 0)  # the caller ejects, and not this one
    assert not found.state(NOW + 60)
    assert not graph(seen, (), NOW, 10.0, namespace="elsewhere")["edges"]


def test_one_call_in_plaintext_is_no_lock() -> None:
    drawn = graph([sample(10), sample(1, connection_security_policy="none")], (), NOW, 10.0)
    assert {(one["mtls"], one["mtlsShare"]) for one in drawn["edges"]} == {(False, 10 / 11)}


def test_what_is_counted_as_other_is_no_lock() -> None:
    """A sidecar that has too many label sets folds them (``meshproxy.telemetry.labels.folded``), plaintext and all."""
    assert call_of(tuple("source" if name == "reporter" else "other" for name in LABELS)).mtls is None
    names = {"source_principal": "spiffe://a/ns/b/sa/c", "destination_principal": "spiffe://a/ns/b/sa/d"}
    assert call_of(label_set(reporter="source", connection_security_policy="unknown", **names)).mtls is True


def test_a_workload_is_called_by_workloads() -> None:
    """Not by the service that stands between."""
    other = sample(4, reporter="source", response_code="503", response_flags="UO", destination_workload="unknown")
    seen = [sample(10), sample(2, source_workload="unknown"), other]
    into = {one["from"]: one["requests"] for one in callers(seen, 10.0, "workload/shop/rating")}
    assert into == {"workload/shop/book": 10, "external/outside the mesh": 2}
    into = {one["from"]: one["requests"] for one in callers(seen, 10.0, "service/shop/rating")}
    assert into == {"workload/shop/book": 14, "external/outside the mesh": 2}


def test_series_take_the_end_that_tells_over_the_whole_window() -> None:
    pieces = [[sample(10, reporter="source")], [sample(20), sample(10, reporter="source")]]
    told = series(pieces, matcher("service/shop/rating", None, "inbound"), NOW, 10.0)
    assert told["rps"] == [0.0, 2.0] and told["times"] == [NOW + 10, NOW + 20] and told["codes"] == {"200": [0.0, 2.0]}
    assert told["p50"] == [None, 7.5]


def test_quantiles_as_prometheus_estimates_them() -> None:
    totals = Totals()
    totals.buckets[3], totals.buckets[4] = 50, 50  # 5 to 10 ms, 10 to 25 ms
    assert totals.quantile(0.5) == 10.0 and totals.quantile(0.25) == 7.5 and totals.quantile(0.75) == 17.5
    assert Totals().quantile(0.5) is None


@pytest.mark.parametrize("keep", [25, 300])
def test_kinds_of_calls_that_are_over_are_forgotten_however_long_steps_are_kept(keep: int) -> None:
    """Also when as many steps come as go."""
    found = history(keep=keep, max_calls=800)
    for number in range(400):
        one = report(number, edge(0, 1), known=(label_set(response_code=str(number)),))
        found.take("shop", "rating-1", one, NOW + number * 5)
    assert found.dropped == 0 and len(found) <= keep // 5 + 62


def test_looking_for_what_is_over_is_rare(monkeypatch: pytest.MonkeyPatch) -> None:
    found, looked = history(keep=300), []
    monkeypatch.setattr(found, "_clean", lambda: looked.append(1))
    for number in range(600):
        found.take("shop", "rating-1", report(number, edge(0, 1), known=(label_set(),)), NOW + number * 5)
    assert len(looked) <= 11
