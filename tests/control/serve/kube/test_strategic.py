"""Strategic merge patch, by cases after apimachinery's own tests, and by laws."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control.serve.kube.merge_keys import strategy, types
from control.serve.kube.patch import PatchError
from control.serve.kube.strategic import strategic_merge

Obj = dict[str, Any]


def ports(*given: Any) -> Obj:
    return {"spec": {"ports": list(given)}}


def port(number: int, **more: Any) -> Obj:
    return {"port": number, **more}


def pod(*containers: Obj, **spec: Any) -> Obj:
    return {"spec": {"containers": list(containers), **spec}}


def test_every_merge_key_is_a_field_of_its_element() -> None:
    for owner, fields in types().items():
        for field, held in fields.items():
            plan = strategy(owner, field)
            if plan.merge:
                assert held[0] == "[", (owner, field)
                assert not plan.key or plan.key in types()[held[1:]], (owner, field)


@pytest.mark.parametrize(
    ("kind", "target", "patch", "expected"),
    [
        ("Service", ports(port(1), port(2)), ports(port(2, name="b")), ports(port(1), port(2, name="b"))),
        ("Service", ports(port(1)), ports(port(2)), ports(port(2), port(1))),
        ("Service", ports(port(1), port(2)), ports({"port": 1, "$patch": "delete"}), ports(port(2))),
        ("Service", ports(port(1), port(2)), ports({"$patch": "replace"}, port(3)), ports(port(3))),
        ("Service", ports(port(1)), {"spec": {"ports": None}}, {"spec": {}}),
        ("Service", {"spec": {"a": 1, "b": 2}}, {"spec": {"$patch": "replace", "b": 3}}, {"spec": {"b": 3}}),
        ("Service", {"spec": {"a": 1}}, {"spec": {"$patch": "delete"}}, {"spec": {}}),
        ("Service", {}, ports(port(1, name=None)), ports(port(1))),
        # an atomic list is replaced
        (
            "Pod",
            pod({"name": "a", "args": ["1", "2"]}),
            pod({"name": "a", "args": ["3"]}),
            pod({"name": "a", "args": ["3"]}),
        ),
        # lists nested in merged elements merge too, and nulls take out
        (
            "Pod",
            pod({"name": "a", "env": [{"name": "X", "value": "1"}, {"name": "Y", "value": "2"}], "image": "i"}),
            pod({"name": "a", "env": [{"name": "X", "value": "3"}], "image": None}),
            pod({"name": "a", "env": [{"name": "X", "value": "3"}, {"name": "Y", "value": "2"}]}),
        ),
        # a union keeps only the members named
        (
            "Pod",
            pod(volumes=[{"name": "v", "emptyDir": {}}]),
            {"spec": {"volumes": [{"name": "v", "$retainKeys": ["name", "hostPath"], "hostPath": {"path": "/x"}}]}},
            pod(volumes=[{"name": "v", "hostPath": {"path": "/x"}}]),
        ),
        # scalars: a set, with removals
        (
            "Pod",
            {"metadata": {"finalizers": ["a", "b", "c"]}},
            {"metadata": {"$deleteFromPrimitiveList/finalizers": ["b"], "finalizers": ["d"]}},
            {"metadata": {"finalizers": ["d", "a", "c"]}},
        ),
        # order: what the patch orders comes in that order, the server's own stay beside their old neighbours
        (
            "Service",
            ports(port(1), port(2), port(3)),
            {"spec": {"$setElementOrder/ports": [{"port": 3}, {"port": 1}]}},
            ports(port(2), port(3), port(1)),
        ),
        (
            "Service",
            ports(port(1), port(9), port(2)),
            {"spec": {"$setElementOrder/ports": [{"port": 1}, {"port": 2}, {"port": 4}], "ports": [port(4)]}},
            ports(port(1), port(9), port(2), port(4)),
        ),
        (
            "Service",
            {"spec": {}},
            {"spec": {"$setElementOrder/ports": [{"port": 4}], "ports": [port(4)]}},
            ports(port(4)),
        ),
        ("Deployment", {"spec": {"template": pod({"name": "a"})}}, {"spec": {"template": pod({"name": "b"})}},
         {"spec": {"template": pod({"name": "b"}, {"name": "a"})}}),
        # what is not known is a plain merge
        ("Pod", {"x": {"y": [1], "z": 1}}, {"x": {"y": [2]}}, {"x": {"y": [2], "z": 1}}),
    ],
)  # fmt: skip
def test_cases(kind: str, target: Obj, patch: Obj, expected: Obj) -> None:
    before = copy.deepcopy((target, patch))
    assert strategic_merge(target, patch, kind) == expected
    assert (target, patch) == before


@pytest.mark.parametrize(
    ("patch", "message"),
    [
        (["x"], "is an object"),
        ({"$patch": "melt"}, "unknown .patch directive"),
        (ports({"name": "x"}), "lacks its merge key 'port'"),
        (ports("x"), "must be objects"),
        ({"spec": {"$retainKeys": "x"}}, "must be a list"),
        ({"spec": {"$retainKeys": ["a"], "b": 1}}, "does not name the field 'b'"),
        ({"spec": {"$setElementOrder/ports": 1}}, "must be a list"),
        ({"spec": {"$deleteFromPrimitiveList/externalIPs": 1}}, "must be a list"),
    ],
)
def test_refusals(patch: Any, message: str) -> None:
    with pytest.raises(PatchError, match=message):
        strategic_merge(ports(port(1)), patch, "Service")


names = st.sampled_from("abcd")
env = st.lists(
    st.fixed_dictionaries({"name": names}, optional={"value": st.text(max_size=1)}), unique_by=lambda e: e["name"], max_size=4
)
containers = st.lists(
    st.fixed_dictionaries({"name": names}, optional={"image": names, "env": env, "args": st.lists(names, max_size=2)}),
    unique_by=lambda c: c["name"],
    max_size=4,
)
pods = st.fixed_dictionaries(
    {},
    optional={
        "spec": st.fixed_dictionaries({}, optional={"containers": containers, "nodeName": names}),
        "metadata": st.fixed_dictionaries(
            {},
            optional={
                "labels": st.dictionaries(names, names, max_size=3),
                "finalizers": st.lists(names, unique=True, max_size=3),
            },
        ),
    },
)


@given(pods, pods)
def test_a_patch_without_directives_is_idempotent(target: Obj, patch: Obj) -> None:
    once = strategic_merge(target, patch, "Pod")
    assert strategic_merge(once, patch, "Pod") == once


@given(pods)
def test_the_empty_patch_changes_nothing(target: Obj) -> None:
    assert strategic_merge(target, {}, "Pod") == target


@given(pods, pods)
def test_nothing_of_either_side_is_lost(target: Obj, patch: Obj) -> None:
    merged = strategic_merge(target, patch, "Pod")

    def named(obj: Obj) -> dict[str, Obj]:
        return {one["name"]: one for one in obj.get("spec", {}).get("containers", [])}

    assert named(merged).keys() == named(target).keys() | named(patch).keys()
    for name, container in named(patch).items():
        for key in ("image", "args"):
            if key in container:
                assert named(merged)[name][key] == container[key]


@given(pods, pods, st.permutations("abcd"))
def test_set_element_order_is_obeyed(target: Obj, patch: Obj, order: list[str]) -> None:
    spec = {**patch.get("spec", {}), "$setElementOrder/containers": [{"name": name} for name in order]}
    merged = strategic_merge({"spec": {}, **target}, {**patch, "spec": spec}, "Pod")
    found = [one["name"] for one in merged["spec"].get("containers", [])]
    assert found == [name for name in order if name in found]


def test_long_lists_merge_in_one_walk() -> None:
    def element(index: int, value: str) -> Obj:
        return {"name": f"e{index}", "value": value}

    count = 20_000  # comparing each with each took minutes, on the loop that serves the sidecars
    target = pod({"name": "c", "env": [element(index, "old") for index in range(count)]})
    env: list[Obj] = [{"name": f"e{index}", "$patch": "delete"} for index in range(0, count, 2)]
    env += [element(index, "new") for index in range(count // 2 + 1, 2 * count, 2)]
    order = [{"name": one["name"]} for one in env if "value" in one]
    made = strategic_merge(target, pod({"name": "c", "env": env, "$setElementOrder/env": order}), "Pod")
    merged = made["spec"]["containers"][0]["env"]
    assert len(merged) == count // 2 + count // 2 and merged[-1] == element(2 * count - 1, "new")
    primitive = {"metadata": {"finalizers": [f"f/{index}" for index in range(count)]}}
    gone = {"metadata": {"$deleteFromPrimitiveList/finalizers": [f"f/{index}" for index in range(1, count)]}}
    assert strategic_merge(primitive, gone, "ConfigMap")["metadata"]["finalizers"] == ["f/0"]


def test_merge_keys_that_do_not_hash() -> None:
    odd = {"name": {"a": [1]}, "value": "x"}
    made = strategic_merge(pod({"name": "c", "env": [odd]}), pod({"name": "c", "env": [{**odd, "value": "y"}]}), "Pod")
    assert made["spec"]["containers"][0]["env"] == [{**odd, "value": "y"}]
