"""What metadata and the core kinds must keep besides their shape.

Room: control/resources. In: a built resource. Out: errors, as a Kubernetes API server gives them.
"""

from __future__ import annotations

from control.resources.core import Namespace, Pod, Secret, Service
from control.resources.meta import ObjectMeta
from control.resources.report import Report
from control.resources.values import check_base64, check_label_key, is_dns_label, is_dns_subdomain, is_ip, quote

__all__ = ["metadata", "namespace", "pod", "secret", "service"]

MAX_ANNOTATIONS = 256 << 10  # bytes, Kubernetes' limit


def metadata(report: Report, meta: ObjectMeta, label: bool) -> None:
    """``label``: the name is part of a host name, so it may hold no dots."""
    if not meta.name and not meta.generate_name:
        report.error("metadata.name", "is required")
    elif meta.name and not (is_dns_label(meta.name) if label else is_dns_subdomain(meta.name)):
        dots = "" if label else ", dots"
        report.error(
            "metadata.name",
            f"must be lower-case letters, digits, dashes{dots}, and begin and end with a letter or digit, not {quote(meta.name)}",
        )
    if meta.namespace and not is_dns_label(meta.namespace):
        report.error("metadata.namespace", f"must be lower-case letters, digits, dashes, not {quote(meta.namespace)}")
    report.labels("metadata.labels", meta.labels)
    for key in meta.annotations or {}:
        report.check("metadata.annotations", check_label_key, key.lower())
    if sum(len(k) + len(v) for k, v in (meta.annotations or {}).items()) > MAX_ANNOTATIONS:
        report.error("metadata.annotations", "are longer than 256 KiB together")


def namespace(report: Report, found: Namespace) -> None:
    if found.metadata.namespace:
        report.error("metadata.namespace", "must not be given: a Namespace is in none")


def service(report: Report, found: Service) -> None:
    spec = found.spec
    if found.name and found.name[0].isdigit():
        report.error("metadata.name", f"a Service's name must begin with a letter, not {quote(found.name)}")
    types = ("ClusterIP", "NodePort", "LoadBalancer", "ExternalName")
    if spec.type not in types:
        report.error("spec.type", f"must be one of {', '.join(types)}, not {quote(spec.type)}")
    if spec.type == "ExternalName":
        if not spec.external_name:
            report.error("spec.externalName", "is required with type ExternalName")
    elif not spec.ports and spec.cluster_ip != "None":
        report.error("spec.ports", "is required")
    if spec.cluster_ip not in ("", "None") and not is_ip(spec.cluster_ip):
        report.error("spec.clusterIP", f'must be an IP address or "None", not {quote(spec.cluster_ip)}')
    report.once("spec.ports", [(p.port, p.protocol) for p in spec.ports], "port")
    report.once("spec.ports", [p.name for p in spec.ports if p.name], "port name")
    for i, port in enumerate(spec.ports):
        at = f"spec.ports[{i}]"
        if port.name and not is_dns_label(port.name):
            report.error(f"{at}.name", f"must be lower-case letters, digits and dashes, not {quote(port.name)}")
        if not port.name and len(spec.ports) > 1:
            report.error(f"{at}.name", "is required, since there are several ports")
        if port.protocol not in ("TCP", "UDP", "SCTP"):
            report.error(f"{at}.protocol", f"must be TCP, UDP or SCTP, not {quote(port.protocol)}")
        target = port.target_port
        if isinstance(target, int) and not 1 <= target <= 65535 and target != 0:
            report.error(f"{at}.targetPort", f"must be from 1 to 65535, not {target}")
        if isinstance(target, str) and (not is_dns_label(target) or len(target) > 15):
            report.error(f"{at}.targetPort", f"must be a port's number or name, not {quote(target)}")
    report.labels("spec.selector", spec.selector)


def pod(report: Report, found: Pod) -> None:
    if not found.spec.containers:
        report.error("spec.containers", "is required")
    report.once("spec.containers", [c.name for c in found.spec.containers], "container name")
    for i, container in enumerate(found.spec.containers):
        if not is_dns_label(container.name):
            report.error(
                f"spec.containers[{i}].name", f"must be lower-case letters, digits and dashes, not {quote(container.name)}"
            )
    if found.status is not None and found.status.pod_ip and not is_ip(found.status.pod_ip):
        report.error("status.podIP", f"must be an IP address, not {quote(found.status.pod_ip)}")


def secret(report: Report, found: Secret) -> None:
    """Messages name keys, never values."""
    for key, value in (found.data or {}).items():
        report.check(f"data[{key}]", check_base64, value)
