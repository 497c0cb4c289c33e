"""What a VirtualService must keep besides its shape.

Room: control/resources. In: a built VirtualService. Out: errors and warnings. The rules are those of Istio's own validation;
unreachable rules and missing references are found by ``analyze``, which sees the other objects too.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

from control.resources.report import Report, export_to, header_name
from control.resources.rules_header import headers as headers_rules
from control.resources.shape import nearest
from control.resources.values import (
    check_fqdn,
    check_host,
    check_subnet,
    compile_regex,
    host_covers,
    is_dns_label,
    is_ip,
    parse_duration,
    quote,
)
from control.resources.virtual_service import (
    CorsPolicy,
    Destination,
    Headers,
    HTTPFaultInjection,
    HTTPMatchRequest,
    HTTPRedirect,
    HTTPRetry,
    HTTPRewrite,
    HTTPRoute,
    HTTPRouteDestination,
    Percent,
    RouteDestination,
    StringMatch,
    TLSRoute,
    VirtualService,
)
from meshproxy.model.texts import rewrite_parts

__all__ = ["GRPC_STATUS", "RETRY_ON", "destination", "virtual_service"]

RETRY_ON = (
    "5xx",
    "gateway-error",
    "reset",
    "reset-before-request",
    "connect-failure",
    "envoy-ratelimited",
    "retriable-4xx",
    "refused-stream",
    "retriable-status-codes",
    "retriable-headers",
    "http3-post-connect-failure",
    "cancelled",
    "deadline-exceeded",
    "internal",
    "resource-exhausted",
    "unavailable",
)
GRPC_STATUS = (
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
)
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "CONNECT", "OPTIONS", "TRACE")
MAX_BODY = 1 << 20  # bytes


def virtual_service(report: Report, vs: VirtualService) -> None:
    spec = vs.spec
    mesh = not spec.gateways or "mesh" in spec.gateways
    _hosts(report, spec.hosts, mesh)
    if not spec.hosts:
        for name, given in (("gateways", spec.gateways), ("tls", spec.tls), ("tcp", spec.tcp)):
            if given:
                report.error("spec.hosts", f"is required, since {name} is given (only a delegate has no hosts)")
    _gateways(report, "spec.gateways", spec.gateways)
    if not spec.http and not spec.tls and not spec.tcp:
        report.error("spec", "one of http, tls, tcp is required")
    for i, route in enumerate(spec.http):
        _http(report, f"spec.http[{i}]", route, mesh, delegate=not spec.hosts)
    for i, tls in enumerate(spec.tls):
        _tls(report, f"spec.tls[{i}]", tls, spec.hosts)
    for i, tcp in enumerate(spec.tcp):
        at = f"spec.tcp[{i}]"
        for j, match in enumerate(tcp.match):
            here = f"{at}.match[{j}]"
            for k, subnet in enumerate(match.destination_subnets):
                report.check(f"{here}.destinationSubnets[{k}]", check_subnet, subnet)
            if match.source_subnet:
                report.check(f"{here}.sourceSubnet", check_subnet, match.source_subnet)
            _static(report, here, match.source_labels, match.gateways, match.source_namespace)
        _weights(report, f"{at}.route", tcp.route, needed=True)
    export_to(report, spec.export_to, vs.namespace)


def _hosts(report: Report, hosts: tuple[str, ...], mesh: bool) -> None:
    sound = True
    for i, host in enumerate(hosts):
        at = f"spec.hosts[{i}]"
        if is_ip(host):
            continue
        if host == "*" and mesh:
            report.error(at, '"*" needs gateways: inside the mesh a VirtualService must name its hosts')
            sound = False
        else:
            sound &= report.check(at, check_host, host)
    if sound:
        for (i, a), (j, b) in combinations(enumerate(hosts), 2):
            if host_covers(a, b) or host_covers(b, a):
                report.error(f"spec.hosts[{j}]", f"{quote(b)} and {quote(a)} (spec.hosts[{i}]) overlap")


def _gateways(report: Report, path: str, gateways: tuple[str, ...]) -> None:
    for i, name in enumerate(gateways):
        namespace, slash, gateway = name.partition("/")
        if not slash:
            if report.check(f"{path}[{i}]", check_fqdn, name) and "." in name:
                parts = name.split(".")
                report.warn(f"{path}[{i}]", f'an old form of name; write "{parts[1]}/{parts[0]}"')
        elif not is_dns_label(namespace) or not is_dns_label(gateway):
            report.error(f"{path}[{i}]", f'must be "name" or "namespace/name", not {quote(name)}')


def _http(report: Report, path: str, route: HTTPRoute, mesh: bool, delegate: bool) -> None:
    _action(report, path, route, delegate)
    for i, match in enumerate(route.match):
        _match(report, f"{path}.match[{i}]", match, mesh, delegating=delegate or route.delegate is not None)
    _weights(report, f"{path}.route", route.route)
    for i, to in enumerate(route.route):
        headers_rules(report, f"{path}.route[{i}].headers", to.headers)
    headers_rules(report, f"{path}.headers", route.headers)
    if route.redirect is not None:
        _redirect(report, f"{path}.redirect", route.redirect)
    if route.rewrite is not None:
        _rewrite(report, f"{path}.rewrite", route.rewrite, route.headers)
    if route.retries is not None:
        retries(report, f"{path}.retries", route.retries)
    if route.fault is not None:
        _fault(report, f"{path}.fault", route.fault)
    if route.cors_policy is not None:
        _cors(report, f"{path}.corsPolicy", route.cors_policy)
    if route.direct_response is not None:
        body = route.direct_response.body
        if body is not None and len((body.string or body.bytes or "").encode()) > MAX_BODY:
            report.error(f"{path}.directResponse.body", "is longer than 1 MiB")
        if route.direct_response.status < 200:
            report.error(f"{path}.directResponse.status", f"must be from 200 to 599, not {route.direct_response.status}")
    _mirrors(report, path, route)


def _action(report: Report, path: str, route: HTTPRoute, delegate: bool) -> None:
    actions = {
        "route": bool(route.route),
        "redirect": route.redirect is not None,
        "directResponse": route.direct_response is not None,
        "delegate": route.delegate is not None,
    }
    given = [name for name, there in actions.items() if there]
    if len(given) > 1:
        report.error(path, f"only one of {', '.join(actions)} may be given, not {' and '.join(given)}")
    elif not given:
        report.error(path, f"one of {', '.join(actions)} is required")
    if route.redirect is not None:
        for name, there in (("fault", route.fault), ("rewrite", route.rewrite)):
            if there is not None:
                report.error(f"{path}.{name}", "does not go with redirect")
    if route.direct_response is not None and route.rewrite is not None:
        report.error(f"{path}.rewrite", "does not go with directResponse")
    if route.delegate is not None:
        if delegate:
            report.error(f"{path}.delegate", "a delegate may not delegate again")
        if not route.delegate.name:
            report.error(f"{path}.delegate.name", "must not be empty")


def _match(report: Report, path: str, match: HTTPMatchRequest, mesh: bool, delegating: bool) -> None:
    for name, value in (("uri", match.uri), ("scheme", match.scheme), ("method", match.method), ("authority", match.authority)):
        if value is not None:
            _string(report, f"{path}.{name}", value, delegating)
    if match.uri is not None:
        at = match.uri.exact or match.uri.prefix
        if at and not at.startswith("/"):
            report.warn(f"{path}.uri", f'never matches: a path begins with "/", not as {quote(at)}')
        if match.ignore_uri_case and match.uri.regex is not None:
            report.warn(f"{path}.ignoreUriCase", "has no effect on a regex; begin it with (?i)")
    for field, headers in (("headers", match.headers), ("withoutHeaders", match.without_headers)):
        for name, value in headers.items():
            at = f"{path}.{field}[{name}]"
            if name.startswith("@"):
                _claim(report, at, name, mesh)
            else:
                header_name(report, at, name)
            _string(report, at, value, delegating, presence=True)
    for name, value in match.query_params.items():
        _string(report, f"{path}.queryParams[{name}]", value, delegating, presence=True)
    _static(report, path, match.source_labels, match.gateways, match.source_namespace)


def _claim(report: Report, path: str, name: str, mesh: bool) -> None:
    rest = name.removeprefix("@request.auth.claims")
    dotted = rest.startswith(".") and all(rest[1:].split("."))
    bracketed = rest.startswith("[") and rest.endswith("]") and all(rest[1:-1].split("]["))
    if rest == name or not (dotted or bracketed):
        report.error(path, f'must be "@request.auth.claims.NAME" or "@request.auth.claims[NAME]", not {quote(name)}')
    elif mesh:
        report.error(path, "a JWT claim can be matched at gateways only; name them in spec.gateways (without mesh)")


def _string(report: Report, path: str, match: StringMatch, delegating: bool, presence: bool = False) -> None:
    if match.exact is None and match.prefix is None and match.regex is None and not presence:
        report.error(path, "one of exact, prefix, regex is required")
    if match.prefix == "":
        report.error(f"{path}.prefix", "must not be empty")
    if match.regex == "*" and not presence:
        report.error(f"{path}.regex", 'is not a valid RE2 regex: "*"; write ".*"')
    if match.regex is not None and delegating:
        report.error(f"{path}.regex", "a regex cannot be used together with delegation")


def _static(report: Report, path: str, labels: dict[str, str], gateways: tuple[str, ...], namespace: str) -> None:
    report.labels(f"{path}.sourceLabels", labels)
    _gateways(report, f"{path}.gateways", gateways)
    if namespace and not is_dns_label(namespace):
        report.error(f"{path}.sourceNamespace", f"must be a namespace, not {quote(namespace)}")


def destination(report: Report, path: str, to: Destination) -> None:
    if to.host == "*":
        report.error(f"{path}.host", 'must name one host, not "*"')
    else:
        report.check(f"{path}.host", check_host, to.host)
    if to.subset and not is_dns_label(to.subset):
        report.error(f"{path}.subset", f"must be lower-case letters, digits and dashes, not {quote(to.subset)}")


def _weights(report: Report, path: str, routes: Sequence[HTTPRouteDestination | RouteDestination], needed: bool = False) -> None:
    if needed and not routes:
        report.error(path, "is required")
    for i, to in enumerate(routes):
        destination(report, f"{path}[{i}].destination", to.destination)
        if to.weight < 0:
            report.error(f"{path}[{i}].weight", f"must not be negative, not {to.weight}")
    total = sum(to.weight for to in routes)
    if len(routes) > 1 and total == 0:
        report.error(path, "total destination weight = 0; give the destinations weights")
    elif len(routes) > 1:
        for i, to in enumerate(routes):
            if to.weight == 0:
                report.warn(f"{path}[{i}]", "gets no traffic: its weight is 0")
    if total > 2**32 - 1:
        report.error(path, "total destination weight is more than 4294967295")


def _redirect(report: Report, path: str, redirect: HTTPRedirect) -> None:
    given = (redirect.uri, redirect.prefix_rewrite, redirect.authority, redirect.port, redirect.derive_port, redirect.scheme)
    if not any(given):
        report.error(path, "one of uri, prefixRewrite, authority, port, derivePort, scheme is required")
    if redirect.redirect_code not in (0, 301, 302, 303, 307, 308):
        report.error(f"{path}.redirectCode", f"must be one of 301, 302, 303, 307, 308, not {redirect.redirect_code}")
    if redirect.scheme not in ("", "http", "https"):
        report.error(f"{path}.scheme", f"must be http or https, not {quote(redirect.scheme)}")


def _rewrite(report: Report, path: str, rewrite: HTTPRewrite, headers: Headers | None) -> None:
    if not rewrite.uri and not rewrite.authority and rewrite.uri_regex_rewrite is None:
        report.error(path, "one of uri, authority, uriRegexRewrite is required")
    regex = rewrite.uri_regex_rewrite
    if regex is not None:
        if regex.match == "*":
            report.error(f"{path}.uriRegexRewrite.match", 'is not a valid RE2 regex: "*"; write ".*"')
        if not regex.rewrite:
            report.error(f"{path}.uriRegexRewrite.rewrite", "must not be empty")
        try:
            groups = compile_regex(regex.match).groups
        except ValueError:
            groups = 9  # said by the shape; the template is still read
        report.check(f"{path}.uriRegexRewrite.rewrite", lambda text: rewrite_parts(text, groups), regex.rewrite)
    if rewrite.authority and headers is not None and headers.request is not None:
        for name in headers.request.set:
            if name.lower() in ("host", ":authority"):
                report.error(f"{path}.authority", f"the host is also set by headers.request.set[{name}]; keep one")


def retries(report: Report, path: str, retries: HTTPRetry) -> None:
    if retries.attempts < 0:
        report.error(f"{path}.attempts", f"must not be negative, not {retries.attempts}")
    given = [n for n, v in (("perTryTimeout", retries.per_try_timeout), ("retryOn", retries.retry_on)) if v]
    if retries.attempts == 0 and given:
        report.error(f"{path}.attempts", f"is 0, which turns retries off, although {' and '.join(given)} is given")
    for token in retries.retry_on.split(",") if retries.retry_on else ():
        word = token.strip()
        if word in RETRY_ON or (word.isascii() and word.isdigit() and 100 <= int(word) <= 599):
            continue
        meant = nearest(word, RETRY_ON)
        hint = f'; did you mean "{meant}"?' if meant else ""
        report.error(f"{path}.retryOn", f"{quote(word)} is neither a status code nor a condition{hint}")


def _percent(report: Report, path: str, percent: Percent | None) -> None:
    if percent is not None and 0 < percent.value < 0.0001:
        report.error(f"{path}.value", f"must be 0 or at least 0.0001, not {percent.value}")


def _fault(report: Report, path: str, fault: HTTPFaultInjection) -> None:
    if fault.delay is None and fault.abort is None:
        report.error(path, "one of delay, abort is required")
    if fault.delay is not None:
        at = f"{path}.delay"
        _percent(report, f"{at}.percentage", fault.delay.percentage)
        if fault.delay.exponential_delay is not None:
            report.error(f"{at}.exponentialDelay", "is not supported; use fixedDelay")
        elif fault.delay.fixed_delay is None:
            report.error(f"{at}.fixedDelay", "is required")
        if not 0 <= fault.delay.percent <= 100:
            report.error(f"{at}.percent", f"must be from 0 to 100, not {fault.delay.percent}")
        if fault.delay.percent:
            report.warn(f"{at}.percent", "is deprecated; use percentage.value")
    if fault.abort is not None:
        at, abort = f"{path}.abort", fault.abort
        _percent(report, f"{at}.percentage", abort.percentage)
        if abort.http2_error is not None:
            report.error(f"{at}.http2Error", "is not supported; use httpStatus or grpcStatus")
        elif abort.grpc_status is not None and abort.grpc_status not in GRPC_STATUS:
            meant = nearest(abort.grpc_status, GRPC_STATUS)
            hint = f'; did you mean "{meant}"?' if meant else ""
            report.error(f"{at}.grpcStatus", f"{quote(abort.grpc_status)} is not a gRPC status such as NOT_FOUND{hint}")
        elif abort.http_status is not None and not 200 <= abort.http_status <= 599:
            report.error(f"{at}.httpStatus", f"must be from 200 to 599, not {abort.http_status}")
        elif abort.http_status is None and abort.grpc_status is None:
            report.error(at, "one of httpStatus, grpcStatus is required")
    for name, part in (("delay", fault.delay), ("abort", fault.abort)):
        if part is not None and part.percentage is None and not getattr(part, "percent", 0):
            report.warn(f"{path}.{name}", "never happens: percentage is not given")


def _cors(report: Report, path: str, cors: CorsPolicy) -> None:
    if cors.allow_origin:
        report.warn(f"{path}.allowOrigin", "is deprecated; use allowOrigins")
    for i, origin in enumerate(cors.allow_origins):
        at = f"{path}.allowOrigins[{i}]"
        _string(report, at, origin, delegating=False)
        if origin.exact == "":
            report.error(f"{at}.exact", "must not be empty")
    for i, method in enumerate(cors.allow_methods):
        if method != "*" and method not in METHODS:
            meant = nearest(method, METHODS)
            hint = f'; did you mean "{meant}"?' if meant else ""
            report.error(f"{path}.allowMethods[{i}]", f"{quote(method)} is not an HTTP method{hint}")
    for name, values in (("allowHeaders", cors.allow_headers), ("exposeHeaders", cors.expose_headers)):
        for i, value in enumerate(values):
            if value != "*":
                header_name(report, f"{path}.{name}[{i}]", value)
    if cors.max_age:
        try:
            whole = parse_duration(cors.max_age) % 1 == 0
        except ValueError:
            return  # said by the shape
        if not whole:
            report.error(f"{path}.maxAge", f"must be whole seconds, not {quote(cors.max_age)}")


def _mirrors(report: Report, path: str, route: HTTPRoute) -> None:
    if route.mirror is not None and route.mirrors:
        report.error(f"{path}.mirrors", "does not go with mirror; put both into mirrors")
    if route.mirror is not None:
        destination(report, f"{path}.mirror", route.mirror)
    if route.mirror_percent is not None:
        report.warn(f"{path}.mirrorPercent", "is deprecated; use mirrorPercentage.value")
        if route.mirror_percent > 100:
            report.error(f"{path}.mirrorPercent", f"must be from 0 to 100, not {route.mirror_percent}")
    if route.mirror is None and (route.mirror_percent is not None or route.mirror_percentage is not None):
        report.warn(path, "a mirror percentage without mirror has no effect")
    for i, mirror in enumerate(route.mirrors):
        destination(report, f"{path}.mirrors[{i}].destination", mirror.destination)


def _tls(report: Report, path: str, route: TLSRoute, hosts: tuple[str, ...]) -> None:
    if not route.match:
        report.error(f"{path}.match", "is required")
    for i, match in enumerate(route.match):
        at = f"{path}.match[{i}]"
        if not match.sni_hosts:
            report.error(f"{at}.sniHosts", "needs at least one host")
        for j, sni in enumerate(match.sni_hosts):
            here = f"{at}.sniHosts[{j}]"
            if is_ip(sni):
                report.warn(here, "an IP address is not sent as SNI by most clients")
            elif report.check(here, check_host, sni) and not any(host_covers(h, sni) for h in hosts):
                report.error(here, f"{quote(sni)} is not one of spec.hosts")
        for j, subnet in enumerate(match.destination_subnets):
            report.check(f"{at}.destinationSubnets[{j}]", check_subnet, subnet)
        _static(report, at, match.source_labels, match.gateways, match.source_namespace)
    _weights(report, f"{path}.route", route.route, needed=True)
