"""The user's container over the template's, and what counts as the same."""

from __future__ import annotations

from typing import Any

import pytest

from injector.merge import covers, merged


@pytest.mark.parametrize(
    ("base", "over", "field", "expected"),
    [
        ({"a": 1, "b": {"c": 1}}, {"b": {"d": 2}}, "", {"a": 1, "b": {"c": 1, "d": 2}}),
        ({"a": 1}, {"a": None}, "", {"a": 1}),
        (
            [{"name": "a", "value": "1"}],
            [{"name": "b"}, {"name": "a", "value": "2"}],
            "env",
            [{"name": "a", "value": "2"}, {"name": "b"}],
        ),
        ([{"name": "a", "valueFrom": {"x": 1}}], [{"name": "a", "value": "2"}], "env", [{"name": "a", "value": "2"}]),
        ([{"name": "a", "value": "2"}], [{"name": "a", "valueFrom": {"x": 1}}], "env", [{"name": "a", "valueFrom": {"x": 1}}]),
        (["a"], ["b"], "args", ["b"]),
        (
            [{"mountPath": "/a", "name": "x"}],
            [{"mountPath": "/a", "name": "y"}],
            "volumeMounts",
            [{"mountPath": "/a", "name": "y"}],
        ),
        (
            [{"containerPort": 53, "protocol": "UDP"}],
            [{"containerPort": 53}],
            "ports",
            [{"containerPort": 53, "protocol": "UDP"}, {"containerPort": 53}],
        ),
        (
            {"readinessProbe": {"httpGet": {"port": 1}, "periodSeconds": 2}},
            {"readinessProbe": {"exec": {}}},
            "",
            {"readinessProbe": {"exec": {}, "periodSeconds": 2}},
        ),
        (
            {"lifecycle": {"preStop": {"exec": {}}, "postStart": {"exec": {}}}},
            {"lifecycle": {"preStop": {"sleep": {"seconds": 1}}}},
            "",
            {"lifecycle": {"preStop": {"sleep": {"seconds": 1}}, "postStart": {"exec": {}}}},
        ),
    ],
)
def test_merged(base: Any, over: Any, field: str, expected: Any) -> None:
    assert merged(base, over, field) == expected


@pytest.mark.parametrize(
    ("there", "wanted", "field", "expected"),
    [
        ({"a": 1, "b": 2}, {"a": 1}, "", True),
        ({"a": 1}, {"a": 1, "b": 2}, "", False),
        ({"a": 1}, {"a": True}, "", False),
        ({}, {"a": [], "b": {}}, "", True),
        ([{"mountPath": "/a"}, {"mountPath": "/b"}], [{"mountPath": "/b"}], "volumeMounts", True),
        ([{"name": "a"}, {"name": "b"}], [{"name": "b"}], "env", False),
        (["a", "b"], ["a"], "args", False),
        ("a", {"a": 1}, "", False),
        ("a", ["a"], "args", False),
    ],
)
def test_covers(there: Any, wanted: Any, field: str, expected: bool) -> None:
    assert covers(there, wanted, field) is expected
