"""MeshConfig: mesh-wide settings, kept by users in the ConfigMap ``istio`` of the root namespace, as YAML under ``data.mesh``.

Room: control/resources. In: that text. Out: ``MeshConfig`` and what is wrong or not honoured, each with its path. A key that
Istio has and we do not obey, or that nobody knows, is a warning: Istio's own ConfigMaps are taken as they are. Within a block
that we do obey everything must be right.
"""

from __future__ import annotations

from typing import Any, Literal, TypeVar

from control.resources import mesh_telemetry
from control.resources.core import ConfigMap
from control.resources.honoured import NOT_YET
from control.resources.meta import Duration, DurationOrZero, LocalPort, Part, PortNumber, Uint32
from control.resources.report import Report, header_name, own_header_name
from control.resources.rules_route import retries
from control.resources.shape import build, nearest
from control.resources.sidecar import OutboundTrafficPolicy
from control.resources.values import check_fqdn, is_dns_label, is_ip, parse_duration, quote
from control.resources.virtual_service import HTTPRetry
from control.yamltext import YamlProblem, documents

__all__ = ["MESH_CONFIG", "EnvoyExtAuthzHttp", "MeshConfig", "Provider", "config_map", "read_mesh_config"]

MESH_CONFIG = "istio"  # the ConfigMap's name
DATA_KEY = "mesh"
P = TypeVar("P", bound=Part)


class RequestBody(Part, frozen=True, kw_only=True):
    """How much of a request's body an authoriser is sent."""

    max_request_bytes: Uint32 = 0
    allow_partial_message: bool = False
    pack_as_bytes: bool = False


class EnvoyExtAuthzHttp(Part, frozen=True, kw_only=True):
    """An authoriser spoken to in plain HTTP. ``service`` is ``[namespace/]host``."""

    service: str
    port: PortNumber
    timeout: Duration = ""
    path_prefix: str = ""
    fail_open: bool = False
    clear_route_cache: bool = False
    status_on_error: str = ""
    include_headers_in_check: tuple[str, ...] = ()  # the old name of the next
    include_request_headers_in_check: tuple[str, ...] = ()
    include_additional_headers_in_check: dict[str, str] = {}
    include_request_body_in_check: RequestBody | None = None
    headers_to_upstream_on_allow: tuple[str, ...] = ()
    headers_to_downstream_on_deny: tuple[str, ...] = ()
    headers_to_downstream_on_allow: tuple[str, ...] = ()


class Provider(Part, frozen=True, kw_only=True):
    """``kind``: the field that says what it is, such as ``envoyExtAuthzHttp``."""

    name: str
    kind: str = ""
    http: EnvoyExtAuthzHttp | None = None
    telemetry: mesh_telemetry.TelemetryProvider | None = None


class PathNormalization(Part, frozen=True, kw_only=True):
    normalization: Literal["DEFAULT", "NONE", "BASE", "MERGE_SLASHES", "DECODE_AND_MERGE_SLASHES"] = "DEFAULT"


class MeshConfig(Part, frozen=True, kw_only=True):
    """What we obey of it. ``None``: not given."""

    trust_domain: str = ""
    trust_domain_aliases: tuple[str, ...] = ()
    outbound_traffic_policy: OutboundTrafficPolicy | None = None
    enable_auto_mtls: bool | None = None
    path_normalization: PathNormalization | None = None
    default_http_retry_policy: HTTPRetry | None = None
    extension_providers: tuple[dict[str, Any], ...] = ()
    access_log_file: str | None = None
    access_log_encoding: Literal["TEXT", "JSON"] = "TEXT"
    access_log_format: str = ""
    default_providers: mesh_telemetry.DefaultProviders | None = None
    enable_tracing: bool | None = None
    default_config: dict[str, Any] | None = None
    protocol_detection_timeout: DurationOrZero = ""
    proxy_listen_port: LocalPort = 0
    proxy_inbound_listen_port: LocalPort = 0


_KNOWN_NAMES = """
    ca caCertificates certificates configSources connectTimeout
    defaultDestinationRuleExportTo defaultServiceExportTo defaultVirtualServiceExportTo disableEnvoyListenerLog
    discoverySelectors dnsRefreshRate enableEnvoyAccessLogService enablePrometheusMerge h2UpgradePolicy
    hboneIdleTimeout inboundClusterStatName inboundTrafficPolicy ingressClass ingressControllerMode ingressSelector
    ingressService localityLbSetting meshMTLS outboundClusterStatName proxyHttpPort
    rootNamespace serviceScopeConfigs serviceSettings tcpKeepalive thriftConfig
    tlsDefaults verifyCertificateAtClient"""
_KNOWN = frozenset(_KNOWN_NAMES.split())
_HTTP = "envoyExtAuthzHttp"
_PROVIDER_NAMES = """
    envoyExtAuthzGrpc zipkin lightstep datadog stackdriver opencensus skywalking envoyHttpAls
    envoyTcpAls envoyOtelAls sds"""
_PROVIDER_KINDS = frozenset(_PROVIDER_NAMES.split())
_HONOURED = frozenset(MeshConfig.__struct_encode_fields__)


def config_map(report: Report, found: ConfigMap) -> None:
    """The rules of a ConfigMap: of the one with the mesh's settings, that they can be read."""
    if found.name == MESH_CONFIG and found.data is not None and DATA_KEY in found.data:
        read_mesh_config(found.data[DATA_KEY], report)


def read_mesh_config(text: str, report: Report) -> tuple[MeshConfig, tuple[Provider, ...]]:
    """The settings; of use only when ``report`` has no errors. Its paths begin with ``data.mesh``."""
    base = f"data.{DATA_KEY}"
    try:
        found = documents(text, aliases=False)
    except YamlProblem as problem:
        report.error(base, f"cannot be read as YAML: {problem}")
        return MeshConfig(), ()
    if len(found) > 1 or not isinstance(found[0] if found else {}, (dict, type(None))):
        report.error(base, "must be one YAML mapping, such as trustDomain: cluster.local")
        return MeshConfig(), ()
    given = {key: value for key, value in ((found[0] if found else None) or {}).items() if value is not None}
    for key in given:
        if key in _KNOWN:
            report.warn(f"{base}.{key}", NOT_YET)
        elif key not in _HONOURED:
            meant = nearest(str(key), _HONOURED | _KNOWN)
            report.warn(f"{base}.{key}", "is no setting of a mesh: ignored" + (f'; did you mean "{meant}"?' if meant else ""))
    shape = build({key: value for key, value in given.items() if key in _HONOURED}, MeshConfig)
    for fault in shape.problems:
        report.error(f"{base}.{fault.path}" if fault.path else base, fault.message)
    if shape.problems or not isinstance(shape.value, MeshConfig):
        return MeshConfig(), ()
    _rules(report, base, shape.value)
    return shape.value, _providers(report, f"{base}.extensionProviders", shape.value.extension_providers)


def _rules(report: Report, base: str, config: MeshConfig) -> None:
    if config.trust_domain and report.check(f"{base}.trustDomain", check_fqdn, config.trust_domain):
        report.warn(
            f"{base}.trustDomain",
            "is read when control starts; before you restart it with another one, add the old one to trustDomainAliases, "
            "or sidecars refuse each other until all have new certificates",
        )
    for i, alias in enumerate(config.trust_domain_aliases):
        report.check(f"{base}.trustDomainAliases[{i}]", check_fqdn, alias)
    if config.outbound_traffic_policy is not None and config.outbound_traffic_policy.egress_proxy is not None:
        report.warn(f"{base}.outboundTrafficPolicy.egressProxy", NOT_YET)
    if config.default_http_retry_policy is not None:
        retries(report, f"{base}.defaultHttpRetryPolicy", config.default_http_retry_policy)
    if config.access_log_file and (not config.access_log_file.startswith("/") or not config.access_log_file.isprintable()):
        report.error(
            f"{base}.accessLogFile", f"must be an absolute path such as /dev/stdout, not {quote(config.access_log_file)}"
        )
    mesh_telemetry.access_log_format(report, f"{base}.accessLogFormat", config.access_log_format, config.access_log_encoding)
    mesh_telemetry.default_config(report, f"{base}.defaultConfig", config.default_config or {})


def _unquoted(given: dict[str, Any]) -> dict[str, Any]:
    """Istio reads a number in quotes here, and its own examples write the port so."""
    port = given.get("port")
    number = isinstance(port, str) and len(port) <= 5 and port.isascii() and port.isdecimal()
    return {**given, "port": int(str(port))} if number else given


def _providers(report: Report, path: str, given: tuple[dict[str, Any], ...]) -> tuple[Provider, ...]:
    found = []
    for i, entry in enumerate(given):
        at = f"{path}[{i}]"
        name = entry.get("name")
        if not isinstance(name, str) or not name:
            report.error(f"{at}.name", "is required")
            continue
        kinds = [key for key in entry if key != "name" and entry[key] is not None]
        if len(kinds) != 1:
            report.error(at, f"must say in exactly one field what it is, such as {_HTTP}, not in {len(kinds)}")
            continue
        kind = str(kinds[0])
        if kind in mesh_telemetry.PROVIDERS:
            made = _built(report, f"{at}.{kind}", entry[kind], mesh_telemetry.PROVIDERS[kind])
            if made is not None:
                mesh_telemetry.provider(report, f"{at}.{kind}", made)
                found.append(Provider(name=name, kind=kind, telemetry=made))
            continue
        if kind != _HTTP:
            if kind not in _PROVIDER_KINDS:
                meant = nearest(kind, [*_PROVIDER_KINDS, *mesh_telemetry.PROVIDERS, _HTTP])
                report.warn(f"{at}.{kind}", "is no kind of provider: ignored" + (f'; did you mean "{meant}"?' if meant else ""))
            elif kind == "envoyExtAuthzGrpc":
                report.warn(f"{at}.{kind}", f"{NOT_YET}: policies that name it deny every request; use {_HTTP}")
            else:
                report.warn(f"{at}.{kind}", NOT_YET)
            found.append(Provider(name=name, kind=kind))
            continue
        raw = entry[kind]
        http = _built(report, f"{at}.{kind}", _unquoted(raw) if isinstance(raw, dict) else raw, EnvoyExtAuthzHttp)
        if http is not None:
            _http(report, f"{at}.{kind}", http)
            found.append(Provider(name=name, kind=kind, http=http))
    report.once(path, [provider.name for provider in found], "provider")
    return tuple(found)


def _built(report: Report, path: str, given: object, struct: type[P]) -> P | None:
    if not isinstance(given, dict):
        report.error(path, "must be an object")
        return None
    shape = build(given, struct)
    for fault in shape.problems:
        report.error(f"{path}.{fault.path}" if fault.path else path, fault.message)
    return shape.value if not shape.problems and isinstance(shape.value, struct) else None


def _http(report: Report, path: str, provider: EnvoyExtAuthzHttp) -> None:
    namespace, slash, host = provider.service.rpartition("/")
    if slash and not is_dns_label(namespace):
        report.error(f"{path}.service", f"the part before / must be a namespace, not {quote(namespace)}")
    if is_ip(host):
        report.error(f"{path}.service", "must be a service's host name, not an address; make a ServiceEntry for it")
    elif report.check(f"{path}.service", check_fqdn, host) and "." not in host:
        report.warn(f"{path}.service", f"is taken as written: give the full name, such as {host}.NAMESPACE.svc.cluster.local")
    if provider.timeout and parse_duration(provider.timeout) < 0.001:
        report.error(f"{path}.timeout", "must be at least 1ms")
    if provider.path_prefix and not provider.path_prefix.startswith("/"):
        report.error(f"{path}.pathPrefix", f'must begin with "/", not as {quote(provider.path_prefix)}')
    elif any(not "!" <= c <= "~" or c in "?#" for c in provider.path_prefix):
        report.error(
            f"{path}.pathPrefix", f'must be a path of visible ASCII without "?" and "#", not {quote(provider.path_prefix)}'
        )
    status = provider.status_on_error
    if status and not (status.isascii() and status.isdigit() and 200 <= int(status) <= 599):
        report.error(f"{path}.statusOnError", f'must be an HTTP status such as "403", not {quote(status)}')
    if provider.include_headers_in_check:
        report.warn(f"{path}.includeHeadersInCheck", "is deprecated; use includeRequestHeadersInCheck")
        if provider.include_request_headers_in_check:
            report.warn(f"{path}.includeHeadersInCheck", "is ignored: includeRequestHeadersInCheck is given")
    if provider.clear_route_cache:
        report.warn(f"{path}.clearRouteCache", NOT_YET)
    body = provider.include_request_body_in_check
    if body is not None and not body.max_request_bytes:
        report.error(f"{path}.includeRequestBodyInCheck.maxRequestBytes", "is required and must not be 0")
    for name, values in (
        ("includeHeadersInCheck", provider.include_headers_in_check),
        ("includeRequestHeadersInCheck", provider.include_request_headers_in_check),
        ("headersToUpstreamOnAllow", provider.headers_to_upstream_on_allow),
        ("headersToDownstreamOnDeny", provider.headers_to_downstream_on_deny),
        ("headersToDownstreamOnAllow", provider.headers_to_downstream_on_allow),
    ):
        for i, value in enumerate(values):
            at = f"{path}.{name}[{i}]"
            if "*" in value.strip("*"):
                report.error(at, f'"*" may only stand first or last, not as in {quote(value)}')
            elif value != "*":
                header_name(report, at, value.strip("*"))
    for name, text in provider.include_additional_headers_in_check.items():
        if not own_header_name(report, f"{path}.includeAdditionalHeadersInCheck", name):
            continue
        at = f"{path}.includeAdditionalHeadersInCheck[{name}]"
        if any(ord(c) < 32 or ord(c) == 127 for c in text):
            report.error(at, "holds a control character")
