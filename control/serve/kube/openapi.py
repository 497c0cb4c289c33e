"""OpenAPI documents: what ``kubectl explain`` reads, and how kubectl learns that the server validates and dry-runs.

Room: control/serve/kube. In: KINDS and their schemas. Out: ``/openapi/v3`` (an index, one document per group version under a URL
that holds its hash) and ``/openapi/v2``. Documents are made when first asked for and kept. kubectl uses v2 only where v3 does not
answer, so v2 names no types: an empty document, in JSON or in the protobuf form that old clients insist on.
"""

from __future__ import annotations

import hashlib
from functools import cache
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from control.resources.kinds import KINDS, Kind
from control.resources.schema import definition_name, openapi
from control.serve.kube import status
from control.serve.kube.discovery import VERSION, has_status, served_groups
from control.serve.kube.merge_keys import extensions, types
from control.serve.kube.table import encode

__all__ = ["document", "index", "v2", "v3"]

Obj = dict[str, Any]

_GVK = "x-kubernetes-group-version-kind"
_ACTION = "x-kubernetes-action"
_SIMPLE: dict[str, Obj] = {
    "s": {"type": "string"},
    "i": {"type": "integer", "format": "int32"},
    "b": {"type": "boolean"},
    "n": {"type": "number"},
    "*": {"x-kubernetes-preserve-unknown-fields": True},
}
# Clients ask for it with an @, which Go cannot parse in an answer: Kubernetes answers with a dot as well.
_PROTOBUF_V2 = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"


@cache
def _documents() -> dict[str, tuple[bytes, str]]:
    """Path below /openapi/v3 -> (document, hash)."""
    made: dict[str, tuple[bytes, str]] = {}
    for group, versions in served_groups().items():
        for version in versions:
            data = encode(document(group, version))
            path = f"apis/{group}/{version}" if group else f"api/{version}"
            made[path] = (data, hashlib.sha256(data).hexdigest()[:32].upper())
    return made


def document(group: str, version: str) -> Obj:
    """The OpenAPI v3 document of one group version."""
    kinds = [kind for kind in KINDS if kind.group == group and version in kind.versions]
    schemas: Obj = {}
    paths: Obj = {}
    for kind in kinds:
        _schema(kind, version, schemas)
        _paths(kind, version, paths)
    return {
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes-shaped API of the mesh", "version": VERSION},
        "paths": paths,
        "components": {"schemas": schemas},
    }


def _schema(kind: Kind, version: str, schemas: Obj) -> None:
    gvk = [{"group": kind.group, "kind": kind.kind, "version": version}]
    if kind.is_mesh or kind.kind not in types():
        schemas[definition_name(kind, version)] = {**openapi(kind), _GVK: gvk}
        return
    _core_type(kind.kind, definition_name(kind, version), schemas)
    described = openapi(kind).get("description")
    schemas[definition_name(kind, version)] |= {_GVK: gvk, **({"description": described} if described else {})}


def _name_of(core_type: str) -> str:
    meta = core_type in (
        "ObjectMeta",
        "OwnerReference",
        "LabelSelector",
        "LabelSelectorRequirement",
        "ManagedFieldsEntry",
    )
    return f"io.k8s.apimachinery.pkg.apis.meta.v1.{core_type}" if meta else f"io.k8s.api.core.v1.{core_type}"


def _core_type(core_type: str, name: str, schemas: Obj) -> None:
    if name in schemas:
        return
    properties: Obj = {}
    schemas[name] = {"type": "object", "properties": properties}
    for field, held in types()[core_type].items():
        properties[field] = {**_held(held, schemas), **extensions(core_type, field)}


def _held(held: str, schemas: Obj) -> Obj:
    if held[0] == "[":
        return {"type": "array", "items": _held(held[1:], schemas)}
    if held[0] == "{":
        return {"type": "object", "additionalProperties": _held(held[1:], schemas)}
    if held in _SIMPLE:
        return dict(_SIMPLE[held])
    _core_type(held, _name_of(held), schemas)
    return {"allOf": [{"$ref": f"#/components/schemas/{_name_of(held)}"}]}


def _query(name: str, description: str) -> Obj:
    return {"name": name, "in": "query", "description": description, "schema": {"type": "string", "uniqueItems": True}}


def _paths(kind: Kind, version: str, paths: Obj) -> None:
    root = f"/apis/{kind.group}/{version}" if kind.group else f"/api/{version}"
    scoped = f"{root}/namespaces/{{namespace}}/{kind.plural}" if kind.namespaced else f"{root}/{kind.plural}"
    schema = {"$ref": f"#/components/schemas/{definition_name(kind, version)}"}
    gvk = {"group": kind.group, "kind": kind.kind, "version": version}
    ok = {"200": {"description": "OK", "content": {"application/json": {"schema": schema}}}}
    dry = _query("dryRun", "All: judge the request fully, store nothing")
    strict = _query("fieldValidation", "Ignore, Warn or Strict: what to do with unknown and duplicate fields")
    patches = ["application/json-patch+json", "application/merge-patch+json"]
    if not kind.is_mesh:
        patches.append("application/strategic-merge-patch+json")

    def operation(action: str, parameters: list[Obj], body: list[str]) -> Obj:
        made: Obj = {"operationId": f"{action}{version}{kind.kind}", _ACTION: action, _GVK: gvk, "responses": ok}
        if parameters:
            made["parameters"] = parameters
        if body:
            made["requestBody"] = {"required": True, "content": {media: {"schema": schema} for media in body}}
        return made

    if kind.namespaced:
        paths[f"{root}/{kind.plural}"] = {"get": operation("list", [], [])}
    paths[scoped] = {"get": operation("list", [], []), "post": operation("post", [dry, strict], ["application/json"])}
    one = {
        "get": operation("get", [], []),
        "put": operation("put", [dry, strict], ["application/json"]),
        "patch": operation("patch", [dry, strict], patches),
        "delete": operation("delete", [dry], []),
    }
    paths[f"{scoped}/{{name}}"] = one
    if has_status(kind):
        paths[f"{scoped}/{{name}}/status"] = {verb: one[verb] for verb in ("get", "put", "patch")}


async def index(request: Request) -> Response:
    """``GET /openapi/v3``"""
    paths = {path: {"serverRelativeURL": f"/openapi/v3/{path}?hash={mark}"} for path, (_, mark) in _documents().items()}
    return Response(encode({"paths": paths}), media_type="application/json", headers={"Cache-Control": "no-cache"})


async def v3(request: Request) -> Response:
    """``GET /openapi/v3/api/v1`` and ``…/apis/GROUP/VERSION``; JSON only, which is all that clients need."""
    found = _documents().get(request.path_params["path"].strip("/"))
    if found is None:
        raise status.no_such_path()
    data, mark = found
    headers = {"ETag": f'"{mark}"', "Cache-Control": "no-cache"}
    if request.query_params.get("hash") == mark:
        headers["Cache-Control"] = "public, max-age=31536000, immutable"
    if request.headers.get("if-none-match") == headers["ETag"]:
        return Response(status_code=304, headers=headers)
    return Response(data, media_type="application/json", headers=headers)


async def v2(request: Request) -> Response:
    """``GET /openapi/v2``"""
    title = "Kubernetes-shaped API of the mesh"
    if "com.github.proto-openapi" in request.headers.get("accept", ""):
        info = _text(1, title) + _text(2, VERSION)
        data = _text(1, "2.0") + _message(2, info) + _message(8, b"")  # openapi.v2.Document: swagger, info, paths
        return Response(data, headers={"Content-Type": _PROTOBUF_V2})
    plain = {"swagger": "2.0", "info": {"title": title, "version": VERSION}, "paths": {}, "definitions": {}}
    return Response(encode(plain), media_type="application/json")


def _message(field: int, data: bytes) -> bytes:
    assert len(data) < 128, "a one-byte length"
    return bytes([field << 3 | 2, len(data)]) + data


def _text(field: int, text: str) -> bytes:
    return _message(field, text.encode())
