"""The exposition: prometheus_client's parsers are the oracle."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_open
from prometheus_client.parser import text_string_to_metric_families as parse_text

from meshproxy.model.report import BOUNDS
from meshproxy.telemetry.exposition import OPENMETRICS, TEXT, exposition, stats
from meshproxy.telemetry.family import Family, Histogram, Row, merged

OPEN = "application/openmetrics-text;version=1.0.0"


def text(families: list[Family], accept: str = "") -> str:
    return b"".join(exposition(families, accept)[1]).decode()


def samples(families: list[Family], accept: str = "") -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    parse = parse_open if accept else parse_text
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in parse(text(families, accept))
        for sample in family.samples
    }


COUNTER = Family("istio_requests_total", "counter", "Requests.", ("code",), [Row(("200",), 3), Row(("503",), 1)], stat="")
GAUGE = Family("mesh_lag_seconds", "gauge", 'A "lag"\n\\.', (), [Row((), 0.25)], stat="server.lag")
HISTOGRAM = Family(
    "istio_request_bytes", "histogram", "Bytes.", ("code",), [Row(("200",), 0, Histogram([1, 0, 2] + [0] * 16 + [4], 99.5))]
)


def test_text() -> None:
    assert text([COUNTER, GAUGE]) == (
        "# HELP istio_requests_total Requests.\n"
        "# TYPE istio_requests_total counter\n"
        'istio_requests_total{code="200"} 3\n'
        'istio_requests_total{code="503"} 1\n'
        '# HELP mesh_lag_seconds A "lag"\\n\\\\.\n'
        "# TYPE mesh_lag_seconds gauge\n"
        "mesh_lag_seconds 0.25\n"
    )


def test_openmetrics() -> None:
    assert text([COUNTER], OPEN) == (
        "# HELP istio_requests Requests.\n"
        "# TYPE istio_requests counter\n"
        'istio_requests_total{code="200"} 3\n'
        'istio_requests_total{code="503"} 1\n'
        "# EOF\n"
    )


@pytest.mark.parametrize(("accept", "bound"), [("", "1"), (OPEN, "1.0")])
def test_a_histogram_is_cumulated(accept: str, bound: str) -> None:
    found = samples([HISTOGRAM], accept)

    def bucket(le: str) -> float:
        return found["istio_request_bytes_bucket", (("code", "200"), ("le", le))]

    assert [bucket("0.5"), bucket(bound), bucket("5" if not accept else "5.0"), bucket("+Inf")] == [1, 1, 3, 7]
    assert found["istio_request_bytes_sum", (("code", "200"),)] == 99.5
    assert found["istio_request_bytes_count", (("code", "200"),)] == 7
    assert len(found) == len(BOUNDS) + 3


def test_bounds_are_written_as_envoy_does() -> None:
    bounds = [line.partition('le="')[2].partition('"')[0] for line in text([HISTOGRAM]).splitlines() if "_bucket" in line]
    assert bounds[:5] == ["0.5", "1", "5", "10", "25"] and bounds[-4:] == ["600000", "1800000", "3600000", "+Inf"]


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("", TEXT),
        ("*/*", TEXT),
        ("text/plain", TEXT),
        (OPEN, OPENMETRICS),
        ("application/openmetrics-text", OPENMETRICS),
        ("application/openmetrics-text;version=2.0.0", TEXT),
        ("application/openmetrics-text;q=0", TEXT),
        ("application/openmetrics-text;q=0.5,text/plain;q=0.9", TEXT),
        (
            "application/openmetrics-text;version=1.0.0;q=0.6,application/openmetrics-text;version=0.0.1;q=0.5,"
            "text/plain;version=0.0.4;q=0.4,*/*;q=0.3",  # Prometheus 2
            OPENMETRICS,
        ),
        ("application/vnd.google.protobuf;encoding=delimited;q=0.7,text/plain;version=0.0.4;q=0.3", TEXT),
        ("nonsense;;q=x,,", TEXT),
    ],
)
def test_content_negotiation(accept: str, kind: str) -> None:
    assert exposition([], accept)[0] == kind


VALUES = st.text(st.characters(codec="utf-8", exclude_characters="\r"), max_size=20)


@given(
    st.lists(st.tuples(VALUES, VALUES), min_size=1, max_size=5, unique=True), st.integers(0, 10**12), st.sampled_from(["", OPEN])
)
def test_any_label_value_comes_through(values: list[tuple[str, str]], count: int, accept: str) -> None:
    family = Family("a_total", "counter", "A.", ("one", "two"), [Row(pair, count) for pair in values])
    assert samples([family], accept) == {("a_total", (("one", one), ("two", two))): count for one, two in values}


def test_families_without_children_are_left_out() -> None:
    assert text([Family("a_total", "counter", "A.")]) == ""


def test_long_answers_come_in_pieces() -> None:
    family = Family("a_total", "counter", "A.", ("n",), [Row((f"{n:050}",), n) for n in range(5000)])
    pieces = list(exposition([family])[1])
    assert len(pieces) > 3 and max(map(len, pieces)) < 70_000


def test_stats_have_envoys_names() -> None:
    family = Family(
        "mesh_cluster_pending",
        "gauge",
        "P.",
        ("cluster_name",),
        [Row(("outbound|80||a",), 2)],
        stat="cluster.{}.upstream_rq_pending_active",
    )
    assert stats([GAUGE, COUNTER, HISTOGRAM, family]) == [
        ("cluster.outbound|80||a.upstream_rq_pending_active", 2),
        ("istio_requests_total{code=200}", 3),
        ("istio_requests_total{code=503}", 1),
        ("server.lag", 0.25),
    ]


def test_workers_add_up() -> None:
    version = Family("mesh_config_info", "gauge", "V.", ("version",), [Row(("x",), 1)], merge="max")
    other = Family("istio_requests_total", "counter", "Requests.", ("code",), [Row(("503",), 4), Row(("404",), 5)])
    found = {family.name: family for family in merged([[COUNTER, HISTOGRAM, version], [other, HISTOGRAM, version]])}
    assert found["istio_requests_total"].rows == [Row(("200",), 3), Row(("503",), 5), Row(("404",), 5)]
    assert found["istio_request_bytes"].rows == [Row(("200",), 0, Histogram([2, 0, 4] + [0] * 16 + [8], 199))]
    assert found["mesh_config_info"].rows == [Row(("x",), 1)]
    assert COUNTER.rows == [Row(("200",), 3), Row(("503",), 1)]  # what was merged is as it was
