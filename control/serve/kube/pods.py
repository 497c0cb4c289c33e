"""What only pods have: logs, and the refusals of exec, attach and port-forward.

Room: control/serve/kube. A pod here is a group of processes on this machine with an address of its own, so whatever one would
tunnel through a Kubernetes API server is reached directly; the refusal names the address.
"""

from __future__ import annotations

import asyncio
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from control.serve.kube import logs, status
from control.serve.kube.context import Context, Target, fetch
from control.serve.kube.stream import Stream

__all__ = ["log", "no_tunnel"]

Obj = dict[str, Any]


def _containers(pod: Obj) -> list[Obj]:
    spec = pod.get("spec") or {}
    found = [*(spec.get("containers") or []), *(spec.get("initContainers") or [])]
    return [container for container in found if isinstance(container, dict)]


async def log(context: Context, at: Target, request: Request) -> Response:
    pod = await fetch(context, at)
    asked = logs.options(request, context.clock())
    names = [str(container.get("name", "")) for container in _containers(pod)]
    path = logs.find(context.logs_dir, at.namespace or "", at.name, names, asked)
    if path is None:
        return Response(b"", media_type="text/plain")
    await asyncio.to_thread(logs.refuse_untimed, path, asked)
    return Stream(logs.read(path, asked, context.stopping), media_type="text/plain")


async def no_tunnel(context: Context, at: Target, request: Request) -> Response:
    """One line that says what to do instead."""
    pod = await fetch(context, at)
    address = str((pod.get("status") or {}).get("podIP") or "")
    verb = {"portforward": "port-forward"}.get(at.sub.split("/")[0], at.sub.split("/")[0])
    if not address:
        raise status.ApiError(
            501,
            "NotImplemented",
            f"{verb} is not offered here, and pod {at.name} has no address yet",
        )
    ports = [
        str(port["containerPort"])
        for container in _containers(pod)
        for port in container.get("ports") or []
        if isinstance(port, dict) and "containerPort" in port
    ]
    where = f"{address}:{ports[0]}" if ports else f"{address}:PORT"
    raise status.ApiError(
        501,
        "NotImplemented",
        f"{verb} is not offered here: pod {at.name} runs on this machine, reach it with curl http://{where}/",
    )
