"""The injector's HTTP: ``/inject`` for the API server, ``/healthz`` and ``/readyz`` for the kubelet, ``/metrics`` for Prometheus.

In: requests, the settings of the moment. Out: ``webhook`` and ``monitor``, two ASGI applications (the first behind TLS, the
second plain). Work on a pod is some milliseconds and done at once: there is nothing to wait for.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

import msgspec
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from injector.review import BadReview, answer, variables
from injector.settings import Settings

__all__ = ["BODY_LIMIT", "Metrics", "monitor", "webhook"]

log = logging.getLogger("mesh.injector")
BODY_LIMIT = 6 << 20  # the API server takes objects of 3 MiB; a review may hold two


class Metrics:
    """Istio's names."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = self._counter("sidecar_injection_requests", "Requests for injection.")
        self.success = self._counter("sidecar_injection_success", "Pods that got a sidecar.")
        self.failure = self._counter("sidecar_injection_failure", "Requests that were refused or could not be understood.")
        self.skipped = self._counter("sidecar_injection_skip", "Pods that were left as they are.")
        self.seconds = Histogram(
            "sidecar_injection_time_seconds",
            "Time for one injection.",
            registry=self.registry,
            buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0),
        )
        self.settings_good = Gauge(
            "mesh_injector_settings_good", "1 when the settings in use are those of the file.", registry=self.registry
        )
        self.certificate_expiry = Gauge(
            "mesh_injector_certificate_expiry_timestamp", "When the webhook's certificate ends.", registry=self.registry
        )

    def _counter(self, name: str, text: str) -> Counter:
        return Counter(name, text, registry=self.registry)


def webhook(settings: Callable[[], Settings], ready: Callable[[], str], metrics: Metrics) -> Starlette:
    """``ready``: "" or why not."""

    async def inject(request: Request) -> Response:
        metrics.requests.inc()
        begun = time.perf_counter()
        response = await _inject(request)
        metrics.seconds.observe(time.perf_counter() - begun)
        return response

    async def _inject(request: Request) -> Response:
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json":
            return _no(415, f"Content-Type: must be application/json, not {kind[:80] or 'missing'}")
        try:
            body = await _body(request)
        except ClientDisconnect:
            return _no(400, "the body ended early")
        if body is None:
            return _no(413, f"the body is larger than {BODY_LIMIT} bytes")
        try:
            found = answer(body, settings(), variables(request.path_params.get("rest", "")))
        except BadReview as bad:
            return _no(400, str(bad))
        who, line = _shown(found.who), _shown(found.line)
        if found.verdict == "refused":
            metrics.failure.inc()
            log.warning("%s: refused: %s", who, line)
        elif found.verdict == "skipped":
            metrics.skipped.inc()
            log.info("%s: no sidecar: %s", who, line)
        else:
            metrics.success.inc()
            log.info("%s: %s: %s", who, found.verdict, line)
        return Response(msgspec.json.encode(found.body), media_type="application/json")

    def _no(code: int, line: str) -> Response:
        metrics.failure.inc()
        log.warning("a request was refused with %d: %s", code, _shown(line))
        return PlainTextResponse(line + "\n", code)

    async def crashed(request: Request, error: Exception) -> Response:
        metrics.failure.inc()
        log.error("a bug: %s", request.url.path, exc_info=error)
        return PlainTextResponse("the injector failed: see its log\n", 500)  # the webhook's failurePolicy decides

    async def readyz(request: Request) -> Response:
        why = ready()
        return PlainTextResponse(f"{why}\n", 503) if why else PlainTextResponse("ok\n")

    routes = [
        Route("/inject", inject, methods=["POST"]),
        Route("/inject/{rest:path}", inject, methods=["POST"]),
        Route("/readyz", readyz),
        Route("/healthz", _healthz),
        Route("/ready", readyz),
    ]
    app = Starlette(routes=routes, exception_handlers={Exception: crashed})
    app.router.redirect_slashes = False
    return app


def _shown(text: str) -> str:
    """For the log: names and wishes come before anybody has validated them, and shall write no lines of their own."""
    return text if text.isprintable() else "".join(char if char.isprintable() else " " for char in text)


async def _body(request: Request) -> bytes | None:
    """None when it is too large: the rest is read, or the answer would go down with the connection, but not kept."""
    parts: list[bytes] = []
    size = 0
    async for part in request.stream():
        size += len(part)
        if size > 4 * BODY_LIMIT:
            break
        if size > BODY_LIMIT:
            parts.clear()
        else:
            parts.append(part)
    return b"".join(parts) if size <= BODY_LIMIT else None


async def _healthz(request: Request) -> Response:
    return PlainTextResponse("ok\n")


def monitor(ready: Callable[[], str], metrics: Metrics) -> Starlette:
    """Plain HTTP: what Prometheus reads."""

    async def show(request: Request) -> Response:
        return Response(generate_latest(metrics.registry), media_type="text/plain; version=0.0.4; charset=utf-8")

    async def readyz(request: Request) -> Response:
        why = ready()
        return PlainTextResponse(f"{why}\n", 503) if why else PlainTextResponse("ok\n")

    return Starlette(routes=[Route("/metrics", show), Route("/healthz", _healthz), Route("/readyz", readyz)])
