"""What a DestinationRule must keep besides its shape.

Room: control/resources. In: a built DestinationRule. Out: errors and warnings, after Istio's own validation.
"""

from __future__ import annotations

from control.resources.destination_rule import (
    ConnectionPoolSettings,
    ConsistentHashLB,
    DestinationRule,
    LoadBalancerSettings,
    LocalityLoadBalancerSetting,
    OutlierDetection,
    PortTrafficPolicy,
    TrafficPolicy,
)
from control.resources.report import Report, export_to, header_name, selector
from control.resources.rules_tls import client_tls
from control.resources.values import check_fqdn, check_host, is_dns_label, is_ip, quote

__all__ = ["connection_pool", "destination_rule"]

MAX_MAGLEV = 5_000_011


def destination_rule(report: Report, rule: DestinationRule) -> None:
    spec = rule.spec
    if not is_ip(spec.host):
        report.check("spec.host", check_host, spec.host)
    _traffic(report, "spec.trafficPolicy", spec.traffic_policy)
    report.once("spec.subsets", [s.name for s in spec.subsets if s.name], "subset name")
    for i, subset in enumerate(spec.subsets):
        at = f"spec.subsets[{i}]"
        if not is_dns_label(subset.name):
            what = f"must be lower-case letters, digits and dashes, not {quote(subset.name)}"
            report.error(f"{at}.name", what if subset.name else "must not be empty")
        report.labels(f"{at}.labels", subset.labels)
        _traffic(report, f"{at}.trafficPolicy", subset.traffic_policy)
    export_to(report, spec.export_to, rule.namespace)
    selector(report, "spec.workloadSelector", spec.workload_selector)
    if spec.workload_selector is not None and spec.export_to not in ((), (".",), (rule.namespace,)):
        report.error("spec.exportTo", "must be its own namespace only, since workloadSelector is given")


def _traffic(report: Report, path: str, policy: TrafficPolicy | None) -> None:
    if policy is None:
        return
    if policy == TrafficPolicy():
        report.error(path, "is empty; give it at least one field or remove it")
    if policy.tunnel is not None and policy.proxy_protocol is not None:
        report.error(path, "only one of tunnel, proxyProtocol may be given")
    _blocks(report, path, policy)
    ports = [p.port.number for p in policy.port_level_settings if p.port is not None]
    report.once(f"{path}.portLevelSettings", ports, "port")
    for i, port in enumerate(policy.port_level_settings):
        at = f"{path}.portLevelSettings[{i}]"
        if port.port is None:
            report.error(f"{at}.port", "is required")
        if not any((port.load_balancer, port.connection_pool, port.outlier_detection, port.tls)):
            report.error(at, "one of loadBalancer, connectionPool, outlierDetection, tls is required")
        _blocks(report, at, port)
    if policy.tunnel is not None:
        if policy.tunnel.protocol not in ("", "CONNECT", "POST"):
            report.error(f"{path}.tunnel.protocol", f"must be CONNECT or POST, not {quote(policy.tunnel.protocol)}")
        if not is_ip(policy.tunnel.target_host):
            report.check(f"{path}.tunnel.targetHost", check_fqdn, policy.tunnel.target_host)


def _blocks(report: Report, path: str, policy: TrafficPolicy | PortTrafficPolicy) -> None:
    if policy.load_balancer is not None:
        _balancer(report, f"{path}.loadBalancer", policy.load_balancer, policy.outlier_detection)
    connection_pool(report, f"{path}.connectionPool", policy.connection_pool)
    if policy.outlier_detection is not None:
        _outlier(report, f"{path}.outlierDetection", policy.outlier_detection)
    if policy.tls is not None:
        client_tls(report, f"{path}.tls", policy.tls)


def connection_pool(report: Report, path: str, pool: ConnectionPoolSettings | None) -> None:
    if pool is None:
        return
    if pool.tcp is None and pool.http is None:
        report.error(path, "one of tcp, http is required")
    if pool.http is not None:
        http = pool.http
        for name, value in (
            ("http1MaxPendingRequests", http.http1_max_pending_requests),
            ("http2MaxRequests", http.http2_max_requests),
            ("maxRequestsPerConnection", http.max_requests_per_connection),
            ("maxRetries", http.max_retries),
            ("maxConcurrentStreams", http.max_concurrent_streams),
        ):
            if value < 0:
                report.error(f"{path}.http.{name}", f"must not be negative, not {value}")
        if http.use_client_protocol and http.h2_upgrade_policy == "UPGRADE":
            report.error(f"{path}.http.useClientProtocol", "does not go with h2UpgradePolicy UPGRADE")
    if pool.tcp is not None and pool.tcp.max_connections < 0:
        report.error(f"{path}.tcp.maxConnections", f"must not be negative, not {pool.tcp.max_connections}")


def _balancer(report: Report, path: str, lb: LoadBalancerSettings, outlier: OutlierDetection | None) -> None:
    if lb.consistent_hash is not None:
        _hash(report, f"{path}.consistentHash", lb.consistent_hash)
    if lb.simple == "LEAST_CONN":
        report.warn(f"{path}.simple", "LEAST_CONN is deprecated; use LEAST_REQUEST")
    if lb.warmup_duration_secs:
        report.warn(f"{path}.warmupDurationSecs", "is deprecated; use warmup.duration")
    if lb.locality_lb_setting is not None:
        _locality(report, f"{path}.localityLbSetting", lb.locality_lb_setting, outlier)


def _hash(report: Report, path: str, found: ConsistentHashLB) -> None:
    if found.http_header_name is not None:
        header_name(report, f"{path}.httpHeaderName", found.http_header_name)
    if found.http_cookie is not None and not found.http_cookie.name:
        report.error(f"{path}.httpCookie.name", "must not be empty")
    if found.http_query_parameter_name == "":
        report.error(f"{path}.httpQueryParameterName", "must not be empty")
    if found.use_source_ip is False:
        report.error(f"{path}.useSourceIp", "must be true, or be left out for another key")
    if found.minimum_ring_size:
        report.warn(f"{path}.minimumRingSize", "is deprecated; use ringHash.minimumRingSize")
        if found.ring_hash is not None or found.maglev is not None:
            report.error(f"{path}.minimumRingSize", "does not go with ringHash or maglev")
    size = found.ring_hash.minimum_ring_size if found.ring_hash is not None else None
    for at, value in (("ringHash.minimumRingSize", size), ("minimumRingSize", found.minimum_ring_size)):
        if value is not None and not 0 <= value <= 8 << 20:  # Envoy's own limit
            report.error(f"{path}.{at}", f"must be from 0 to 8388608, not {value}")
    if found.maglev is not None and found.maglev.table_size is not None:
        size = found.maglev.table_size
        if not 2 <= size < MAX_MAGLEV or any(size % n == 0 for n in range(2, int(size**0.5) + 1)):
            report.error(f"{path}.maglev.tableSize", f"must be a prime number below {MAX_MAGLEV}, not {size}")


def _locality(report: Report, path: str, lb: LocalityLoadBalancerSetting, outlier: OutlierDetection | None) -> None:
    if lb.distribute and (lb.failover or lb.failover_priority):
        report.error(f"{path}.distribute", "does not go with failover or failoverPriority")
    if (lb.failover or lb.failover_priority) and outlier is None:
        report.warn(path, "failover needs outlierDetection in the same policy; without it nothing fails over")
    for i, share in enumerate(lb.distribute):
        at = f"{path}.distribute[{i}]"
        if not share.from_:
            report.error(f"{at}.from", "must not be empty")
        if (total := sum(share.to.values())) != 100:
            report.error(f"{at}.to", f"the shares must add up to 100, not {total}")
        if any(v == 0 for v in share.to.values()):
            report.error(f"{at}.to", "a share must be at least 1; leave the locality out")
    report.once(f"{path}.distribute", [d.from_ for d in lb.distribute if d.from_], "locality")
    for i, step in enumerate(lb.failover):
        at = f"{path}.failover[{i}]"
        if step.from_ == step.to:
            report.error(at, "from and to are the same region")
        for name, region in (("from", step.from_), ("to", step.to)):
            if "/" in region or "*" in region:
                report.error(f"{at}.{name}", f"must be a region alone, not {quote(region)}")


def _outlier(report: Report, path: str, outlier: OutlierDetection) -> None:
    if outlier.consecutive_errors:
        report.warn(f"{path}.consecutiveErrors", "is deprecated; use consecutive5xxErrors or consecutiveGatewayErrors")
    if outlier.consecutive_local_origin_failures and not outlier.split_external_local_origin_errors:
        report.error(f"{path}.consecutiveLocalOriginFailures", "needs splitExternalLocalOriginErrors: true")
    for name, value in (
        ("maxEjectionPercent", outlier.max_ejection_percent),
        ("minHealthPercent", outlier.min_health_percent),
    ):
        if not 0 <= value <= 100:
            report.error(f"{path}.{name}", f"must be from 0 to 100, not {value}")
    for i, code in enumerate(outlier.outlier_detection_http_error_codes):
        if not 100 <= code <= 599:
            report.error(f"{path}.outlierDetectionHttpErrorCodes[{i}]", f"must be from 100 to 599, not {code}")
