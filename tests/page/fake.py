"""A stand-in for control's dashboard API: recorded answers, the strict headers, single-use codes. For tests of the page alone.

In: a ``Mesh`` that a test may change. Out: an ASGI application; ``served`` runs it on a port of its own for a ``with`` block.
"""

from __future__ import annotations

import contextlib
import math
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

__all__ = ["AT", "CSP", "DIST", "Mesh", "served"]

DIST = Path(__file__).parents[2] / "control" / "page" / "dist"
CSP = "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; object-src 'none'"
AT = 1_790_000_000.0

_PRODUCTPAGE = "workload/default/productpage-v1"
_VIRTUAL = """apiVersion: networking.istio.io/v1
kind: VirtualService
metadata:
  name: reviews
  namespace: default
spec:
  hosts: [reviews]
  http:
    - route:
        - destination: {host: reviews, subset: v1}
          weight: 75
        - destination: {host: reviews, subset: v2}
          weight: 25
"""


def node(id: str, version: str = "") -> dict[str, Any]:
    kind, namespace, name = id.split("/")
    return {"id": id, "kind": kind, "name": name, "namespace": namespace, "app": name.rsplit("-", 1)[0], "version": version}


def edge(start: str, end: str, rps: float, **more: Any) -> dict[str, Any]:
    plain = {
        "errors": 0,
        "errorShare": 0.0,
        "p50": 3.2,
        "p95": 11.8,
        "p99": 42.0,
        "mtls": True,
        "protocol": "http",
        "breaker": False,
    }
    plain |= {"ejected": 0, "bytesIn": 52_000, "bytesOut": 1_310_000}
    return {"from": start, "to": end, "requests": round(rps * 60), "rps": rps, **plain, **more}


class Mesh:
    """What the API tells. Every list may be changed by a test."""

    def __init__(self) -> None:
        self.codes = {"good"}
        self.signed_in = False
        self.role = "edit"
        self.applied: list[str] = []
        self.asked: list[str] = []
        reviews = [f"workload/default/reviews-v{version}" for version in (1, 2, 3)]
        ratings, details = "workload/default/ratings-v1", "workload/default/details-v1"
        gateway, outside = "workload/ingress/gateway", "external//payments.example.com"
        ids = [gateway, _PRODUCTPAGE, *reviews, ratings, details]
        self.nodes = [node(id, id[-2:]) for id in ids]
        self.nodes.append(
            {"id": outside, "kind": "external", "name": "payments.example.com", "namespace": "", "app": "", "version": ""}
        )
        self.edges = [
            edge(gateway, _PRODUCTPAGE, 24.6),
            edge(_PRODUCTPAGE, details, 24.6, p50=1.4, p95=3.9, p99=8.2),
            edge(_PRODUCTPAGE, reviews[0], 12.2),
            edge(_PRODUCTPAGE, reviews[1], 8.3, errors=2, errorShare=0.004),
            edge(_PRODUCTPAGE, reviews[2], 4.1, errors=20, errorShare=0.081, breaker=True),
            edge(reviews[1], ratings, 8.3, ejected=1, p99=1840.0),
            edge(reviews[2], ratings, 4.1, mtls=False),
            edge(details, outside, 1.2, mtls=None, protocol="tcp", p50=None, p95=None, p99=None),
        ]
        signals = {
            "rps": 24.6,
            "errorShare": 0.004,
            "p50": 3.2,
            "p95": 11.8,
            "p99": 42.0,
            "mtls": "STRICT",
            "sync": "SYNCED",
            "pods": 1,
        }
        policies = ["AuthorizationPolicy/default/reviews-viewer"]
        self.workloads = [{**one, **signals, "policies": policies} for one in self.nodes if one["kind"] == "workload"]
        self.workloads[2] |= {"rps": 4.1, "errorShare": 0.081, "sync": "STALE", "mtls": "PERMISSIVE"}
        names = ("productpage", "details", "reviews", "ratings")
        self.services = [{**node(f"service/default/{name}"), **signals, "policies": policies} for name in names]
        self.traces = [self._trace(number) for number in range(40)]
        self.resources: list[dict[str, Any]] = [
            self._resource("VirtualService", "reviews", _VIRTUAL),
            self._resource(
                "AuthorizationPolicy", "reviews-viewer", "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n"
            ),
        ]
        self.resources[1]["findings"] = [
            {"code": "IST0127", "level": "Warning", "message": "no workload matches the selector of this policy"}
        ]
        self.resources[0]["validation"] = [{"level": "Warning", "path": "spec.http[0]", "message": "has no timeout"}]
        synced = {"status": "SYNCED", "sent": "6f1c", "acked": "6f1c"}
        row = {
            "namespace": "default",
            "role": "sidecar",
            "problem": "",
            "problems": [],
            "connectedSince": AT - 900,
            "version": "6f1c0b9a",
        }
        nack = {"kind": "route", "name": "reviews", "error": "spec: no such cluster"}
        stale = {"listener": synced, "route": {"status": "STALE", "sent": "77aa", "acked": "6f1c"}}
        self.proxies: list[dict[str, Any]] = [
            {**row, "name": "productpage-v1-0", "status": "SYNCED", "kinds": {"listener": synced}, "lastNack": []},
            {**row, "name": "reviews-v2-0", "status": "STALE", "kinds": stale, "lastNack": [nack]},
        ]

    @staticmethod
    def _resource(kind: str, name: str, yaml: str) -> dict[str, Any]:
        group = "networking.istio.io/v1" if kind == "VirtualService" else "security.istio.io/v1"
        shape = {"kind": kind, "namespace": "default", "name": name, "apiVersion": group}
        return {**shape, "validation": [], "findings": [], "yaml": yaml}

    @staticmethod
    def _trace(number: int) -> dict[str, Any]:
        services = ["productpage.default", "details.default", "reviews.default", "ratings.default"]
        root = {"service": "productpage.default", "operation": "productpage.default:9080/productpage"}
        took = 12.0 + 90 * abs(math.sin(number * 1.7))
        errors = 1 if number % 9 == 4 else 0
        trace_id = f"{number + 1:032x}"
        return {
            "traceId": trace_id, "start": AT - number * 1.3, "duration": took, "root": root,
            "services": services, "spans": 7, "errors": errors,
        }  # fmt: skip

    def spans(self, trace_id: str) -> list[dict[str, Any]]:
        plan = [
            ("", "gateway", "productpage.default:9080/productpage", "CLIENT", 0.0, 48.0),
            ("0", "productpage", "productpage.default:9080/productpage", "SERVER", 0.8, 46.5),
            ("1", "productpage", "details.default:9080/*", "CLIENT", 2.0, 5.5),
            ("2", "details", "details.default:9080/*", "SERVER", 2.6, 4.4),
            ("1", "productpage", "reviews.default:9080/*", "CLIENT", 9.0, 36.0),
            ("4", "reviews", "reviews.default:9080/*", "SERVER", 9.7, 34.5),
            ("5", "reviews", "ratings.default:9080/*", "CLIENT", 14.0, 28.0),
        ]
        return [
            {
                "spanId": f"{at}", "parentId": parent, "service": f"{service}.default", "operation": operation, "kind": kind,
                "start": AT + start / 1000, "duration": took, "status": "error" if at == 6 else "ok",
                "tags": {"http.status_code": "503" if at == 6 else "200", "upstream_cluster": f"outbound|9080||{service}"},
                "events": [{"time": AT + start / 1000, "name": "retry", "tags": {}}] if at == 6 else [],
            }
            for at, (parent, service, operation, kind, start, took) in enumerate(plan)
        ]  # fmt: skip

    def series(self) -> dict[str, Any]:
        times = [AT - 900 + 15 * at for at in range(60)]
        wave = [20 + 6 * math.sin(at / 6) for at in range(60)]
        failing = [2.0 if 38 <= at < 46 else 0.05 for at in range(60)]
        answer: dict[str, Any] = {"step": 15, "times": times, "rps": wave, "errors": failing}
        for name, factor in (("p50", 3.0), ("p95", 11.0), ("p99", 40.0)):
            answer[name] = [None if at == 12 else factor + factor * (at % 7) / 14 for at in range(60)]
        answer["codes"] = {"200": [a - b for a, b in zip(wave, failing, strict=True)], "503": failing}
        return answer


def _application(mesh: Mesh) -> Starlette:
    def answer(body: Any, status: int = 200) -> Response:
        return JSONResponse(body, status)

    async def session(request: Request) -> Response:
        if request.method == "POST":
            code = (await request.json()).get("code")
            if request.headers.get("x-mesh-dashboard") != "1" or code not in mesh.codes:
                return answer({"message": "this code is not good"}, 401)
            mesh.codes.discard(code)
            mesh.signed_in = True
            return Response(status_code=204)
        if request.method == "DELETE":
            mesh.signed_in = False
            return Response(status_code=204)
        if not mesh.signed_in:
            return answer({"message": "sign in"}, 401)
        return answer({"name": "ann", "role": mesh.role, "expires": AT + 3600})

    async def api(request: Request) -> Response:
        what: str = request.path_params["what"]
        query = request.query_params
        mesh.asked.append(f"{what}?{query}")
        if not mesh.signed_in:
            return answer({"message": "sign in"}, 401)
        if what == "graph":
            wanted = query.get("namespace")
            nodes = [one for one in mesh.nodes if not wanted or one["namespace"] == wanted]
            known = {one["id"] for one in nodes}
            edges = [one for one in mesh.edges if one["from"] in known and one["to"] in known]
            return answer({"at": AT, "window": int(query["window"]), "nodes": nodes, "edges": edges})
        if what == "series":
            return answer(mesh.series())
        if what in ("workloads", "services"):
            return answer({what: getattr(mesh, what)})
        if what == "node":
            return _node(mesh, query["id"])
        if what == "traces":
            found = [one for one in mesh.traces if query.get("status") != "error" or one["errors"]]
            return answer({"traces": found[: int(query.get("limit", "100"))]})
        if what.startswith("traces/"):
            return answer({"spans": mesh.spans(what.removeprefix("traces/"))})
        if what == "trace-services":
            return answer({"services": ["details.default", "productpage.default", "ratings.default", "reviews.default"]})
        if what == "config":
            return answer({"resources": mesh.resources, "proxies": mesh.proxies})
        return answer({"message": f"no such thing: {what}"}, 404)

    def _node(mesh: Mesh, id: str) -> Response:
        row = next((one for one in [*mesh.workloads, *mesh.services] if one["id"] == id), None)
        if row is None:
            return answer({"message": f"no such node: {id}"}, 404)
        who = {
            "action": "ALLOW",
            "policy": "AuthorizationPolicy/default/reviews-viewer",
            "who": "default/sa/productpage",
            "what": "GET",
        }
        return answer(
            {
                **row,
                "inbound": [one for one in mesh.edges if one["to"] == id],
                "outbound": [one for one in mesh.edges if one["from"] == id],
                "config": [{"kind": "VirtualService", "namespace": "default", "name": "reviews"}],
                "callers": {"summary": "Only whom a rule allows may call.", "rules": [who]},
            }
        )

    async def change(request: Request) -> Response:
        yaml = (await request.json())["yaml"]
        if not mesh.signed_in or request.headers.get("x-mesh-dashboard") != "1":
            return answer({"message": "sign in"}, 401)
        if "weight: 7x" in yaml:
            problem = {"path": "spec.http[0].route[0].weight", "message": "must be a whole number"}
            return answer({"ok": False, "problems": [problem], "diff": ""})
        if request.url.path.endswith("apply"):
            mesh.applied.append(yaml)
            mesh.resources[0]["yaml"] = yaml
            return answer({"ok": True})
        diff = "--- reviews\n+++ reviews\n@@ -10,4 +10,4 @@\n-          weight: 75\n+          weight: 80\n"
        return answer({"ok": True, "problems": [], "diff": diff})

    async def page(request: Request) -> Response:
        name = request.path_params.get("name") or "index.html"
        return FileResponse(DIST / name) if (DIST / name).is_file() else Response("no such file", 404)

    routes = [
        Route("/api/session", session, methods=["GET", "POST", "DELETE"]),
        Route("/api/config/validate", change, methods=["POST"]),
        Route("/api/config/apply", change, methods=["POST"]),
        Route("/api/{what:path}", api),
        Route("/", page),
        Route("/{name}", page),
    ]
    app = Starlette(routes=routes)

    async def strict(scope: Any, receive: Any, send: Any) -> None:
        async def headed(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] += [(b"content-security-policy", CSP.encode()), (b"x-content-type-options", b"nosniff")]
            await send(message)

        await app(scope, receive, headed)

    return strict  # type: ignore[return-value]


@contextlib.contextmanager
def served(mesh: Mesh) -> Iterator[str]:
    """The address where it answers."""
    listening = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(_application(mesh), log_level="error", lifespan="off"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, name="fake dashboard")
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
        listening.close()
