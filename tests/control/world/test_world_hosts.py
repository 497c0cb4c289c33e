"""Host names: completion, wildcards, specificity (semantics B9.2, B9.6)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control.world.hosts import covers, expand, intersect, most_specific, specificity


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("rating", "rating.ns.svc.cluster.local"),
        ("Rating", "rating.ns.svc.cluster.local"),
        ("foo.bar", "foo.bar"),
        ("foo.bar.", "foo.bar"),
        ("*", "*"),
        ("*.example", "*.example"),
        ("", ""),
    ],
)
def test_expand(host, expected):
    assert expand(host, "ns", "cluster.local") == expected


@pytest.mark.parametrize(
    ("pattern", "host", "expected"),
    [
        ("*", "a.b", True),
        ("*", "*.b", True),
        ("*.b", "a.b", True),
        ("*.b", "x.a.b", True),
        ("*.b", ".b", False),
        ("*.b", "b", False),
        ("*.b", "*.a.b", True),
        ("*.a.b", "*.b", False),
        ("a.b", "a.b", True),
        ("a.b", "*.b", False),
    ],
)
def test_covers(pattern, host, expected):
    assert covers(pattern, host) is expected


def test_intersect():
    assert intersect("*", "a.b") == "a.b"
    assert intersect("a.b", "*.b") == "a.b"
    assert intersect("*.a.b", "*.b") == "*.a.b"
    assert intersect("a", "b") is None


def test_specificity_orders_exact_then_longest_then_star():
    hosts = ["*", "*.b", "*.a.b", "z", "a.b"]
    assert sorted(hosts, key=specificity) == ["a.b", "z", "*.a.b", "*.b", "*"]
    assert most_specific(hosts, "x.a.b") == "*.a.b"
    assert most_specific(["q"], "x") is None


names = st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, max_size=4).map(".".join)
patterns = st.one_of(names, names.map("*.{}".format), st.just("*"))


@given(patterns, patterns, names)
def test_covering_is_transitive_and_intersections_are_exact(one, other, name):
    if covers(one, other) and covers(other, name):
        assert covers(one, name)
    both = covers(one, name) and covers(other, name)
    shared = intersect(one, other)
    assert both == (shared is not None and covers(shared, name))
