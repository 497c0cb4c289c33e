"""What header operations must keep besides their shape.

Room: control/resources. In: ``headers`` of a route or a destination. Out: errors. Hop-by-hop and pseudo headers are not a user's
to change; values may hold Envoy's formatters, which are delimited by percent signs.
"""

from __future__ import annotations

from control.resources.report import Report, header_name
from control.resources.values import quote
from control.resources.virtual_service import HeaderOperations, Headers
from meshproxy.model.texts import FRAMING_HEADERS, format_parts

__all__ = ["headers"]

_AUTHORITY = ("host", ":authority")


def headers(report: Report, path: str, found: Headers | None) -> None:
    if found is None:
        return
    for side, operations in (("request", found.request), ("response", found.response)):
        if operations is not None:
            _operations(report, f"{path}.{side}", operations, request=side == "request")


def _operations(report: Report, path: str, operations: HeaderOperations, request: bool) -> None:
    for verb, values in (("set", operations.set), ("add", operations.add)):
        for name, value in values.items():
            at = f"{path}.{verb}[{name}]"
            if not (request and verb == "set" and name.lower() in _AUTHORITY):
                _changeable(report, at, name)
            if any((ord(c) < 32 and c != "\t") or c == "\x7f" for c in value):
                report.error(at, "a header value may not hold control characters")
            report.check(at, format_parts, value)
    for i, name in enumerate(operations.remove):
        _changeable(report, f"{path}.remove[{i}]", name)


def _changeable(report: Report, path: str, name: str) -> None:
    if name.startswith(":") or name.lower() == "host":
        hint = "the host of a request is set with request.set or rewrite.authority"
        report.error(path, f"{quote(name)} cannot be changed here; {hint}")
    elif name.lower() in FRAMING_HEADERS:
        report.error(path, f"{quote(name)} belongs to the connection's framing and cannot be changed")
    else:
        header_name(report, path, name)
