"""Route configurations: what to do with a request (Envoy: RouteConfiguration, VirtualHost, Route; Istio: VirtualService.http).

Static match conditions (port, gateways, source labels and namespace) were already judged by control. Durations are seconds.
"""

from __future__ import annotations

from typing import Literal

from meshproxy.model.base import Model
from meshproxy.model.match import RouteMatch, StringMatch

__all__ = [
    "Abort",
    "Cors",
    "Delay",
    "DirectResponse",
    "Fault",
    "Forward",
    "HeaderOps",
    "Mirror",
    "Redirect",
    "RegexRewrite",
    "Retry",
    "Rewrite",
    "Route",
    "RouteConfig",
    "VirtualHost",
    "WeightedCluster",
]


class HeaderOps(Model, frozen=True):
    """Header operations, applied remove, then set (overwrite), then add (append). Names lower case.

    ``set`` of ``host`` rewrites the authority. Values may use Envoy ``%VAR%`` formatters; ``%%`` is a literal percent.
    """

    set: tuple[tuple[str, str], ...] = ()
    add: tuple[tuple[str, str], ...] = ()
    remove: tuple[str, ...] = ()


class RegexRewrite(Model, frozen=True):
    match: str  # RE2, every occurrence in the path is replaced
    rewrite: str  # with \1 … \9


class Rewrite(Model, frozen=True):
    """At most one of ``prefix``, ``path``, ``regex``.

    ``prefix`` = (matched prefix, replacement); ``path`` replaces the whole path; the query is kept.
    """

    prefix: tuple[str, str] | None = None
    path: str | None = None
    regex: RegexRewrite | None = None
    authority: str | None = None


class Retry(Model, frozen=True):
    """``attempts`` retries after the first try. ``on`` holds Istio's ``retryOn`` tokens; integers go to ``status_codes``."""

    attempts: int = 2
    on: tuple[str, ...] = ()
    status_codes: tuple[int, ...] = ()
    per_try_timeout: float = 0.0  # 0: none
    backoff: float = 0.025  # base interval
    backoff_max: float = 0.25
    avoid_previous_hosts: bool = True  # re-pick up to 5 times
    retriable_headers: tuple[str, ...] = ()


class Mirror(Model, frozen=True):
    cluster: str
    percent: float = 100.0


class Delay(Model, frozen=True):
    seconds: float
    percent: float


class Abort(Model, frozen=True):
    percent: float
    status: int = 0  # HTTP status, or
    grpc_status: int | None = None  # a gRPC status (trailers-only reply)


class Fault(Model, frozen=True):
    delay: Delay | None = None
    abort: Abort | None = None


class Cors(Model, frozen=True):
    allow_origins: tuple[StringMatch, ...] = ()
    allow_methods: tuple[str, ...] = ()
    allow_headers: tuple[str, ...] = ()
    expose_headers: tuple[str, ...] = ()
    max_age: int | None = None  # seconds
    allow_credentials: bool | None = None
    forward_unmatched_preflights: bool = True


class WeightedCluster(Model, frozen=True):
    cluster: str
    weight: int = 1
    request_headers: HeaderOps | None = None
    response_headers: HeaderOps | None = None


class Forward(Model, frozen=True, tag="forward"):
    clusters: tuple[WeightedCluster, ...]  # a single one is taken whatever its weight
    rewrite: Rewrite | None = None
    timeout: float = 0.0  # whole request with all tries; 0: none
    retry: Retry | None = None  # None: never
    mirrors: tuple[Mirror, ...] = ()


class Redirect(Model, frozen=True, tag="redirect"):
    """``path`` replaces path (query kept); ``prefix_rewrite`` = (matched, replacement). ``port`` 0 with ``derive_port``."""

    code: int = 301
    path: str | None = None
    prefix_rewrite: tuple[str, str] | None = None
    authority: str | None = None
    scheme: str | None = None
    port: int | None = None
    derive_port: Literal["FROM_PROTOCOL_DEFAULT", "FROM_REQUEST_PORT"] | None = None


class DirectResponse(Model, frozen=True, tag="direct"):
    status: int
    body: bytes = b""  # base64 in JSON


class Route(Model, frozen=True):
    action: Forward | Redirect | DirectResponse
    name: str = ""
    match: RouteMatch = RouteMatch()
    request_headers: HeaderOps | None = None
    response_headers: HeaderOps | None = None
    cors: Cors | None = None
    fault: Fault | None = None
    source: str = ""  # "VirtualService default/rating http[0].match[1]" for explain; "" when generated


class VirtualHost(Model, frozen=True):
    """``domains``: lower case, without port: exact, ``*.suffix`` (longest wins), ``*``."""

    name: str
    domains: tuple[str, ...]
    routes: tuple[Route, ...]


class RouteConfig(Model, frozen=True):
    """Named ``<port>`` (outbound), ``inbound|<port>`` or ``http.<port>`` (gateway)."""

    name: str
    virtual_hosts: tuple[VirtualHost, ...]
