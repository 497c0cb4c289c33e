"""create, update and patch: from a request's body to a stored object.

Room: control/serve/kube. In: a target, parameters, a body. Out: the stored object, or what a dry run would have stored, with
warnings. Order of judgement as in Kubernetes: form of the request, namespace, then the object's own validity.
"""

from __future__ import annotations

import secrets
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, NamedTuple

from starlette.requests import Request
from starlette.responses import Response

from control.resources import check
from control.resources.kinds import by_plural
from control.serve.kube import body, status
from control.serve.kube.context import Context, Target, answer, fetch
from control.serve.kube.core_check import examine
from control.serve.kube.defaults import carry_over, fill
from control.serve.kube.params import Params, params
from control.serve.kube.patch import PatchError, json_patch, merge_patch
from control.serve.kube.strategic import strategic_merge
from control.serve.kube.table import dress, one, served
from control.store.api import AlreadyExists, Conflict, NotFound

__all__ = ["create", "patch", "replace"]

Obj = dict[str, Any]
_TRIES = 8
_SUFFIX = "bcdfghjklmnpqrstvwxz2456789"  # Kubernetes' alphabet: no vowels, nothing that looks like another
_JSON_PATCH = "application/json-patch+json"
_MERGE_PATCH = "application/merge-patch+json"
_STRATEGIC = "application/strategic-merge-patch+json"
_APPLY = ("application/apply-patch+yaml", "application/apply-patch+cbor")
_KUBELET = "mesh.dev/kubelet"  # the annotation of a pod that a launcher of this mesh keeps


class _Ready(NamedTuple):
    """An object that may be stored, and what to tell its author."""

    obj: Obj
    warnings: list[str]


async def create(context: Context, at: Target, request: Request) -> Response:
    form, asked = dress(request.headers.get("accept", "")), params(request)
    given = await body.read(request, duplicates=asked.validation != "Ignore")
    obj = _object(given.value, at)
    meta = obj["metadata"]
    if not meta.get("name"):
        if not meta.get("generateName"):
            raise status.invalid(
                at.kind.kind, at.kind.group, "",
                [status.Cause("metadata.name", "Required value: name or generateName is required", "FieldValueRequired")],
            )  # fmt: skip
        suffix = "".join(secrets.choice(_SUFFIX) for _ in range(5))
        meta["name"] = f"{str(meta['generateName'])[:58]}{suffix}"
    await _namespace_open(context, at, meta["name"])
    meta.pop("resourceVersion", None)
    prepared = fill(carry_over(obj, None, ""))
    ready = _judged(context, at, prepared, None, asked, given.duplicates)
    if at.kind.kind == "Pod" and not (ready.obj["metadata"].get("annotations") or {}).get(_KUBELET):
        ready.warnings.append("stored only: nothing here starts its containers; use meshctl run, or a cluster")
    if asked.dry_run:
        stored = await _imagine(context, at, ready.obj)
    else:
        try:
            stored = await context.store.create(at.kind, ready.obj)
        except AlreadyExists:
            raise status.already_exists(at.kind.plural, at.kind.group, meta["name"]) from None
    shown = one(stored, at.kind, at.version, form, asked.include, context.clock())
    return answer(shown, 201, ready.warnings, as_yaml=form.as_yaml)


async def replace(context: Context, at: Target, request: Request) -> Response:
    asked = params(request)
    given = await body.read(request, duplicates=asked.validation != "Ignore")
    obj = _object(given.value, at)
    if not obj["metadata"].get("name"):
        obj["metadata"]["name"] = at.name
    return await _write(context, at, request, asked, lambda current: obj, given.duplicates)


async def patch(context: Context, at: Target, request: Request) -> Response:
    asked = params(request)
    kind = body.media_type(request)
    if kind in _APPLY:
        raise status.unsupported_media(
            (),
            "server-side apply is not offered by this mesh: use kubectl apply without --server-side "
            f"(or a patch: {', '.join(_patches(at))})",
        )
    if kind not in _patches(at):
        raise status.unsupported_media(_patches(at))
    given = await body.read(request, as_type="", duplicates=asked.validation != "Ignore")
    if given.value is None:
        raise status.bad_request("a patch needs a body")

    def patched(current: Obj) -> Obj:
        base = served(current, at.kind, at.version)
        try:
            if kind == _JSON_PATCH:
                made = json_patch(base, given.value)
            elif kind == _STRATEGIC:
                made = strategic_merge(base, given.value, at.kind.kind)
            else:
                if not isinstance(given.value, dict):
                    raise PatchError("a merge patch of an object is an object", malformed=True)
                made = merge_patch(base, given.value)
        except PatchError as error:
            if error.malformed:
                raise status.bad_request(f"the patch does not apply: {error}") from None
            raise status.invalid(at.kind.kind, at.kind.group, at.name, [status.Cause("", f"patch: {error}")]) from None
        except RecursionError:
            raise status.bad_request(body.TOO_DEEP) from None
        body.check_depth(made)  # many patches, each within the limit, could build what no reader can walk
        return _object(made, at)

    return await _write(context, at, request, asked, patched, given.duplicates)


def _patches(at: Target) -> tuple[str, ...]:
    """Strategic patches are for the core kinds, as in Kubernetes: custom resources take the other two."""
    return (_JSON_PATCH, _MERGE_PATCH) if at.kind.is_mesh else (_JSON_PATCH, _MERGE_PATCH, _STRATEGIC)


async def _write(
    context: Context,
    at: Target,
    request: Request,
    asked: Params,
    change: Callable[[Obj], Obj],
    duplicates: tuple[str, ...],
) -> Response:
    """Read, change, judge, store; again when someone else wrote in between, unless the caller named the version it knows."""
    form = dress(request.headers.get("accept", ""))
    for _ in range(_TRIES):
        current = await fetch(context, at)
        had = str(current["metadata"].get("resourceVersion", ""))
        obj = _object(change(current), at)
        meta = obj["metadata"]
        if meta.get("name") != at.name:
            raise status.bad_request(
                f"the name of the object ({meta.get('name')}) does not match the name on the URL ({at.name})"
            )
        _same_object(at, meta, current)
        wanted = meta.get("resourceVersion")
        if wanted and wanted != had:
            raise status.conflict(at.kind.plural, at.kind.group, at.name)
        prepared = fill(carry_over(obj, current, at.sub))
        prepared["metadata"]["resourceVersion"] = had
        prepared["apiVersion"] = current["apiVersion"]  # versions are views of one object
        ready = _judged(context, at, prepared, current, asked, duplicates)
        stored = ready.obj
        if served(stored, at.kind, at.version) == served(current, at.kind, at.version):
            stored = current
        elif not asked.dry_run:
            try:
                stored = await context.store.update(at.kind, stored, expected=int(had))
            except NotFound:
                raise at.missing() from None
            except Conflict:
                continue  # a caller that named a version is refused above, when it is read again
        shown = one(stored, at.kind, at.version, form, asked.include, context.clock())
        return answer(shown, 200, ready.warnings, as_yaml=form.as_yaml)
    raise status.conflict(at.kind.plural, at.kind.group, at.name)


def _same_object(at: Target, meta: Obj, current: Obj) -> None:
    uid, had = meta.get("uid"), current["metadata"].get("uid")
    if uid and uid != had:
        raise status.conflict(
            at.kind.plural, at.kind.group, at.name,
            f"Precondition failed: UID in precondition: {uid}, UID in object meta: {had}",
        )  # fmt: skip


def _object(value: Any, at: Target) -> Obj:
    """The body as an object of the target's kind, with name and namespace agreeing with the URL. A new outer dict."""
    if value is None:
        raise status.bad_request("the request needs a body")
    if not isinstance(value, dict):
        raise status.bad_request("the body must be an object with apiVersion, kind and metadata")
    kind, api = value.get("kind") or at.kind.kind, value.get("apiVersion") or at.api_version
    if kind != at.kind.kind:
        raise status.bad_request(f"the kind in the data ({str(kind)[:80]}) does not match the expected kind ({at.kind.kind})")
    if api != at.api_version:
        raise status.bad_request(
            f"the API version in the data ({str(api)[:80]}) does not match the expected API version ({at.api_version})"
        )
    meta = value.get("metadata")
    if meta is None:
        meta = {}
    if not isinstance(meta, dict):
        raise status.bad_request("metadata must be an object")
    for key in ("name", "generateName", "namespace", "resourceVersion", "uid"):
        if meta.get(key) is not None and not isinstance(meta[key], str):
            raise status.bad_request(f"metadata.{key} must be a string")
    meta = {key: inner for key, inner in meta.items() if inner is not None}
    if at.namespace is not None:
        if meta.get("namespace") and meta["namespace"] != at.namespace:
            raise status.bad_request("the namespace of the provided object does not match the namespace sent on the request")
        meta["namespace"] = at.namespace
    elif not at.kind.namespaced:
        meta.pop("namespace", None)
    return {**value, "apiVersion": api, "kind": kind, "metadata": meta}


async def _namespace_open(context: Context, at: Target, name: str) -> None:
    if at.namespace is None:
        return
    try:
        found = await context.store.get(by_plural("", "namespaces"), None, at.namespace)
    except NotFound:
        raise status.not_found("namespaces", "", at.namespace) from None
    if (found.get("status") or {}).get("phase") == "Terminating":
        why = f"unable to create new content in namespace {at.namespace} because it is being terminated"
        raise status.forbidden(at.kind.plural, at.kind.group, name, why)


def _judged(context: Context, at: Target, obj: Obj, current: Obj | None, asked: Params, duplicates: tuple[str, ...]) -> _Ready:
    try:
        ready = _judge(at, obj, current, asked, duplicates)
    except status.ApiError:
        context.judged(at.kind, False)
        raise
    context.judged(at.kind, True)
    return ready


def _judge(at: Target, obj: Obj, current: Obj | None, asked: Params, duplicates: tuple[str, ...]) -> _Ready:
    """Refuse what may not be stored. Strictness of unknown core fields and of duplicates is the caller's choice; mesh kinds
    are strict always."""
    loose = [f'duplicate field "{path}"' for path in duplicates]
    if not at.kind.is_mesh:
        findings = examine(obj, at.kind.kind)
        if findings.mistyped:
            raise status.bad_request(f"{_handled(at)}: {findings.mistyped[0]}")
        before = set(examine(current, at.kind.kind).unknown) if current is not None else set()
        loose += [line for line in findings.unknown if line not in before]
    if loose and asked.validation == "Strict":
        raise status.bad_request(f"{_handled(at)}: strict decoding error: {', '.join(loose)}")
    verdict = check.validate(obj)
    if verdict.errors:
        name = str(obj["metadata"].get("name", ""))
        causes = [status.Cause(problem.path, problem.message) for problem in verdict.errors[:100]]
        raise status.invalid(at.kind.kind, at.kind.group, name, causes)
    warnings = loose if asked.validation == "Warn" else []
    return _Ready(obj, warnings + [str(problem) for problem in verdict.warnings])


def _handled(at: Target) -> str:
    return f'{at.kind.kind} in version "{at.version}" cannot be handled as a {at.kind.kind}'


async def _imagine(context: Context, at: Target, obj: Obj) -> Obj:
    """What a creation would answer, with nothing stored."""
    name = obj["metadata"]["name"]
    try:
        await context.store.get(at.kind, at.namespace, name)
    except NotFound:
        moment = datetime.fromtimestamp(context.clock(), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        filled = {"uid": str(uuid.uuid4()), "creationTimestamp": moment, "generation": 1}
        return {**obj, "metadata": {**obj["metadata"], **filled}}
    raise status.already_exists(at.kind.plural, at.kind.group, name)
