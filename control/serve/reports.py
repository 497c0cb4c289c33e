"""What sidecars report (room ``serve``): ``POST /mesh/v1/config/report``, every few seconds, into the history.

In: ``delivery.Report`` of a sidecar that the door has let in. Out: 204; 409 when its labels are not known here (it sends them all
again); 400 for what is no report. A sidecar can only speak for its own workload.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from control.history.history import History, Misreport
from control.serve.auth import proxy_of_request
from control.serve.kube.status import ApiError, bad_request
from control.serve.metrics import Metrics
from control.serve.stream import read_body
from meshproxy.model.report import Report

__all__ = ["routes"]

MAX_REPORT = 16 << 20


def routes(history: History, metrics: Metrics, clock: Callable[[], float] = time.time) -> list[Route]:
    decoder = msgspec.json.Decoder(Report)

    async def report(request: Request) -> Response:
        proxy = proxy_of_request(request)
        body = await read_body(request, MAX_REPORT)
        dropped = history.dropped
        try:
            history.take(proxy.namespace, proxy.pod, decoder.decode(body), clock())
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            metrics.reports_refused.inc()
            raise bad_request(f"the body is not Report: {error}") from error
        except Misreport as error:
            metrics.reports_refused.inc()
            raise ApiError(409, "Conflict", str(error)) if error.resend else bad_request(str(error)) from error
        metrics.reports.inc()
        metrics.reports_dropped.inc(history.dropped - dropped)
        metrics.history_records.set(history.records)
        metrics.history_calls.set(len(history))
        return Response(status_code=204)

    return [Route("/mesh/v1/config/report", report, methods=["POST"])]
