"""Who calls whom, and how (room ``serve``): ``GET /mesh/v1/callers``, for the move to STRICT.

In: the hub. Out: what every connected sidecar says of those who have called it since it started: over mutual TLS, in plaintext,
or turned away; and who did not answer. An address that a sidecar does not know is looked up among all pods. ``?namespace=`` asks
only that one's.
"""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from control.serve.hub import Hub, NotAnswered
from control.world import PodInfo

__all__ = ["called", "routes"]

TIMEOUT = 3.0
AT_ONCE = 32


def routes(hub: Hub) -> list[Route]:
    async def callers(request: Request) -> Response:
        return JSONResponse(await called(hub, request.query_params.get("namespace", "")))

    return [Route("/mesh/v1/callers", callers, methods=["GET"])]


async def called(hub: Hub, namespace: str = "") -> dict[str, Any]:
    """``pods``: one row per sidecar, with its listeners and their callers; ``unanswered``: why there is none of a sidecar."""
    pods = dict(hub.world.pods) if hub.world is not None else {}
    by_address = {pod.ip: pod for pod in pods.values() if pod.ip and not pod.on_host}
    turns = asyncio.Semaphore(AT_ONCE)
    wanted = [(one["namespace"], one["name"]) for one in hub.report() if namespace in ("", one["namespace"])]

    async def one(key: tuple[str, str]) -> dict[str, Any]:
        about: dict[str, Any] = {"namespace": key[0], "pod": key[1]}
        async with turns:
            try:
                answer = await hub.ask(*key, "callers", {}, TIMEOUT)
            except NotAnswered as why:
                return {**about, "problem": str(why)}
        if not answer.ok:
            return {**about, "problem": answer.error}
        told: dict[str, Any] = msgspec.json.decode(answer.result)
        pod = pods.get(key)
        about["workload"] = pod.workload.workload if pod is not None else key[1]
        return {**about, "since": told["since"], "listeners": _listeners(told, by_address)}

    found = await asyncio.gather(*(one(key) for key in wanted))
    return {
        "pods": [row for row in found if "problem" not in row and row["listeners"]],
        "unanswered": [row for row in found if "problem" in row],
    }


def _listeners(told: dict[str, Any], by_address: dict[str, PodInfo]) -> list[dict[str, Any]]:
    rows: dict[str, list[dict[str, Any]]] = {}
    for row in told["callers"]:
        pod = by_address.get(row["source"])
        if not row["workload"] and pod is not None:
            row = {**row, "workload": pod.workload.workload, "namespace": pod.namespace}
        rows.setdefault(row.pop("listener"), []).append(row)
    return [{**one, "callers": rows.get(one["name"], [])} for one in told["listeners"]]
