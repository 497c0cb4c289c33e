"""delete and deletecollection.

Room: control/serve/kube. In: a target and DeleteOptions (body, query). Out: a Status or the deleted objects. Deletion is at once:
there is no grace period, and nothing here has finalizers to wait for; a namespace takes its objects with it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from starlette.requests import Request
from starlette.responses import Response

from control.resources.kinds import KINDS
from control.serve.kube import body, status
from control.serve.kube.context import Context, Target, answer, fetch
from control.serve.kube.params import params
from control.serve.kube.reading import chosen
from control.serve.kube.table import dress, listing
from control.store.api import Conflict, NotFound

__all__ = ["delete", "delete_collection"]

Obj = dict[str, Any]
_KEPT = ("default", "kube-system", "kube-public")


class _Options(NamedTuple):
    dry_run: bool
    uid: str
    version: str


async def _options(request: Request) -> _Options:
    """DeleteOptions: dryRun and preconditions count; propagationPolicy and gracePeriodSeconds have nothing to act on."""
    given = (await body.read(request)).value
    if given is None:
        given = {}
    if not isinstance(given, dict) or given.get("kind", "DeleteOptions") != "DeleteOptions":
        raise status.bad_request("the body of a DELETE must be DeleteOptions")
    conditions = given.get("preconditions") or {}
    dry = given.get("dryRun") or []
    if not isinstance(conditions, dict) or not isinstance(dry, list):
        raise status.bad_request("DeleteOptions: preconditions must be an object and dryRun a list")
    if any(word != "All" for word in dry):
        raise status.bad_request('DeleteOptions: dryRun: Unsupported value: supported values: "All"')
    asked = params(request)
    uid, version = conditions.get("uid") or "", conditions.get("resourceVersion") or ""
    return _Options(asked.dry_run or bool(dry), str(uid), str(version))


async def delete(context: Context, at: Target, request: Request) -> Response:
    form = dress(request.headers.get("accept", ""))
    options = await _options(request)
    current = await fetch(context, at)
    _precondition(at, current, options)
    if at.kind.kind == "Namespace" and at.name in _KEPT:
        raise status.forbidden("namespaces", "", at.name, "this namespace may not be deleted")
    if not options.dry_run:
        if at.kind.kind == "Namespace":
            await _empty(context, at, current)
        expected = int(options.version) if options.version else None
        try:
            await context.store.delete(at.kind, at.namespace, at.name, expected)
        except NotFound:
            raise at.missing() from None
        except Conflict:
            raise status.conflict(at.kind.plural, at.kind.group, at.name) from None
    details = {
        "name": at.name,
        "group": at.kind.group,
        "kind": at.kind.plural,
        "uid": current["metadata"].get("uid", ""),
    }
    done = status.success({key: value for key, value in details.items() if value})
    return answer(done, as_yaml=form.as_yaml)


def _precondition(at: Target, current: Obj, options: _Options) -> None:
    for what, wanted, had in (
        ("UID", options.uid, current["metadata"].get("uid")),
        ("ResourceVersion", options.version, current["metadata"].get("resourceVersion")),
    ):
        if wanted and wanted != had:
            why = f"Precondition failed: {what} in precondition: {wanted}, {what} in object meta: {had}"
            raise status.conflict(at.kind.plural, at.kind.group, at.name, why)


async def _empty(context: Context, at: Target, current: Obj) -> None:
    """Close the namespace to new objects, then delete those in it."""
    closed = {**current, "status": {**(current.get("status") or {}), "phase": "Terminating"}}
    closed["metadata"] = {key: value for key, value in current["metadata"].items() if key != "resourceVersion"}
    try:
        await context.store.update(at.kind, closed)
    except NotFound:
        raise at.missing() from None
    for kind in KINDS:
        if not kind.namespaced:
            continue
        for obj in (await context.store.list(kind, at.name))[0]:
            try:
                await context.store.delete(kind, at.name, obj["metadata"]["name"])
            except NotFound:
                continue


async def delete_collection(context: Context, at: Target, request: Request) -> Response:
    form, asked = dress(request.headers.get("accept", "")), params(request)
    options = await _options(request)
    selectors = chosen(at, asked)
    objs, version = await context.store.list(at.kind, at.namespace)
    gone: list[Obj] = []
    for obj in objs:
        if not all(selector.matches(obj) for selector in selectors):
            continue
        if at.kind.kind == "Namespace":
            raise status.method_not_allowed("namespaces are deleted one at a time, by name")
        meta = obj["metadata"]
        try:
            if not options.dry_run:
                await context.store.delete(at.kind, meta.get("namespace"), meta["name"])
        except NotFound:
            continue
        gone.append(obj)
    meta = {"resourceVersion": str(version)}
    return answer(listing(gone, at.kind, at.version, form, asked.include, context.clock(), meta), as_yaml=form.as_yaml)
