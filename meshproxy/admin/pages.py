"""Admin room: the pages, by port. What Envoy's and Istio's users know by name is here under that name.

In: an ``AdminPort``. Out: routes for the three sites (admin, metrics, health). Loud only in that it awaits.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Awaitable, Callable, Iterator
from html import escape
from math import inf
from typing import Any, TypeVar, cast

import msgspec

from meshproxy.admin.dump import select
from meshproxy.admin.http import Request, Response, Route
from meshproxy.admin.port import LOG_LEVELS, AdminPort
from meshproxy.admin.text import clusters_text, listeners_text, number, stats_text
from meshproxy.model.delivery import ORDER

__all__ = ["admin_routes", "health_routes", "metrics_routes", "prometheus_routes"]

T = TypeVar("T")
Page = Callable[[Request], Awaitable[Response]]


async def _settled(value: T | Awaitable[T]) -> T:
    if inspect.isawaitable(value):
        return cast("T", await value)
    return value


def _json(value: Any, status: int = 200) -> Response:
    body = msgspec.json.format(msgspec.json.encode(value), indent=1) + b"\n"
    return Response(status, body, "application/json")


class _Pages:
    def __init__(self, port: AdminPort) -> None:
        self._port = port

    async def ready(self, request: Request) -> Response:
        """Envoy's ``/ready``: LIVE, or 503 with the state and why."""
        why = self._port.ready()
        if not why:
            return Response.text("LIVE")
        return Response.text(f"{'DRAINING' if 'drain' in why else 'PRE_INITIALIZING'}: {why}", 503)

    async def healthz(self, request: Request) -> Response:
        why = self._port.ready()
        return Response.text(why, 503) if why else Response()

    async def server_info(self, request: Request) -> Response:
        why = self._port.ready()
        state = "LIVE" if not why else "DRAINING" if "drain" in why else "PRE_INITIALIZING"
        return _json({"state": state, **await _settled(self._port.info())})

    async def config_dump(self, request: Request) -> Response:
        kind, name = request.query.get("kind", ""), request.query.get("name", "")
        if kind and kind not in ORDER:
            return Response.text(f"kind: must be one of {', '.join(ORDER)}, not {kind!r}", 400)
        return _json(select(await _settled(self._port.dump()), kind, name))

    async def certs(self, request: Request) -> Response:
        return _json(await _settled(self._port.certs()))

    async def clusters(self, request: Request) -> Response:
        clusters = await _settled(self._port.clusters())
        if request.query.get("format") == "json":
            return _json({"clusters": clusters})
        return Response(body=(line.encode() for line in _lumps(clusters_text(clusters))))

    async def listeners(self, request: Request) -> Response:
        listeners = await _settled(self._port.listeners())
        if request.query.get("format") == "json":
            return _json({"listeners": listeners})
        return Response.text(listeners_text(listeners))

    async def plaintext(self, request: Request) -> Response:
        return _json({"callers": await _settled(self._port.plaintext())})

    async def stats(self, request: Request) -> Response:
        form = request.query.get("format", "text")
        if form == "prometheus":
            return await self.prometheus(request)
        if form not in ("text", "json"):
            return Response.text("format: must be text, json or prometheus", 400)
        keep = _pattern(request.query.get("filter", ""))
        if isinstance(keep, Response):
            return keep
        used = "usedonly" in request.query
        rows = [row for row in await _settled(self._port.stats()) if (row[1] or not used) and keep(row[0])]
        if form == "json":
            return _json({"stats": [{"name": name, "value": number(value)} for name, value in rows]})
        return Response.text(stats_text(rows))

    async def prometheus(self, request: Request) -> Response:
        kind, pieces = await _settled(self._port.metrics(request.headers.get("accept", "")))
        return Response(body=pieces, content_type=kind)

    async def merged(self, request: Request) -> Response:
        """Ours and the app's. Prometheus says how long it waits; the app gets most of that."""
        try:
            patience = 0.8 * float(request.headers.get("x-prometheus-scrape-timeout-seconds", "inf"))
        except ValueError:
            patience = inf
        accept = request.headers.get("accept", "")
        kind, pieces = await _settled(self._port.scrape(accept, patience if patience > 0 else inf))
        return Response(body=pieces, content_type=kind)

    async def logging(self, request: Request) -> Response:
        level = request.query.get("level", "")
        if request.method == "POST" or level:
            if request.method != "POST":
                return Response.text(
                    "a level is changed by POST: curl -X POST .../logging?level=debug", 405, (("allow", "POST"),)
                )
            if level not in LOG_LEVELS:
                return Response.text(f"level: must be one of {', '.join(LOG_LEVELS)}, not {level[:40]!r}", 400)
            self._port.set_log_level(level)
        return Response.text(f"active loggers:\n  meshproxy: {self._port.log_level()}")

    async def memory(self, request: Request) -> Response:
        return _json({"resident": _resident()})

    async def drain(self, request: Request) -> Response:
        self._port.drain()
        return Response.text("OK: draining")

    async def quit(self, request: Request) -> Response:
        # The answer goes out first: the process may end right after the call.
        return Response(body=b"OK\n", headers=(("connection", "close"),), after=self._port.quit)


def _lumps(lines: Iterator[str], size: int = 64 * 1024) -> Iterator[str]:
    lump: list[str] = []
    length = 0
    for line in lines:
        lump.append(line)
        length += len(line)
        if length >= size:
            yield "".join(lump)
            lump, length = [], 0
    if lump:
        yield "".join(lump)


def _pattern(text: str) -> Callable[[str], bool] | Response:
    """A search by RE2, as everywhere a user's pattern runs."""
    if not text:
        return lambda name: True
    import re2  # not needed by most sidecars

    options = re2.Options()
    options.log_errors = False
    try:
        found = re2.compile(text[:1000], options=options)
    except re2.error as error:
        reason = error.args[0].decode() if isinstance(error.args[0], bytes) else str(error)
        return Response.text(f"filter: not a good RE2 pattern: {reason}", 400)
    return lambda name: found.search(name) is not None


def _resident() -> int:
    """Bytes; 0 where /proc is not Linux'."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0


def admin_routes(port: AdminPort) -> dict[str, Route]:
    """The admin port's pages, and an index of them."""
    pages = _Pages(port)
    routes = {
        "/ready": Route(pages.ready, "LIVE, or 503 and why not"),
        "/server_info": Route(pages.server_info, "version, uptime, state, settings"),
        "/config_dump": Route(pages.config_dump, "what runs, by kind, with versions; ?kind=cluster&name=..."),
        "/certs": Route(pages.certs, "certificates: our own, the mesh's roots, gateways' credentials; no keys"),
        "/clusters": Route(pages.clusters, "clusters and endpoints, their health and counters; ?format=json"),
        "/listeners": Route(pages.listeners, "where the proxy listens; ?format=json"),
        "/plaintext": Route(pages.plaintext, "who still calls in plaintext where mutual TLS is welcome"),
        "/stats": Route(pages.stats, "counters; ?filter=REGEX&usedonly&format=json|prometheus"),
        "/stats/prometheus": Route(pages.prometheus, "metrics for Prometheus"),
        "/memory": Route(pages.memory, "bytes resident"),
        "/logging": Route(pages.logging, "the log level; POST ?level=debug changes it", methods=("GET", "HEAD", "POST")),
        "/drain": Route(pages.drain, "send callers away, go on with what is in flight and what the app asks", changes=True),
        "/quitquitquit": Route(pages.quit, "drain, then exit", changes=True),
    }
    page = _index(routes)

    async def index(request: Request) -> Response:
        return Response(body=page, content_type="text/html; charset=utf-8")

    return {"/": Route(index), **routes}


def _index(routes: dict[str, Route]) -> bytes:
    rows = []
    for path, route in routes.items():
        shown = escape(path) if route.changes else f"<a href={path!r}>{escape(path)}</a>"
        method = "POST" if route.changes else "GET"
        rows.append(f"<tr><td>{method}</td><td>{shown}</td><td>{escape(route.help)}</td></tr>\n")
    head = "<!doctype html><html lang=en><meta charset=utf-8><title>meshproxy admin</title>"
    style = "<style>body{font-family:system-ui;margin:2em}td{padding:.2em .8em}</style>"
    return f"{head}{style}<h1>meshproxy</h1>\n<table>\n{''.join(rows)}</table></html>\n".encode()


def metrics_routes(port: AdminPort) -> dict[str, Route]:
    """The metrics port: what Prometheus scrapes, and what a job's pod calls at its end (callers on this machine only)."""
    pages = _Pages(port)
    return {
        "/stats/prometheus": Route(pages.merged),
        "/healthz/ready": Route(pages.healthz, any_host=True),
        "/drain": Route(pages.drain, changes=True, local=True),
        "/quitquitquit": Route(pages.quit, changes=True, local=True),
    }


def health_routes(port: AdminPort) -> dict[str, Route]:
    """The health port."""
    return {"/healthz/ready": Route(_Pages(port).healthz, any_host=True)}


def prometheus_routes(port: AdminPort) -> dict[str, Route]:
    """Envoy's own port for scrapers: our metrics without the app's."""
    return {"/stats/prometheus": Route(_Pages(port).prometheus)}
