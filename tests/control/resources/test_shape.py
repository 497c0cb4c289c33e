"""Shapes: random objects of every kind round-trip; a stray field at any depth is named with its path; rubbish never raises."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import inspect

from control.resources.check import decode, validate
from control.resources.kinds import KINDS, Kind
from control.resources.shape import build, nearest

MESH = tuple(k for k in KINDS if k.is_mesh)
TEXT = {
    "duration": st.sampled_from(["1s", "1.5s", "100ms", "1h30m", "3m"]),
    "regex": st.sampled_from(["a.*", "[0-9]+", "(?i)x"]),
    "base64": st.sampled_from(["", "aGk="]),
}
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-10, 10) | st.floats(allow_nan=False) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


def of(kind: inspect.Type, form: str = "") -> st.SearchStrategy[Any]:
    """JSON values of a type's shape."""
    if isinstance(kind, inspect.Metadata):
        return of(kind.type, (kind.extra or {}).get("form", ""))
    if isinstance(kind, inspect.UnionType):
        return of(next(t for t in kind.types if not isinstance(t, inspect.NoneType)), form)
    if isinstance(kind, inspect.StructType):
        return struct(kind.cls)
    if isinstance(kind, inspect.VarTupleType):
        return st.lists(of(kind.item_type), max_size=2)
    if isinstance(kind, inspect.DictType):
        return st.dictionaries(st.sampled_from(["a", "b", "c"]), of(kind.value_type), max_size=2)
    if isinstance(kind, inspect.LiteralType):
        return st.sampled_from(kind.values)
    if isinstance(kind, inspect.IntType):
        return st.integers(kind.ge if kind.ge is not None else -5, min(kind.le or 50, 2**31))
    if isinstance(kind, inspect.FloatType):
        return st.floats(kind.ge or 0, kind.le or 100) | st.integers(int(kind.ge or 0), int(kind.le or 100))
    if isinstance(kind, inspect.BoolType):
        return st.booleans()
    if isinstance(kind, inspect.StrType):
        return TEXT.get(form, st.sampled_from(["a", "b-c", "x.y"]))
    return st.dictionaries(st.sampled_from(["x", "y"]), st.integers(0, 3), max_size=2)


def later(kind: inspect.Type) -> st.SearchStrategy[Any]:
    return st.deferred(lambda: of(kind))


def struct(cls: type) -> st.SearchStrategy[dict[str, Any]]:
    info = inspect.type_info(cls)
    assert isinstance(info, inspect.StructType)
    groups = [*getattr(cls, "exclusive", ()), *getattr(cls, "exactly_one", ())]
    needed = [g[0] for g in getattr(cls, "exactly_one", ())]
    required = {f.encode_name: later(f.type) for f in info.fields if f.required or f.encode_name in needed}
    optional = {f.encode_name: later(f.type) for f in info.fields if f.encode_name not in required}

    def one_of_each(value: dict[str, Any]) -> dict[str, Any]:
        for group in groups:
            given = [name for name in group if name in value]
            for name in given[1:]:
                del value[name]
        return value

    @st.composite
    def draw(draw: Any) -> dict[str, Any]:
        value = {name: draw(strategy) for name, strategy in required.items()}
        for name in draw(st.lists(st.sampled_from(sorted(optional)), max_size=3, unique=True)) if optional else []:
            value[name] = draw(optional[name])
        return one_of_each(value)

    return draw()


@st.composite
def objects(draw: Any, kinds: tuple[Kind, ...] = KINDS) -> tuple[Kind, dict[str, Any]]:
    kind = draw(st.sampled_from(kinds))
    obj = draw(struct(kind.struct))
    fields = {f.encode_name: f for f in msgspec.structs.fields(kind.struct)}
    if "spec" in fields and "spec" not in obj:
        obj["spec"] = draw(of(inspect.type_info(fields["spec"].type)))
    obj |= {"apiVersion": kind.api_version, "kind": kind.kind}
    return kind, json.loads(json.dumps(obj))


def places(value: Any, kind: inspect.Type, path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every object inside ``value`` in which an unknown field is a fault."""
    if isinstance(kind, inspect.Metadata):
        yield from places(value, kind.type, path)
    elif isinstance(kind, inspect.UnionType):
        arm = next(t for t in kind.types if not isinstance(t, inspect.NoneType))
        yield from places(value, arm, path)
    elif isinstance(kind, inspect.StructType) and isinstance(value, dict):
        info = inspect.type_info(kind.cls)
        assert isinstance(info, inspect.StructType)
        if info.forbid_unknown_fields:
            yield path, value
        for f in info.fields:
            if f.encode_name in value:
                yield from places(value[f.encode_name], f.type, f"{path}.{f.encode_name}" if path else f.encode_name)
    elif isinstance(kind, inspect.VarTupleType) and isinstance(value, list):
        for i, item in enumerate(value):
            yield from places(item, kind.item_type, f"{path}[{i}]")
    elif isinstance(kind, inspect.DictType) and isinstance(value, dict):
        for key, item in value.items():
            yield from places(item, kind.value_type, f"{path}[{key}]")


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(objects())
def test_what_has_the_shape_is_built_as_msgspec_builds_it_and_encodes_back(found: tuple[Kind, dict[str, Any]]) -> None:
    kind, obj = found
    shape = build(obj, kind.struct)
    assert shape.problems == []
    decoded = decode(obj)
    assert shape.value == decoded
    again = msgspec.json.decode(msgspec.json.encode(decoded))
    assert decode({"metadata": {}, **again}) == decoded


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(objects(MESH), st.data())
def test_an_unknown_field_at_any_depth_is_named_with_its_path(found: tuple[Kind, dict[str, Any]], data: Any) -> None:
    kind, obj = found
    spots = list(places(obj, inspect.type_info(kind.struct), ""))
    path, spot = data.draw(st.sampled_from(spots))
    spot["zzz"] = 1
    expected = f"{path}.zzz" if path else "zzz"
    assert [p.path for p in build(obj, kind.struct).problems] == [expected]
    assert expected in [p.path for p in validate(obj).errors]


def leaves(value: Any) -> Iterator[tuple[Any, Any]]:
    for key, item in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield value, key
        yield from leaves(item)


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(objects(), st.data())
def test_rubbish_anywhere_never_raises_and_what_passes_decodes(found: tuple[Kind, dict[str, Any]], data: Any) -> None:
    _, obj = found
    for _ in range(data.draw(st.integers(1, 3))):
        box, key = data.draw(st.sampled_from(list(leaves(obj))))
        box[key] = data.draw(json_values)
    before = copy.deepcopy(obj)
    verdict = validate(obj)
    assert obj == before, "validation changes nothing"
    for problem in (*verdict.errors, *verdict.warnings):
        assert "\n" not in str(problem)
    if verdict.ok:
        decode(obj)


@given(json_values)
def test_anything_at_all_may_be_asked_about(value: Any) -> None:
    assert not validate(value).ok


@pytest.mark.parametrize(
    ("typo", "meant"),
    [
        ("wieght", "weight"),
        ("Weight", "weight"),
        ("retry", "retries"),
        ("hots", "hosts"),
        ("destinaton", "destination"),
        ("q", None),
    ],
)
def test_the_nearest_name(typo: str, meant: str | None) -> None:
    assert nearest(typo, ["hosts", "weight", "retries", "destination", "match"]) == meant
