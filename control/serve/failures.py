"""What failed lately (room ``serve``): ``GET /mesh/v1/failures``, for ``meshctl why``.

In: the hub. Out: what connected sidecars remember of failed requests, newest first, each with the pod that tells it; and who did
not answer. ``id``, ``status``, ``direction``, ``since`` and ``limit`` are the sidecar's (``meshproxy.telemetry.failures``);
``namespace`` and ``pod`` choose sidecars.
"""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from control.serve.hub import Hub, NotAnswered
from control.serve.kube.status import bad_request

__all__ = ["routes"]

TIMEOUT = 5.0
AT_ONCE = 32
MOST = 200  # failures in one answer
_ASKED = ("id", "status", "direction", "since", "limit")
_CHOSEN = ("namespace", "pod")


def routes(hub: Hub) -> list[Route]:
    async def failures(request: Request) -> Response:
        given = dict(request.query_params)
        if unknown := sorted(set(given) - {*_ASKED, *_CHOSEN}):
            raise bad_request(f"{unknown[0]}: unknown; there are {', '.join((*_ASKED, *_CHOSEN))}")
        args = {name: given[name] for name in _ASKED if given.get(name)}
        return JSONResponse(await _failed(hub, args, given.get("namespace", ""), given.get("pod", "")))

    return [Route("/mesh/v1/failures", failures, methods=["GET"])]


async def _failed(hub: Hub, args: dict[str, Any], namespace: str, pod: str) -> dict[str, Any]:
    """Every sidecar tells at most as many as are asked for, so the newest of all are among them."""
    turns = asyncio.Semaphore(AT_ONCE)
    keys = [(one["namespace"], one["name"]) for one in hub.report()]
    wanted = [key for key in keys if namespace in ("", key[0]) and pod in ("", key[1])]
    args = {"limit": MOST, **args}

    async def one(key: tuple[str, str]) -> dict[str, Any]:
        about = {"namespace": key[0], "pod": key[1]}
        async with turns:
            try:
                answer = await hub.ask(*key, "failures", args, TIMEOUT)
            except NotAnswered as why:
                return {**about, "problem": str(why)}
        if not answer.ok:  # a wrong question is wrong for all of them
            return {**about, "problem": answer.error, "refused": True}
        rows: list[dict[str, Any]] = msgspec.json.decode(answer.result)
        return {**about, "rows": [{**row, **about} for row in rows]}

    found = await asyncio.gather(*(one(key) for key in wanted))
    refused = [one["problem"] for one in found if one.get("refused")]
    if refused and len(refused) == len(found):
        raise bad_request(refused[0])
    rows = [row for one in found for row in one.get("rows", ())]
    rows.sort(key=lambda row: row["at"] + row["ms"] / 1000, reverse=True)
    return {
        "failures": rows[:MOST],
        "asked": len(wanted),
        "unanswered": [{name: one[name] for name in ("namespace", "pod", "problem")} for one in found if "problem" in one],
    }
