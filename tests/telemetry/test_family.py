"""Families of several workers as one's, also while one of them has taken a configuration that another has not."""

from __future__ import annotations

from meshproxy.model.report import BOUNDS
from meshproxy.telemetry.exposition import exposition
from meshproxy.telemetry.family import Family, Histogram, Row, merged


def counter(labels: tuple[str, ...], *rows: tuple[tuple[str, ...], float]) -> Family:
    return Family("a_total", "counter", "A.", labels, [Row(values, value) for values, value in rows])


def test_equal_rows_are_added() -> None:
    one, two = counter(("x",), (("1",), 1), (("2",), 2)), counter(("x",), (("2",), 3))
    (found,) = merged([[one], [two]])
    assert found.rows == [Row(("1",), 1), Row(("2",), 5)]
    assert one.rows == [Row(("1",), 1), Row(("2",), 2)]


def test_workers_with_other_labels() -> None:
    old, new = counter(("x",), (("1",), 1)), counter(("tag", "x"), (("t", "1"), 2), (("", "1"), 4))
    (found,) = merged([[old], [new]])
    assert found.labels == ("x", "tag")
    assert found.rows == [Row(("1", ""), 5), Row(("1", "t"), 2)]
    assert b'a_total{x="1",tag="t"} 2\n' in b"".join(exposition([found])[1])


def test_a_family_that_only_one_has_and_one_without_rows() -> None:
    other = Family("b", "gauge", "B.", (), [Row((), 1)])
    found = merged([[counter(("x",))], [other]])
    assert [(family.name, family.rows) for family in found] == [("a_total", []), ("b", [Row((), 1)])]


def test_histograms_are_added_bucket_by_bucket() -> None:
    counts = [1] * (len(BOUNDS) + 1)
    one = Family("h", "histogram", "H.", (), [Row((), 0, Histogram(counts, 1.5))])
    (found,) = merged([[one], [one]])
    assert found.rows[0].histogram == Histogram([2] * len(counts), 3.0)
