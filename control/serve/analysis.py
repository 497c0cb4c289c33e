"""Analysis over the API (room ``serve``): what is wrong in this mesh, or would be once some more objects were applied.

In: requests of an admin. Out: routes ``GET`` and ``POST /mesh/v1/analyze``; ``POST`` takes ``{"objects": [...]}``, which count as
applied over the store but are stored nowhere. Both take ``?namespace=``; without it every namespace is looked at. The work is
done in a thread: a large mesh takes a while, and sidecars must not wait for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from control.analyze import Scene, analyze
from control.analyze.scene import Facts, known
from control.resources.kinds import KINDS, Kind, kind_of
from control.serve.callers import called
from control.serve.hub import Hub
from control.serve.kube.status import ApiError, bad_request
from control.serve.stream import read_body
from control.store.api import Store
from control.world import World

__all__ = ["routes"]

Obj = dict[str, Any]
MAX_OBJECTS = 16 << 20  # bytes


class _More(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Body of ``POST``; objects that name no namespace are of ``namespace``."""

    objects: list[Obj]
    namespace: str = "default"


class _Applied(NamedTuple):
    type: str
    kind: Kind
    object: Obj


def routes(hub: Hub, store: Store, keys: Callable[[], list[dict[str, Any]]], clock: Callable[[], float]) -> list[Route]:
    """``keys``: the report on key sets; ``clock``: wall time."""

    async def judge(request: Request) -> Response:
        more: list[Obj] = []
        if request.method == "POST":
            try:
                asked = msgspec.json.decode(await read_body(request, MAX_OBJECTS), type=_More)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                raise bad_request(f"the body is not a request for analysis: {error}") from error
            more = [_placed(obj, asked.namespace) for obj in asked.objects]
        world = hub.world
        stored, _ = await store.snapshot()
        if world is None:
            raise ApiError(503, "ServiceUnavailable", "control has not read its store yet; try again")
        namespace = request.query_params.get("namespace") or None
        facts = Facts(clock(), tuple(keys()), tuple((await called(hub))["pods"]))
        body = await asyncio.to_thread(_analyze, world, stored, more, namespace, facts)
        return Response(body, media_type="application/json")

    return [Route("/mesh/v1/analyze", judge, methods=["GET", "POST"])]


def _placed(obj: Obj, namespace: str) -> Obj:
    if not known(obj) or not kind_of(obj).namespaced or obj["metadata"].get("namespace"):
        return obj
    return {**obj, "metadata": {**obj["metadata"], "namespace": namespace}}


def _since(world: World, stored: list[tuple[Kind, Obj]]) -> list[_Applied]:
    """What the store has and the world, which waits for changes to come together, does not have yet."""
    events = [_Applied("ADDED", kind, obj) for kind, obj in stored if not _knows(world, kind, obj["metadata"])]
    there = {(kind.kind, str(obj["metadata"].get("namespace") or ""), str(obj["metadata"]["name"])) for kind, obj in stored}
    for kind in KINDS:
        for one in world.all(kind.kind):
            meta = one.metadata
            if (kind.kind, meta.namespace, meta.name) not in there:
                events.append(_Applied("DELETED", kind, {"metadata": {"namespace": meta.namespace, "name": meta.name}}))
    return events


def _knows(world: World, kind: Kind, meta: Obj) -> bool:
    raw = world.raw(kind.kind, str(meta.get("namespace") or ""), str(meta["name"]))
    return raw is not None and raw["metadata"].get("resourceVersion") == meta.get("resourceVersion")


def _analyze(world: World, kept: list[tuple[Kind, Obj]], more: list[Obj], namespace: str | None, facts: Facts) -> bytes:
    events, names = _since(world, kept), set()
    stored = [obj for _, obj in kept]
    for obj in more:
        names.add(_name(obj))
        if known(obj):  # of the others the findings tell
            events.append(_Applied("ADDED", kind_of(obj), obj))
    objects = [obj for obj in stored if _name(obj) not in names] + more
    found = analyze(Scene(world.apply(events) if events else world, objects, live=True, facts=facts), namespace)
    return msgspec.json.encode({"findings": found, "objects": len(objects)})


def _name(obj: Obj) -> tuple[str, str, str, str]:
    meta = obj.get("metadata")
    meta = meta if isinstance(meta, dict) else {}
    group = str(obj.get("apiVersion", "")).rpartition("/")[0]
    return (group, str(obj.get("kind")), str(meta.get("namespace") or ""), str(meta.get("name")))
