"""Configuration on the page (dashboard): resources with what is wrong with them, sidecars, and edits.

In: the store, the hub, key sets, YAML from the page. Out: ``GET /api/config``, ``POST /api/config/validate`` (a server-side dry
run with a diff), ``POST /api/config/apply``. An edit goes the way of every other: through the Kubernetes-shaped API, with its
validation and defaults. Secrets are neither shown nor taken; what kubectl last applied is not shown, and kept.
"""

from __future__ import annotations

import asyncio
import difflib
import re
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import httpx
import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from control.analyze import Scene, analyze
from control.analyze.scene import Facts
from control.resources.check import validate
from control.resources.kinds import Kind, kind_of
from control.serve.callers import called
from control.serve.dashboard.guard import problem, session_of
from control.serve.dashboard.nodes import applied
from control.serve.hub import Hub
from control.serve.kube.status import ApiError
from control.serve.kube.table import encode
from control.serve.roles import refusal
from control.serve.stream import read_body
from control.store.api import Store
from control.tasks import spawn
from control.world import World
from control.yamltext import YamlProblem, documents

__all__ = ["Keys", "routes"]

Obj = dict[str, Any]
MAX_YAML = 1 << 20
MAX_DOCUMENTS = 100
_NAME = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9.]*[A-Za-z0-9])?")  # it becomes a part of a path
_CORE = ("Service", "ConfigMap", "Namespace")
_LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
FRESH = 30.0  # seconds: sidecars are asked for their callers no oftener
PATIENCE = 0.3  # seconds that a request waits for them
_OURS = ("uid", "creationTimestamp", "generation", "managedFields", "selfLink")


class _Edit(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    yaml: str


class _Step(NamedTuple):
    """One object of an edit. ``path`` is the object's own."""

    kind: Kind
    obj: Obj
    collection: str
    path: str


class _Refused(Exception):
    """One line, or several."""

    def __init__(self, *lines: str) -> None:
        super().__init__(*lines)
        self.lines = list(lines)


Keys = Callable[[], list[dict[str, Any]]]


def routes(hub: Hub, store: Store, kube: Starlette, keys: Keys, clock: Callable[[], float] = time.time) -> list[Route]:
    """``kube``: the Kubernetes-shaped API; ``keys``: the report on key sets."""
    transport = httpx.ASGITransport(app=kube)
    kept: tuple[int, World, Facts, bytes] | None = None
    known = Facts()
    asking: asyncio.Task[None] | None = None
    one_at_a_time = asyncio.Lock()

    async def ask() -> None:
        nonlocal known, asking
        try:
            known = Facts(clock(), tuple(keys()), tuple((await called(hub))["pods"]))
        finally:
            asking = None

    async def facts() -> Facts:
        """What only a running mesh knows. A sidecar that is slow to answer holds nobody up: then it is what was known before."""
        nonlocal asking
        if asking is None and not 0 <= clock() - known.wall < FRESH:
            asking = spawn(ask(), "facts")
        if asking is not None:
            await asyncio.wait({asking}, timeout=PATIENCE)
        return known if known.wall else Facts(clock(), tuple(keys()))

    async def everything(request: Request) -> Response:
        nonlocal kept
        world = hub.world
        if world is None:
            return problem(503, "control has not read its store yet; try again")
        async with one_at_a_time:
            objects, version = await store.snapshot()
            live = await facts()
            if kept is None or kept[0] != version or kept[1] is not world or kept[2] is not live:
                resources = await asyncio.to_thread(_resources, world, [obj for _, obj in objects], live)
                kept = (version, world, live, msgspec.json.encode(resources))
        problems = [{"source": p.source, "message": p.message} for p in hub.problems()]
        body = b'{"resources":%b,"problems":%b,"proxies":%b}' % (
            kept[3],
            msgspec.json.encode(problems),
            msgspec.json.encode([_with_node(row, world) for row in hub.report()]),
        )
        return Response(body, media_type="application/json")

    async def check(request: Request) -> Response:
        try:
            steps = _steps(await _yaml(request))
            async with httpx.AsyncClient(transport=transport, base_url="http://api") as client:
                told = [await _try(client, step, dry=True) for step in steps]
        except _Refused as refused:
            return JSONResponse({"ok": False, "problems": refused.lines, "diff": ""})
        found = await _found(hub, store, steps, await facts())
        diff = "".join(one.diff for one in told)
        return JSONResponse(
            {"ok": True, "problems": [], "diff": diff, "warnings": [w for t in told for w in t.warnings], **found}
        )

    async def apply(request: Request) -> Response:
        role = session_of(request).role
        done: list[str] = []
        try:
            steps = _steps(await _yaml(request))
            for step in steps:
                if why := refusal(role, "PUT", step.path):
                    return problem(403, f"{why}: you are signed in with the role {role}")
            async with httpx.AsyncClient(transport=transport, base_url="http://api") as client:
                for step in steps:  # nothing is written unless everything can be
                    await _try(client, step, dry=True)
                warnings = []
                for step in steps:
                    told = await _try(client, step, dry=False)
                    warnings += told.warnings
                    done.append(f"{step.kind.kind} {step.obj['metadata']['name']}")
        except _Refused as refused:
            return JSONResponse({"ok": False, "problems": refused.lines, "diff": "", "applied": done})
        return JSONResponse({"ok": True, "problems": [], "diff": "", "warnings": warnings, "applied": done})

    return [
        Route("/api/config", everything, methods=["GET"]),
        Route("/api/config/validate", check, methods=["POST"]),
        Route("/api/config/apply", apply, methods=["POST"]),
    ]


# -- showing -----------------------------------------------------------------------------------------------------------------


def _shown(obj: Obj) -> bool:
    group = str(obj.get("apiVersion", "")).rpartition("/")[0]
    return group.endswith("istio.io") or (not group and obj.get("kind") in _CORE)


def _with_node(row: Obj, world: World) -> Obj:
    pod = world.pods.get((row["namespace"], row["name"]))
    return row if pod is None else {**row, "node": f"workload/{pod.namespace}/{pod.workload.workload}"}


def _clean(obj: Obj) -> Obj:
    """Without what control and kubectl write themselves."""
    meta = {key: value for key, value in obj["metadata"].items() if key not in _OURS}
    if _LAST_APPLIED in (meta.get("annotations") or {}):
        meta["annotations"] = {key: value for key, value in meta["annotations"].items() if key != _LAST_APPLIED}
        if not meta["annotations"]:
            del meta["annotations"]
    return {**{key: value for key, value in obj.items() if key != "status"}, "metadata": meta}


def _text(obj: Obj) -> str:
    return encode(_clean(obj), True).decode()


def _resources(world: World, objects: list[Obj], facts: Facts) -> list[Obj]:
    findings: dict[tuple[str, str, str], list[Obj]] = {}
    about = applied(world)
    for one in analyze(Scene(world, objects, live=True, facts=facts), None):
        found = {"code": one.code, "level": one.level, "message": one.message, "path": one.path}
        findings.setdefault((one.kind, one.namespace, one.name), []).append(found)
    rows = []
    for obj in objects:
        if not _shown(obj):
            continue
        meta, verdict = obj["metadata"], validate(obj)
        key = (str(obj["kind"]), str(meta.get("namespace") or ""), str(meta["name"]))
        rows.append(
            {
                "kind": key[0],
                "namespace": key[1],
                "name": key[2],
                "apiVersion": obj["apiVersion"],
                "validation": [
                    {"level": level, "path": p.path, "message": p.message}
                    for level, problems in (("Error", verdict.errors), ("Warning", verdict.warnings))
                    for p in problems
                ],
                "findings": findings.get(key, []),
                "nodes": about.get(key, []),
                "yaml": _text(obj),
            }
        )
    return sorted(rows, key=lambda row: (row["kind"], row["namespace"], row["name"]))


# -- editing -----------------------------------------------------------------------------------------------------------------


async def _yaml(request: Request) -> str:
    try:
        return msgspec.json.decode(await read_body(request, MAX_YAML), type=_Edit).yaml
    except ApiError:
        raise _Refused(f"the YAML is larger than {MAX_YAML} bytes") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise _Refused('the body must be {"yaml": "..."}') from None


def _steps(text: str) -> list[_Step]:
    try:
        found = [one for one in documents(text, aliases=False) if one is not None]
    except YamlProblem as fault:
        raise _Refused(f"cannot be read as YAML: {fault}") from None
    if not found or len(found) > MAX_DOCUMENTS:
        raise _Refused("there is no object in it" if not found else f"there are more than {MAX_DOCUMENTS} objects in it")
    return [_step(one, f"object {i + 1}: " if len(found) > 1 else "") for i, one in enumerate(found)]


def _step(obj: Any, which: str) -> _Step:
    meta = obj.get("metadata") if isinstance(obj, dict) else None
    if not isinstance(obj, dict) or not isinstance(meta, dict):
        raise _Refused(f"{which}must be an object with apiVersion, kind and metadata")
    try:
        kind = kind_of(obj)
    except KeyError as error:
        raise _Refused(f"{which}{error.args[0]}") from None
    if kind.kind == "Secret":
        raise _Refused(f"{which}a Secret does not pass through the page: use meshctl apply")
    names = [meta.get("name"), meta.get("namespace") or "default"]
    if not all(isinstance(name, str) and _NAME.fullmatch(name) for name in names):
        raise _Refused(f"{which}metadata.name: is required, and a lower case name")
    version = str(obj["apiVersion"]).rpartition("/")[2]
    root = f"/apis/{kind.group}/{version}" if kind.group else f"/api/{version}"
    collection = f"{root}/namespaces/{names[1]}/{kind.plural}" if kind.namespaced else f"{root}/{kind.plural}"
    if kind.namespaced:
        obj = {**obj, "metadata": {**meta, "namespace": names[1]}}
    return _Step(kind, obj, collection, f"{collection}/{names[0]}")


class _Told(NamedTuple):
    diff: str
    warnings: list[str]


async def _try(client: httpx.AsyncClient, step: _Step, dry: bool) -> _Told:
    params = {"fieldValidation": "Strict", **({"dryRun": "All"} if dry else {})}
    before = await client.get(step.path)
    name = f"{step.kind.kind} {step.obj['metadata']['name']}"
    if before.status_code == 404:
        answer = await client.post(step.collection, json=step.obj, params=params)
        old = ""
    elif before.status_code == 200:
        answer = await client.put(step.path, json=_as_applied(step.obj, before.json()), params=params)
        old = _compared(before.json())
    else:
        raise _Refused(f"{name}: {_message(before)}")
    if answer.status_code >= 400:
        raise _Refused(*_causes(name, answer))
    warnings = [name + ": " + value.partition('"')[2].removesuffix('"') for value in answer.headers.get_list("warning")]
    return _Told(_diff(name, old, _compared(answer.json())), warnings)


def _as_applied(obj: Obj, before: Obj) -> Obj:
    """With what kubectl remembers of its last ``apply``, or its next one could take nothing away."""
    remembered = (before["metadata"].get("annotations") or {}).get(_LAST_APPLIED)
    given = obj["metadata"].get("annotations")
    if remembered is None or not isinstance(given, dict | None) or _LAST_APPLIED in (given or {}):
        return obj
    return {**obj, "metadata": {**obj["metadata"], "annotations": {**(given or {}), _LAST_APPLIED: remembered}}}


def _compared(obj: Obj) -> str:
    """The version is no change that somebody made."""
    found = _clean(obj)
    return _text({**found, "metadata": {key: value for key, value in found["metadata"].items() if key != "resourceVersion"}})


def _diff(name: str, old: str, new: str) -> str:
    lines = difflib.unified_diff(old.splitlines(), new.splitlines(), f"{name} now", f"{name} then", lineterm="")
    return "".join(f"{line}\n" for line in lines)


def _message(answer: httpx.Response) -> str:
    try:
        return str(answer.json()["message"])
    except (ValueError, KeyError, TypeError):
        return f"control answered {answer.status_code}"


def _causes(name: str, answer: httpx.Response) -> list[str]:
    try:
        causes = answer.json()["details"]["causes"]
        found = [f"{one['field']}: {one['message']}" if one.get("field") else str(one["message"]) for one in causes]
    except (ValueError, KeyError, TypeError):
        found = []
    return [f"{name}: {line}" for line in found] or [f"{name}: {_message(answer)}"]


async def _found(hub: Hub, store: Store, steps: list[_Step], facts: Facts) -> dict[str, Any]:
    """What analysis would say of these objects, once applied."""
    world = hub.world
    if world is None:
        return {"findings": []}
    objects, _ = await store.snapshot()
    changed = {(s.kind.kind, s.obj["metadata"].get("namespace", ""), s.obj["metadata"]["name"]): s for s in steps}
    kept = [
        obj for kind, obj in objects if (kind.kind, obj["metadata"].get("namespace", ""), obj["metadata"]["name"]) not in changed
    ]

    def judge() -> list[Obj]:
        then = world.apply(_Added("ADDED", step.kind, step.obj) for step in steps)
        scene = Scene(then, [*kept, *(step.obj for step in steps)], live=True, facts=facts)
        return [
            {"code": one.code, "level": one.level, "message": one.message, "path": one.path}
            for one in analyze(scene, None)
            if (one.kind, one.namespace, one.name) in changed
        ]

    return {"findings": await asyncio.to_thread(judge)}


class _Added(NamedTuple):
    type: str
    kind: Kind
    object: Obj
