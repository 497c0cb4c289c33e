"""Three-way merge: what was mine and is gone goes, what is mine is set, what is others' stays."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from control.cli.merge import LAST_APPLIED, last_applied, three_way, with_last_applied

leaves = st.one_of(st.integers(0, 3), st.text("ab", max_size=2), st.lists(st.integers(0, 2), max_size=2))
objects = st.recursive(
    st.dictionaries(st.sampled_from("abc"), leaves, max_size=3),
    lambda inner: st.dictionaries(st.sampled_from("abc"), st.one_of(leaves, inner), max_size=3),
    max_leaves=6,
)


def merged(live: dict[str, Any], patch: dict[str, Any]) -> dict[str, Any]:
    """RFC 7386, section 2."""
    result = dict(live)
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, dict):
            there = result.get(key)
            result[key] = merged(there if isinstance(there, dict) else {}, value)
        else:
            result[key] = value
    return result


def covers(whole: dict[str, Any], part: dict[str, Any]) -> bool:
    return all(
        key in whole
        and (covers(whole[key], value) if isinstance(value, dict) and isinstance(whole[key], dict) else whole[key] == value)
        for key, value in part.items()
    )


@given(objects, objects, objects)
def test_after_the_patch_the_object_says_what_the_user_wrote(
    before: dict[str, Any], now: dict[str, Any], live: dict[str, Any]
) -> None:
    assert covers(merged(live, three_way(before, now, live)), now)


@given(objects, objects)
def test_applying_twice_changes_nothing(before: dict[str, Any], now: dict[str, Any]) -> None:
    live = merged(before, three_way(before, now, before))
    assert three_way(now, now, live) == {}


def test_what_others_wrote_stays_and_what_i_removed_goes() -> None:
    before = {"spec": {"hosts": ["a"], "mine": 1}}
    now = {"spec": {"hosts": ["b"]}}
    live = {"spec": {"hosts": ["a"], "mine": 1, "theirs": 2}, "status": {"x": 1}}
    assert three_way(before, now, live) == {"spec": {"hosts": ["b"], "mine": None}}


def test_the_annotation_is_kubectls_letter_for_letter() -> None:
    sent = with_last_applied({"kind": "X", "apiVersion": "v1", "metadata": {"namespace": "default", "name": "n"}})
    assert sent["metadata"]["annotations"][LAST_APPLIED] == (
        '{"apiVersion":"v1","kind":"X","metadata":{"annotations":{},"name":"n","namespace":"default"}}\n'
    )
    assert last_applied(sent) == json.loads(sent["metadata"]["annotations"][LAST_APPLIED])


def test_an_annotation_that_is_not_json_counts_as_none() -> None:
    assert last_applied({"metadata": {"annotations": {LAST_APPLIED: "{"}}}) is None
    assert last_applied({"metadata": {}}) is None
