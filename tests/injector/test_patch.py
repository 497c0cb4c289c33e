"""JSON Patch: what is written leads from the one to the other, and is no larger than need be."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from injector.patch import apply, difference

_LEAVES = st.none() | st.booleans() | st.integers(0, 2) | st.sampled_from(("", "a", "~/b", "é"))
JSON = st.recursive(
    _LEAVES,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(("name", "a/b", "c~d", "~1", "")), inner, max_size=3)
        | st.lists(st.fixed_dictionaries({"name": st.sampled_from("xyz")}, optional={"value": inner}), max_size=4)
    ),
    max_leaves=12,
)


def exact(value: Any) -> str:
    """true is not 1."""
    return repr(sorted(value.items(), key=repr)) if isinstance(value, dict) else repr(value)


@given(JSON, JSON)
def test_it_leads_there(old: Any, new: Any) -> None:
    before = copy.deepcopy(old)
    found = apply(difference(old, new), old)
    assert found == new
    assert old == before


@given(JSON)
def test_nothing_to_do(value: Any) -> None:
    assert difference(value, copy.deepcopy(value)) == []


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ({}, {"a/b~": 1}, [{"op": "add", "path": "/a~1b~0", "value": 1}]),
        ({"a": True}, {"a": 1}, [{"op": "replace", "path": "/a", "value": 1}]),
        ({"a": None}, {"a": {}}, [{"op": "replace", "path": "/a", "value": {}}]),
        ({"a": 1, "b": 1}, {"b": 1}, [{"op": "remove", "path": "/a"}]),
        (
            {"c": [{"name": "x", "i": 1}, {"name": "y"}]},
            {"c": [{"name": "new"}, {"name": "x", "i": 2}, {"name": "y"}]},
            [{"op": "add", "path": "/c/0", "value": {"name": "new"}}, {"op": "replace", "path": "/c/1/i", "value": 2}],
        ),
        ([1, 2, 3], [3], [{"op": "remove", "path": "/1"}, {"op": "remove", "path": "/0"}]),
    ],
)
def test_operations(old: Any, new: Any, expected: list[dict[str, Any]]) -> None:
    assert difference(old, new) == expected
    assert exact(apply(expected, old)) == exact(new)
