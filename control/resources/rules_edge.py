"""What Gateway, ServiceEntry, Sidecar, WorkloadEntry and WorkloadGroup must keep besides their shape.

Room: control/resources. In: a built resource. Out: errors and warnings, after Istio's own validation.
"""

from __future__ import annotations

from control.resources.gateway import Gateway, Server, ServerTLSSettings
from control.resources.report import Report, export_to, header_name, is_http, is_tls, protocol, selector
from control.resources.rules_policy import connection_pool
from control.resources.rules_route import destination
from control.resources.rules_tls import server_tls
from control.resources.service_entry import ServiceEntry, ServiceEntrySpec
from control.resources.sidecar import IstioEgressListener, IstioIngressListener, Sidecar
from control.resources.values import check_fqdn, check_host, check_subnet, is_dns_label, is_ip, quote
from control.resources.workload_entry import WorkloadEntry, WorkloadEntrySpec
from control.resources.workload_group import WorkloadGroup

__all__ = ["gateway", "service_entry", "sidecar", "workload_entry", "workload_group"]

UNIX = "unix://"


def gateway(report: Report, gw: Gateway) -> None:
    spec = gw.spec
    if gw.name and not is_dns_label(gw.name):
        report.error("metadata.name", f"a Gateway's name may hold no dots: {quote(gw.name)}")
    if not spec.servers:
        report.error("spec.servers", "needs at least one server")
    report.labels("spec.selector", spec.selector)
    report.once("spec.servers", [s.port.name for s in spec.servers if s.port.name], "port name")
    for i, server in enumerate(spec.servers):
        _server(report, f"spec.servers[{i}]", server)


def _server(report: Report, path: str, server: Server) -> None:
    if not server.hosts:
        report.error(f"{path}.hosts", "needs at least one host")
    for i, host in enumerate(server.hosts):
        _scoped_host(report, f"{path}.hosts[{i}]", host, gateway=True)
    port = server.port
    protocol(report, f"{path}.port.protocol", port.protocol, needed=True)
    if not port.name:
        report.error(f"{path}.port.name", "must not be empty")
    if port.target_port:
        report.error(f"{path}.port.targetPort", "has no effect on a Gateway")
    if server.bind.startswith(UNIX):
        report.error(f"{path}.bind", "a Unix socket is not supported; give an IP address")
    elif server.bind and not is_ip(server.bind):
        report.error(f"{path}.bind", f"must be an IP address, not {quote(server.bind)}")
    if server.tls is None:
        if is_tls(port.protocol):
            report.error(f"{path}.tls", f"is required with protocol {port.protocol}")
        return
    if is_tls(port.protocol):
        server_tls(report, f"{path}.tls", server.tls)
        if server.tls.https_redirect:
            report.warn(f"{path}.tls.httpsRedirect", "is for HTTP servers only")
    elif not is_http(port.protocol):
        report.error(f"{path}.tls", f"does not go with protocol {port.protocol}")
    elif server.tls != ServerTLSSettings(https_redirect=server.tls.https_redirect):
        report.error(f"{path}.tls", f"only httpsRedirect goes with protocol {port.protocol}")


def _scoped_host(report: Report, path: str, host: str, gateway: bool) -> None:
    """``namespace/name``; a Gateway may leave the namespace out."""
    namespace, slash, name = host.partition("/")
    if not slash:
        if not gateway:
            hint = "./" if "." not in host else "*/"
            report.error(path, f'must be "namespace/host", not {quote(host)}; did you mean "{hint}{host}"?')
            return
        name = host
    elif namespace not in (("*", ".") if gateway else ("*", ".", "~")) and not is_dns_label(namespace):
        report.error(path, f'the part before / must be "*", "." or a namespace, not {quote(namespace)}')
    if name == "*" or (gateway and is_ip(name)):
        return
    if report.check(path, check_host, name):
        if name.startswith("*") and not name.startswith("*."):
            report.error(path, f'"*" must stand for whole parts, as in "*.example.com", not {quote(name)}')
        elif "." not in name:
            report.error(path, f"must be a full name such as {name}.default.svc.cluster.local, not {quote(name)}")


def service_entry(report: Report, entry: ServiceEntry) -> None:
    spec = entry.spec
    selector(report, "spec.workloadSelector", spec.workload_selector)
    if not spec.hosts:
        report.error("spec.hosts", "needs at least one host")
    report.once("spec.hosts", spec.hosts, "host")
    for i, host in enumerate(spec.hosts):
        if host == "*":
            report.error(f"spec.hosts[{i}]", 'must name hosts, not "*"')
        else:
            report.check(f"spec.hosts[{i}]", check_host, host)
    for i, address in enumerate(spec.addresses):
        report.check(f"spec.addresses[{i}]", check_subnet, address)
        if "/" in address and spec.resolution not in ("NONE", "STATIC"):
            report.error(f"spec.addresses[{i}]", f"a block of addresses does not go with resolution {spec.resolution}")
    _service_ports(report, spec)
    _resolution(report, spec)
    export_to(report, spec.export_to, entry.namespace, nobody=True)


def _service_ports(report: Report, spec: ServiceEntrySpec) -> None:
    if not spec.ports:
        report.warn("spec.ports", "is empty: nothing can be reached")
    report.once("spec.ports", [p.number for p in spec.ports], "port")
    report.once("spec.ports", [p.name for p in spec.ports if p.name], "port name")
    for i, port in enumerate(spec.ports):
        at = f"spec.ports[{i}]"
        if not is_dns_label(port.name):
            report.error(f"{at}.name", f"must be lower-case letters, digits and dashes, not {quote(port.name)}")
        protocol(report, f"{at}.protocol", port.protocol)
        if port.target_port and spec.resolution == "NONE":
            report.warn(f"{at}.targetPort", "has no effect with resolution NONE")
        if len(spec.hosts) > 1 and spec.resolution != "NONE" and not is_http(port.protocol) and not is_tls(port.protocol):
            report.error(f"{at}.protocol", "must be HTTP or TLS, since several hosts cannot be told apart on a TCP port")


def _resolution(report: Report, spec: ServiceEntrySpec) -> None:
    names = {p.name for p in spec.ports}
    if spec.resolution == "NONE" and spec.endpoints:
        report.error("spec.endpoints", "does not go with resolution NONE; use STATIC or DNS")
        return
    if spec.resolution == "STATIC" and not spec.endpoints and spec.workload_selector is None:
        report.warn("spec.endpoints", "is empty: requests will find no healthy upstream")
    dns = spec.resolution in ("DNS", "DNS_ROUND_ROBIN")
    if dns and not spec.endpoints:
        for i, host in enumerate(spec.hosts):
            if host.startswith("*"):
                report.error(
                    f"spec.hosts[{i}]", f"a wildcard cannot be resolved: give endpoints with resolution {spec.resolution}"
                )
    if spec.resolution == "DNS_ROUND_ROBIN" and len(spec.endpoints) > 1:
        report.error("spec.endpoints", "may hold one endpoint at most with resolution DNS_ROUND_ROBIN")
    if spec.workload_selector is not None and spec.resolution != "STATIC":
        report.warn("spec.workloadSelector", f"should not be given with resolution {spec.resolution}")
    for i, endpoint in enumerate(spec.endpoints):
        at = f"spec.endpoints[{i}]"
        _workload(report, at, endpoint, names=dns)
        for name in endpoint.ports:
            if name not in names:
                report.error(f"{at}.ports[{name}]", "is not the name of one of spec.ports")


def workload_entry(report: Report, entry: WorkloadEntry) -> None:
    _workload(report, "spec", entry.spec, names=True)


def _workload(report: Report, path: str, workload: WorkloadEntrySpec, names: bool) -> None:
    address = workload.address
    if not address:
        if not workload.network:
            report.error(f"{path}.address", "is required")
    elif address.startswith(UNIX):
        if not address.startswith(UNIX + "/") and not address.startswith(UNIX + "@"):
            report.error(f"{path}.address", f"must be an absolute path after {UNIX}")
        if workload.ports:
            report.error(f"{path}.ports", "does not go with a Unix socket")
    elif not is_ip(address):
        if names:
            report.check(f"{path}.address", check_fqdn, address)
        else:
            report.error(f"{path}.address", f"must be an IP address with resolution STATIC, not {quote(address)}")
    for name in workload.ports:
        if not is_dns_label(name):
            report.error(f"{path}.ports[{name}]", "a port's name must be lower-case letters, digits and dashes")
    report.labels(f"{path}.labels", workload.labels)


def workload_group(report: Report, group: WorkloadGroup) -> None:
    spec = group.spec
    if spec.metadata is not None:
        report.labels("spec.metadata.labels", spec.metadata.labels)
    report.labels("spec.template.labels", spec.template.labels)
    if spec.probe is None:
        return
    for name, value in (
        ("initialDelaySeconds", spec.probe.initial_delay_seconds),
        ("timeoutSeconds", spec.probe.timeout_seconds),
        ("periodSeconds", spec.probe.period_seconds),
        ("successThreshold", spec.probe.success_threshold),
        ("failureThreshold", spec.probe.failure_threshold),
    ):
        if value < 0:
            report.error(f"spec.probe.{name}", f"must not be negative, not {value}")
    if spec.probe.exec is not None and not spec.probe.exec.command:
        report.error("spec.probe.exec.command", "must not be empty")
    if spec.probe.http_get is not None:
        for i, header in enumerate(spec.probe.http_get.http_headers):
            header_name(report, f"spec.probe.httpGet.httpHeaders[{i}].name", header.name)


def sidecar(report: Report, found: Sidecar) -> None:
    spec = found.spec
    selector(report, "spec.workloadSelector", spec.workload_selector)
    if not (spec.egress or spec.ingress or spec.outbound_traffic_policy or spec.inbound_connection_pool):
        report.error("spec", "one of egress, ingress, outboundTrafficPolicy, inboundConnectionPool is required")
    report.once("spec.ingress", [i.port.number for i in spec.ingress], "port")
    for i, ingress in enumerate(spec.ingress):
        _ingress(report, f"spec.ingress[{i}]", ingress)
    connection_pool(report, "spec.inboundConnectionPool", spec.inbound_connection_pool)
    report.once("spec.egress", [e.port.number for e in spec.egress if e.port is not None and e.port.number], "port")
    for i, egress in enumerate(spec.egress):
        if egress.port is None and i < len(spec.egress) - 1:
            report.error(f"spec.egress[{i}]", "a listener without port must be the last one, and there may be only one")
        _egress(report, f"spec.egress[{i}]", egress)
    policy = spec.outbound_traffic_policy
    if policy is not None and policy.egress_proxy is not None:
        at = "spec.outboundTrafficPolicy.egressProxy"
        if policy.mode != "ALLOW_ANY":
            report.error(at, "needs mode ALLOW_ANY")
        if policy.egress_proxy.port is None:
            report.error(f"{at}.port", "is required")
        destination(report, at, policy.egress_proxy)


def _egress(report: Report, path: str, egress: IstioEgressListener) -> None:
    if not egress.hosts:
        report.error(f"{path}.hosts", "needs at least one host")
    for i, host in enumerate(egress.hosts):
        _scoped_host(report, f"{path}.hosts[{i}]", host, gateway=False)
    if "*/*" in egress.hosts and len(egress.hosts) > 1:
        report.warn(f"{path}.hosts", '"*/*" selects everything; the other hosts have no effect')
    seen: set[str] = set()
    for i, host in enumerate(egress.hosts):
        if host in seen:
            report.warn(f"{path}.hosts[{i}]", f"{quote(host)} is given twice")
        seen.add(host)
    if egress.port is None:
        return
    protocol(report, f"{path}.port.protocol", egress.port.protocol)
    if egress.port.target_port:
        report.error(f"{path}.port.targetPort", "has no effect on a Sidecar")
    if egress.port.number == 0 and not egress.bind.startswith(UNIX):
        report.error(f"{path}.port.number", f'must be from 1 to 65535 (0 only with a bind such as "{UNIX}/path")')
    elif egress.port.number and egress.bind and not is_ip(egress.bind):
        report.error(f"{path}.bind", f"must be an IP address, not {quote(egress.bind)}")


def _ingress(report: Report, path: str, ingress: IstioIngressListener) -> None:
    protocol(report, f"{path}.port.protocol", ingress.port.protocol)
    if not ingress.port.number:
        report.error(f"{path}.port.number", "must be from 1 to 65535")
    if ingress.bind and not is_ip(ingress.bind):
        report.error(f"{path}.bind", f"must be an IP address, not {quote(ingress.bind)}")
    connection_pool(report, f"{path}.connectionPool", ingress.connection_pool)
    endpoint = ingress.default_endpoint
    if endpoint and not endpoint.startswith(UNIX):
        host, _, port = endpoint.rpartition(":")
        local = host in ("", "127.0.0.1", "0.0.0.0", "[::1]", "[::]")
        if not (local and port.isascii() and port.isdigit() and 0 < int(port) < 65536):
            what = "must be 127.0.0.1:PORT, 0.0.0.0:PORT, [::1]:PORT, [::]:PORT or unix:///PATH"
            report.error(f"{path}.defaultEndpoint", f"{what}, not {quote(endpoint)}")
    tls = ingress.tls
    if tls is not None:
        if tls.mode in ("ISTIO_MUTUAL", "AUTO_PASSTHROUGH"):
            report.error(f"{path}.tls.mode", f"must be SIMPLE or MUTUAL, not {tls.mode}")
        if tls.https_redirect:
            report.error(f"{path}.tls.httpsRedirect", "is not supported in a Sidecar")
        if tls.credential_name:
            report.error(f"{path}.tls.credentialName", "is not supported in a Sidecar")
        if tls.subject_alt_names:
            report.error(f"{path}.tls.subjectAltNames", "is not supported in a Sidecar")
