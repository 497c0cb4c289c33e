"""What a Prometheus beside the mesh has to scrape (room ``serve``): ``GET /targets`` on :15014, for its ``http_sd_configs``.

In: the world. Out: one target per pod with a sidecar, connected or not (one that is gone must be seen as down), with the labels
``namespace``, ``pod`` and ``app``. 503 before there is a world: Prometheus then keeps what it knew. No token, as for metrics.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from control.world import World
from control.world.pods import labels_workload

__all__ = ["routes", "targets"]

PORT = 15020
SIDECAR = "istio-proxy"
_OVER = ("Succeeded", "Failed")


def targets(world: World) -> list[dict[str, Any]]:
    """In Prometheus' form of HTTP discovery, by namespace and name."""
    found = []
    for pod in world.all("Pod"):
        if pod.status is None or not pod.status.pod_ip or pod.status.phase in _OVER:
            continue
        if not any(inside.name == SIDECAR for inside in (*pod.spec.containers, *pod.spec.init_containers)):
            continue
        namespace, name, address = pod.metadata.namespace, pod.metadata.name, pod.status.pod_ip
        app = labels_workload(pod.metadata.labels or {}, namespace=namespace, pod=name).canonical_service
        place = f"[{address}]:{PORT}" if ":" in address else f"{address}:{PORT}"
        found.append({"targets": [place], "labels": {"namespace": namespace, "pod": name, "app": app or name}})
    return found


def routes(world: Callable[[], World | None]) -> list[Route]:
    async def listed(request: Request) -> Response:
        known = world()
        if known is None:
            return JSONResponse({"error": "control does not know the mesh yet: ask again"}, 503)
        return JSONResponse(targets(known))

    return [Route("/targets", listed)]
