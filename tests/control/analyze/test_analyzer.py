"""The whole: order, scope, silence on demand, and a world that exists already."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control.analyze import Finding, Scene, analyze, matches_suppression
from control.analyze.analyzer import SUPPRESS
from control.resources.kinds import kind_of
from control.world import World
from control.world.world import Added

Obj = dict[str, Any]


def service(name: str, namespace: str = "default", **notes: str) -> Obj:
    meta = {"name": name, "namespace": namespace, "annotations": notes}
    return {"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": {"selector": {"app": name}, "ports": [{"port": 80}]}}


def rule(name: str, namespace: str = "default") -> Obj:
    meta = {"name": name, "namespace": namespace}
    return {"apiVersion": "networking.istio.io/v1", "kind": "DestinationRule", "metadata": meta, "spec": {"host": name}}


def test_the_worst_comes_first_and_order_does_not_depend_on_input() -> None:
    objects = [service("a"), service("b"), rule("x"), rule("y"), {"apiVersion": "networking.istio.io/v1", "kind": "Nothing"}]
    expected = [(one.level, one.code, one.name) for one in analyze(Scene.of(objects))]
    assert expected == [
        ("Error", "IST0106", "?"),
        ("Warning", "IST0174", "x"),
        ("Warning", "IST0174", "y"),
        ("Info", "IST0118", "a"),
        ("Info", "IST0118", "b"),
    ]
    random.Random(1).shuffle(objects)
    assert [(one.level, one.code, one.name) for one in analyze(Scene.of(objects))] == expected


def test_one_namespace_only() -> None:
    scene = Scene.of([service("a"), service("b", "other"), rule("x", "other")])
    assert {one.namespace for one in analyze(scene)} == {"default", "other"}
    assert [one.code for one in analyze(scene, "other")] == ["IST0174", "IST0118"]


def test_an_annotation_silences_a_code_or_all() -> None:
    assert analyze(Scene.of([service("a", **{SUPPRESS: "IST0101, IST0118"})])) == ()
    assert analyze(Scene.of([service("a", **{SUPPRESS: "*"})])) == ()
    assert len(analyze(Scene.of([service("a", **{SUPPRESS: "IST0101"})]))) == 1


@pytest.mark.parametrize(
    ("text", "fits"),
    [
        ("IST0103=Pod web.default", True),
        ("IST0103=Pod default/web", True),
        ("IST0103=Pod *.default", True),
        ("IST0103=* *", True),
        ("IST0102=Pod web.default", False),
        ("IST0103=Pod web.other", False),
    ],
)
def test_suppressions(text: str, fits: bool) -> None:
    assert matches_suppression(Finding("IST0103", "Warning", "Pod", "default", "web", "", ""), text) is fits


@pytest.mark.parametrize("text", ["", "IST0103", "IST0103=Pod", "=Pod a.b"])
def test_bad_suppressions(text: str) -> None:
    with pytest.raises(ValueError, match="must be CODE=KIND NAME"):
        matches_suppression(Finding("IST0103", "Warning", "Pod", "default", "web", "", ""), text)


def test_a_world_that_exists_with_more_applied_to_it() -> None:
    world = World.of([service("a")])
    extra = service("x")
    scene = Scene(world.apply([Added("ADDED", kind_of(extra), extra)]), [service("a"), extra, rule("x")], live=True)
    assert [one.name for one in analyze(scene) if one.code == "IST0118"] == ["a", "x"]
    assert [one.code for one in analyze(Scene(world, [service("a")], live=True))] == ["IST0118"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(("name", "namespace", "spec", "http", "hosts", "labels", "annotations")), inner, max_size=4
        )
    ),
    max_leaves=12,
)
KINDS = st.sampled_from(("VirtualService", "DestinationRule", "Gateway", "Sidecar", "Nothing", 3))


@given(
    st.lists(
        st.fixed_dictionaries(
            {"apiVersion": st.sampled_from(("networking.istio.io/v1", "v1", 7)), "kind": KINDS},
            optional={"metadata": JSON, "spec": JSON},
        ),
        max_size=4,
    )
)
def test_whatever_shape_objects_have(objects: list[Obj]) -> None:
    for live in (False, True):
        for one in analyze(Scene.of(objects, live=live)):
            assert "\n" not in one.line()
