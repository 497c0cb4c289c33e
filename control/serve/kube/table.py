"""How an answer is dressed: a plain object or list, a ``Table`` for ``kubectl get``, or metadata alone; JSON or YAML.

Room: control/serve/kube; pure. In: stored objects and what ``Accept`` asks. Out: JSON documents and their bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import msgspec
import yaml

from control.resources.kinds import Kind
from control.serve.kube import status

__all__ = ["Dress", "dress", "encode", "listing", "one", "served", "table"]

Obj = dict[str, Any]
Shape = Literal["", "Table", "PartialObjectMetadata", "PartialObjectMetadataList"]
_META = "meta.k8s.io/v1"
_OFFERED = ("application/json", "application/yaml")


class Dress(NamedTuple):
    """``shape`` "" is the object itself. ``api`` is the apiVersion of Table or PartialObjectMetadata."""

    shape: Shape = ""
    api: str = _META
    as_yaml: bool = False

    @property
    def media_type(self) -> str:
        return "application/yaml" if self.as_yaml else "application/json"


def dress(accept: str) -> Dress:
    """The first form in an Accept header that can be served. 406 when there is none."""
    if not accept.strip():
        return Dress()
    for part in accept.split(","):
        media, *given = (piece.strip() for piece in part.split(";"))
        options = dict(option.split("=", 1) for option in given if "=" in option)
        media = media.lower()
        if media in ("application/json", "*/*", "application/*", "application/yaml"):
            asked, group = options.get("as", ""), options.get("g", "meta.k8s.io")
            version = options.get("v", "v1")
            if asked and (asked not in _SHAPES or group != "meta.k8s.io" or version not in ("v1", "v1beta1")):
                continue
            return Dress(_SHAPES.get(asked, ""), f"meta.k8s.io/{version}", media == "application/yaml")
    raise status.not_acceptable(_OFFERED)


_SHAPES: dict[str, Shape] = {
    "Table": "Table",
    "PartialObjectMetadata": "PartialObjectMetadata",
    "PartialObjectMetadataList": "PartialObjectMetadataList",
}


def encode(document: Obj, as_yaml: bool = False) -> bytes:
    """Bytes of an answer, with the newline that closes it."""
    if as_yaml:
        return yaml.safe_dump(document, sort_keys=False, allow_unicode=True).encode()
    return msgspec.json.encode(document) + b"\n"


def served(obj: Obj, kind: Kind, version: str) -> Obj:
    """A stored object under the version that the caller asked; the shape of all versions is the same."""
    api = f"{kind.group}/{version}" if kind.group else version
    rest = {key: value for key, value in obj.items() if key not in ("apiVersion", "kind")}
    return {"apiVersion": api, "kind": kind.kind, **rest}


def one(obj: Obj, kind: Kind, version: str, form: Dress, include: str, now: float) -> Obj:
    """A single object (or a watch event's object) in the asked form. ``now`` is wall time in seconds."""
    whole = served(obj, kind, version)
    if form.shape == "Table":
        return table([obj], kind, version, form, include, now, {"resourceVersion": _version_of(obj)})
    if form.shape:
        return _partial(whole, form)
    return whole


def listing(objs: Sequence[Obj], kind: Kind, version: str, form: Dress, include: str, now: float, meta: Obj) -> Obj:
    """A list answer; ``meta`` is its ListMeta."""
    if form.shape == "Table":
        return table(objs, kind, version, form, include, now, meta)
    if form.shape:
        items = [_partial(served(obj, kind, version), form) for obj in objs]
        return {"kind": "PartialObjectMetadataList", "apiVersion": form.api, "metadata": meta, "items": items}
    api = f"{kind.group}/{version}" if kind.group else version
    items = [served(obj, kind, version) for obj in objs]
    return {"kind": f"{kind.kind}List", "apiVersion": api, "metadata": meta, "items": items}


def _partial(whole: Obj, form: Dress) -> Obj:
    return {"kind": "PartialObjectMetadata", "apiVersion": form.api, "metadata": whole.get("metadata", {})}


def _version_of(obj: Obj) -> str:
    return str(obj.get("metadata", {}).get("resourceVersion", ""))


def table(objs: Sequence[Obj], kind: Kind, version: str, form: Dress, include: str, now: float, meta: Obj) -> Obj:
    """``include``: what each row's ``object`` is: None, Metadata or Object."""
    columns = [
        {
            "name": column.name,
            "type": column.type,
            "format": column.format,
            "description": column.description or column.name,
            "priority": column.priority,
        }
        for column in kind.columns
    ]
    rows = []
    for obj in objs:
        row: Obj = {"cells": [column.value(obj, now) for column in kind.columns]}
        if include == "Object":
            row["object"] = served(obj, kind, version)
        elif include == "Metadata":
            row["object"] = _partial(obj, form)
        rows.append(row)
    return {
        "kind": "Table",
        "apiVersion": form.api,
        "metadata": meta,
        "columnDefinitions": columns,
        "rows": rows,
    }
