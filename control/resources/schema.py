"""OpenAPI v3 schemas of the kinds, made from their structs.

Room: control/resources. In: a kind. Out: a JSON schema without references, as in a CRD, so it can be served and put into CRDs.
Mesh kinds are closed; core kinds, of which the structs know only a part, keep unknown fields.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Any

from msgspec import inspect

from control.resources.kinds import Kind
from control.resources.meta import ObjectMeta

__all__ = ["definition_name", "openapi"]

KEEP = "x-kubernetes-preserve-unknown-fields"


def definition_name(kind: Kind, version: str | None = None) -> str:
    """The key under ``components.schemas``: ``io.istio.networking.v1.VirtualService``, ``io.k8s.api.core.v1.Pod``."""
    at = version or kind.versions[0]
    if not kind.is_mesh:
        return f"io.k8s.api.{kind.group.partition('.')[0] or 'core'}.{at}.{kind.kind}"
    return ".".join([*reversed(kind.group.split(".")), at, kind.kind])


def openapi(kind: Kind) -> dict[str, Any]:
    """The schema of a whole object. It is a fresh copy: the caller may change it."""
    schema: dict[str, Any] = _copy(_object(kind.struct))
    if not kind.is_mesh:
        schema[KEEP] = True
    schema["x-kubernetes-group-version-kind"] = [{"group": kind.group, "version": v, "kind": kind.kind} for v in kind.versions]
    return schema


def _copy(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _copy(v) for k, v in value.items()}
    return [_copy(v) for v in value] if isinstance(value, list) else value


@cache
def _object(cls: type) -> dict[str, Any]:
    info = inspect.type_info(cls)
    assert isinstance(info, inspect.StructType)
    schema: dict[str, Any] = {"type": "object"}
    if cls.__doc__:
        schema["description"] = _prose(cls.__doc__)
    schema["properties"] = {f.encode_name: _field(cls, f.encode_name, f.type) for f in info.fields}
    required = [f.encode_name for f in info.fields if f.required and f.encode_name not in ("apiVersion", "kind", "metadata")]
    if required:
        schema["required"] = required
    if not info.forbid_unknown_fields:
        schema[KEEP] = True
    return schema


_KUBERNETES = {
    "apiVersion": "The version of the API that this object is written in.",
    "kind": "What this object is.",
    "metadata": "Name, namespace, labels and what the server keeps about the object.",
}


def _field(cls: type, name: str, kind: inspect.Type) -> dict[str, Any]:
    schema = _copy(_type(kind))
    assert isinstance(schema, dict)
    if name in _KUBERNETES and "metadata" in cls.__struct_fields__:  # type: ignore[attr-defined]
        schema["description"] = _KUBERNETES[name]
    if cls is ObjectMeta and name in ("creationTimestamp", "deletionTimestamp"):
        schema |= {"format": "date-time", "nullable": True}
    return schema


def _type(kind: inspect.Type) -> dict[str, Any]:
    if isinstance(kind, inspect.Metadata):
        schema = _type(kind.type) | dict(kind.extra_json_schema or {})
        form = (kind.extra or {}).get("form")
        return schema | ({"format": {"base64": "byte"}.get(form, form)} if form in ("duration", "regex", "base64") else {})
    if isinstance(kind, inspect.UnionType):
        arms = [t for t in kind.types if not isinstance(t, inspect.NoneType)]
        if len(arms) == 1:
            return _type(arms[0])
        return {"x-kubernetes-int-or-string": True, "anyOf": [{"type": "integer"}, {"type": "string"}]}
    if isinstance(kind, inspect.StructType):
        return _object(kind.cls)
    if isinstance(kind, inspect.VarTupleType):
        return {"type": "array", "items": _type(kind.item_type)}
    if isinstance(kind, inspect.DictType):
        inner = _type(kind.value_type)
        return {"type": "object", **(inner if inner == {KEEP: True} else {"additionalProperties": inner})}
    if isinstance(kind, inspect.LiteralType):
        return {"type": "string", "enum": list(kind.values)}
    if isinstance(kind, inspect.IntType):
        return _number("integer", kind.ge, kind.le) | {"format": "int64"}
    if isinstance(kind, inspect.FloatType):
        return _number("number", kind.ge, kind.le) | {"format": "double"}
    if isinstance(kind, inspect.BoolType):
        return {"type": "boolean"}
    if isinstance(kind, inspect.StrType):
        return {"type": "string"}
    return {KEEP: True}


def _number(name: str, low: float | None, high: float | None) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": name}
    if low is not None:
        schema["minimum"] = low
    if high is not None:
        schema["maximum"] = high
    return schema


def _prose(doc: str) -> str:
    """The first paragraph on one line; code words become the names that the user writes."""
    text = " ".join(doc.partition("\n\n")[0].split())
    return re.sub(r"``(.*?)``", lambda word: re.sub(r"_([a-z0-9])", lambda c: c[1].upper(), word[1].rstrip("_")), text)
