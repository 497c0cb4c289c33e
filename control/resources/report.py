"""Where rules write what they find, and the rules that many kinds share.

Room: control/resources. In: a built struct and its path. Out: problems, as errors or warnings.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from control.resources.meta import PolicyTargetReference, WorkloadSelector
from control.resources.service_entry import NetworkWorkloadSelector
from control.resources.shape import Problem, nearest
from control.resources.values import check_label_key, check_label_value, is_dns_label, quote
from meshproxy.model.texts import FRAMING_HEADERS

__all__ = [
    "PROTOCOLS",
    "Report",
    "export_to",
    "header_name",
    "is_http",
    "is_tls",
    "own_header_name",
    "protocol",
    "selector",
    "targets",
]

PROTOCOLS = ("HTTP", "HTTPS", "GRPC", "GRPC-WEB", "HTTP2", "MONGO", "MYSQL", "REDIS", "TCP", "TLS", "UDP", "HTTP_PROXY")
_HEADER = frozenset("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")  # RFC 9110 5.6.2


class Report:
    """Collects problems."""

    def __init__(self) -> None:
        self.errors: list[Problem] = []
        self.warnings: list[Problem] = []

    def error(self, path: str, message: str) -> None:
        self.errors.append(Problem(path, message))

    def warn(self, path: str, message: str) -> None:
        self.warnings.append(Problem(path, message))

    def check(self, path: str, test: Callable[[Any], object], value: Any) -> bool:
        """Runs a check of ``values``; its ValueError becomes an error at ``path``."""
        try:
            test(value)
        except ValueError as error:
            self.error(path, str(error))
            return False
        return True

    def once(self, path: str, values: Iterable[Any], what: str) -> None:
        """Every value at most once; the path of the second is ``path`` with its index."""
        seen: set[Any] = set()
        for i, value in enumerate(values):
            if value in seen:
                self.error(f"{path}[{i}]", f"{what} {quote(value)} is given twice")
            seen.add(value)

    def labels(self, path: str, labels: dict[str, str] | None) -> None:
        for key, value in (labels or {}).items():
            self.check(path, check_label_key, key)
            self.check(f"{path}[{key}]", check_label_value, value)


def header_name(report: Report, path: str, name: str) -> bool:
    if name and all(c in _HEADER for c in name):
        return True
    report.error(path, f"{quote(name)} is not a header name" if name else "a header name may not be empty")
    return False


def own_header_name(report: Report, path: str, name: str) -> bool:
    """The name of a header that policy reads or writes beside a request's own: framing and host are the codec's alone."""
    if not header_name(report, path, name):
        return False
    if name.lower() == "host" or name.lower() in FRAMING_HEADERS:
        report.error(path, f"{quote(name)} belongs to the connection's framing and cannot be used here")
        return False
    return True


def selector(report: Report, path: str, found: WorkloadSelector | NetworkWorkloadSelector | None) -> None:
    """Labels of a workload selector; an empty one is legal but rarely meant."""
    if found is None:
        return
    name, labels = ("matchLabels", found.match_labels) if isinstance(found, WorkloadSelector) else ("labels", found.labels)
    if not labels:
        report.warn(path, "selects every workload of the namespace: it has no labels")
    for key, value in labels.items():
        if not key:
            report.error(f"{path}.{name}", "a label's key may not be empty")
        elif "*" in key + value:
            report.error(f"{path}.{name}[{key}]", "wildcards are not supported in a selector")


def targets(report: Report, spec: Any) -> None:
    """``selector``, ``targetRef``, ``targetRefs``: one way to say what a policy is for."""
    given = [n for n, v in (("selector", spec.selector), ("targetRef", spec.target_ref), ("targetRefs", spec.target_refs)) if v]
    if len(given) > 1:
        report.error("spec", f"only one of selector, targetRef, targetRefs may be given, not {' and '.join(given)}")
    selector(report, "spec.selector", spec.selector)
    if spec.target_ref is not None:
        _target(report, "spec.targetRef", spec.target_ref)
    for i, ref in enumerate(spec.target_refs):
        _target(report, f"spec.targetRefs[{i}]", ref)


_TARGETS = {
    ("", "Service"),
    ("core", "Service"),
    ("networking.istio.io", "ServiceEntry"),
    ("gateway.networking.k8s.io", "Gateway"),
    ("gateway.networking.k8s.io", "GatewayClass"),
}


def _target(report: Report, path: str, ref: PolicyTargetReference) -> None:
    if not ref.name:
        report.error(f"{path}.name", "must not be empty")
    if ref.namespace:
        report.error(f"{path}.namespace", "must not be given: a policy attaches to its own namespace only")
    if (ref.group, ref.kind) not in _TARGETS:
        report.error(
            f"{path}.kind",
            f"must be Service (group core), ServiceEntry (networking.istio.io), Gateway or GatewayClass "
            f"(gateway.networking.k8s.io), not {quote(ref.kind)} of group {quote(ref.group)}",
        )


def export_to(report: Report, values: tuple[str, ...], namespace: str, nobody: bool = False) -> None:
    """``.`` (own namespace), ``*`` (all) or names; ``nobody``: ``~`` too."""
    report.once("spec.exportTo", [namespace if v == "." and namespace else v for v in values], "namespace")
    for i, value in enumerate(values):
        if value in (".", "*") or (nobody and value == "~") or is_dns_label(value):
            continue
        report.error(f"spec.exportTo[{i}]", f'must be ".", "*"{", ~" if nobody else ""} or a namespace, not {quote(value)}')
    for lone in ("*", "~"):
        if lone in values and len(values) > 1:
            report.error("spec.exportTo", f'"{lone}" must stand alone')


def protocol(report: Report, path: str, value: str, needed: bool = False) -> None:
    """A protocol name, any case; empty means detect it, unless ``needed``."""
    if not value and not needed:
        return
    if value.upper() not in PROTOCOLS:
        meant = nearest(value, PROTOCOLS)
        hint = f'; did you mean "{meant}"?' if meant else ""
        report.error(path, f"must be one of {', '.join(PROTOCOLS[:-2])}, not {quote(value)}{hint}")


def is_http(value: str) -> bool:
    return value.upper() in ("HTTP", "HTTP2", "GRPC", "GRPC-WEB", "HTTP_PROXY")


def is_tls(value: str) -> bool:
    return value.upper() in ("HTTPS", "TLS")
