"""What the mesh does now, as tables (room ``serve``): ``GET /mesh/v1/top/{routes,services,workloads,pods}``, for ``meshctl top``.

In: the history that sidecars' reports made, the hub. Out: JSON, rows as in ``control.history.top``. ``?window=60`` seconds;
``namespace``, ``from`` and ``to`` choose calls: by a name, or NAME.NAMESPACE.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from control.history.calls import Call
from control.history.history import History
from control.history.top import Keep, by_route, by_service, by_workload, sidecars
from control.serve.hub import Hub
from control.serve.kube.status import bad_request, not_found

__all__ = ["routes"]

WINDOW = 60.0
_TABLES = {"routes": by_route, "services": by_service, "workloads": by_workload}


def routes(history: History, hub: Hub, clock: Callable[[], float] = time.time) -> list[Route]:
    async def top(request: Request) -> Response:
        what = request.path_params["what"]
        if what == "pods":
            return JSONResponse({"at": clock(), "rows": _pods(history, hub, request, clock())})
        if what not in _TABLES:
            raise not_found("top", "", what)
        window = _window(request, history)
        end = clock()
        end += history.step - end % history.step  # with the step that is being counted: who looks wants to see it now
        samples = await asyncio.to_thread(history.view().window, end - window, end)
        rows = await asyncio.to_thread(_TABLES[what], samples, window, _keep(request))
        about = {"at": end, "window": window, "sidecars": hub.count, "reporting": len(history.sidecars(clock()))}
        return JSONResponse({**about, "rows": rows})

    return [Route("/mesh/v1/top/{what}", top, methods=["GET"])]


def _window(request: Request, history: History) -> float:
    text = request.query_params.get("window", "")
    try:
        window = float(text) if text else WINDOW
    except ValueError:
        window = -1.0
    if not history.step <= window <= history.keep:
        raise bad_request(f"window: must be from {history.step:g} to {history.keep:g} seconds, not {text[:40]!r}")
    return window


def _keep(request: Request) -> Keep:
    """Which calls are asked for."""
    namespace, begin, end = (request.query_params.get(name, "") for name in ("namespace", "from", "to"))

    def keep(call: Call) -> bool:
        if namespace and namespace not in (call.source[0], call.target[0], call.service[0]):
            return False
        if begin and not _is(begin, call.source, call.source_app):
            return False
        return not end or _is(end, call.service, "") or _is(end, call.target, call.target_app) or end == call.host

    return keep


def _is(wanted: str, who: tuple[str, str], app: str) -> bool:
    namespace, name = who
    return wanted in (name, f"{name}.{namespace}", f"{namespace}/{name}") or bool(app and wanted == app)


def _pods(history: History, hub: Hub, request: Request, now: float) -> list[dict[str, Any]]:
    namespace = request.query_params.get("namespace", "")
    known = {(one["namespace"], one["name"]): one["status"] for one in hub.report()}
    rows = [row for row in sidecars(history.sidecars(now), now) if namespace in ("", row["namespace"])]
    return [{**row, "status": known.get((row["namespace"], row["name"]), "AWAY")} for row in rows]
