"""What Telemetry changes about metrics: tags, what is off, and that nothing is counted twice or lost by it."""

from __future__ import annotations

from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from meshproxy.model.report import LABELS
from meshproxy.model.telemetry import MetricOverride, TagOverride
from meshproxy.policy.invalid import Invalid
from meshproxy.telemetry.exposition import exposition
from meshproxy.telemetry.observe import Observer
from meshproxy.telemetry.overrides import METRICS, label_name, plans
from tests.telemetry.test_observe import BOOK, family, record


def override(*tags: tuple[str, str | None], **fields: Any) -> MetricOverride:
    return MetricOverride(tags=tuple(TagOverride(tag=tag, value=value) for tag, value in tags), **fields)


def observer(*overrides: MetricOverride, limit: int = 100) -> Observer:
    made = Observer(BOOK, limit=limit)
    made.report(plans(overrides))
    return made


def shown(observer: Observer, name: str) -> list[tuple[dict[str, str], float]]:
    """Labels and values as Prometheus reads them: an empty label is none."""
    text = b"".join(exposition(observer.families())[1]).decode()
    return [
        ({key: value for key, value in sample.labels.items() if value}, sample.value)
        for found in text_string_to_metric_families(text)
        for sample in found.samples
        if sample.name == name
    ]


def test_a_tag_is_taken_away_and_its_series_become_one() -> None:
    made = observer(override(("response_flags", None), ("response_code", None)))
    for status in (200, 200, 503):
        made.finished(record(status=status, request_size=10), 1.1)
    ((labels, value),) = shown(made, "istio_requests_total")
    assert value == 3 and not {"response_code", "response_flags"} & labels.keys()
    assert [value for _, value in shown(made, "istio_request_bytes_sum")] == [30]
    assert [value for _, value in shown(made, "istio_request_bytes_count")] == [3]


def test_tags_get_values() -> None:
    made = observer(
        override(("request_method", "%REQ(:METHOD)%"), ("destination_app", "%REQ(X-APP)%"), ("mesh", "my 100%% mesh"))
    )
    for app in (b"a", b"a", b"b", b""):
        headers = [(b"x-app", app)] if app else []
        made.finished(record(method=b"GET", request_headers=headers), 1.1)
    found = {labels["destination_app"]: (value, labels) for labels, value in shown(made, "istio_requests_total")}
    assert {app: value for app, (value, _) in found.items()} == {"a": 2, "b": 1, "unknown": 1}
    assert {(labels["request_method"], labels["mesh"]) for _, labels in found.values()} == {("GET", "my 100% mesh")}


def test_only_the_metrics_that_are_named() -> None:
    made = observer(
        override(("source_app", None), metrics=("istio_requests_total",)),
        MetricOverride(metrics=("istio_request_bytes",), disabled=True),
    )
    made.finished(record(), 1.1)
    assert all("source_app" not in labels for labels, _ in shown(made, "istio_requests_total"))
    assert all("source_app" in labels for labels, _ in shown(made, "istio_response_bytes_count"))
    assert shown(made, "istio_request_bytes_count") == []


def test_each_side_has_its_own() -> None:
    made = observer(override(("only_clients", "yes"), mode="CLIENT"), MetricOverride(mode="SERVER", disabled=True))
    for direction in ("outbound", "inbound", "gateway"):
        made.finished(record(direction), 1.1)
    found = shown(made, "istio_requests_total")
    assert [(labels["reporter"], labels["only_clients"], value) for labels, value in found] == [("source", "yes", 2)]
    made.report(plans((override(("only_clients", "yes"), mode="CLIENT"),)))
    found = shown(made, "istio_requests_total")
    assert sorted((labels["reporter"], labels.get("only_clients", "")) for labels, _ in found) == [
        ("destination", ""),
        ("source", "yes"),
    ]


def test_later_ones_win_tag_by_tag() -> None:
    made = observer(
        MetricOverride(disabled=True),
        override(("a", "1"), ("b", "1"), disabled=False),
        override(("a", None)),
        override(("b", "2")),
    )
    made.finished(record(), 1.1)
    ((labels, _),) = shown(made, "istio_requests_total")
    assert "a" not in labels and labels["b"] == "2"


def test_another_configuration_loses_no_count() -> None:
    made = observer(override(("path", "%REQ(:PATH)%")))
    for path in (b"/a", b"/b", b"/b"):
        made.finished(record(path=path), 1.1)
    assert sorted((labels["path"], value) for labels, value in shown(made, "istio_requests_total")) == [("/a", 1), ("/b", 2)]
    made.report(plans((override(("method", "%REQ(:METHOD)%")),)))
    made.finished(record(method=b"GET"), 1.1)
    assert sorted((labels["method"], value) for labels, value in shown(made, "istio_requests_total")) == [
        ("GET", 1),
        ("unknown", 3),
    ]
    made.report({})
    ((labels, value),) = shown(made, "istio_requests_total")
    assert value == 4 and set(labels) <= set(LABELS)


def test_tags_that_callers_choose_cannot_use_up_the_series() -> None:
    made = observer(override(("who", "%REQ(X-WHO)%")), limit=5)
    for number in range(50):
        made.finished(record(request_headers=[(b"x-who", b"%d" % number)]), 1.1)
    found = shown(made, "istio_requests_total")
    assert len(found) <= 6 and sum(value for _, value in found) == 50
    assert max((value, labels["who"]) for labels, value in found) == (45, "other")
    assert family(made, "mesh_metric_label_sets_folded_total").rows[0].value == 45


def test_a_long_value_is_cut() -> None:
    made = observer(override(("agent", "%REQ(USER-AGENT)%")))
    made.finished(record(request_headers=[(b"user-agent", b"\xff" + b"x" * 5000)]), 1.1)
    ((labels, _),) = shown(made, "istio_requests_total")
    assert labels["agent"] == "\\xff" + "x" * 255


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (override(("a", "%NOPE%")), r"^metrics\[0\]\.tags\[0\]\.value: unknown or unsupported operator"),
        (override(("le", "1")), r"^metrics\[0\]\.tags\[0\]\.tag: 'le' cannot be"),
        (override(("__name__", None)), r"^metrics\[0\]\.tags\[0\]\.tag: "),
    ],
)
def test_what_cannot_be_obeyed_is_refused(bad: MetricOverride, says: str) -> None:
    with pytest.raises(Invalid, match=says):
        plans((bad,))


def test_metrics_that_are_not_here_may_be_named() -> None:
    others = MetricOverride(metrics=("istio_tcp_sent_bytes_total", "my_own"), disabled=True)
    assert plans((others,))["CLIENT"].labels(METRICS[0]) == LABELS


def test_names_as_prometheus_has_them() -> None:
    assert [label_name(tag) for tag in ("request.host", "1st", "a-b/c", "ok_1")] == ["request_host", "_1st", "a_b_c", "ok_1"]
