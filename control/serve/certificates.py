"""Certificates for sidecars (room ``serve``): a request in, a signed certificate out.

In: ``POST /mesh/v1/certificate`` of a sidecar that the door let in, a ``delivery.SigningRequest``. Out: ``SignedCertificate``;
400 for what cannot be read, 403 for an identity that is not the caller's or is revoked, 429 for a pod that asks in a loop.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from control.ca.request import BadRequest, Forbidden
from control.ca.service import CertificateAuthority, Ended
from control.identity import ProxyIdentity
from control.serve.auth import CERTIFICATE_PATH, proxy_of_request
from control.serve.kube.status import ApiError, bad_request, unavailable
from control.serve.metrics import Metrics
from control.serve.stream import read_body
from meshproxy.model.base import encode
from meshproxy.model.delivery import SigningRequest

__all__ = ["routes"]

MAX_REQUEST = 32 << 10  # bytes
BURST, PER_SECOND = 10.0, 1.0  # requests of one pod
MAX_BUCKETS = 4096


class _Buckets:
    """A token bucket per pod. What is full is forgotten: it is as if it had never asked."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._left: dict[tuple[str, str], tuple[float, float]] = {}

    def take(self, pod: tuple[str, str]) -> float:
        """0 when it may go on; otherwise the seconds after which it may."""
        now = self._clock()
        if len(self._left) >= MAX_BUCKETS:
            self._left = {pod: was for pod, was in self._left.items() if self._at(was, now) < BURST}
        left = self._at(self._left.get(pod, (BURST, now)), now)
        if left < 1.0:
            return (1.0 - left) / PER_SECOND
        self._left[pod] = (left - 1.0, now)
        return 0.0

    @staticmethod
    def _at(was: tuple[float, float], now: float) -> float:
        return min(BURST, was[0] + (now - was[1]) * PER_SECOND)


def routes(ca: CertificateAuthority, metrics: Metrics, clock: Callable[[], float] = time.monotonic) -> list[Route]:
    """The route for sidecars. ``clock`` is steady, in seconds."""
    buckets = _Buckets(clock)

    async def certificate(request: Request) -> Response:
        metrics.csr_count.inc()
        caller = proxy_of_request(request)
        _unhurried(caller, buckets)
        try:
            asked = msgspec.json.decode(await read_body(request, MAX_REQUEST), type=SigningRequest)
            made = await ca.sign(caller, asked.csr)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            metrics.csr_errors.inc()
            raise bad_request(f"the body is not SigningRequest: {error}") from error
        except BadRequest as error:
            metrics.csr_errors.inc()
            raise bad_request(str(error)) from error
        except Forbidden as error:
            metrics.csr_refused.inc()
            raise ApiError(403, "Forbidden", f"forbidden: {error}") from error
        except Ended as error:
            raise unavailable(str(error)) from error
        metrics.issued.inc()
        return Response(encode(made), 201, headers={"cache-control": "no-store"}, media_type="application/json")

    return [Route(CERTIFICATE_PATH, certificate, methods=["POST"])]


def _unhurried(caller: ProxyIdentity, buckets: _Buckets) -> None:
    wait = buckets.take((caller.namespace, caller.pod))
    if wait:
        headers = {"Retry-After": str(max(1, round(wait)))}
        message = f"sidecar {caller.name} asks for certificates too often: wait {wait:.1f} s"
        raise ApiError(429, "TooManyRequests", message, {"retryAfterSeconds": int(headers["Retry-After"])}, headers)
