"""What control is told: deltas that add up to what was counted, whoever asks and whatever metrics show."""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from meshproxy.cluster.cluster import Cluster
from meshproxy.model import cluster as model
from meshproxy.model.base import encode
from meshproxy.model.report import LABELS, Report
from meshproxy.model.telemetry import MetricOverride, TagOverride
from meshproxy.telemetry.observe import Observer
from meshproxy.telemetry.overrides import plans
from meshproxy.telemetry.report import Collector, Counted, Deltas, Reports, joined
from tests.telemetry.test_observe import BOOK, record


def counted(*counts: tuple[str, int]) -> Deltas:
    return Deltas([Counted((label,), number) for label, number in counts])


def total(deltas: Deltas) -> tuple[int, int, float, int, int]:
    edges = deltas.edges
    return (
        sum(edge.requests for edge in edges),
        sum(sum(edge.durations) for edge in edges),
        round(sum(edge.sum_ms for edge in edges), 6),
        sum(edge.received for edge in edges),
        sum(edge.sent for edge in edges),
    )


def test_what_was_counted_is_told_once() -> None:
    observer = Observer(BOOK)
    collector = Collector(observer.store)
    assert collector.collect((), ()).edges == []
    for status in (200, 200, 503):
        observer.finished(record(status=status, request_size=10, response_size=20), 1.004)
    found = collector.collect((), [("connections", 2.0)])
    assert total(found) == (3, 3, 12.0, 30, 60) and found.gauges == [("connections", 2.0)]
    codes = {edge.labels[LABELS.index("response_code")]: edge.requests for edge in found.edges}
    assert codes == {"200": 2, "503": 1}
    assert collector.collect((), ()).edges == []
    observer.finished(record(status=200), 1.004)
    assert total(collector.collect((), ()))[0] == 1


@given(st.lists(st.tuples(st.sampled_from(["count", "ask", "tags", "none"]), st.integers(0, 3)), max_size=30))
def test_deltas_add_up_whatever_is_configured_in_between(story: list[tuple[str, int]]) -> None:
    observer = Observer(BOOK, limit=4)
    collector = Collector(observer.store)
    tags = plans((MetricOverride(disabled=True, tags=(TagOverride(tag="who", value="%REQ(X-WHO)%"),)),))
    more = plans((MetricOverride(tags=(TagOverride(tag="who", value="%REQ(X-WHO)%"),)),))
    done = told = 0
    for what, number in story:
        if what == "count":
            observer.finished(record(request_headers=[(b"x-who", b"%d" % number)], status=200 + number), 1.004)
            done += 1
        elif what == "ask":
            told += total(collector.collect((), ()))[0]
        else:
            observer.report({} if what == "none" else more if number else tags)
    assert told + total(collector.collect((), ()))[0] == done


def test_users_tags_do_not_change_controls_picture() -> None:
    observer = Observer(BOOK)
    taken = TagOverride(tag="destination_service")
    observer.report(plans((MetricOverride(tags=(taken, TagOverride(tag="who", value="%REQ(X-WHO)%"))),)))
    for who in (b"a", b"b"):
        observer.finished(record(request_headers=[(b"x-who", who)]), 1.1)
    (edge,) = Collector(observer.store).collect((), ()).edges
    assert edge.requests == 2 and edge.labels[LABELS.index("destination_service")] == "rating.default.svc.cluster.local"


def test_state_that_is_not_at_rest() -> None:
    outlier = model.Outlier(consecutive_5xx=1, max_ejection_percent=100)
    pool = model.ConnectionPool(max_connections=1, max_pending_requests=1)
    hosts = [model.Endpoint(address="h", port=port) for port in (1, 2)]
    cluster = Cluster(model.Cluster(name="c", outlier=outlier, pool=pool), hosts)
    cluster.report(cluster.endpoints[0], 503, False, 0.0)
    cluster.limits.try_connection()
    for _ in range(3):
        cluster.limits.try_pending()
    collector = Collector(Observer(BOOK).store)
    idle = Cluster(model.Cluster(name="idle"), hosts)
    ejected, pending, connections = ("c", "ejected", 1), ("c", "pending", 1), ("c", "connections", 1)
    assert collector.collect([cluster, idle], ()).state == [ejected, ("c", "overflow", 2), pending, connections]
    assert collector.collect([cluster], ()).state == [ejected, pending, connections]


def test_workers_are_told_of_as_one() -> None:
    one = Deltas(counted(("a", 1), ("b", 2)).edges, [("c", "ejected", 1), ("c", "pending", 1)], [("rss_bytes", 5.0)])
    two = Deltas(counted(("b", 3)).edges, [("c", "ejected", 2), ("c", "pending", 1)], [("rss_bytes", 6.0)])
    for gauges, values in ((one.gauges, (0.1, 20.0, 1.0)), (two.gauges, (0.3, 10.0, 2.0))):
        gauges += zip(("loop_lag_seconds", "certificate_expires", "connections"), values, strict=True)
    travelled = [msgspec.convert(msgspec.json.decode(encode(worker)), Deltas) for worker in (one, two)]
    found = joined(travelled)
    assert {edge.labels: edge.requests for edge in found.edges} == {("a",): 1, ("b",): 5}
    assert found.state == [("c", "ejected", 2), ("c", "pending", 2)]
    wanted = {"rss_bytes": 11.0, "loop_lag_seconds": 0.3, "certificate_expires": 10.0, "connections": 3.0}
    assert dict(found.gauges) == wanted


def test_labels_are_said_once_a_connection() -> None:
    reports = Reports("boot")
    first = reports.make(counted(("a", 1), ("b", 2)), 5.0)
    second = reports.make(counted(("b", 3), ("c", 4)), 5.0)
    third = reports.make(counted(("a", 5)), 5.0)
    assert (first.number, first.first, first.labels) == (0, 0, (("a",), ("b",)))
    assert (second.number, second.first, second.labels) == (1, 2, (("c",),))
    assert (third.first, third.labels, third.edges[0].labels) == (3, (), 0)
    reports.forget()
    again = reports.make(counted(("c", 1)), 5.0)
    assert (again.number, again.first, again.labels, again.edges[0].labels) == (3, 0, (("c",),), 0)


def test_a_peers_strange_words_are_made_plain() -> None:
    (labels,) = Reports("boot").make(Deltas([Counted(("fine é", "two\nlines", "x" * 1000, "\x00\u2028"), 1)]), 5.0).labels
    assert labels == ("fine é", "two\\nlines", "x" * 256, "\\x00\\u2028")


def test_a_receiver_reads_every_report(monkeypatch: Any) -> None:
    """As control does it: the dictionary is what it was up to ``first``, and then what the report says."""
    monkeypatch.setattr("meshproxy.telemetry.report._LABELS", 3)
    reports, known, found = Reports("boot"), [], dict.fromkeys("abcde", 0)
    for names in ("ab", "bc", "cd", "de", "a", "abc"):
        report = msgspec.json.decode(encode(reports.make(counted(*((name, 1) for name in names)), 5.0)), type=Report)
        known[report.first :] = report.labels
        assert len(known) <= 3
        for edge in report.edges:
            found[known[edge.labels][0]] += edge.requests
    assert found == {"a": 3, "b": 3, "c": 3, "d": 2, "e": 1}
