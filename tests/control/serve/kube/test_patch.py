"""Merge patch and JSON patch: the RFCs' examples, and laws."""

from __future__ import annotations

import contextlib
import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control.serve.kube.patch import PatchError, json_patch, merge_patch

scalars = st.none() | st.booleans() | st.integers(-5, 5) | st.text(alphabet="ab/~", max_size=3)
keys = st.text(alphabet="abc/~", max_size=2)
documents = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3), max_leaves=8
)


@pytest.mark.parametrize(
    ("target", "patch", "expected"),
    [  # RFC 7396, appendix A
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        (["a", "b"], ["c", "d"], ["c", "d"]),
        ({"a": "b"}, ["c"], ["c"]),
        ({"a": "foo"}, None, None),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
)
def test_rfc_7396_examples(target: Any, patch: Any, expected: Any) -> None:
    assert merge_patch(target, patch) == expected


@given(documents, documents)
def test_merge_patch_is_idempotent_and_leaves_its_inputs_alone(target: Any, patch: Any) -> None:
    before = copy.deepcopy((target, patch))
    once = merge_patch(target, patch)
    assert merge_patch(once, patch) == once
    assert (target, patch) == before


@given(documents)
def test_the_empty_merge_patch_changes_no_object(target: Any) -> None:
    assert merge_patch(target, {}) == (target if isinstance(target, dict) else {})


def without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_nulls(inner) for key, inner in value.items() if inner is not None}
    return value


@given(documents)
def test_a_merge_patch_of_nothing_is_the_patch_without_nulls(patch: Any) -> None:
    assert merge_patch(None, patch) == without_nulls(patch)


@pytest.mark.parametrize(
    ("target", "operations", "expected"),
    [  # RFC 6902, appendix A
        ({"foo": "bar"}, [{"op": "add", "path": "/baz", "value": "qux"}], {"baz": "qux", "foo": "bar"}),
        ({"foo": ["bar", "baz"]}, [{"op": "add", "path": "/foo/1", "value": "qux"}], {"foo": ["bar", "qux", "baz"]}),
        ({"baz": "qux", "foo": "bar"}, [{"op": "remove", "path": "/baz"}], {"foo": "bar"}),
        ({"foo": ["bar", "qux", "baz"]}, [{"op": "remove", "path": "/foo/1"}], {"foo": ["bar", "baz"]}),
        ({"baz": "qux"}, [{"op": "replace", "path": "/baz", "value": "boo"}], {"baz": "boo"}),
        (
            {"foo": {"bar": "baz", "waldo": "fred"}, "qux": {"corge": "grault"}},
            [{"op": "move", "from": "/foo/waldo", "path": "/qux/thud"}],
            {"foo": {"bar": "baz"}, "qux": {"corge": "grault", "thud": "fred"}},
        ),
        (
            {"foo": ["all", "grass", "cows", "eat"]},
            [{"op": "move", "from": "/foo/1", "path": "/foo/3"}],
            {"foo": ["all", "cows", "eat", "grass"]},
        ),
        ({"foo": ["bar"]}, [{"op": "add", "path": "/foo/-", "value": ["abc"]}], {"foo": ["bar", ["abc"]]}),
        ({"/": 9, "~1": 10}, [{"op": "test", "path": "/~01", "value": 10}], {"/": 9, "~1": 10}),
        ({"a": 1}, [{"op": "copy", "from": "/a", "path": "/b"}], {"a": 1, "b": 1}),
        ({"a": 1}, [{"op": "replace", "path": "", "value": {"b": 2}}], {"b": 2}),
        ({"foo": "bar"}, [{"op": "add", "path": "/child", "value": {"x": {}}}], {"foo": "bar", "child": {"x": {}}}),
    ],
)
def test_rfc_6902_examples(target: Any, operations: Any, expected: Any) -> None:
    assert json_patch(target, operations) == expected


@pytest.mark.parametrize(
    ("operations", "malformed", "message"),
    [
        ([{"op": "test", "path": "/a", "value": True}], False, "test failed"),
        ([{"op": "remove", "path": "/x"}], False, "/x does not exist"),
        ([{"op": "replace", "path": "/x", "value": 1}], False, "/x does not exist"),
        ([{"op": "add", "path": "/l/5", "value": 1}], False, "beyond the list"),
        ([{"op": "add", "path": "/l/01", "value": 1}], False, "not a list index"),
        ([{"op": "add", "path": "/a/b/c", "value": 1}], False, "does not exist"),
        ([{"op": "add", "path": "/a"}], True, "needs a value"),
        ([{"op": "add", "path": "a", "value": 1}], True, "JSON pointer"),
        ([{"op": "spin", "path": "/a"}], True, "unknown op"),
        ([{"op": "move", "from": "/l", "path": "/l/0"}], True, "into itself"),
        ({"op": "add"}, True, "list of operations"),
        ([7], True, "an operation is an object"),
    ],
)
def test_what_does_not_fit_is_said(operations: Any, malformed: bool, message: str) -> None:
    document = {"a": 1, "l": [1]}
    with pytest.raises(PatchError, match=message) as caught:
        json_patch(document, operations)
    assert caught.value.malformed is malformed
    assert document == {"a": 1, "l": [1]}


def difference(before: Any, after: Any, path: str = "") -> list[dict[str, Any]]:
    """A JSON patch from one document to another, made the plain way."""
    if before == after and type(before) is type(after):
        return []
    if not (isinstance(before, dict) and isinstance(after, dict)):
        return [{"op": "replace", "path": path, "value": after}]
    operations: list[dict[str, Any]] = []
    for key in before.keys() | after.keys():
        at = f"{path}/{key.replace('~', '~0').replace('/', '~1')}"
        if key not in after:
            operations.append({"op": "remove", "path": at})
        elif key not in before:
            operations.append({"op": "add", "path": at, "value": after[key]})
        else:
            operations += difference(before[key], after[key], at)
    return operations


@given(documents, documents)
def test_a_patch_made_from_a_difference_gets_there(before: Any, after: Any) -> None:
    kept = copy.deepcopy(before)
    assert json_patch(before, difference(before, after)) == after
    assert before == kept


@given(documents, documents)
def test_garbage_raises_nothing_but_patch_error(document: Any, operations: Any) -> None:
    for garbage in (operations, [operations], [{"op": "add", "path": operations, "value": 1}]):
        with contextlib.suppress(PatchError):
            json_patch(document, garbage)


def test_copies_that_double_the_object_are_limited() -> None:
    operations = [{"op": "copy", "from": "/x", "path": f"/x/{index}"} for index in range(40)]
    with pytest.raises(PatchError, match="copies of one patch") as refused:
        json_patch({"x": {"k": "v" * 1000}}, operations)  # the fortieth would hold a petabyte
    assert refused.value.malformed
    assert len(json_patch({"x": {"k": "v" * 1000}}, operations[:8])["x"]) == 9
