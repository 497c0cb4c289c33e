"""VirtualService (networking.istio.io): which destination a request or connection goes to, and how.

Room: control/resources. Field names and defaults follow the Istio API; ``None`` or an empty value means not given.
"""

from __future__ import annotations

from typing import Literal

from control.resources.meta import (
    Base64,
    Duration,
    DurationOrZero,
    HttpStatus,
    Int32,
    LocalPort,
    Part,
    Percentage,
    PortNumber,
    Regex,
    Resource,
    Uint32,
)

__all__ = [
    "Abort",
    "CorsPolicy",
    "Delay",
    "Delegate",
    "Destination",
    "HTTPBody",
    "HTTPDirectResponse",
    "HTTPFaultInjection",
    "HTTPMatchRequest",
    "HTTPMirrorPolicy",
    "HTTPRedirect",
    "HTTPRetry",
    "HTTPRewrite",
    "HTTPRoute",
    "HTTPRouteDestination",
    "HeaderOperations",
    "Headers",
    "L4MatchAttributes",
    "Percent",
    "PortSelector",
    "RegexRewrite",
    "RouteDestination",
    "StringMatch",
    "TCPRoute",
    "TLSMatchAttributes",
    "TLSRoute",
    "VirtualService",
    "VirtualServiceSpec",
]


class StringMatch(Part, frozen=True, kw_only=True):
    """Exactly one of the three; ``regex`` is RE2 and must match the whole value. ``{}`` (headers only): the header is present."""

    exclusive = (("exact", "prefix", "regex"),)

    exact: str | None = None
    prefix: str | None = None
    regex: Regex | None = None


class PortSelector(Part, frozen=True, kw_only=True):
    number: PortNumber


class Percent(Part, frozen=True, kw_only=True):
    """A share of requests in percent; 0.0001 steps."""

    value: Percentage = 0.0


class Destination(Part, frozen=True, kw_only=True):
    """A service, optionally one of its subsets. A short ``host`` is completed with the VirtualService's namespace."""

    host: str
    subset: str = ""
    port: PortSelector | None = None


class HeaderOperations(Part, frozen=True, kw_only=True):
    """``set`` overwrites, ``add`` appends, ``remove`` deletes."""

    set: dict[str, str] = {}
    add: dict[str, str] = {}
    remove: tuple[str, ...] = ()


class Headers(Part, frozen=True, kw_only=True):
    request: HeaderOperations | None = None
    response: HeaderOperations | None = None


class HTTPMatchRequest(Part, frozen=True, kw_only=True):
    """All given conditions must hold.

    ``port``, ``gateways``, ``source_labels`` and ``source_namespace`` are judged when the configuration is made.
    """

    name: str = ""
    uri: StringMatch | None = None
    scheme: StringMatch | None = None
    method: StringMatch | None = None
    authority: StringMatch | None = None
    headers: dict[str, StringMatch] = {}
    port: LocalPort = 0
    source_labels: dict[str, str] = {}
    gateways: tuple[str, ...] = ()
    query_params: dict[str, StringMatch] = {}
    ignore_uri_case: bool = False
    without_headers: dict[str, StringMatch] = {}
    source_namespace: str = ""
    stat_prefix: str = ""


class HTTPRouteDestination(Part, frozen=True, kw_only=True):
    destination: Destination
    weight: Int32 = 0
    headers: Headers | None = None


class HTTPRedirect(Part, frozen=True, kw_only=True):
    """``redirect_code`` 0 is 301. ``uri`` replaces the whole path, ``prefix_rewrite`` the matched prefix."""

    exclusive = (("uri", "prefixRewrite"), ("port", "derivePort"))

    uri: str = ""
    prefix_rewrite: str = ""
    authority: str = ""
    port: PortNumber | None = None
    derive_port: Literal["FROM_PROTOCOL_DEFAULT", "FROM_REQUEST_PORT"] | None = None
    scheme: str = ""
    redirect_code: Uint32 = 0


class HTTPBody(Part, frozen=True, kw_only=True):
    exclusive = (("string", "bytes"),)

    string: str | None = None
    bytes: Base64 | None = None


class HTTPDirectResponse(Part, frozen=True, kw_only=True):
    status: HttpStatus
    body: HTTPBody | None = None


class Delegate(Part, frozen=True, kw_only=True):
    """A VirtualService whose routes are used in place; ``namespace`` empty means this one's."""

    name: str = ""
    namespace: str = ""


class RegexRewrite(Part, frozen=True, kw_only=True):
    """``rewrite`` may hold ``\\1`` to ``\\9`` and ``\\0``."""

    match: Regex
    rewrite: str = ""


class HTTPRewrite(Part, frozen=True, kw_only=True):
    exclusive = (("uri", "uriRegexRewrite"),)

    uri: str = ""
    authority: str = ""
    uri_regex_rewrite: RegexRewrite | None = None


class HTTPRetry(Part, frozen=True, kw_only=True):
    """``attempts`` counts retries, not requests; 0 or less turns retries off. Empty ``retry_on`` is the default set."""

    attempts: Int32 = 0
    per_try_timeout: Duration = ""
    retry_on: str = ""
    retry_remote_localities: bool | None = None
    retry_ignore_previous_hosts: bool | None = None
    backoff: Duration = ""


class Delay(Part, frozen=True, kw_only=True):
    exclusive = (("fixedDelay", "exponentialDelay"),)

    percent: Int32 = 0  # deprecated
    fixed_delay: Duration | None = None
    exponential_delay: Duration | None = None
    percentage: Percent | None = None


class Abort(Part, frozen=True, kw_only=True):
    exclusive = (("httpStatus", "grpcStatus", "http2Error"),)

    http_status: Int32 | None = None
    grpc_status: str | None = None
    http2_error: str | None = None
    percentage: Percent | None = None


class HTTPFaultInjection(Part, frozen=True, kw_only=True):
    delay: Delay | None = None
    abort: Abort | None = None


class HTTPMirrorPolicy(Part, frozen=True, kw_only=True):
    destination: Destination
    percentage: Percent | None = None


class CorsPolicy(Part, frozen=True, kw_only=True):
    allow_origin: tuple[str, ...] = ()  # deprecated
    allow_origins: tuple[StringMatch, ...] = ()
    allow_methods: tuple[str, ...] = ()
    allow_headers: tuple[str, ...] = ()
    expose_headers: tuple[str, ...] = ()
    max_age: DurationOrZero = ""
    allow_credentials: bool | None = None
    unmatched_preflights: Literal["UNSPECIFIED", "FORWARD", "IGNORE"] = "UNSPECIFIED"


class HTTPRoute(Part, frozen=True, kw_only=True):
    """One rule. No ``match`` matches everything; one of ``route``, ``redirect``, ``directResponse``, ``delegate`` is given."""

    name: str = ""
    match: tuple[HTTPMatchRequest, ...] = ()
    route: tuple[HTTPRouteDestination, ...] = ()
    redirect: HTTPRedirect | None = None
    direct_response: HTTPDirectResponse | None = None
    delegate: Delegate | None = None
    rewrite: HTTPRewrite | None = None
    timeout: DurationOrZero = ""
    retries: HTTPRetry | None = None
    fault: HTTPFaultInjection | None = None
    mirror: Destination | None = None
    mirrors: tuple[HTTPMirrorPolicy, ...] = ()
    mirror_percent: Uint32 | None = None  # deprecated
    mirror_percentage: Percent | None = None
    cors_policy: CorsPolicy | None = None
    headers: Headers | None = None


class TLSMatchAttributes(Part, frozen=True, kw_only=True):
    sni_hosts: tuple[str, ...]
    destination_subnets: tuple[str, ...] = ()
    port: LocalPort = 0
    source_labels: dict[str, str] = {}
    gateways: tuple[str, ...] = ()
    source_namespace: str = ""


class L4MatchAttributes(Part, frozen=True, kw_only=True):
    destination_subnets: tuple[str, ...] = ()
    port: LocalPort = 0
    source_subnet: str = ""
    source_labels: dict[str, str] = {}
    gateways: tuple[str, ...] = ()
    source_namespace: str = ""


class RouteDestination(Part, frozen=True, kw_only=True):
    destination: Destination
    weight: Int32 = 0


class TLSRoute(Part, frozen=True, kw_only=True):
    match: tuple[TLSMatchAttributes, ...]
    route: tuple[RouteDestination, ...] = ()


class TCPRoute(Part, frozen=True, kw_only=True):
    match: tuple[L4MatchAttributes, ...] = ()
    route: tuple[RouteDestination, ...] = ()


class VirtualServiceSpec(Part, frozen=True, kw_only=True):
    """``gateways`` empty is ``["mesh"]``; rules are tried in order, the first that matches wins."""

    hosts: tuple[str, ...] = ()
    gateways: tuple[str, ...] = ()
    http: tuple[HTTPRoute, ...] = ()
    tls: tuple[TLSRoute, ...] = ()
    tcp: tuple[TCPRoute, ...] = ()
    export_to: tuple[str, ...] = ()


class VirtualService(Resource, frozen=True, kw_only=True):
    """Traffic routing for a set of hosts."""

    spec: VirtualServiceSpec = VirtualServiceSpec()
